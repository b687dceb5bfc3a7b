"""One wire for all exchanges: whose message it is, what a slow reader costs, what a death means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.links import Recorder, soon
from gatewright.backend.base import Request
from gatewright.backend.pipe import Bounds, PipeLink, WireDied
from gatewright.call import Failure, Params, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.modern import SUBSCRIPTION_KEY

pytestmark = pytest.mark.anyio
LISTEN = "subscriptions/listen"
Outcome: TypeAlias = Result | Failure | BackendError


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Script:
    """A wire that writes down what the link does to it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.holds: list[bool] = []
        self.room = asyncio.Event()
        self.room.set()
        self.closings = 0
        self.is_dead = False

    def write(self, message: bytes) -> bool:
        if self.is_dead:
            return False
        self.raw.append(message)
        self.sent.append(json.loads(message))
        return True

    async def drain(self) -> None:
        await self.room.wait()

    def hold(self, is_held: bool, /) -> None:
        self.holds.append(is_held)

    async def close(self) -> None:
        self.closings += 1


class Scene:
    """A link on a scripted wire, its own sink, and the tasks of the test."""

    def __init__(self, tasks: asyncio.TaskGroup, bounds: Bounds | None) -> None:
        self.wire = Script()
        self.sink = Recorder()
        self.tasks = tasks
        self.link = PipeLink("b", self.wire, self.sink, tasks=tasks, bounds=bounds)

    async def start(
        self, request_id: int, method: str = "tools/call", sink: Recorder | None = None, **request: Any
    ) -> asyncio.Task[Outcome]:
        """An exchange that has been written to the wire."""
        written = len(self.wire.sent)
        task = self.attempt(Request(request_id, method, {}, **request), sink)
        while len(self.wire.sent) == written:
            await asyncio.sleep(0)
        return task

    def attempt(self, request: Request, sink: Recorder | None = None) -> asyncio.Task[Outcome]:
        """An exchange whose failure is its outcome, so that it does not end the group."""

        async def run() -> Outcome:
            try:
                return await self.link.exchange(request, sink or Recorder())
            except BackendError as error:
                return error

        return self.tasks.create_task(run())

    def hear(self, about: int | None = None, **message: Any) -> bool:
        """The backend says something."""
        return self.link.feed(json.dumps({"jsonrpc": "2.0", **message}).encode(), about)

    def note(self, method: str, about: int | None = None, **params: Any) -> None:
        self.hear(about, method=method, params=params)

    async def settle(self) -> None:
        """Let everything that can run, run."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def scene(bounds: Bounds | None = None) -> AsyncIterator[Scene]:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        made = Scene(tasks, bounds)
        try:
            yield made
        finally:
            await made.link.aclose()


async def test_a_request_is_one_line_with_our_id() -> None:
    """The wire gets the request under the minted id, and the result goes to its exchange."""
    async with scene() as it:
        task = await it.start(5)
        assert it.wire.sent == [{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {}}]
        it.hear(id=5, result={"a": 1})
        outcome = await soon(task)
        assert isinstance(outcome, Result)
        assert json.loads(bytes(outcome.value)) == {"a": 1}


async def test_an_id_echoed_as_text_is_ours_too() -> None:
    """Some servers turn our number into a string; the official SDKs accept it, so do we."""
    async with scene() as it:
        task = await it.start(5)
        it.hear(id="5", error={"code": -1, "message": "no"})
        assert await soon(task) == Failure(-1, "no")


@pytest.mark.parametrize("stray", [6, "x", "٥", "9" * 30, None, ""])
async def test_a_foreign_answer_is_dropped_and_counted(stray: object) -> None:
    """An id that is not in flight answers nobody, and does not disturb who is."""
    async with scene() as it:
        task = await it.start(5)
        assert it.hear(id=stray, result={})
        assert it.link.strays == 1
        it.hear(id=5, result={})
        it.hear(id=5, result={"again": 1})
        outcome = await soon(task)
        assert isinstance(outcome, Result)
        assert bytes(outcome.value) == b"{}"
        assert it.link.strays == 2


async def test_line_breaks_never_reach_the_wire() -> None:
    """Line feeds and carriage returns between tokens become spaces."""
    async with scene() as it:
        params: Params = jsonrpc.members(b'{"a":{\r\n"b":\n1}}')
        task = it.attempt(Request(1, "m", params))
        await it.settle()
        await it.link.tell(b'{"jsonrpc":"2.0",\r"method":"n"}')
        assert not any(b"\n" in line or b"\r" in line for line in it.wire.raw)
        assert it.wire.sent[0]["params"] == {"a": {"b": 1}}
        task.cancel()


async def test_progress_goes_by_token() -> None:
    """Progress reaches the exchange it names, whatever else is in flight; for others it is dropped."""
    async with scene() as it:
        first, second = Recorder(), Recorder()
        tasks = [await it.start(1, sink=first), await it.start(2, sink=second)]
        it.note("notifications/progress", progressToken=2, progress=1)
        it.note("notifications/progress", progressToken="1", progress=2)
        it.note("notifications/progress", progressToken=3, progress=3)
        it.note("notifications/progress", progressToken=[1], progress=3)
        it.note("notifications/progress", progress=3)
        it.hear(id=1, result={})
        it.hear(id=2, result={})
        for task in tasks:
            await soon(task)
        assert [note[1]["progress"] for note in first.notes] == [2]
        assert [note[1]["progress"] for note in second.notes] == [1]
        assert it.link.strays == 3


async def test_subscription_notices_go_by_subscription() -> None:
    """A notice with a subscription id reaches that listen and nobody else."""
    async with scene() as it:
        first, second, call = Recorder(), Recorder(), Recorder()
        tasks = [await it.start(1, LISTEN, first), await it.start(2, LISTEN, second), await it.start(3, sink=call)]
        for about in (1, 2, 9):
            it.note("notifications/tools/list_changed", _meta={SUBSCRIPTION_KEY: about}, n=about)
        await it.settle()
        assert [note[1]["n"] for note in first.notes] == [1]
        assert [note[1]["n"] for note in second.notes] == [2]
        assert call.notes == it.sink.notes == []
        assert it.link.strays == 1
        for task in tasks:
            task.cancel()


async def test_a_cancelled_listen_ends_like_a_closed_one() -> None:
    """On a shared wire the backend tears a subscription down with a notification: its exchange completes."""
    async with scene() as it:
        sink = Recorder()
        listen, call = await it.start(1, LISTEN, sink), await it.start(2)
        it.note("notifications/resources/updated", _meta={SUBSCRIPTION_KEY: 1}, uri="u")
        it.note("notifications/cancelled", requestId=1)
        it.note("notifications/cancelled", requestId=1)
        outcome = await soon(listen)
        assert isinstance(outcome, Result)
        assert json.loads(bytes(outcome.value)) == {"resultType": "complete", "_meta": {SUBSCRIPTION_KEY: 1}}
        assert len(sink.notes) == 1
        it.note("notifications/cancelled", requestId=2)
        await it.settle()
        assert not call.done()
        call.cancel()


async def test_unmarked_messages_go_to_the_only_exchange() -> None:
    """Alone in flight, an exchange gets logs and asks; listens are no candidates."""
    async with scene() as it:
        sink = Recorder()
        listen, call = await it.start(1, LISTEN), await it.start(2, sink=sink)
        it.note("notifications/message", level="info")
        it.hear(id="q", method="elicitation/create", params={})
        await it.settle()
        assert [note[0] for note in sink.notes] == ["notifications/message"]
        assert [ask[:2] for ask in sink.asks] == [("q", "elicitation/create")]
        assert it.sink.notes == []
        listen.cancel()
        call.cancel()


async def test_unmarked_messages_between_two_exchanges_go_to_the_link() -> None:
    """With two in flight nothing is guessed, unless the wire itself knows."""
    async with scene() as it:
        first, second = Recorder(), Recorder()
        tasks = [await it.start(1, sink=first), await it.start(2, sink=second)]
        it.note("notifications/message", level="info")
        it.hear(id=1, method="sampling/createMessage", params={})
        it.note("notifications/message", about=2, level="error")
        it.hear(about=1, id=2, method="roots/list")
        it.note("notifications/message", about=7)
        await it.settle()
        assert [len(it.sink.notes), len(it.sink.asks)] == [1, 1]
        assert second.notes == [("notifications/message", {"level": "error"})]
        assert first.asks == [(2, "roots/list", {})]
        assert it.link.strays == 1
        for task in tasks:
            task.cancel()


async def test_change_notices_go_to_the_link_even_mid_call() -> None:
    """A list that changed concerns everybody, not the call that happens to run."""
    async with scene() as it:
        sink = Recorder()
        task = await it.start(1, sink=sink)
        it.note("notifications/prompts/list_changed")
        it.note("notifications/resources/updated", uri="u")
        await it.settle()
        assert [note[0] for note in it.sink.notes] == [
            "notifications/prompts/list_changed",
            "notifications/resources/updated",
        ]
        assert sink.notes == []
        task.cancel()


async def test_a_withdrawn_ask_is_told_to_whoever_was_asked() -> None:
    """The backend cancels its own question: its id is its own, however it collides with ours."""
    async with scene() as it:
        sink = Recorder()
        first = await it.start(1, sink=sink)
        it.hear(id=2, method="elicitation/create", params={})
        second = await it.start(2)
        it.note("notifications/cancelled", requestId=2)
        it.note("notifications/cancelled", requestId=77)
        await it.settle()
        assert sink.notes == [("notifications/cancelled", {"requestId": 2})]
        assert it.link.strays == 1
        assert not second.done()
        first.cancel()
        second.cancel()


async def test_cancelling_sends_our_id() -> None:
    """The backend is told, once, by the id it knows."""
    async with scene() as it:
        task = await it.start(9)
        task.cancel()
        await it.settle()
        assert task.cancelled()
        assert it.wire.sent[1:] == [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}]
        it.hear(id=9, result={})
        assert it.link.strays == 1


async def test_the_initialize_request_is_never_cancelled() -> None:
    """An exchange that must not be cancelled ends silently (basic/lifecycle)."""
    async with scene() as it:
        task = await it.start(1, "initialize", is_cancellable=False)
        task.cancel()
        await it.settle()
        assert len(it.wire.sent) == 1


async def test_cancelled_before_it_was_written_says_nothing() -> None:
    """An exchange that still waited for room leaves no trace on the wire."""
    async with scene() as it:
        it.wire.room.clear()
        task = it.attempt(Request(1, "m", {}))
        await it.settle()
        task.cancel()
        await it.settle()
        assert it.wire.sent == []
        it.wire.room.set()


async def test_a_death_while_waiting_for_room_is_safe_to_repeat() -> None:
    """What was not written surely did not run; what was written may have."""
    async with scene() as it:
        written = await it.start(1)
        it.wire.room.clear()
        waiting = it.attempt(Request(2, "m", {}))
        await it.settle()
        it.link.fail("the child exited with status 3")
        it.link.fail("a second reason")
        it.wire.room.set()
        died, refused = await soon(written), await soon(waiting)
        assert isinstance(died, WireDied)
        assert died.message == "b: the child exited with status 3"
        assert isinstance(refused, BackendUnavailable)
        assert refused.message == "b: the child exited with status 3"
        assert len(it.wire.sent) == 1
        assert not it.link.is_open


async def test_what_the_wire_did_not_take_is_safe_to_repeat() -> None:
    """A wire that is dying but has not said so yet: what it refuses surely did not run."""
    async with scene() as it:
        it.wire.is_dead = True
        assert isinstance(await soon(it.attempt(Request(1, "m", {}))), BackendUnavailable)
        with pytest.raises(BackendUnavailable):
            await it.link.tell(b"{}")


async def test_what_came_before_the_death_is_delivered() -> None:
    """Notifications heard before the wire died reach the sink; an answer heard before it counts."""
    async with scene() as it:
        sink = Recorder()
        task, answered = await it.start(1, sink=sink), await it.start(2)
        it.note("notifications/progress", progressToken=1, progress=1)
        it.hear(id=2, result={})
        it.link.fail("gone")
        assert isinstance(await soon(task), WireDied)
        assert isinstance(await soon(answered), Result)
        assert len(sink.notes) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": "high", "message": "x"}},
        {"error": "no"},
        {"result": {}, "error": {"code": 1}},
        {},
        {"jsonrpc": "1.0", "result": {}},
    ],
)
async def test_a_broken_answer_fails_its_exchange_at_once(answer: dict[str, Any]) -> None:
    """An answer that breaks the envelope fails the exchange it names: nobody waits for the timeout."""
    async with scene() as it:
        task = await it.start(1)
        it.hear(id=1, **answer)
        assert isinstance(await soon(task), BackendGarbage)
        assert it.link.is_open


@pytest.mark.parametrize(
    "text", [b"hello", b"{}", b"[1,2]", b"[[]]", b"[", b"\xff\x00", b'{"jsonrpc":"2.0","id":{}}', b"7"]
)
async def test_garbage_is_counted_and_dropped(text: bytes) -> None:
    """What is no message harms nobody; the wire is told, so that it can give up some time."""
    async with scene() as it:
        task = await it.start(1)
        assert not it.link.feed(text)
        it.hear(id=1, result={})
        assert isinstance(await soon(task), Result)


async def test_a_batch_is_taken_apart() -> None:
    """An array of messages (2025-03-26) counts as its messages."""
    async with scene() as it:
        sink = Recorder()
        task = await it.start(1, sink=sink)
        note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}'
        assert it.link.feed(b"[" + note + b', {"jsonrpc":"2.0","id":1,"result":{}}]')
        assert isinstance(await soon(task), Result)
        assert len(sink.notes) == 1


async def test_a_request_without_a_usable_id_is_dropped() -> None:
    """A request with a null id cannot be answered."""
    async with scene() as it:
        it.hear(id=None, method="elicitation/create", params={})
        await it.settle()
        assert it.sink.asks == []
        assert it.link.strays == 1


async def test_an_id_in_flight_cannot_be_used_twice() -> None:
    """Two exchanges under one id would get each other's answers."""
    async with scene() as it:
        task = await it.start(1)
        with pytest.raises(ValueError, match="in flight"):
            await it.link.exchange(Request(1, "m", {}), Recorder())
        it.hear(id=1, result={})
        assert isinstance(await soon(task), Result)


