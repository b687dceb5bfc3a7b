"""The HTTP link: the contract in both eras, what a status means, sessions, cancels, streams that break off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.http_host import ACCEPTED, HttpHost
from backend.raw_server import Peer, RawServer, Talk, chunk, event, response, serving, soon, stream_head, until
from contracts.links import LinkContract, OpenConnector, Recorder
from gatewright.backend.base import Connector, Link, Refused, Request, Sink
from gatewright.backend.http import HttpConnector
from gatewright.backend.settings import BackendSettings
from gatewright.call import Failure, Result
from gatewright.errors import BackendError, BackendGarbage
from gatewright.outbox import Outbox
from gatewright.protocol import jsonrpc
from gatewright.secret import Secret

pytestmark = pytest.mark.anyio
AGREED = b"mcp-protocol-version: 2025-11-25\r\n"


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


class Agreeing:
    """A connector whose links have a handshake behind them."""

    is_shared_wire = False

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def connect(self, sink: Sink) -> Link:
        link = await self._connector.connect(sink)
        link.agree(AGREED)
        return link

    async def aclose(self) -> None:
        await self._connector.aclose()


@asynccontextmanager
async def connected(server: RawServer, **changes: Any) -> AsyncIterator[HttpConnector]:
    """A connector whose work has ended at the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        connector = HttpConnector(
            "b", BackendSettings(url=server.url, **changes), tasks, Outbox(asyncio.get_running_loop().call_soon)
        )
        try:
            yield connector
        finally:
            await soon(connector.aclose())


class TestModernLink(LinkContract):
    """The contract where a closed stream is the cancel."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Connector]:
            async with serving(HttpHost(is_modern=True).talk) as server, connected(server) as connector:
                yield connector

        return opened


class TestHandshakeLink(LinkContract):
    """The contract where `notifications/cancelled` is."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Connector]:
            async with serving(HttpHost(is_modern=False).talk) as server, connected(server) as connector:
                yield Agreeing(connector)

        return opened


@asynccontextmanager
async def linked(
    talk: Talk, *, sink: Recorder | None = None, is_handshake: bool = False, **changes: Any
) -> AsyncIterator[tuple[RawServer, Link]]:
    """A link to a server that says what it is told to."""
    async with serving(talk) as server, connected(server, **changes) as connector:
        link = await connector.connect(sink or Recorder())
        if is_handshake:
            link.agree(AGREED)
        yield server, link
        await soon(link.aclose())


def request(request_id: int = 7, method: str = "tools/call", **more: Any) -> Request:
    """A request."""
    return Request(request_id, method, {}, **more)


def result(request_id: int | str = 7, **members: Any) -> dict[str, Any]:
    """A success response."""
    return {"jsonrpc": "2.0", "id": request_id, "result": members}


def error(request_id: int | str | None, code: int = -32000, message: str = "no") -> bytes:
    """An error response."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}).encode()


def note(number: int) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": number}}


def always(*said: bytes, is_closing: bool = False) -> Talk:
    """Answers every request with these bytes."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.hear()
            peer.say(*said)
            if is_closing:
                await peer.writer.drain()
                return

    return talk


async def outcome(awaiting: Awaitable[Any]) -> Any:
    """What it returns or raises."""
    try:
        return await soon(awaiting)
    except BackendError as raised:
        return raised


def members(answer: Any) -> dict[str, Any]:
    """The members of a result."""
    assert isinstance(answer, Result), answer
    return dict(json.loads(bytes(answer.value)))


# --- requests


async def test_a_request_says_who_asks_for_what() -> None:
    """Method, target, both media types, no compression, the backend's own headers and the request's, nothing twice."""
    headers = {"Authorization": Secret("Bearer 100%b")}
    async with linked(always(response(json.dumps(result()).encode())), headers=headers) as (server, link):
        await soon(link.exchange(request(headers=b"mcp-method: tools/call\r\n"), Recorder()))
        heard = server.heard[0]
        assert (heard.method, heard.target) == ("POST", "/mcp")
        assert heard.headers["host"] == f"127.0.0.1:{server.port}"
        assert heard.headers["accept"] == "application/json, text/event-stream"
        assert heard.headers["accept-encoding"] == "identity"
        assert heard.headers["authorization"] == "Bearer 100%b"
        assert heard.headers["mcp-method"] == "tools/call"
        assert heard.message == {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {}}


