"""An address of which it is not said what it speaks: found out by asking, as the specification has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backend.raw_server import Heard, Peer, RawServer, chunk, response, serving, soon, stream_head, until
from contracts.links import Recorder
from gatewright.backend.base import Link, Refused, Request
from gatewright.backend.settings import BackendSettings
from gatewright.backend.undecided import UndecidedConnector
from gatewright.call import Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable
from gatewright.outbox import Outbox
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio
REFUSALS = {
    400: response(b"", "400 Bad Request"),
    404: response(b"<h1>Not Found</h1>", "404 Not Found", kind="text/html"),
    405: response(b'{"error":"use GET"}', "405 Method Not Allowed"),
}


class Server:
    """`/sse` is an old server's stream; what a POST there is answered can be chosen."""

    def __init__(self, refusal: bytes) -> None:
        self.refusal: bytes | None = refusal
        self.on_get: Callable[[Peer], Awaitable[None]] = self.stream
        self.streams: list[Peer] = []

    async def talk(self, peer: Peer) -> None:
        """Serve one connection."""
        while True:
            heard = await peer.hear()
            if heard.method == "GET":
                await self.on_get(peer)
            elif heard.target == "/sse" and self.refusal is not None:
                peer.say(self.refusal)
            elif "id" not in heard.message:
                peer.say(response(b"", "202 Accepted"))
            elif heard.target == "/sse":
                peer.say(response(result(heard)))
            else:
                peer.say(response(b"", "202 Accepted"))
                self.streams[-1].say(chunk(b"event: message\ndata: " + result(heard) + b"\n\n"))

    async def stream(self, peer: Peer) -> None:
        """A session."""
        peer.say(stream_head(), chunk(b"event: endpoint\ndata: /messages?session_id=1\n\n"))
        self.streams.append(peer)
        try:
            await peer.until_closed()
        finally:
            self.streams.remove(peer)


def result(heard: Heard) -> bytes:
    """The answer to a request: where it came to."""
    return json.dumps({"jsonrpc": "2.0", "id": heard.message["id"], "result": {"at": heard.target[:9]}}).encode()


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[tuple[UndecidedConnector, RawServer]]:
    """A connector to it."""
    async with serving(server.talk) as raw, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        settings = BackendSettings(url=f"http://127.0.0.1:{raw.port}/sse", connect_timeout_s=0.3)
        connector = UndecidedConnector("one", settings, tasks, Outbox(asyncio.get_running_loop().call_soon))
        try:
            yield connector, raw
        finally:
            await connector.aclose()


async def sent(link: Link, method: str = "initialize", number: int = 1) -> str:
    """Where one request came to."""
    outcome = await soon(link.exchange(Request(number, method, {}), Recorder()))
    assert isinstance(outcome, Result), outcome
    return str(json.loads(bytes(outcome.value))["at"])


async def refused(link: Link, method: str = "initialize") -> BackendError:
    """The error that one request ends in."""
    with pytest.raises(BackendError) as caught:
        await soon(link.exchange(Request(1, method, {}), Recorder()))
    return caught.value


def methods(raw: RawServer) -> list[str]:
    """What was sent, in order."""
    return [heard.method for heard in raw.heard]


async def test_what_speaks_streamable_http_is_spoken_to_so() -> None:
    """Nothing is tried beside it, and later messages go the same way."""
    server = Server(b"")
    server.refusal = None
    async with asking(server) as (connector, raw):
        link = await connector.connect(Recorder())
        assert await sent(link) == "/sse"
        assert await sent(link, "tools/list", 2) == "/sse"
        await link.tell(jsonrpc.notification("notifications/x", b"{}"))
        assert methods(raw) == ["POST", "POST", "POST"]
        assert not connector.is_shared_wire
        await link.aclose()
        assert not link.is_open


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refused_introduction_leads_to_the_stream(status: int) -> None:
    """400, 404 and 405 are followed by a GET; the introduction and all that follows goes to its endpoint."""
    server = Server(REFUSALS[status])
    async with asking(server) as (connector, raw):
        link = await connector.connect(Recorder())
        assert await sent(link) == "/messages"
        link.agree(b"mcp-protocol-version: 2024-11-05\r\n")
        await link.listen()
        await link.tell(jsonrpc.notification("notifications/initialized", b"{}"))
        assert await sent(link, "tools/list", 2) == "/messages"
        assert methods(raw)[:3] == ["POST", "GET", "POST"]
        assert connector.is_shared_wire
        await link.aclose()
        await until(lambda: not server.streams)
        assert not link.is_open


