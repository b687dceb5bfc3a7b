"""The contract of `gatewright.backend.base.Link` and `Connector`: one suite for every transport.

A transport's own test module derives a class from `LinkContract` and defines a fixture `open_connector`: a callable
that returns an async context manager of a `Connector` whose backend is `contracts.link_backend.LinkBackend`. The
module marks its tests `anyio` and defines `anyio_backend`.

    class TestHttpLink(LinkContract):
        @pytest.fixture
        def open_connector(self) -> OpenConnector: ...
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any, TypeAlias, TypeVar

import pytest

from gatewright.backend.base import Connector, Link, Request
from gatewright.call import Failure, Params, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.jsonrpc import Id

T = TypeVar("T")
OpenConnector: TypeAlias = Callable[[], AbstractAsyncContextManager[Connector]]
BOUND_S = 5.0


async def soon(waiting: Awaitable[T]) -> T:
    """The result, within 5 s."""
    async with asyncio.timeout(BOUND_S):
        return await waiting


class Recorder:
    """A sink that remembers, and can be slow on demand."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.asks: list[tuple[Id, str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()

    async def notified(self, method: str, params: Params) -> None:
        self.notes.append((method, json.loads(jsonrpc.encode(params))))
        self._changed.set()
        await self.gate.wait()

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        self.asks.append((request_id, method, json.loads(jsonrpc.encode(params))))
        self._changed.set()

    def missed(self) -> None:
        """What is not heard is not remembered."""

    async def until(self, is_so: Callable[[Recorder], bool]) -> None:
        """Return when it is so, within 5 s."""
        async with asyncio.timeout(BOUND_S):
            while not is_so(self):
                self._changed.clear()
                await self._changed.wait()


class Talk:
    """One link, and requests on it."""

    def __init__(self, link: Link, sink: Recorder) -> None:
        self.link = link
        self.sink = sink
        self._ids = count(101)

    def request(self, method: str, **params: object) -> Request:
        """A request with a fresh id, which is its progress token."""
        request_id = next(self._ids)
        members = {"_meta": {"progressToken": request_id}, **params}
        return Request(request_id, f"test/{method}", {key: jsonrpc.raw(value) for key, value in members.items()})

    async def answer(self, method: str, sink: Recorder | None = None, **params: object) -> dict[str, Any]:
        """The result of one request, within 5 s."""
        outcome = await soon(self.link.exchange(self.request(method, **params), sink or Recorder()))
        assert isinstance(outcome, Result), outcome
        return dict(json.loads(bytes(outcome.value)))

    async def seen(self, is_so: Callable[[dict[str, Any]], bool]) -> None:
        """Return when what the backend has seen is so, within 5 s: other streams may be slower than this one."""
        async with asyncio.timeout(BOUND_S):
            while not is_so(await self.answer("seen")):
                pass


@asynccontextmanager
async def talking(connector: Connector) -> AsyncIterator[Talk]:
    """A fresh link, closed at the end."""
    sink = Recorder()
    link = await soon(connector.connect(sink))
    try:
        yield Talk(link, sink)
    finally:
        await soon(link.aclose())