# --- what an answer means


@pytest.mark.parametrize(
    ("status", "body", "kind", "is_retriable"),
    [
        ("400 Bad Request", b"", Refused, True),
        ("400 Bad Request", error(7, -32602), Refused, True),
        ("401 Unauthorized", b"", Refused, True),
        ("403 Forbidden", error(None), Refused, True),
        ("404 Not Found", b"<html>", Refused, True),
        ("405 Method Not Allowed", b"", Refused, True),
        ("406 Not Acceptable", error("server-error"), Refused, True),
        ("413 Content Too Large", b"", Refused, True),
        ("429 Too Many Requests", b"", Refused, True),
        ("503 Service Unavailable", b"", Refused, True),
        ("302 Found", b"", Refused, True),
        ("307 Temporary Redirect", b"", Refused, True),
        ("500 Internal Server Error", b"", BackendGarbage, False),
        ("500 Internal Server Error", error("server-error"), BackendGarbage, False),
        ("502 Bad Gateway", b"<html>", BackendGarbage, False),
        ("504 Gateway Timeout", b"", BackendGarbage, False),
        ("202 Accepted", b"", BackendGarbage, False),
        ("204 No Content", b"", BackendGarbage, False),
    ],
)
async def test_a_status_says_whether_anything_ran(
    status: str, body: bytes, kind: type[BackendError], is_retriable: bool
) -> None:
    """What surely did not run may be sent again; what the status leaves open may not."""
    whole = response(body, status, "location: http://127.0.0.1:1/")
    if status.startswith("204"):
        whole = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with linked(always(whole)) as (server, link):
        got = await outcome(link.exchange(request(), Recorder()))
        assert type(got) is kind
        assert got.is_retriable is is_retriable
        assert len(server.heard) == 1
        assert link.is_open


async def test_a_refusal_carries_the_error_in_it() -> None:
    """If it belongs to the request, or to none."""
    for body, code in ((error(7, -32020), -32020), (error(None, -32000), -32000), (error(8), None), (b"[]", None)):
        async with linked(always(response(body, "400 Bad Request"))) as (_, link):
            got = await outcome(link.exchange(request(), Recorder()))
            assert isinstance(got, Refused)
            assert got.status == 400
            assert (None if got.failure is None else got.failure.code) == code


async def test_the_backends_own_error_counts_under_any_status() -> None:
    """With the request's id it is the answer, whatever the server thinks of HTTP."""
    async with linked(always(response(error(7, -32603, "broke"), "500 Internal Server Error"))) as (_, link):
        assert await outcome(link.exchange(request(), Recorder())) == Failure(-32603, "broke", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Please log in</html>",
        b"null",
        b"[]",
        b'[{"jsonrpc":"2.0","id":8,"result":{}}]',
        b"{}",
        b'{"jsonrpc":"2.0","id":8,"result":{}}',
        b'{"jsonrpc":"2.0","id":"7","result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":7}',
        b'{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"1.0","id":7,"result":{}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":7,"result":{}',
    ],
)
async def test_what_is_not_the_answer_is_garbage(body: bytes) -> None:
    """Broken, somebody else's, or both at once: it may have run."""
    async with linked(always(response(body))) as (_, link):
        assert type(await outcome(link.exchange(request(), Recorder()))) is BackendGarbage
        assert link.is_open


async def test_an_array_is_read_as_its_messages() -> None:
    """Servers of 2025-03-26 may answer so, in JSON and on a stream."""
    batch = json.dumps([note(1), result(9), note(2), result(ok=True)]).encode()
    for said in (response(batch), stream_head() + chunk(b"data: " + batch + b"\n\n") + chunk(b"")):
        async with linked(always(said)) as (_, link):
            sink = Recorder()
            assert members(await soon(link.exchange(request(), sink))) == {"ok": True}
            assert [params["n"] for _, params in sink.notes] in ([1, 2], [1])


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "Text/Event-Stream", "text/event-stream;x=y"])
async def test_an_event_stream_is_one_however_it_is_spelt(kind: str) -> None:
    """Media types ignore case and may have parameters."""
    body = b"data: " + json.dumps(result(ok=True)).encode() + b"\r\n\r\n"
    async with linked(always(response(body, kind=kind))) as (_, link):
        assert members(await soon(link.exchange(request(), Recorder()))) == {"ok": True}


