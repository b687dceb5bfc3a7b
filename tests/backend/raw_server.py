"""A backend that says exactly the bytes it is told to, over real sockets on a free loopback port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
BOUND_S = 5.0


async def soon(waiting: Awaitable[T]) -> T:
    """The result, within 5 s."""
    async with asyncio.timeout(BOUND_S):
        return await waiting


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so, within 5 s; everything else runs meanwhile."""
    async with asyncio.timeout(BOUND_S):
        while not is_so():
            await asyncio.sleep(0)


@dataclass
class Heard:
    """One request that a backend got."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message in its body."""
        return dict(msgspec.json.decode(self.body))


class Peer:
    """One connection, as the backend sees it."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.closed = asyncio.Event()
        """The other end closed it."""
        self.server = server

    async def hear(self) -> Heard:
        """The next request. Raises EOFError when the other end closed instead."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
            raise EOFError from None
        line, *fields = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        heard = Heard(line.split(" ")[0], line.split(" ")[1], headers, body)
        self.server.heard.append(heard)
        return heard

    def say(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(b"".join(pieces))

    async def until_closed(self) -> None:
        """Return when the other end has closed."""
        with suppress(ConnectionError):
            await self.reader.read()
        self.closed.set()

    def close(self) -> None:
        """Close, what was said arrives first."""
        self.writer.close()

    def reset(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()


Talk = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Runs `talk` for every connection; `heard` are all requests, `peers` all connections there ever were."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.heard: list[Heard] = []
        self.peers: list[Peer] = []
        self.port = 0
        self.is_tls = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}/mcp"

    @property
    def open_peers(self) -> list[Peer]:
        """Connections that are not closed yet."""
        return [peer for peer in self.peers if not peer.closed.is_set()]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, on the same port as before if there was one."""
        self.is_tls = tls is not None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """No new connections; those there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Refuse new connections and cut all there are."""
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        try:
            await self.talk(peer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            peer.closed.set()
            writer.transport.abort()


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Such a backend, gone at the end."""
    server = RawServer(talk)
    await server.start(tls)
    try:
        yield server
    finally:
        await server.stop()


def response(body: bytes, status: str = "200 OK", *lines: str, kind: str = "application/json") -> bytes:
    """A whole response with a length."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def stream_head(*lines: str) -> bytes:
    """The head of a chunked event stream."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{more}transfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one is its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(message: dict[str, Any] | None, event_id: str | None = None, retry_ms: int | None = None) -> bytes:
    """One event in one chunk."""
    lines = "" if event_id is None else f"id: {event_id}\n"
    lines += "" if retry_ms is None else f"retry: {retry_ms}\n"
    data = b"" if message is None else msgspec.json.encode(message)
    return chunk(lines.encode() + b"data: " + data + b"\n\n")