async def test_what_was_found_is_kept() -> None:
    """The next session begins with the GET."""
    async with asking(Server(REFUSALS[405])) as (connector, raw):
        await sent(await connector.connect(Recorder()))
        raw.heard.clear()
        assert await sent(await connector.connect(Recorder())) == "/messages"
        assert methods(raw) == ["GET", "POST"]


async def test_what_was_found_is_found_out_anew_when_it_changed() -> None:
    """The server was replaced by a newer one: its refusal of the GET is not the last word."""
    server = Server(REFUSALS[405])
    async with asking(server) as (connector, _):
        link = await connector.connect(Recorder())
        await sent(link)
        await link.aclose()

        async def newer(peer: Peer) -> None:
            peer.say(response(b"", "405 Method Not Allowed"))

        server.on_get = newer
        server.refusal = None
        assert await sent(await connector.connect(Recorder())) == "/sse"
        assert not connector.is_shared_wire


@pytest.mark.parametrize(
    "refusal",
    [
        response(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no"}}', "400 Bad Request"),
        response(b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"no"}}', "404 Not Found"),
        response(b"", "401 Unauthorized"),
        response(b"", "307 Temporary Redirect", "location: /mcp"),
        response(b"", "500 Oops"),
    ],
)
async def test_other_refusals_stand(refusal: bytes) -> None:
    """A server that answers in JSON-RPC, wants credentials or is broken is no old one: no stream is asked for."""
    async with asking(Server(refusal)) as (connector, raw):
        await refused(await connector.connect(Recorder()))
        assert methods(raw) == ["POST"]


@pytest.mark.parametrize(
    "answer",
    [
        response(b"", "405 Method Not Allowed"),
        response(b"{}"),
        stream_head() + chunk(b"data: {}\n\n"),
        stream_head() + chunk(b"event: endpoint\ndata: http://evil.example/\n\n"),
        stream_head(),
    ],
    ids=["405", "json", "message", "elsewhere", "silence"],
)
async def test_without_an_endpoint_the_refusal_stands(answer: bytes) -> None:
    """Who asks is told what the POST was answered, not what became of the attempt after it."""
    server = Server(REFUSALS[404])

    async def other(peer: Peer) -> None:
        peer.say(answer)
        await peer.until_closed()

    server.on_get = other
    async with asking(server) as (connector, _):
        error = await refused(await connector.connect(Recorder()))
        assert isinstance(error, Refused)
        assert error.status == 404
        assert not connector.is_shared_wire


async def test_other_methods_open_no_stream() -> None:
    """A question in the modern era is refused as it is, also by a backend that is known to be an old one."""
    async with asking(Server(REFUSALS[405])) as (connector, raw):
        await sent(await connector.connect(Recorder()))
        raw.heard.clear()
        link = await connector.connect(Recorder())
        assert isinstance(await refused(link, "server/discover"), Refused)
        assert methods(raw) == ["POST"]
        assert await sent(link, number=2) == "/messages"


async def test_a_backend_that_is_not_there_is_not_old() -> None:
    """Nothing was found out: the next link begins as the first one did."""
    server = Server(REFUSALS[405])
    async with asking(server) as (connector, raw):
        await raw.stop()
        assert isinstance(await refused(await connector.connect(Recorder())), BackendUnavailable)
        assert not connector.is_shared_wire


async def test_a_link_closed_meanwhile_opens_nothing() -> None:
    """Closing wins over deciding: no stream is left behind."""
    server = Server(REFUSALS[405])
    held = asyncio.Event()

    async def late(peer: Peer) -> None:
        await held.wait()
        await server.stream(peer)

    server.on_get = late
    async with asking(server) as (connector, raw), asyncio.TaskGroup() as tasks:
        link = await connector.connect(Recorder())
        deciding = tasks.create_task(refused(link))
        await until(lambda: "GET" in methods(raw))
        await link.aclose()
        held.set()
        assert isinstance(await deciding, (BackendUnavailable, BackendGarbage))
        await until(lambda: not server.streams)
