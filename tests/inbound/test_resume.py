"""Streams that broke off and are resumed: nothing is lost, nothing comes twice, nobody else's is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gatewright.call import Call, Outcome, Result
from gatewright.errors import GatewayError
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.protocol.sse import Decoder
from inbound.sides import Sides, content, listening, quiet
from journeys.wire import Answer, HandshakeClient, Json, soon

pytestmark = pytest.mark.anyio
PROGRESS = "notifications/progress"
OLD = ("2025-03-26", "2025-06-18")


class Steps:
    """A handler that says one notification for each step it is let go, and answers after the last."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.said = 0
        self.is_over = False
        self._gates = [asyncio.Event() for _ in range(steps + 1)]
        self._changed = asyncio.Event()

    async def __call__(self, call: Call) -> Outcome:
        for step in range(self._steps):
            await self._gates[step].wait()
            await call.reply.emit(PROGRESS, json.dumps({"progress": step}).encode())
            self.said += 1
            self._changed.set()
        await self._gates[-1].wait()
        self.is_over = True
        return Result(b'{"done":true}')

    def free(self) -> None:
        """Let it run to its end."""
        for gate in self._gates:
            gate.set()

    async def go(self, until: int) -> None:
        """Let it say so many in all; return once it has."""
        for gate in self._gates[:until]:
            gate.set()
        async with asyncio.timeout(5):
            while self.said < min(until, self._steps):
                self._changed.clear()
                await self._changed.wait()


class Stream:
    """The events of a response with their ids."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.decoder = Decoder()
        self.first = b""
        self._events: list[tuple[str | None, Json]] = []

    @property
    def last_id(self) -> str:
        """What to resume from."""
        return self.decoder.last_event_id

    async def next(self) -> Json | None:
        """The next message, None at the end."""
        while not self._events:
            chunk = await soon(self.answer._chunks.get())
            if chunk is None:
                return None
            self.first = self.first or chunk
            for event in self.decoder.feed(chunk):
                if event.data:
                    self._events.append((event.event_id, json.loads(event.data)))
        event_id, message = self._events.pop(0)
        assert event_id
        return message

    async def rest(self) -> list[Json]:
        """Every message until the end."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found

    async def primed(self) -> Stream:
        """Once the priming event is there."""
        async with asyncio.timeout(5):
            while not self.last_id:
                chunk = await self.answer._chunks.get()
                assert chunk is not None
                self.first = self.first or chunk
                assert [event.data for event in self.decoder.feed(chunk)] == [b""]
        return self


def said(messages: list[Json]) -> list[Any]:
    """What progress they tell, and the last's result."""
    return [one["params"]["progress"] if "method" in one else one["result"] for one in messages]


def tool(client: HandshakeClient) -> Json:
    return client.request("tools/call", {"name": "t"})


async def resumed(client: HandshakeClient, last_id: str) -> Answer:
    """GET with Last-Event-ID."""
    fields = {"Accept": "text/event-stream", "Last-Event-ID": last_id, **client.headers({})}
    return await (await client.wire()).send("GET", "/mcp", fields)


async def broken(sides: Sides, stream: Stream) -> None:
    """The client's connection is lost, and the gateway has seen it."""
    stream.answer.close()
    [session] = sides.sessions._by_id.values()
    async with asyncio.timeout(5):
        while session._events is not None and any(one.is_attached for one in session._events._streams.values()):
            await asyncio.sleep(0)


async def test_a_call_goes_on_without_its_client_and_is_resumed_to_its_answer() -> None:
    """Missed messages first, then what follows, then the answer, each once; then the response ends."""
    steps = Steps(4)
    async with listening(steps) as sides:
        client = await sides.handshake()
        answer = await client.begin(tool(client))
        await steps.go(1)
        first = Stream(answer)
        assert said([await first.next() or {}]) == [0]
        await broken(sides, first)
        await steps.go(3)
        second = Stream(await resumed(client, first.last_id))
        assert (second.answer.status, second.answer.is_stream) == (200, True)
        assert [(await second.next() or {})["params"]["progress"] for _ in range(2)] == [1, 2]
        await steps.go(5)
        assert said(await second.rest()) == [3, {"done": True}]
        await quiet(sides)


async def test_an_answer_that_nobody_took_is_kept() -> None:
    """Also again and again: a resume takes nothing away."""
    steps = Steps(1)
    async with listening(steps) as sides:
        client = await sides.handshake()
        answer = await client.begin(tool(client))
        await steps.go(1)
        first = Stream(answer)
        await first.next()
        await broken(sides, first)
        await steps.go(2)
        await quiet(sides)
        assert steps.is_over
        for _ in range(2):
            assert said(await Stream(await resumed(client, first.last_id)).rest()) == [{"done": True}]
        assert said(await Stream(await resumed(client, "1-0")).rest()) == [0, {"done": True}]
        assert await Stream(await resumed(client, "1-2")).rest() == []