async def connect_again(connector: Connector) -> Link:
    """A new link after the old one died: a connector may want a pause first, but not for ever."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                return await connector.connect(Recorder())
            except BackendUnavailable:
                await asyncio.sleep(0)


class LinkContract:
    """What every link does. Derive from it; see the module's docstring."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        raise NotImplementedError

    async def test_a_request_gets_its_result(self, open_connector: OpenConnector) -> None:
        """The result comes back as the backend wrote it."""
        async with open_connector() as connector, talking(connector) as talk:
            assert talk.link.is_open
            assert await talk.answer("echo", text="grüße\u2028") == {"text": "grüße\u2028"}

    async def test_an_error_is_a_value(self, open_connector: OpenConnector) -> None:
        """The backend's own error is a Failure with code, message and data; the link stays open."""
        async with open_connector() as connector, talking(connector) as talk:
            outcome = await soon(talk.link.exchange(talk.request("fail", why="x"), Recorder()))
            assert isinstance(outcome, Failure)
            assert (outcome.code, outcome.message) == (-32042, "not today")
            assert outcome.data is not None
            assert json.loads(bytes(outcome.data)) == {"why": "x"}
            assert talk.link.is_open

    async def test_line_breaks_between_tokens_are_harmless(self, open_connector: OpenConnector) -> None:
        """A client may pretty-print its parameters; the value arrives unchanged on every wire."""
        async with open_connector() as connector, talking(connector) as talk:
            request = Request(7, "test/echo", {"text": jsonrpc.members(b'{"t":{\r\n  "a":\t[1,\n2]}}')["t"]})
            outcome = await soon(talk.link.exchange(request, Recorder()))
            assert isinstance(outcome, Result)
            assert json.loads(bytes(outcome.value)) == {"text": {"a": [1, 2]}}

    async def test_a_megabyte_goes_there_and_back(self, open_connector: OpenConnector) -> None:
        """Large messages are carried whole, beside small ones."""
        text = "0123456789abcdef" * 65_536
        async with open_connector() as connector, talking(connector) as talk:
            large, small = await asyncio.gather(talk.answer("echo", text=text), talk.answer("echo", text="s"))
            assert large == {"text": text}
            assert small == {"text": "s"}

    async def test_notifications_come_in_order_before_the_answer(self, open_connector: OpenConnector) -> None:
        """All 300 progress notifications of an exchange reach its sink, in order, before it returns."""
        async with open_connector() as connector, talking(connector) as talk:
            sink = Recorder()
            assert await talk.answer("progress", sink, steps=300) == {"steps": 300}
            assert [note["progress"] for _, note in sink.notes] == list(range(1, 301))
            assert talk.sink.notes == []

    async def test_concurrent_exchanges_keep_apart(self, open_connector: OpenConnector) -> None:
        """Fifty at once: each gets its own answer and its own notifications."""
        async with open_connector() as connector, talking(connector) as talk:
            sinks = [Recorder() for _ in range(50)]
            answers = await asyncio.gather(*(talk.answer("progress", one, steps=n) for n, one in enumerate(sinks)))
            assert answers == [{"steps": n} for n in range(50)]
            assert [len(sink.notes) for sink in sinks] == list(range(50))

    async def test_answers_may_come_out_of_order(self, open_connector: OpenConnector) -> None:
        """A parked exchange does not hold up a later one, and gets its own answer in the end."""
        async with open_connector() as connector, talking(connector) as talk, asyncio.TaskGroup() as tasks:
            sink = Recorder()
            parked = tasks.create_task(talk.answer("park", sink, key="k"))
            await sink.until(lambda it: len(it.notes) == 1)
            assert await talk.answer("echo", text="between") == {"text": "between"}
            assert not parked.done()
            await talk.answer("release", key="k")
            assert await soon(parked) == {"key": "k"}

    async def test_a_slow_reader_waits_alone(self, open_connector: OpenConnector) -> None:
        """While one sink does not return, other exchanges are answered; then it gets everything."""
        async with open_connector() as connector, talking(connector) as talk, asyncio.TaskGroup() as tasks:
            slow = Recorder()
            slow.gate.clear()
            waiting = tasks.create_task(talk.answer("progress", slow, steps=20))
            await slow.until(lambda it: len(it.notes) == 1)
            assert await talk.answer("echo", text="quick") == {"text": "quick"}
            assert len(slow.notes) == 1
            slow.gate.set()
            await soon(waiting)
            assert len(slow.notes) == 20

    async def test_a_log_message_reaches_the_only_exchange(self, open_connector: OpenConnector) -> None:
        """With one exchange in flight, an unmarked notification is about that one."""
        async with open_connector() as connector, talking(connector) as talk:
            sink = Recorder()
            await talk.answer("log", sink, text="hello")
            assert sink.notes == [("notifications/message", {"level": "info", "data": "hello"})]

    async def test_an_ask_is_answered_mid_call(self, open_connector: OpenConnector) -> None:
        """The backend's question reaches the sink; the answer goes back through `tell`; the call goes on."""
        async with open_connector() as connector, talking(connector) as talk, asyncio.TaskGroup() as tasks:
            sink = Recorder()
            waiting = tasks.create_task(talk.answer("ask", sink, message="name?"))
            await sink.until(lambda it: len(it.asks) == 1)
            request_id, method, params = sink.asks[0]
            assert (method, params["message"]) == ("elicitation/create", "name?")
            await talk.link.tell(jsonrpc.result(request_id, b'{"action":\n"accept"}'))
            assert await soon(waiting) == {"answer": {"action": "accept"}}

    async def test_what_concerns_no_request_reaches_the_link_sink(self, open_connector: OpenConnector) -> None:
        """A change notice goes to the link's own sink."""
        async with open_connector() as connector, talking(connector) as talk, asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(talk.link.listen())
            await talk.answer("announce")
            await talk.sink.until(lambda it: len(it.notes) == 1)
            assert talk.sink.notes[0][0] == "notifications/tools/list_changed"
            listening.cancel()

    async def test_a_notification_is_told(self, open_connector: OpenConnector) -> None:
        """What is told reaches the backend."""
        async with open_connector() as connector, talking(connector) as talk:
            await soon(talk.link.tell(jsonrpc.notification("notifications/roots/list_changed", b"{}")))
            await talk.seen(lambda it: "notifications/roots/list_changed" in it["told"])

    async def test_cancelling_tells_the_backend(self, open_connector: OpenConnector) -> None:
        """The backend learns which exchange is no longer wanted; the link serves on, a late answer harms nobody."""
        async with open_connector() as connector, talking(connector) as talk, asyncio.TaskGroup() as tasks:
            sink = Recorder()
            request = talk.request("park", key="k")
            waiting = tasks.create_task(talk.link.exchange(request, sink))
            await sink.until(lambda it: len(it.notes) == 1)
            waiting.cancel()
            await talk.seen(lambda it: it["cancelled"] == [request.id])
            await talk.answer("release", key="k")
            assert await talk.answer("echo", text="alive") == {"text": "alive"}

    async def test_a_closed_link_refuses(self, open_connector: OpenConnector) -> None:
        """After closing, which may be repeated, an exchange is refused as surely not carried out."""
        async with open_connector() as connector, talking(connector) as talk:
            await soon(talk.link.aclose())
            await soon(talk.link.aclose())
            assert not talk.link.is_open
            with pytest.raises(BackendUnavailable):
                await talk.answer("echo", text="x")
            with pytest.raises(BackendUnavailable):
                await talk.link.tell(jsonrpc.notification("notifications/x", b"{}"))

    async def test_a_death_half_way_is_no_safe_failure(self, open_connector: OpenConnector) -> None:
        """A backend that dies fails what was on its wire as possibly carried out; a new link serves again."""
        async with open_connector() as connector:
            async with talking(connector) as talk:
                with pytest.raises(BackendError) as caught:
                    await talk.answer("die")
                assert isinstance(caught.value, BackendGarbage)
                assert not caught.value.is_retriable
            link = await connect_again(connector)
            assert await Talk(link, Recorder()).answer("echo", text="again") == {"text": "again"}
            await soon(link.aclose())

    async def test_links_of_one_connector_keep_apart(self, open_connector: OpenConnector) -> None:
        """Closing one link leaves the other open; closing the connector closes every link."""
        async with open_connector() as connector:
            async with talking(connector) as first:
                second = Talk(await connector.connect(Recorder()), Recorder())
                assert await first.answer("echo", text="1") == {"text": "1"}
            assert await second.answer("echo", text="2") == {"text": "2"}
            await soon(connector.aclose())
            with pytest.raises(BackendUnavailable):
                await second.answer("echo", text="3")
            with pytest.raises(BackendUnavailable):
                await connector.connect(Recorder())
            await soon(connector.aclose())
