"""Where a backend's messages go: to the call they belong to, to the client session, to whoever listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from backend.mcp_server import Outlets, Replies, Told, call_of, handshake_client
from backend.raw_server import until
from gatewright.backend.base import Request, Sink
from gatewright.backend.sinks import MAX_ASKS, CallSink, Ear, SessionSink, answer
from gatewright.backend.tasks import Tasks
from gatewright.background import Background
from gatewright.call import ANONYMOUS, Call, Failure, Json, Params, Result
from gatewright.errors import BackendGarbage, MissingCapability
from gatewright.protocol import jsonrpc
from gatewright.protocol.sealed import Sealer
from gatewright.protocol.tasks import RELATED_KEY

pytestmark = pytest.mark.anyio
TASKS = Tasks("b", Sealer([b"k" * 32]))
TOKEN = 41


class Wire:
    """A link that remembers what the backend is told."""

    is_open = True

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.is_broken = False

    async def tell(self, message: bytes) -> None:
        if self.is_broken:
            raise BackendGarbage("gone")
        self.told.append(json.loads(message))

    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        raise NotImplementedError

    def agree(self, headers: bytes) -> None:
        raise NotImplementedError

    async def listen(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Scene:
    """A call, a session, and everybody around them."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.wire = Wire()
        self.told = Told()
        self.outlets = Outlets()
        self.background = Background(tasks)
        self.reply = Replies()

    def call_sink(self, *, can_ask: bool = True, **meta: Any) -> CallSink:
        call = call_of(handshake_client("c1"), reply=self.reply, _meta=meta)
        return CallSink(call, TASKS, self.wire, self.background, self.told, TOKEN, can_ask)

    def session_sink(self, session: str = "c1") -> SessionSink:
        self.outlets["c1"] = self.reply
        sink = SessionSink(TASKS, session, ANONYMOUS, self.outlets, self.background, self.told)
        sink.link = self.wire
        return sink


@asynccontextmanager
async def playing() -> AsyncIterator[Scene]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        yield Scene(tasks)


def params(**members: Any) -> Params:
    return {key: jsonrpc.raw(value) for key, value in members.items()}


# --- tasks


async def test_a_status_is_told_under_the_clients_id() -> None:
    """On whichever stream it comes; a modern task's has its place on a subscription alone."""
    async with playing() as scene:
        for sink in (scene.call_sink(), scene.session_sink()):
            await sink.notified("notifications/tasks/status", params(taskId="1", status="working"))
            await sink.notified("notifications/tasks", params(taskId="1", status="working"))
        told = {"taskId": TASKS.shown(ANONYMOUS, "handshake", "1"), "status": "working"}
        assert scene.reply.notes == [("notifications/tasks/status", told)] * 2


async def test_what_belongs_to_a_task_says_so_by_the_clients_id() -> None:
    """Log messages, progress and questions."""
    async with playing() as scene:
        related = {RELATED_KEY: {"taskId": "1"}}
        shown = {RELATED_KEY: {"taskId": TASKS.shown(ANONYMOUS, "handshake", "1")}}
        sink = scene.call_sink(progressToken="mine")
        await sink.notified("notifications/message", params(level="info", _meta=related))
        await sink.notified("notifications/progress", params(progressToken=TOKEN, progress=1, _meta=related))
        assert [note["_meta"] for _, note in scene.reply.notes] == [shown, shown]