async def test_on_a_stream_only_the_answer_counts() -> None:
    """Comments, other events, answers to nobody and empty events are passed over; the rest of the stream is dropped."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(b": hello\n\n"), chunk(b"event: ping\ndata: {}\n\n"), event(None, "1"))
        peer.say(event(result(8, no=1)), event(result("7", no=2)), event(note(1)), event(result(ok=True)))
        peer.say(event(result(no=3)), event(note(2)), chunk(b""))
        await peer.hear()

    async with linked(talk) as (server, link):
        sink = Recorder()
        assert members(await soon(link.exchange(request(), sink))) == {"ok": True}
        assert [params["n"] for _, params in sink.notes] == [1]
        assert len(server.peers) == 1


@pytest.mark.parametrize("said", [b"data: {\n\n", b"data: " + b"x" * 5000 + b"\n\n", b"data: [1]\n\n", b"data: [\n\n"])
async def test_garbage_on_a_stream_ends_it(said: bytes) -> None:
    """Also an event that is too large; its connection is closed."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(said))
        await peer.until_closed()

    async with linked(talk, max_response_bytes=4096) as (server, link):
        assert type(await outcome(link.exchange(request(), Recorder()))) is BackendGarbage
        await soon(server.peers[0].closed.wait())


async def test_a_refusal_as_an_endless_stream_is_not_awaited() -> None:
    """Its connection is closed at once."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head().replace(b"200 OK", b"429 Too Many"), chunk(b": wait\n\n"))
        await peer.until_closed()

    async with linked(talk) as (server, link):
        assert isinstance(await outcome(link.exchange(request(), Recorder())), Refused)
        await soon(server.peers[0].closed.wait())


# --- cancelling


@pytest.mark.parametrize("is_stream", [False, True])
async def test_cancelling_a_modern_call_closes_its_connection_and_says_nothing(is_stream: bool) -> None:
    """The close is the cancel (2026-07-28, streamable-http)."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        if is_stream:
            peer.say(stream_head(), event(note(1)))
        await peer.until_closed()

    async with linked(talk) as (server, link), asyncio.TaskGroup() as tasks:
        sink = Recorder()
        task = tasks.create_task(link.exchange(request(), sink))
        await until(lambda: len(server.heard) == 1 and len(sink.notes) == int(is_stream))
        task.cancel()
        await soon(server.peers[0].closed.wait())
        assert len(server.heard) == 1


async def parking(peer: Peer) -> None:
    """Accepts what is told, and answers no request."""
    while True:
        heard = await peer.hear()
        if heard.method == "POST" and "id" not in heard.message:
            peer.say(ACCEPTED)


async def test_cancelling_a_handshake_call_tells_the_backend_once() -> None:
    """With the request's id, in the session; the connection is closed besides."""
    async with linked(parking, is_handshake=True) as (server, link), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.exchange(request(), Recorder()))
        await until(lambda: len(server.heard) == 1)
        task.cancel()
        await soon(server.peers[0].closed.wait())
        await until(lambda: len(server.heard) == 2)
        told = server.heard[1]
        assert told.message["method"] == "notifications/cancelled"
        assert told.message["params"]["requestId"] == 7
        assert told.headers["mcp-protocol-version"] == "2025-11-25"


async def test_cancelling_what_must_not_be_cancelled_says_nothing() -> None:
    """`initialize`; and a request that waited for a connection, of which the backend never heard."""
    async with linked(parking, is_handshake=True, max_connections=1) as (server, link), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(link.exchange(request(1, "initialize", is_cancellable=False), Recorder()))
        await until(lambda: len(server.heard) == 1)
        waiting = tasks.create_task(link.exchange(request(2), Recorder()))
        await asyncio.sleep(0)
        waiting.cancel()
        opening.cancel()
        await asyncio.wait([waiting, opening])
        await soon(link.tell(jsonrpc.notification("notifications/last", b"{}")))
        assert [heard.message["method"] for heard in server.heard] == ["initialize", "notifications/last"]


