"""Backends of the 2024-11-05 transport: the link contract, and servers that are broken or mean harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import pytest

from backend.raw_server import Heard, Peer, RawServer, chunk, response, serving, soon, stream_head, until
from contracts.link_backend import LinkBackend
from contracts.links import LinkContract, OpenConnector, Recorder, Talk, talking
from gatewright.backend.base import Refused, SessionLost
from gatewright.backend.pipe import WireDied
from gatewright.backend.settings import BackendSettings
from gatewright.backend.sse import SseConnector
from gatewright.call import Failure
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable
from gatewright.outbox import Outbox
from gatewright.protocol import jsonrpc
from gatewright.secret import Secret

pytestmark = pytest.mark.anyio
ACCEPTED = response(b"Accepted", "202 Accepted", kind="text/plain")
Json = dict[str, Any]


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


def message(body: Json) -> bytes:
    """A JSON-RPC message as an event in a chunk."""
    return chunk(b"event: message\ndata: " + json.dumps(body).encode() + b"\n\n")


def endpoint(address: bytes) -> bytes:
    """What a stream begins with."""
    return stream_head() + chunk(b"event: endpoint\ndata: " + address + b"\n\n")


class OldServer:
    """An honest server around `LinkBackend`; each part can be replaced by one that is not."""

    def __init__(self) -> None:
        self.streams: dict[str, Peer] = {}
        self.backends: dict[str, LinkBackend] = {}
        self.on_get: Callable[[Peer], Awaitable[None]] = self.stream
        self.on_post: Callable[[Peer, Heard], Awaitable[None]] = self.accept
        self._ids = count(1)

    async def talk(self, peer: Peer) -> None:
        """Serve one connection."""
        while True:
            heard = await peer.hear()
            await (self.on_get(peer) if heard.method == "GET" else self.on_post(peer, heard))

    async def stream(self, peer: Peer) -> None:
        """A session, as long as its stream."""
        session = str(next(self._ids))
        peer.say(endpoint(f"/messages?session_id={session}".encode()))
        self.streams[session] = peer
        self.backends[session] = LinkBackend(lambda body, _: peer.say(message(body)))
        try:
            await peer.until_closed()
        finally:
            del self.streams[session], self.backends[session]

    async def accept(self, peer: Peer, heard: Heard) -> None:
        """Take a message."""
        session = heard.target.partition("=")[2]
        if session not in self.backends:
            peer.say(response(b"", "404 Not Found"))
            return
        peer.say(ACCEPTED)
        try:
            self.backends[session].take(heard.body)
        except SystemError:
            self.streams[session].reset()

    @property
    def only(self) -> Peer:
        """The one stream there is."""
        (found,) = self.streams.values()
        return found


@asynccontextmanager
async def old(
    server: OldServer | None = None, **changes: Any
) -> AsyncIterator[tuple[SseConnector, RawServer, OldServer]]:
    """A connector, its backend's socket and its backend."""
    server = server or OldServer()
    async with serving(server.talk) as raw, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        settings = BackendSettings(url=f"http://127.0.0.1:{raw.port}/sse?k=v", type="sse", **changes)
        connector = SseConnector("old", settings, tasks, Outbox(asyncio.get_running_loop().call_soon))
        try:
            yield connector, raw, server
        finally:
            await connector.aclose()


@asynccontextmanager
async def connected() -> AsyncIterator[SseConnector]:
    """Just the connector."""
    async with old() as (connector, _, _):
        yield connector