async def test_a_task_reports_progress_after_its_call() -> None:
    """On the session's own stream or another call's, under the token of the call that made it; in its session only."""
    tasks = Tasks("b", Sealer([b"k" * 32]))
    told: list[Raw | None] = []

    async def exchange(call: Call, params: Params, sink: object, token: int, progress: Raw | None) -> Result | Failure:
        told.append(progress)
        return Result(b'{"task":{"taskId":"1"}}')

    maker = call_of(handshake_client("c1"), task={}, _meta={"progressToken": "first"})
    await tasks.carry(exchange, maker, maker.params, None, 7)  # type: ignore[arg-type] # nothing is said meanwhile
    async with playing() as scene:
        scene.outlets["c2"] = Replies()
        call = call_of(handshake_client("c1"), reply=scene.reply)
        sinks: list[Sink] = [
            CallSink(call, tasks, scene.wire, scene.background, scene.told, TOKEN, True),
            *(
                SessionSink(tasks, session, ANONYMOUS, scene.outlets, scene.background, scene.told)
                for session in ("c1", "c2", "")
            ),
        ]
        scene.outlets["c1"] = scene.reply
        for sink in sinks:
            await sink.notified(
                "notifications/progress", params(progressToken=json.loads(bytes(told[0] or b"")), progress=1)
            )
        assert scene.reply.notes == [("notifications/progress", {"progressToken": "first", "progress": 1})] * 2
        assert not scene.outlets["c2"].notes  # type: ignore[attr-defined]


# --- a call


async def test_progress_comes_under_the_clients_own_token() -> None:
    """Of this call: a backend that reports on another token is not passed on."""
    async with playing() as scene:
        sink = scene.call_sink(progressToken="mine")
        for token in (TOKEN, 40, "41", "mine", None):
            await sink.notified("notifications/progress", params(progressToken=token, progress=1))
        await sink.notified("notifications/progress", params(progress=1))
        assert scene.reply.notes == [("notifications/progress", {"progressToken": "mine", "progress": 1})]


async def test_progress_that_nobody_asked_for_is_not_passed_on() -> None:
    """S-41."""
    async with playing() as scene:
        await scene.call_sink().notified("notifications/progress", params(progressToken=TOKEN, progress=1))
        assert scene.reply.notes == []


async def test_whatever_a_backend_says_is_a_sign_of_life() -> None:
    """The deadline counts from it."""
    async with playing() as scene:
        sink = scene.call_sink()
        sink._call.heard_at = -1.0
        await sink.notified("notifications/progress", params(progressToken=1))
        assert sink._call.heard_at > 0
        sink._call.heard_at = -1.0
        sink.asked(1, "ping", {})
        assert sink._call.heard_at > 0


async def test_a_change_of_a_list_is_noted_and_passed_on() -> None:
    """As other notifications are."""
    async with playing() as scene:
        sink = scene.call_sink()
        for method in ("notifications/tools/list_changed", "notifications/message", "x/own"):
            await sink.notified(method, params(a=1))
        assert scene.told.changes == [("c1", "notifications/tools/list_changed")]
        assert [method for method, _ in scene.reply.notes] == [
            "notifications/tools/list_changed",
            "notifications/message",
            "x/own",
        ]


