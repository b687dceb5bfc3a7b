"""Handshake clients over HTTP: requests, cancellations, questions and streams of sessions, with a handler of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
import structlog

from gatewright.call import Call, Failure, Outcome, Result
from gatewright.errors import BackendUnavailable, GatewayError, ResourceNotFound
from gatewright.inbound.handshake import SessionReply
from gatewright.inbound.settings import Sessions as SessionSettings
from inbound.sides import content, listening, quiet
from journeys.wire import ACCEPT, HandshakeClient, Json, soon

pytestmark = pytest.mark.anyio


class Held:
    """A handler that holds every call until it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled: list[str | None] = []
        self.go = asyncio.Event()
        self._changed = asyncio.Event()

    async def __call__(self, call: Call) -> Outcome:
        self.calls.append(call)
        self._changed.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(call.name)
            self._changed.set()
            raise
        return Result(b'{"done":true}')

    async def until(self, is_so: Callable[[Held], bool]) -> None:
        """Return when it is so, within 5 s."""
        async with asyncio.timeout(5):
            while not is_so(self):
                self._changed.clear()
                await self._changed.wait()


def tool(client: HandshakeClient, name: str, request_id: int | str | None = None) -> Json:
    """A tools/call request."""
    return client.request("tools/call", {"name": name}, request_id=request_id)


@pytest.mark.parametrize(
    ("outcome", "status", "member"),
    [
        (Result(b'{"x":1}'), 200, {"result": {"x": 1}}),
        (Failure(-32601, "no"), 200, {"error": {"code": -32601, "message": "no"}}),
        (BackendUnavailable("no"), 200, {"error": {"code": -31002, "message": "no"}}),
        (ResourceNotFound("no"), 200, {"error": {"code": -32002, "message": "no"}}),
    ],
)
async def test_every_outcome_has_its_answer(outcome: Outcome | GatewayError, status: int, member: Json) -> None:
    """In JSON, under the request's id: an error that answers a request is a 200 in this era."""

    async def handle(call: Call) -> Outcome:
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async with listening(handle) as sides:
        client = await sides.handshake()
        answer = await client.post(tool(client, "t", "id"))
        assert answer.status == status
        assert await answer.json() == {"jsonrpc": "2.0", "id": "id", **member}


async def test_a_bug_is_answered_under_an_id() -> None:
    """-32603 with an error id that the log has too; the session goes on."""

    async def handle(call: Call) -> Outcome:
        raise ZeroDivisionError("a bug")

    with structlog.testing.capture_logs() as logged:
        async with listening(handle) as sides:
            client = await sides.handshake()
            answer = await client.post(tool(client, "t", 7))
            last = await answer.json()
            assert (last["id"], last["error"]["code"]) == (7, -32603)
            assert last["error"]["data"]["errorId"] in [one.get("error_id") for one in logged]
            assert await client.result("ping") == {}
            await quiet(sides)


async def test_a_cancellation_stops_its_call_and_no_other() -> None:
    """The call with that id ends without an answer; the others are answered; nothing is remembered of any."""
    held = Held()
    async with listening(held) as sides:
        client = await sides.handshake()
        first, second = [await client.begin(tool(client, name, name)) for name in ("one", "two")]
        await held.until(lambda it: len(it.calls) == 2)
        await client.tell("notifications/cancelled", {"requestId": "one", "reason": "changed my mind"})
        await held.until(lambda it: it.cancelled == ["one"])
        await soon(first.started)
        assert (first.status, await first.body()) == (202, b"")
        held.go.set()
        assert (await second.last())["result"] == {"done": True}
        [session] = sides.sessions._by_id.values()
        assert session.calls == {}
        await quiet(sides)


async def test_a_session_runs_so_many_calls_at_once() -> None:
    """Whatever their ids, and with their connections gone: in this era they go on without. One that ends makes room;
    other sessions do not notice, nor does a ping."""
    held = Held()
    async with listening(held, max_calls=2) as sides:
        client, other = await sides.handshake(), await sides.handshake()
        for name in ("one", "two"):
            running = await client.begin(tool(client, name, 1))
            await held.until(lambda it, name=name: it.calls[-1:] != [] and it.calls[-1].name == name)  # type: ignore[misc]
            running.close()
        refused = await client.post(tool(client, "three", 2))
        assert (refused.status, refused.headers["retry-after"].isdigit()) == (503, True)
        error = (await refused.last())["error"]
        assert (error["code"], "limits.max_calls_per_session" in error["message"]) == (-31001, True)
        assert await client.result("ping") == {}
        elsewhere = await other.begin(tool(other, "four", 1))
        await held.until(lambda it: len(it.calls) == 3)
        await client.tell("notifications/cancelled", {"requestId": 1})
        await held.until(lambda it: len(it.cancelled) == 2)
        held.go.set()
        assert (await elsewhere.last())["result"] == {"done": True}
        assert (await (await client.post(tool(client, "five", 3))).last())["result"] == {"done": True}
        assert [len(session.calls) for session in sides.sessions._by_id.values()] == [0, 0]
        await quiet(sides)