async def test_a_full_queue_stops_the_wire_until_it_is_read() -> None:
    """A reader at its bound stops the wire; half-read, the wire goes on. Nothing is lost."""
    async with scene(Bounds(queued_messages=4, stall_s=60)) as it:
        sink = Recorder()
        sink.gate.clear()
        task = await it.start(1, sink=sink)
        for step in range(6):
            it.note("notifications/progress", progressToken=1, progress=step)
        assert it.wire.holds == [True]
        sink.gate.set()
        it.hear(id=1, result={})
        await soon(task)
        assert it.wire.holds == [True, False]
        assert [note[1]["progress"] for note in sink.notes] == list(range(6))


async def test_large_messages_fill_a_queue_by_their_bytes() -> None:
    """Two messages can be too much, when they are large."""
    async with scene(Bounds(queued_bytes=1000, stall_s=60)) as it:
        sink = Recorder()
        sink.gate.clear()
        task = await it.start(1, sink=sink)
        await it.settle()
        for _ in range(3):
            it.note("notifications/progress", progressToken=1, message="x" * 600)
        assert it.wire.holds == [True]
        task.cancel()
        await it.settle()
        assert it.wire.holds == [True, False]


async def test_a_stalled_reader_loses_notifications_but_never_the_answer() -> None:
    """After the stall its neighbours are served again; it misses notifications until it has caught up."""
    async with scene(Bounds(queued_messages=2, stall_s=0.001)) as it:
        slow, quick = Recorder(), Recorder()
        slow.gate.clear()
        stalled, other = await it.start(1, sink=slow), await it.start(2, sink=quick)
        for step in range(3):
            it.note("notifications/progress", progressToken=1, progress=step)
        async with asyncio.timeout(5):
            while it.wire.holds != [True, False]:
                await asyncio.sleep(0)
        it.note("notifications/progress", progressToken=1, progress=99)
        it.hear(about=1, id="late", method="elicitation/create", params={})
        assert it.wire.sent[-1]["id"] == "late"
        assert it.wire.sent[-1]["error"]["code"] == -32603
        it.hear(id=2, result={})
        assert isinstance(await soon(other), Result)
        slow.gate.set()
        await slow.until(lambda sink: len(sink.notes) == 3)
        await it.settle()
        it.note("notifications/progress", progressToken=1, progress=100)
        it.hear(id=1, result={})
        assert isinstance(await soon(stalled), Result)
        assert [note[1]["progress"] for note in slow.notes] == [0, 1, 2, 100]