async def test_a_stream_begins_with_the_priming_event() -> None:
    """S-25: an id, a retry time and no data, on a POST's stream and on a standing one; no stream, no event."""
    steps = Steps(1)
    async with listening(steps, settings=SessionSettings(retry_s=2.5)) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        await client.result("ping")
        assert session._events is None
        standing = await Stream(await client.listen()).primed()
        assert standing.first == b"id: 1-0\nretry: 2500\ndata: \n\n"
        steps.free()
        post = Stream(await client.post(tool(client)))
        assert said(await post.rest()) == [0, {"done": True}]
        assert post.first.startswith(b"id: 2-0\nretry: 2500\ndata: \n\n")


@pytest.mark.parametrize("revision", OLD)
async def test_older_clients_get_no_event_without_data(revision: str) -> None:
    """They would fail to read it; their events have ids, and are resumed by them."""
    steps = Steps(2)
    async with listening(steps) as sides:
        client = await sides.handshake(revision=revision)
        answer = await client.begin(tool(client))
        await steps.go(1)
        stream = Stream(answer)
        assert said([await stream.next() or {}]) == [0]
        assert stream.first.startswith(b"id: 1-1\ndata: {")
        await broken(sides, stream)
        await steps.go(3)
        assert said(await Stream(await resumed(client, stream.last_id)).rest()) == [1, {"done": True}]


async def test_a_standing_stream_is_resumed_and_stands_on() -> None:
    """What came while nobody read is there, then what comes; and it is one stream, not two."""
    async with listening(content) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        first = await Stream(await client.listen()).primed()
        await session.emit(PROGRESS, b'{"progress":1}')
        assert said([await first.next() or {}]) == [1]
        await broken(sides, first)
        await session.emit(PROGRESS, b'{"progress":2}')
        second = Stream(await resumed(client, first.last_id))
        assert said([await second.next() or {}]) == [2]
        await session.emit(PROGRESS, b'{"progress":3}')
        assert said([await second.next() or {}]) == [3]
        assert len(session.streams) == len(session._events or ()) == 1
        assert session._graces == {}


async def test_a_resume_takes_over_from_a_connection_that_is_dead_unnoticed() -> None:
    """The earlier response ends; what follows comes on the new one alone."""
    steps = Steps(2)
    async with listening(steps) as sides:
        client = await sides.handshake()
        answer = await client.begin(tool(client))
        await steps.go(1)
        first = Stream(answer)
        await first.next()
        second = Stream(await resumed(client, first.last_id))
        assert await first.rest() == []
        await steps.go(3)
        assert said(await second.rest()) == [1, {"done": True}]
        [session] = sides.sessions._by_id.values()
        standing = await Stream(await client.listen()).primed()
        again = Stream(await resumed(client, standing.last_id))
        assert await standing.rest() == []
        await session.emit(PROGRESS, b'{"progress":9}')
        assert said([await again.next() or {}]) == [9]


@pytest.mark.parametrize("last_id", ["", "x", "7-0", "1-9", "1--1", "9" * 50])
async def test_an_unknown_id_is_refused(last_id: str) -> None:
    """400 and why, in a session with streams and in one without; never a stream that lacks something."""
    async with listening(content) as sides:
        streaming, silent = await sides.handshake(), await sides.handshake()
        await Stream(await streaming.listen()).primed()
        for client in (streaming, silent):
            answer = await resumed(client, last_id)
            assert answer.status == 400
            assert "Last-Event-ID is unknown" in (await answer.json())["error"]["message"]


async def test_an_id_that_is_too_old_is_refused() -> None:
    """400: of what it missed, some is not kept any more."""
    steps = Steps(4)
    async with listening(steps, settings=SessionSettings(max_events=2)) as sides:
        client = await sides.handshake()
        steps.free()
        assert len(await Stream(await client.post(tool(client))).rest()) == 5
        answer = await resumed(client, "1-1")
        assert answer.status == 400
        assert "too old" in (await answer.json())["error"]["message"]
        assert said(await Stream(await resumed(client, "1-3")).rest()) == [3, {"done": True}]


async def test_nobody_resumes_another_sessions_stream() -> None:
    """The id of a stream is worth nothing without its session: 404, and in one's own session 400."""
    steps = Steps(1)
    async with listening(steps) as sides:
        client, stranger = await sides.handshake(), await sides.handshake()
        steps.free()
        await Stream(await client.post(tool(client))).rest()
        assert (await resumed(stranger, "1-0")).status == 400
        stranger.session = "x" * 32
        assert (await resumed(stranger, "1-0")).status == 404
        assert await client.end() == 204
        assert (await resumed(client, "1-0")).status == 404


async def asked(sides: Sides, client: HandshakeClient) -> tuple[Stream, Json]:
    """A call's stream with the question on it."""
    stream = Stream(await client.post(tool(client)))
    question = await stream.next()
    assert question is not None
    return stream, question


