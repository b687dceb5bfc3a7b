"""One client process that holds many handshake sessions, each with an open GET stream, on raw asyncio sockets.

    python -m bench.holder URL SESSIONS [--source 127.0.0.2] [--at-once 64] [--tool NAME] [--no-streams]

A session takes one connection: `initialize`, `notifications/initialized`, with `--tool` one `tools/call`, then GET, or
with `--no-streams` the end of the connection.
Prints one JSON object (`Held`) once every session is open or has failed, another one for each line on its input, and
ends when its input does. `--source` is the address it connects from: one address has some 28,000 ports.
"""

import argparse
import asyncio
import gc
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop
from typing_extensions import override

from bench.calls import echo, initialize, initialized, session_headers

_OPEN_S = 60.0
"""How long one session may take to open."""
_CALL_BYTES = 400


class Held(msgspec.Struct, frozen=True):
    """What one holder has: sessions `open` now and how many failed or were closed; what streams brought, in bytes."""

    open: int
    failed: int
    closed: int
    stream_bytes: int
    seconds: float
    """From the first connection to the last stream."""


class Holder:
    """All sessions of this process."""

    def __init__(self, url: str, source: str, tool: str, has_streams: bool = True) -> None:
        self.has_streams = has_streams
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.authority, self.path = parts.netloc, parts.path
        self.source = source
        self.tool = tool
        self.streams: list[_Stream] = []
        self.failed = 0
        self.closed = 0
        self.stream_bytes = 0
        self.seconds = 0.0

    def held(self) -> Held:
        """The state now."""
        still = len(self.streams) - self.closed
        return Held(still, self.failed, self.closed, self.stream_bytes, round(self.seconds, 2))

    async def open(self, count: int, at_once: int) -> None:
        """Open that many, `at_once` at a time."""
        left = iter(range(count))
        start = time.monotonic()

        async def some() -> None:
            for _ in left:
                await self._one()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(some())
        self.seconds = time.monotonic() - start

    async def _one(self) -> None:
        loop = asyncio.get_running_loop()
        stream: _Stream | None = None
        try:
            async with asyncio.timeout(_OPEN_S):
                _, stream = await loop.create_connection(
                    lambda: _Stream(self, loop), *self.address, local_addr=(self.source, 0) if self.source else None
                )
                await stream.begin()
        except (OSError, TimeoutError, ValueError) as error:
            if not self.failed:
                print(f"a session did not open: {error!r}", file=sys.stderr)
            self.failed += 1
            if stream is not None:
                stream.transport.abort()
        else:
            self.streams.append(stream)


class _Stream(asyncio.Protocol):
    """One session's connection. Reads answers whole until the stream is open, then counts bytes."""

    __slots__ = ("_answer", "_buffer", "_holder", "_loop", "is_open", "transport")

    def __init__(self, holder: Holder, loop: asyncio.AbstractEventLoop) -> None:
        self._holder = holder
        self._loop = loop
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self.is_open = False

    async def begin(self) -> None:
        """The handshake, then the stream. Raises ValueError for an answer that is not the right one."""
        holder = self._holder
        head = await self._send(initialize().encode(holder.authority, holder.path), b"HTTP/1.1 200 ")
        session = _field(head, b"mcp-session-id")
        if not session:
            raise ValueError(f"initialize was answered {head[:300]!r}")
        await self._send(initialized(session).encode(holder.authority, holder.path), b"HTTP/1.1 202 ")
        if holder.tool:
            call = echo("handshake", session, holder.tool, _CALL_BYTES)
            await self._send(call.encode(holder.authority, holder.path), b"HTTP/1.1 200 ")
        if not holder.has_streams:
            self.transport.abort()
            return
        lines = [f"GET {holder.path} HTTP/1.1", f"Host: {holder.authority}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in session_headers(session).items()]
        await self._send("\r\n".join([*lines, "", ""]).encode(), b"HTTP/1.1 200 ", is_stream=True)

    async def _send(self, request: bytes, expected: bytes, *, is_stream: bool = False) -> bytes:
        self._answer = self._loop.create_future()
        self._buffer = b""
        self.is_open = is_stream
        self.transport.write(request)
        answer = await self._answer
        self._answer = None
        if not answer.startswith(expected):
            raise ValueError(f"answered {answer[:200]!r}")
        return answer

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self._holder.stream_bytes += len(data)
            return
        self._buffer += data
        if (b"\r\n\r\n" in self._buffer if self.is_open else _is_whole(self._buffer)) and not answer.done():
            answer.set_result(self._buffer)
            self._buffer = b""

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is None:
            self._holder.closed += self.is_open
        elif not self._answer.done():
            self._answer.set_exception(ConnectionError("closed before the answer was complete"))


def _is_whole(answer: bytes) -> bool:
    """Whether an answer has ended; chunked answers of the servers measured hold no chunk that looks like the end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(_field(head, b"content-length") or 0)


def _field(head: bytes, name: bytes) -> str:
    """The value of a header field, empty when there is none."""
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return ""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].decode("ascii").strip()


async def _hold(url: str, sessions: int, source: str, at_once: int, tool: str, has_streams: bool) -> None:
    holder = Holder(url, source, tool, has_streams)
    await holder.open(sessions, at_once)
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while True:
        print(msgspec.json.encode(holder.held()).decode(), flush=True)
        if not await asked.readline():
            return


def main() -> None:
    parser = argparse.ArgumentParser(description="Holds handshake sessions with open streams.")
    parser.add_argument("url")
    parser.add_argument("sessions", type=int)
    parser.add_argument("--source", default="", help="the address to connect from")
    parser.add_argument("--at-once", type=int, default=64, help="sessions that are opened at the same time")
    parser.add_argument("--tool", default="", help="each session calls this tool once")
    parser.add_argument("--no-streams", action="store_true", help="sessions only, without a stream or a connection")
    options = parser.parse_args()
    gc.disable()
    has_streams = not options.no_streams
    uvloop.run(_hold(options.url, options.sessions, options.source, options.at_once, options.tool, has_streams))


if __name__ == "__main__":
    main()