async def test_an_answer_to_an_ask_needs_no_free_connection() -> None:
    """A call that holds the only connection and waits for an answer gets it."""

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        if "method" not in heard.message:
            peer.say(ACCEPTED)
            answered.set()
            await peer.until_closed()
        ask = {"jsonrpc": "2.0", "id": 1, "method": "roots/list", "params": {}}
        peer.say(stream_head(), event(ask))
        await answered.wait()
        peer.say(event(result(ok=True)), chunk(b""))
        await peer.until_closed()

    answered = asyncio.Event()
    async with linked(talk, max_connections=1) as (_, link), asyncio.TaskGroup() as tasks:
        sink = Recorder()
        task = tasks.create_task(link.exchange(request(), sink))
        await sink.until(lambda it: len(it.asks) == 1)
        await soon(link.tell(jsonrpc.result(1, b"{}")))
        assert members(await soon(task)) == {"ok": True}


def asking(go: asyncio.Event) -> Talk:
    """Asks what a call is named after, and answers the call once it may."""

    async def talk(peer: Peer) -> None:
        while True:
            message = (await peer.hear()).message
            if "id" not in message:
                peer.say(ACCEPTED)
            elif message["method"] == "plain":
                peer.say(response(json.dumps(result(message["id"], ok=True)).encode()))
            else:
                peer.say(stream_head(), event({**message, "params": {}}))
                await go.wait()
                peer.say(event(result(message["id"], ok=True)), chunk(b""))

    return talk


async def test_calls_that_wait_for_people_take_no_calls_place() -> None:
    """However many they are, up to their own bound; when they are answered one connection is kept, as ever."""
    go, sink = asyncio.Event(), Recorder()
    async with linked(asking(go), is_handshake=True, max_connections=1) as (server, link), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(link.exchange(request(n, "roots/list"), sink)) for n in range(4)]
        await sink.until(lambda it: len(it.asks) == 4)
        assert members(await soon(link.exchange(request(10, "plain"), Recorder()))) == {"ok": True}
        assert len(server.peers) == 5
        last = tasks.create_task(link.exchange(request(5, "roots/list"), sink))
        await sink.until(lambda it: len(it.asks) == 5)
        behind = tasks.create_task(link.exchange(request(11, "plain"), Recorder()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not behind.done()  # as many wait as may: the last one holds the place of a call that runs
        waiting[0].cancel()
        go.set()
        assert [members(await soon(one)) for one in (*waiting[1:], last, behind)] == [{"ok": True}] * 5
        channel = link._channel
        await until(lambda: channel.connections == (1, 1) and len(channel._open) == 1)
        assert channel._lent == 0


async def test_only_what_is_for_a_person_frees_a_place() -> None:
    """A backend that asks anything else in the middle of a call gets no more connections than it may."""
    go, sink = asyncio.Event(), Recorder()
    async with linked(asking(go), is_handshake=True, max_connections=1) as (server, link), asyncio.TaskGroup() as tasks:
        call = tasks.create_task(link.exchange(request(1, "ping"), sink))
        await sink.until(lambda it: len(it.asks) == 1)
        behind = tasks.create_task(link.exchange(request(2, "plain"), Recorder()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server.peers) == 1
        call.cancel()
        go.set()
        assert members(await soon(behind)) == {"ok": True}


@pytest.mark.parametrize("is_handshake", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_cancelling_at_any_turn_leaves_nothing_and_mixes_nothing_up(is_handshake: bool, is_stream: bool) -> None:
    """Before the connection, before the answer, in the same turn, in the stream: the next call gets its own answer."""

    async def talk(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            if "id" not in heard.message:
                peer.say(ACCEPTED)
                continue
            whole = result(heard.message["id"], mine=heard.message["id"])
            if is_stream:
                peer.say(stream_head(), event(note(1)))
                await asyncio.sleep(0)
                peer.say(event(whole), chunk(b""))
            else:
                peer.say(response(json.dumps(whole).encode()))

    async with (
        linked(talk, is_handshake=is_handshake, max_connections=2) as (server, link),
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(0, 300, 2):
            task = tasks.create_task(link.exchange(request(number), Recorder()))
            for _ in range(number // 10):
                await asyncio.sleep(0)
            task.cancel()
            assert members(await soon(link.exchange(request(number + 1), Recorder())))["mine"] == number + 1
            await asyncio.wait([task])
            assert task.cancelled() or members(task.result())["mine"] == number
        await until(lambda: len(server.open_peers) <= 4)
        if not is_handshake:
            assert all("id" in heard.message for heard in server.heard)