async def test_a_cancelled_calls_connection_serves_on() -> None:
    """The task of the connection is as good as new after a cancellation."""
    held = Held()
    async with listening(held) as sides:
        client = await sides.handshake()
        wire = await client.wire()
        fields = {"Content-Type": "application/json", "Accept": ACCEPT, **client.headers({})}
        for turn in range(3):
            answer = wire.begin("POST", "/mcp", fields, json.dumps(tool(client, "t", 1)).encode())
            await held.until(lambda it, turn=turn: len(it.calls) == turn + 1)  # type: ignore[misc]
            assert held.calls[-1].task.cancelling() == 0
            await client.tell("notifications/cancelled", {"requestId": 1})
            await soon(answer.started)
            assert await answer.body() == b""
        held.go.set()
        answer = wire.begin("POST", "/mcp", fields, json.dumps(tool(client, "t", 1)).encode())
        assert (await soon(answer.last()))["result"] == {"done": True}


async def test_a_late_cancellation_is_harmless() -> None:
    """An answer that is on its way is an answer; unknown ids are none (basic/utilities/cancellation)."""
    async with listening(content) as sides:
        client = await sides.handshake()
        assert "result" in await client.ask("tools/call", {"name": "t"})
        for request_id in (2, "2", 99, -1, 2**70):
            assert (await client.tell("notifications/cancelled", {"requestId": request_id})).status in (202, 400)
        assert await client.result("ping") == {}


async def test_a_cancel_that_is_lost_on_the_way_is_taken_back() -> None:
    """A backend that answers although it was cancelled: the answer is given, and the connection serves on."""
    begun = asyncio.Event()

    async def handle(call: Call) -> Outcome:
        begun.set()
        if call.name == "stubborn":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return Result(b'{"stubborn":true}')
        return Result(json.dumps({"cancelling": call.task.cancelling()}).encode())

    async with listening(handle) as sides:
        client = await sides.handshake()
        wire = await client.wire()
        fields = {"Content-Type": "application/json", "Accept": ACCEPT, **client.headers({})}
        answer = wire.begin("POST", "/mcp", fields, json.dumps(tool(client, "stubborn", 1)).encode())
        await soon(begun.wait())
        await client.tell("notifications/cancelled", {"requestId": 1})
        assert (await answer.last())["result"] == {"stubborn": True}
        answer = wire.begin("POST", "/mcp", fields, json.dumps(tool(client, "plain", 2)).encode())
        assert (await answer.last())["result"] == {"cancelling": 0}


async def test_all_calls_of_an_id_are_cancelled() -> None:
    """A client that gives every request the same id means every one of them."""
    held = Held()
    async with listening(held) as sides:
        client = await sides.handshake()
        answers = [await client.begin(tool(client, "t", 1)) for _ in range(3)]
        await held.until(lambda it: len(it.calls) == 3)
        await client.tell("notifications/cancelled", {"requestId": 1})
        for answer in answers:
            await soon(answer.started)
            assert answer.status == 202


async def test_a_client_that_leaves_has_not_cancelled() -> None:
    """The call goes on to its end, and its answer is dropped."""
    held = Held()
    async with listening(held) as sides:
        client = await sides.handshake()
        answer = await client.begin(tool(client, "t"))
        await held.until(lambda it: len(it.calls) == 1)
        answer.close()
        assert await client.result("ping") == {}
        assert held.cancelled == []
        held.go.set()
        await quiet(sides)
        [session] = sides.sessions._by_id.values()
        assert session.calls == {}


def asking(results: list[object]) -> Callable[[Call], Awaitable[Outcome]]:
    """A handler that asks once and notes what comes of it."""

    async def handle(call: Call) -> Outcome:
        try:
            found = await call.reply.ask("elicitation/create", b'{"message":"?"}')
        except GatewayError as error:
            results.append(error.message)
            raise
        results.append((call.open_asks, json.loads(bytes(found.value)) if isinstance(found, Result) else found))
        return Result(b"{}")

    return handle


async def test_a_question_is_open_while_it_is() -> None:
    """The call knows how many of its questions are open: meanwhile the silence is the client's."""
    results: list[object] = []
    async with listening(asking(results)) as sides:
        client = await sides.handshake(capabilities={"elicitation": {}})
        answer = await client.post(tool(client, "t"))
        question = await answer.event()
        assert question is not None
        [session] = sides.sessions._by_id.values()
        [running] = session.calls
        assert isinstance(running, SessionReply)
        assert running.call is not None
        assert running.call.open_asks == 1
        await client.reply(question, {"action": "accept"})
        assert "result" in await answer.last()
    assert results == [(0, {"action": "accept"})]


