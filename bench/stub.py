"""The stub backend: a bare asyncio.Protocol on uvloop and httptools, so cheap that the middle dominates the measure.

`python -m bench.stub --port 0` prints `http://127.0.0.1:PORT`. Its endpoint `/mcp` speaks both eras, `/modern` only
2026-07-28, `/handshake` only the revisions up to 2025-11-25; `/streaming` is `/mcp` with GET streams, on which nothing
is ever said; `/modern-500` and `/handshake-500` list 500 tools instead of 5. `python -m bench.stub --stdio` speaks both
eras as newline-delimited JSON-RPC. It answers in the order of one connection and never reads headers: framing and the
body are all it needs. Not a conforming server: sessions are handed out, never checked.
"""

import argparse
import asyncio
import os
import secrets
import sys
from typing import cast

import httptools
import msgspec
import uvloop

from bench.answers import MANY_TOOLS, Face, Message, Reply, answer, decode

_STREAMING = b"/streaming"
_FACES = {
    b"/mcp": Face(),
    _STREAMING: Face(),
    b"/modern": Face(handshake=False),
    b"/handshake": Face(modern=False),
    b"/modern-500": Face(handshake=False, tool_count=MANY_TOOLS),
    b"/handshake-500": Face(modern=False, tool_count=MANY_TOOLS),
}
_STDIO_FACE = Face()
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n"
)
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_NOT_ALLOWED = b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_REASONS = {400: b"Bad Request", 404: b"Not Found"}


class StubProtocol(asyncio.Protocol):
    """One connection; at most one delayed answer is pending, and it dies with the connection."""

    __slots__ = ("_chunks", "_loop", "_parser", "_pending", "_transport", "_url")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._chunks: list[bytes] = []
        self._url = b""
        self._pending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's, so only the type checker is told.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_BAD_REQUEST)
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        face = _FACES.get(self._url)
        if self._parser.get_method() != b"POST" or face is None:
            is_stream = self._url == _STREAMING and self._parser.get_method() == b"GET"
            self._transport.write(_SSE_HEAD if is_stream else _NOT_FOUND if face is None else _NOT_ALLOWED)
            return
        try:
            message = decode(body)
        except msgspec.DecodeError:
            self._transport.write(_BAD_REQUEST)
            self._transport.close()
            return
        if not bytes(message.id) or not message.method:
            self._transport.write(_ACCEPTED)
            return
        self._reply(answer(message, face))

    def _reply(self, reply: Reply) -> None:
        head, tail = b"", _http(reply)
        if reply.as_sse and reply.progress:
            head, tail = _SSE_HEAD + _event(reply.progress), _event(reply.body) + b"0\r\n\r\n"
        if not reply.delay_s:
            self._transport.write(head + tail)
            return
        if head:
            self._transport.write(head)
        self._pending = self._loop.call_later(reply.delay_s, self._transport.write, tail)


def _http(reply: Reply) -> bytes:
    body = reply.body
    if reply.as_sse:
        return _SSE_HEAD + _event(body) + b"0\r\n\r\n"
    if reply.status == 200 and not reply.opens_session:
        return _JSON_HEAD % len(body) + body
    session = b"mcp-session-id: " + secrets.token_hex(16).encode() + b"\r\n" if reply.opens_session else b""
    return b"HTTP/1.1 %d %b\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        reply.status,
        _REASONS.get(reply.status, b"OK"),
        session,
        len(body),
        body,
    )


def _event(body: bytes) -> bytes:
    """One SSE event in one HTTP chunk; 23 bytes are `event: message`, `data: ` and the line ends."""
    return b"%x\r\nevent: message\ndata: %b\n\n\r\n" % (len(body) + 23, body)


class StdioStub(asyncio.Protocol):
    """The same answers over newline-delimited JSON-RPC; a cancelled call is never answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, out: asyncio.WriteTransport) -> None:
        self._loop = loop
        self._out = out
        self._rest = b""
        self._pending: dict[bytes, asyncio.TimerHandle] = {}
        self.ended = loop.create_future()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        ready = [line for line in map(self._line, filter(None, lines)) if line]
        if ready:
            self._out.write(b"".join(ready))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _line(self, line: bytes) -> bytes:
        message = decode(line)
        request_id = bytes(message.id)
        if not request_id or not message.method:
            return self._cancel(message)
        reply = answer(message, _STDIO_FACE)
        progress = reply.progress + b"\n" if reply.progress else b""
        if not reply.delay_s:
            return progress + reply.body + b"\n"
        self._pending[request_id] = self._loop.call_later(reply.delay_s, self._finish, request_id, reply.body)
        return progress

    def _finish(self, request_id: bytes, body: bytes) -> None:
        del self._pending[request_id]
        self._out.write(body + b"\n")

    def _cancel(self, message: Message) -> bytes:
        if message.method == "notifications/cancelled":
            pending = self._pending.pop(bytes(message.params.request_id), None)
            if pending is not None:
                pending.cancel()
        return b""


async def serve_http(port: int) -> None:
    """Serve until cancelled; prints the base URL once it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StubProtocol(loop), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def serve_stdio() -> None:
    """Serve stdin to stdout until stdin closes."""
    loop = asyncio.get_running_loop()
    out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(sys.stdout.fileno(), "wb", 0, closefd=False))
    _, stub = await loop.connect_read_pipe(lambda: StdioStub(loop, out), sys.stdin)
    await stub.ended
    out.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    options = parser.parse_args()
    try:
        uvloop.run(serve_stdio() if options.stdio else serve_http(options.port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