async def test_a_question_is_answered_while_the_stream_is_read_on() -> None:
    """Under the backend's own id."""
    async with playing() as scene:
        sink = scene.call_sink()
        scene.reply.may_answer.clear()
        sink.asked("q", "elicitation/create", params(message="?"))
        await sink.notified("notifications/message", params(level="info"))
        assert scene.wire.told == []
        scene.reply.may_answer.set()
        await until(lambda: len(scene.wire.told) == 1)
        assert scene.wire.told == [{"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}}]


async def test_a_question_taken_back_is_not_answered() -> None:
    """By its id, as it was written; other questions stay open; the client is not told the backend's ids."""
    async with playing() as scene:
        sink = scene.call_sink()
        scene.reply.may_answer.clear()
        for request_id in (1, "1", 2):
            sink.asked(request_id, "roots/list", {})
        await until(lambda: len(scene.reply.asked) == 3)
        for said in (params(requestId=1), params(requestId=7), params(requestId=[1]), {}):
            await sink.notified("notifications/cancelled", said)
        scene.reply.may_answer.set()
        await until(lambda: len(scene.wire.told) == 2)
        assert [message["id"] for message in scene.wire.told] == ["1", 2]
        assert scene.reply.notes == []


async def test_a_backend_cannot_ask_without_end() -> None:
    """Nor the same question twice; when some are answered there is room again."""
    async with playing() as scene:
        sink = scene.call_sink()
        scene.reply.may_answer.clear()
        for request_id in [0, 0, *range(MAX_ASKS * 3)]:
            sink.asked(request_id, "roots/list", {})
        await until(lambda: len(scene.reply.asked) == MAX_ASKS)
        scene.reply.may_answer.set()
        await until(lambda: len(scene.wire.told) == MAX_ASKS)
        assert sorted(message["id"] for message in scene.wire.told) == list(range(MAX_ASKS))
        await asyncio.sleep(0)
        sink.asked(999, "roots/list", {})
        await until(lambda: len(scene.wire.told) == MAX_ASKS + 1)


async def test_a_backend_that_may_not_ask_is_not_answered() -> None:
    """In the modern era servers ask in results only."""
    async with playing() as scene:
        scene.call_sink(can_ask=False).asked(1, "elicitation/create", {})
    assert (scene.reply.asked, scene.wire.told) == ([], [])


# --- a session


async def test_what_is_said_outside_calls_reaches_the_client_session_and_the_feeds() -> None:
    """Both hear it; progress and cancels are this hop's own affair."""
    async with playing() as scene:
        sink = scene.session_sink()
        heard: list[str] = []
        sink.ears.append(Ear(lambda method, _: heard.append(method), lambda: heard.append("missed")))
        for method in ("notifications/tools/list_changed", "notifications/progress", "notifications/cancelled"):
            await sink.notified(method, params(progressToken=1, requestId=1))
        assert heard == ["notifications/tools/list_changed"]
        assert [method for method, _ in scene.reply.notes] == heard
        assert scene.told.changes == [("c1", "notifications/tools/list_changed")]


async def test_a_session_without_client_is_listened_to_for_changes_only() -> None:
    """It may ask nothing."""
    async with playing() as scene:
        sink = scene.session_sink("")
        await sink.notified("notifications/message", params(level="info"))
        sink.asked(1, "roots/list", {})
        await until(lambda: len(scene.wire.told) == 1)
        assert scene.wire.told[0]["error"]["code"] == -32601
        assert scene.reply.notes == []


async def test_a_question_in_a_session_can_be_taken_back() -> None:
    """As in a call."""
    async with playing() as scene:
        sink = scene.session_sink()
        scene.reply.may_answer.clear()
        sink.asked(1, "roots/list", {})
        await until(lambda: len(scene.reply.asked) == 1)
        await sink.notified("notifications/cancelled", params(requestId=1))
    assert scene.wire.told == []


async def test_a_gap_makes_every_list_stale_and_is_told_to_the_feeds() -> None:
    """A change may have been missed."""
    async with playing() as scene:
        sink = scene.session_sink()
        gaps: list[int] = []
        sink.ears.append(Ear(lambda *_: None, lambda: gaps.append(1)))
        sink.missed()
        assert len(scene.told.changes) == 3
        assert gaps == [1]


# --- answers


@pytest.mark.parametrize(
    ("method", "has_reply", "expected"),
    [
        ("ping", True, {"result": {}}),
        ("ping", False, {"result": {}}),
        ("roots/list", False, {"error": {"code": -32601, "message": "roots/list cannot be answered here"}}),
        ("tools/call", True, {"error": {"code": -32601, "message": "tools/call cannot be answered here"}}),
    ],
)
async def test_what_cannot_be_asked_is_refused(method: str, has_reply: bool, expected: dict[str, Any]) -> None:
    """A ping is answered by the gateway itself."""
    wire, reply = Wire(), Replies()
    await answer(wire, reply if has_reply else None, 5, method, {})
    assert wire.told == [{"jsonrpc": "2.0", "id": 5, **expected}]
    assert reply.asked == []


class Refusing(Replies):
    """A client that declared that it cannot be asked."""

    async def ask(self, method: str, params: Json) -> Result | Failure:
        raise MissingCapability("no roots", {"roots": {}})


async def test_a_refusal_of_the_clients_side_becomes_an_error() -> None:
    """The backend is not left waiting."""
    wire = Wire()
    await answer(wire, Refusing(), 5, "roots/list", {})
    assert "error" in wire.told[0]


async def test_an_answer_that_cannot_be_delivered_harms_nobody() -> None:
    """The backend left."""
    wire = Wire()
    wire.is_broken = True
    await answer(wire, Replies(), 5, "roots/list", {})