async def test_a_question_of_a_client_that_left_fails_after_a_grace() -> None:
    """Ten times the retry time, in which it could have resumed the stream."""
    results: list[object] = []
    async with listening(asking(results), settings=SessionSettings(retry_s=0.005)) as sides:
        client = await sides.handshake(capabilities={"elicitation": {}})
        answer = await client.post(tool(client, "t"))
        assert await answer.event() is not None
        answer.close()
        await quiet(sides)
        [session] = sides.sessions._by_id.values()
        assert session._asks == {}
    assert results == ["the client left before it answered"]


async def test_an_ill_formed_answer_is_refused_and_leaves_the_question_open() -> None:
    """Neither result nor error: 400, and the client may answer again."""
    results: list[object] = []
    async with listening(asking(results)) as sides:
        client = await sides.handshake(capabilities={"elicitation": {}})
        answer = await client.post(tool(client, "t"))
        question = await answer.event()
        assert question is not None
        both = {"jsonrpc": "2.0", "id": question["id"], "result": {}, "error": {"code": 1, "message": "x"}}
        assert (await client.post(both)).status == 400
        for stranger in (question["id"] + 1, str(question["id"]), -1):
            assert (await client.post({"jsonrpc": "2.0", "id": stranger, "result": {}})).status == 202
        await client.reply(question, {"action": "decline"})
        assert "result" in await answer.last()


@pytest.mark.parametrize("how", ["delete", "gone"])
async def test_a_standing_stream_leaves_nothing_behind(how: str) -> None:
    """However it ends, the session forgets it; a session that ends closes it."""
    async with listening(content) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        streams = [await client.listen() for _ in range(3)]
        assert len(session.streams) == 3
        if how == "delete":
            assert await client.end() == 204
            for stream in streams:
                assert await stream.event() is None
        else:
            for stream in streams:
                stream.close()
        await quiet(sides)
        assert session.streams == []
        assert sides.ended == ([session.id] if how == "delete" else [])


async def test_what_a_dead_stream_did_not_send_goes_to_another() -> None:
    """A notification that still waited for a client's slow stream reaches its other one."""
    async with listening(content) as sides:
        client = await sides.handshake()
        [session] = sides.sessions._by_id.values()
        healthy = await client.listen()
        wire = await client.wire()
        await wire.send("GET", "/mcp", {"Accept": "text/event-stream", **client.headers({})})
        wire.pause()
        padding = json.dumps({"padding": "x" * 500_000}).encode()
        for _ in range(12):
            await session.emit("notifications/resources/updated", padding)
            await asyncio.sleep(0)
        await session.emit("notifications/tools/list_changed", b"{}")
        wire.close()
        heard = []
        while "notifications/tools/list_changed" not in heard:
            message = await healthy.event()
            assert message is not None
            heard.append(message["method"])


async def test_too_many_sessions_are_refused() -> None:
    """503 and Retry-After for the next; one that ends makes room."""
    async with listening(content, settings=SessionSettings(max_sessions=2)) as sides:
        first, _ = await sides.handshake(), await sides.handshake()
        other = HandshakeClient(sides.port, "/mcp")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        refused = await other.post(other.request("initialize", params))
        assert refused.status == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert (await refused.json())["error"]["code"] == -31001
        assert await first.end() == 204
        await sides.handshake()


async def test_a_silent_call_becomes_a_stream() -> None:
    """After an interval of silence comments keep it alive, and the answer is its last event."""
    held = Held()
    async with listening(held, keepalive_s=0.02) as sides:
        client = await sides.handshake()
        answer = await client.begin(tool(client, "t"))
        await soon(answer.started)
        assert answer.is_stream
        held.go.set()
        assert "result" in await answer.last()
        assert answer.comments >= 1
        await quiet(sides)
        assert "result" in await client.ask("ping")


async def test_log_messages_below_the_sessions_level_go_no_further() -> None:
    """Without a level everything passes; what has no known level always does."""

    async def handle(call: Call) -> Outcome:
        if call.method == "logging/setLevel":
            return Result(b"{}")
        for level in (b'"debug"', b'"error"', b'"shout"', b"7"):
            await call.reply.emit("notifications/message", b'{"level":%b}' % level)
        return Result(b"{}")

    async with listening(handle) as sides:
        client = await sides.handshake()
        heard = []
        for level in (None, "error"):
            if level is not None:
                assert await client.result("logging/setLevel", {"level": level}) == {}
            answer = await client.post(tool(client, "t"))
            *notices, _ = [message async for message in answer.messages()]
            heard.append([one["params"]["level"] for one in notices])
        assert heard == [["debug", "error", "shout", 7], ["error", "shout", 7]]