@pytest.mark.parametrize("is_answered_first", [True, False])
async def test_a_question_survives_its_connection(is_answered_first: bool) -> None:
    """It stays answerable through the break, and the resumed stream carries it again to who has not seen it."""

    async def handle(call: Call) -> Outcome:
        found = await call.reply.ask("elicitation/create", b'{"message":"?"}')
        assert isinstance(found, Result)
        return found

    async with listening(handle) as sides:
        client = await sides.handshake(capabilities={"elicitation": {}})
        first, question = await asked(sides, client)
        await broken(sides, first)
        if is_answered_first:
            assert (await client.reply(question, {"action": "accept"})).status == 202
        second = Stream(await resumed(client, "1-0"))
        assert (await second.next() or {})["method"] == "elicitation/create"
        if not is_answered_first:
            assert (await client.reply(question, {"action": "accept"})).status == 202
        assert said(await second.rest()) == [{"action": "accept"}]
        [session] = sides.sessions._by_id.values()
        assert (session._asks, session._graces) == ({}, {})


async def test_a_question_is_given_up_after_the_grace() -> None:
    """Ten retry times later the backend hears that nobody answers; a client that comes still is told so, too."""
    errors: list[str] = []

    async def handle(call: Call) -> Outcome:
        try:
            return await call.reply.ask("elicitation/create", b'{"message":"?"}')  # type: ignore[return-value]
        except GatewayError as error:
            errors.append(error.message)
            raise

    async with listening(handle, settings=SessionSettings(retry_s=0.002)) as sides:
        client = await sides.handshake(capabilities={"elicitation": {}})
        first, question = await asked(sides, client)
        first.answer.close()
        await quiet(sides)
        assert errors == ["the client left before it answered"]
        *_, taken_back, answer = await Stream(await resumed(client, "1-0")).rest()
        assert taken_back["params"] == {"requestId": question["id"]}
        assert "error" in answer


async def test_a_question_that_belongs_to_no_call_waits_for_the_standing_stream() -> None:
    """Asked while the stream is broken, it is read once it is resumed."""
    async with listening(content) as sides:
        client = await sides.handshake(capabilities={"roots": {}})
        [session] = sides.sessions._by_id.values()
        first = await Stream(await client.listen()).primed()
        await broken(sides, first)
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(session.ask("roots/list", b"{}"))
            second = Stream(await resumed(client, first.last_id))
            question = await second.next()
            assert question is not None
            await client.reply(question, {"roots": []})
            found = await soon(asking)
            assert isinstance(found, Result)
            assert json.loads(bytes(found.value)) == {"roots": []}


async def test_a_session_that_ends_ends_what_was_resumed() -> None:
    """No grace, no stream and no call outlives it."""
    steps = Steps(2)
    async with listening(steps) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        answer = await client.begin(tool(client))
        await steps.go(1)
        first = Stream(answer)
        await first.next()
        await broken(sides, first)
        second = Stream(await resumed(client, first.last_id))
        assert await client.end() == 204
        assert await second.rest() == []
        assert session._graces == {}
        await quiet(sides)


async def test_what_never_began_to_stream_is_not_kept() -> None:
    """A client that left before the first event has no id to resume by: nothing is kept for it."""
    steps = Steps(1)
    async with listening(steps) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        answer = await client.begin(tool(client))
        async with asyncio.timeout(5):
            while not session.calls:
                await asyncio.sleep(0)
        answer.close()
        await client.result("ping")
        steps.free()
        await quiet(sides)
        assert steps.is_over
        assert session._events is None


async def test_streams_left_behind_are_bounded() -> None:
    """A client that opens a new standing stream each time leaves a few that could be resumed, not all."""
    async with listening(content) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        for _ in range(20):
            await broken(sides, await Stream(await client.listen()).primed())
        assert session._events is not None
        assert len(session._events) == 8
        assert (await resumed(client, "20-0")).status == 200
        assert (await resumed(client, "2-0")).status == 400


async def test_nothing_is_lost_between_the_break_and_its_discovery() -> None:
    """From the moment the connection is gone, what is told waits for the resume."""
    async with listening(content) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        first = await Stream(await client.listen()).primed()
        [connection] = [one for one in sides.state.connections if one._current is not None]
        connection._current.leave()
        await session.emit(PROGRESS, b'{"progress":1}')
        second = Stream(await resumed(client, first.last_id))
        assert said([await second.next() or {}]) == [1]


async def test_what_nobody_came_back_for_is_let_go() -> None:
    """Five minutes after the session was last used; while a stream or a call goes on it is kept."""
    steps = Steps(1)
    async with listening(steps) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        steps.free()
        await Stream(await client.post(tool(client))).rest()
        standing = await Stream(await client.listen()).primed()
        for pause_s in (299, 301):
            session.expire(session.last_active_at + pause_s)
            assert len(session._events or ()) == 2
        await broken(sides, standing)
        async with asyncio.timeout(5):
            while session.streams:
                await asyncio.sleep(0)
        session.expire(session.last_active_at + 299)
        assert len(session._events or ()) == 2
        session.expire(session.last_active_at + 301)
        assert (await resumed(client, "1-0")).status == 400
        assert (await resumed(client, standing.last_id)).status == 200