class TestSseLink(LinkContract):
    """The contract, with an old server behind it."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        return lambda: connected()


async def refused(server: OldServer, *, keeps: bool = False, **changes: Any) -> tuple[BaseException, RawServer]:
    """What connecting to it raises. Only the connection of a whole answer may be kept."""
    async with old(server, **changes) as (connector, raw, _):
        error = await failure(connector.connect(Recorder()))
        await until(lambda: keeps or not raw.open_peers)
        return error, raw


async def failure(waiting: Awaitable[object]) -> BaseException:
    """What it raises."""
    with pytest.raises(Exception) as caught:
        await soon(waiting)
    return caught.value


# --- opening


async def test_the_configured_headers_go_with_everything() -> None:
    """The stream and each message carry them; the address of the stream keeps its query."""
    secret = {"authorization": Secret("Bearer t")}
    async with old(headers=secret) as (connector, raw, _), talking(connector) as talk:
        await talk.answer("echo", text="x")
        get, post = raw.heard
        assert (get.method, get.target, get.headers["accept"]) == ("GET", "/sse?k=v", "text/event-stream")
        assert (post.method, post.target) == ("POST", "/messages?session_id=1")
        assert post.headers["content-type"] == "application/json"
        assert get.headers["authorization"] == post.headers["authorization"] == "Bearer t"
        assert connector.is_shared_wire
        assert get.headers["host"] == post.headers["host"] == f"127.0.0.1:{raw.port}"


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/m", "//evil.example/m", "https://127.0.0.1/m", "/a b", ""])
async def test_an_endpoint_elsewhere_gets_nothing(address: str) -> None:
    """The link is refused and its stream closed: not a byte goes to the address the backend chose."""
    server = OldServer()

    async def astray(peer: Peer) -> None:
        peer.say(endpoint(address.encode()))
        await peer.until_closed()

    server.on_get = astray
    error, raw = await refused(server)
    assert isinstance(error, BackendGarbage)
    assert "evil" not in str(error)
    assert [heard.method for heard in raw.heard] == ["GET"]


async def test_a_stream_that_names_no_endpoint_is_given_up() -> None:
    """The wait is bounded, comments do not prolong it, and nothing is left open."""
    server = OldServer()

    async def silent(peer: Peer) -> None:
        peer.say(stream_head(), chunk(b": hello\n\n"))
        await peer.until_closed()

    server.on_get = silent
    error, _ = await refused(server, connect_timeout_s=0.2)
    assert isinstance(error, BackendUnavailable)
    assert "did not name its endpoint within 0.2 s" in str(error)


@pytest.mark.parametrize(
    "first",
    [chunk(b"event: message\ndata: {}\n\n"), chunk(b"data: /messages\n\n"), chunk(b"")],
    ids=["message", "unnamed", "end"],
)
async def test_a_stream_that_begins_otherwise_is_refused(first: bytes) -> None:
    """The first event is `endpoint`, or this is no server of the transport."""
    server = OldServer()

    async def wrong(peer: Peer) -> None:
        peer.say(stream_head(), first)
        await peer.until_closed()

    server.on_get = wrong
    error, _ = await refused(server, keeps=True)
    assert isinstance(error, BackendGarbage)


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (response(b"{}"), BackendGarbage, None),
        (response(b"", "307 Temporary Redirect", "location: http://evil.example/sse"), Refused, 307),
        (response(b"", "401 Unauthorized"), Refused, 401),
        (response(b"", "405 Method Not Allowed"), Refused, 405),
        (b"HTTP/1.1 503 Busy\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n", Refused, 503),
        (b"SSH-2.0-x\r\n", BackendGarbage, None),
    ],
)
async def test_what_is_no_stream_is_refused(answer: bytes, kind: type[Exception], status: int | None) -> None:
    """Redirects among it: they are not followed."""
    server = OldServer()

    async def other(peer: Peer) -> None:
        peer.say(answer)
        await peer.until_closed()

    server.on_get = other
    error, raw = await refused(server, keeps=True)
    assert type(error) is kind
    assert getattr(error, "status", None) == status
    assert len(raw.heard) == 1


async def test_an_endless_endpoint_is_bounded() -> None:
    """An event larger than `max_response_bytes` ends the attempt."""
    server = OldServer()

    async def flood(peer: Peer) -> None:
        peer.say(stream_head(), chunk(b"event: endpoint\ndata: /" + b"x" * 4096))
        await peer.until_closed()

    server.on_get = flood
    error, _ = await refused(server, max_response_bytes=1024)
    assert isinstance(error, BackendGarbage)


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    """Whoever waits for the endpoint may give up: the stream closes."""
    server = OldServer()

    async def silent(peer: Peer) -> None:
        peer.say(stream_head())
        await peer.until_closed()

    server.on_get = silent
    async with old(server) as (connector, raw, _), asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(connector.connect(Recorder()))
        await until(lambda: bool(raw.heard))
        connecting.cancel()
        await until(lambda: not raw.open_peers)


async def test_links_are_bounded() -> None:
    """`max_connections` streams at once; one that closes makes room."""
    async with old(max_connections=2) as (connector, _, _):
        async with talking(connector), talking(connector):
            with pytest.raises(BackendUnavailable, match="max_connections"):
                await connector.connect(Recorder())
        async with talking(connector) as talk:
            assert await talk.answer("echo", text="again") == {"text": "again"}


# --- the stream


async def test_what_is_no_message_is_skipped() -> None:
    """Comments, pings, empty events, a second endpoint and garbage change nothing."""
    async with old() as (connector, raw, server), talking(connector) as talk:
        server.only.say(chunk(b": ping\n\nevent: ping\ndata: {}\n\ndata:\n\nevent: endpoint\ndata: /other\n\n"))
        server.only.say(chunk(b"data: {nonsense\n\n"))
        assert await talk.answer("echo", text="x") == {"text": "x"}
        assert raw.heard[-1].target == "/messages?session_id=1"


async def test_events_need_no_name() -> None:
    """An event without a name is a message, as the standard has it; any chunking and CRLF will do."""
    server = OldServer()

    async def plain(peer: Peer, heard: Heard) -> None:
        peer.say(ACCEPTED)
        answer = json.dumps({"jsonrpc": "2.0", "id": heard.message["id"], "result": {"text": "x"}})
        for byte in f"data: {answer}\r\n\r\n".encode():
            server.only.say(chunk(bytes([byte])))

    server.on_post = plain
    async with old(server) as (connector, _, _), talking(connector) as talk:
        assert await talk.answer("echo", text="x") == {"text": "x"}


async def test_a_stream_cut_mid_call_fails_it_clearly() -> None:
    """What was on the wire may have run: a clear error, not a hang; the link is dead and the next one serves."""
    async with old() as (connector, _, server):
        async with talking(connector) as talk, asyncio.TaskGroup() as tasks:
            sink = Recorder()
            parked = tasks.create_task(failure(talk.link.exchange(talk.request("park", key="k"), sink)))
            await sink.until(lambda it: len(it.notes) == 1)
            server.only.reset()
            error = await parked
            assert isinstance(error, WireDied)
            assert "closed the connection" in str(error)
            assert not talk.link.is_open
        async with talking(connector) as talk:
            assert await talk.answer("echo", text="again") == {"text": "again"}


async def test_a_stream_that_ends_between_calls_closes_the_link() -> None:
    """The next exchange is refused as surely not carried out."""
    async with old() as (connector, _, server), talking(connector) as talk:
        await talk.answer("echo", text="x")
        server.only.say(chunk(b""))
        await until(lambda: not talk.link.is_open)
        with pytest.raises(BackendUnavailable, match="ended its event stream"):
            await talk.answer("echo", text="x")


async def test_a_huge_event_ends_the_link() -> None:
    """Beyond `max_response_bytes` nothing is kept: the exchange fails, the stream closes."""
    server = OldServer()

    async def flood(peer: Peer, heard: Heard) -> None:
        peer.say(ACCEPTED)
        server.only.say(*[chunk(b"data: " + b"x" * 1000)] + [chunk(b"x" * 1000)] * 30)

    server.on_post = flood
    async with old(server, max_response_bytes=20_000) as (connector, _raw, _), talking(connector) as talk:
        with pytest.raises(WireDied, match="more than 20000 bytes"):
            await talk.answer("echo", text="x")
        await until(lambda: not server.streams)


async def test_a_connection_that_closes_with_the_link_ends_the_session() -> None:
    """The backend sees the end of the stream: there is no other way to tell it."""
    async with old() as (connector, _raw, server):
        async with talking(connector) as talk:
            await talk.answer("echo", text="x")
        await until(lambda: not server.streams)
        assert connector.posts.connections[0] <= 1


# --- posting


async def test_messages_arrive_in_the_order_they_were_written() -> None:
    """The next one leaves when the one before it was accepted, however slowly."""
    server = OldServer()
    gate = asyncio.Event()

    async def slowly(peer: Peer, heard: Heard) -> None:
        await gate.wait()
        await server.accept(peer, heard)

    server.on_post = slowly
    async with old(server) as (connector, raw, _), talking(connector) as talk:
        for number in range(5):
            await talk.link.tell(jsonrpc.notification(f"notifications/{number}", b"{}"))
        await until(lambda: len(raw.heard) == 2)
        gate.set()
        await talk.seen(lambda it: it["told"] == [f"notifications/{number}" for number in range(5)])


async def test_a_post_answered_after_the_work_blocks_no_answer() -> None:
    """A server that holds the POST of a call until the call is done still gets the answer to its own question."""
    server = OldServer()
    asked = asyncio.Event()

    async def holding(peer: Peer, heard: Heard) -> None:
        if "method" not in heard.message:
            asked.set()
        elif heard.message["method"] == "test/ask":
            server.backends["1"].take(heard.body)
            await asked.wait()
            peer.say(ACCEPTED)
            return
        await server.accept(peer, heard)

    server.on_post = holding
    async with old(server) as (connector, _, _), talking(connector) as talk, asyncio.TaskGroup() as tasks:
        sink = Recorder()
        waiting = tasks.create_task(talk.answer("ask", sink, message="name?"))
        await sink.until(lambda it: len(it.asks) == 1)
        await talk.link.tell(jsonrpc.result(sink.asks[0][0], b'{"action":"accept"}'))
        assert await soon(waiting) == {"answer": {"action": "accept"}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("413 Content Too Large", Refused),
        ("400 Bad Request", Refused),
        ("302 Found", Refused),
        ("403 Forbidden", Refused),
        ("503 Busy", Refused),
        ("500 Oops", BackendGarbage),
        ("504 Gateway Timeout", BackendGarbage),
    ],
)
async def test_a_refused_message_fails_alone(status: str, kind: type[BackendError]) -> None:
    """Its exchange is told the status, and whether it may have run; neighbours and later calls do not notice."""
    server = OldServer()

    async def picky(peer: Peer, heard: Heard) -> None:
        if heard.message.get("method") == "test/large":
            peer.say(response(b"", status, "location: http://evil.example/"))
        else:
            await server.accept(peer, heard)

    server.on_post = picky
    async with old(server) as (connector, _, _), talking(connector) as talk, asyncio.TaskGroup() as tasks:
        sink = Recorder()
        parked = tasks.create_task(talk.answer("park", sink, key="k"))
        await sink.until(lambda it: len(it.notes) == 1)
        error = await failure(talk.answer("large"))
        assert type(error) is kind
        assert status[:3] in str(error)
        await talk.answer("release", key="k")
        assert await soon(parked) == {"key": "k"}


async def test_a_forgotten_session_is_lost_before_it_ran() -> None:
    """A 404 for a message means another session has to be opened: nothing ran, and this link is over."""
    async with old() as (connector, _, server), talking(connector) as talk:
        await talk.answer("echo", text="x")
        server.backends.pop("1")
        server.backends["gone"] = LinkBackend(lambda body, _: None)
        server.backends["1"] = server.backends.pop("gone")

        async def forgotten(peer: Peer, heard: Heard) -> None:
            peer.say(response(b"", "404 Not Found"))

        server.on_post = forgotten
        with pytest.raises(SessionLost):
            await talk.answer("echo", text="x")
        assert not talk.link.is_open


async def test_an_endpoint_that_does_not_exist_is_no_lost_session() -> None:
    """A 404 for the very first message: the address is wrong, and trying again would not help."""
    server = OldServer()

    async def missing(peer: Peer, heard: Heard) -> None:
        peer.say(response(b"", "404 Not Found"))

    server.on_post = missing
    async with old(server) as (connector, _, _), talking(connector) as talk:
        with pytest.raises(Refused) as caught:
            await talk.answer("echo", text="x")
        assert caught.value.status == 404


async def test_a_message_that_cannot_be_sent_fails_its_exchange() -> None:
    """The connection closes in the middle of a POST: it may have run."""
    server = OldServer()

    async def cut(peer: Peer, heard: Heard) -> None:
        peer.reset()

    server.on_post = cut
    async with old(server) as (connector, _, _), talking(connector) as talk:
        with pytest.raises(BackendGarbage, match="without an answer"):
            await talk.answer("echo", text="x")
        assert talk.link.is_open


async def test_an_answer_before_a_failed_post_counts() -> None:
    """Whatever becomes of the POST then: the answer was there."""
    server = OldServer()

    async def late(peer: Peer, heard: Heard) -> None:
        server.backends["1"].take(heard.body)
        await asyncio.sleep(0)
        peer.say(response(b"", "500 Oops"))

    server.on_post = late
    async with old(server) as (connector, _, _), talking(connector) as talk:
        assert await talk.answer("echo", text="x") == {"text": "x"}
        assert await talk.answer("echo", text="y") == {"text": "y"}


async def test_no_backend_can_pose_as_the_wire() -> None:
    """Its own error of the same code is an error like any other."""
    server = OldServer()

    async def posing(peer: Peer, heard: Heard) -> None:
        peer.say(ACCEPTED)
        error = {"code": -31002, "message": "x"}
        server.only.say(message({"jsonrpc": "2.0", "id": heard.message["id"], "error": error}))

    server.on_post = posing
    async with old(server) as (connector, _, _), talking(connector) as talk:
        outcome = await soon(talk.link.exchange(talk.request("echo", text="x"), Recorder()))
        assert outcome == Failure(-31002, "x")


async def test_who_writes_too_much_waits() -> None:
    """A backend that accepts nothing holds up its own callers; closing the link lets go of them."""
    server = OldServer()
    gate = asyncio.Event()

    async def stuck(peer: Peer, heard: Heard) -> None:
        await gate.wait()

    server.on_post = stuck
    async with old(server) as (connector, _raw, _), talking(connector) as talk:
        told = 0

        async def tell() -> None:
            nonlocal told
            while True:
                await talk.link.tell(jsonrpc.notification("notifications/x", b"{}"))
                told += 1

        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            telling = tasks.create_task(tell())
            await until(lambda: told >= 64)
            assert told <= 66
            telling.cancel()


async def test_many_links_at_once_keep_apart() -> None:
    """Twenty sessions, each with its own stream and answers, all with the same request ids."""
    async with old() as (connector, _, _), AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(connector)) for _ in range(20)]

        async def one(number: int, talk: Talk) -> None:
            for step in range(10):
                text = f"{number}-{step}"
                assert await talk.answer("echo", text=text) == {"text": text}

        await soon(asyncio.gather(*(one(number, talk) for number, talk in enumerate(talks))))


async def test_a_post_that_is_never_answered_is_given_up() -> None:
    """After `max_total_s` its exchange fails; messages that follow were not held up by it for long."""
    server = OldServer()

    async def silent(peer: Peer, heard: Heard) -> None:
        if heard.message["method"] == "test/large":
            await peer.until_closed()
        else:
            await server.accept(peer, heard)

    server.on_post = silent
    async with old(server, max_total_s=0.3) as (connector, _, _), talking(connector) as talk:
        with pytest.raises(BackendGarbage, match="did not accept"):
            await talk.answer("large")
        assert await talk.answer("echo", text="x") == {"text": "x"}


async def test_posts_in_flight_are_bounded() -> None:
    """No more than `max_connections` at once, however many are not answered; what waits goes out when one is."""
    server = OldServer()
    gate = asyncio.Event()

    async def stuck(peer: Peer, heard: Heard) -> None:
        if "method" in heard.message and "large" not in heard.message["method"]:
            await gate.wait()
        await server.accept(peer, heard)

    server.on_post = stuck
    async with old(server, max_connections=1) as (connector, raw, _), talking(connector) as talk:
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(talk.answer("echo", text=str(number))) for number in range(3)]
            await until(lambda: len(raw.heard) == 2)
            await asyncio.wait(answers, timeout=1.2)  # longer than one message waits for the one before it
            assert len(raw.heard) == 2
            gate.set()
        assert [one.result()["text"] for one in answers] == ["0", "1", "2"]


async def test_a_notification_that_is_refused_harms_nobody() -> None:
    """It is logged: there is nobody to tell."""
    server = OldServer()

    async def picky(peer: Peer, heard: Heard) -> None:
        if "id" not in heard.message:
            peer.say(response(b"", "400 Bad Request"))
        else:
            await server.accept(peer, heard)

    server.on_post = picky
    async with old(server) as (connector, raw, _), talking(connector) as talk:
        await talk.link.tell(jsonrpc.notification("notifications/x", b"{}"))
        await until(lambda: len(raw.heard) == 2)
        assert await talk.answer("echo", text="x") == {"text": "x"}


async def test_a_connector_that_closes_meanwhile_opens_no_link() -> None:
    """The stream that was being opened closes again."""
    server = OldServer()
    gate = asyncio.Event()

    async def late(peer: Peer) -> None:
        await gate.wait()
        await server.stream(peer)

    server.on_get = late
    async with old(server) as (connector, raw, _), asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(failure(connector.connect(Recorder())))
        await until(lambda: bool(raw.heard))
        closing = tasks.create_task(connector.aclose())
        gate.set()
        await soon(closing)
        assert isinstance(await opening, (BackendUnavailable, BackendGarbage))
        await until(lambda: not raw.open_peers)


async def test_an_address_is_needed() -> None:
    """Without one it is a bug of whoever builds it."""
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ValueError, match="has no url"):
            SseConnector("old", BackendSettings(command="x"), tasks, Outbox(asyncio.get_running_loop().call_soon))