async def test_a_slow_link_sink_is_bounded_like_any_other() -> None:
    """Notices outside exchanges have the same bounds."""
    async with scene(Bounds(queued_messages=2, stall_s=60)) as it:
        it.sink.gate.clear()
        for _ in range(4):
            it.note("notifications/tools/list_changed")
        assert it.wire.holds == [True]
        it.sink.gate.set()
        await it.sink.until(lambda sink: len(sink.notes) == 4)
        await it.settle()
        assert it.wire.holds == [True, False]


async def test_a_failing_link_sink_costs_one_notice() -> None:
    """A bug behind the link's sink neither ends the link nor the group that carries its notices."""

    class Broken(Recorder):
        async def notified(self, method: str, params: Params) -> None:
            await super().notified(method, params)
            raise LookupError(method)

    async with scene() as it:
        sink = Broken()
        link = PipeLink("b", it.wire, sink, tasks=it.tasks)
        for _ in range(2):
            link.feed(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
            await it.settle()
        assert len(sink.notes) == 2
        assert link.is_open
        await link.aclose()


async def test_a_failing_exchange_sink_fails_its_exchange() -> None:
    """A bug behind an exchange's sink reaches its caller, and the backend is told to stop."""

    class Broken(Recorder):
        async def notified(self, method: str, params: Params) -> None:
            raise LookupError(method)

    async with scene() as it:

        async def run() -> str:
            try:
                await it.link.exchange(Request(1, "m", {}), Broken())
            except LookupError:
                return "failed"
            return "answered"

        task = it.tasks.create_task(run())
        await it.settle()
        it.note("notifications/message")
        assert await soon(task) == "failed"
        assert it.wire.sent[-1]["method"] == "notifications/cancelled"


async def test_closing_fails_what_is_in_flight() -> None:
    """Closing ends the wire first, then whatever still waits."""
    async with scene() as it:
        task = await it.start(1)
        await it.link.aclose()
        assert it.wire.closings == 1
        assert isinstance(await soon(task), WireDied)
        it.link.agree(b"")
        await it.link.listen()


messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.one_of(st.integers(-2, 5), st.text(max_size=3), st.none()),
        "method": st.sampled_from(
            ["notifications/progress", "notifications/cancelled", "notifications/message", "roots/list", "x"]
        ),
        "params": st.fixed_dictionaries(
            {},
            optional={
                "progressToken": st.integers(0, 5),
                "requestId": st.integers(0, 5),
                "_meta": st.one_of(st.none(), st.dictionaries(st.just(SUBSCRIPTION_KEY), st.integers(0, 5))),
            },
        ),
        "result": st.dictionaries(st.text(max_size=2), st.integers()),
        "error": st.fixed_dictionaries({"code": st.integers(-5, 5), "message": st.text(max_size=3)}),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(messages.map(lambda it: json.dumps(it).encode()), st.binary(max_size=30)), max_size=25))
async def test_no_backend_can_break_the_link(said: list[bytes]) -> None:
    """Whatever a backend says, nothing but outcomes comes of it, and the link serves on."""
    async with scene(Bounds(queued_messages=2, stall_s=0)) as it:
        tasks = [await it.start(request_id, LISTEN if request_id == 2 else "m") for request_id in (1, 2, 3)]
        for message in said:
            it.link.feed(message)
        await it.settle()
        assert it.link.is_open
        last = await it.start(100)
        it.hear(id=100, result={})
        assert isinstance(await soon(last), Result)
        for task in tasks:
            task.cancel()
