"""A toolbox over Streamable HTTP, in both eras, on a free loopback port.

What a request's stream carries before its answer makes it an event stream, else it is JSON. Sessions, their standing
stream and DELETE as the handshake revisions have them; a stream closed by the client is the cancel of a modern request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httptools

from journeys.toolbox import META, Conversation, Json, Toolbox


class HttpHost:
    """One listening address of a toolbox."""

    def __init__(self, box: Toolbox) -> None:
        self.box = box
        self.port = 0
        self.wires: set[_Wire] = set()
        self.sessions: dict[str, Conversation] = {}
        self.standing: dict[str, _Wire] = {}
        self.posts: dict[tuple[str, int], _Wire] = {}
        self.modern = box.converse(lambda message, about: self._out("", message, about))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def serve(self, wire: _Wire, method: str, headers: dict[str, str], body: bytes) -> None:
        """One request."""
        session = headers.get("mcp-session-id", "")
        if method == "DELETE" and session in self.sessions:
            self.sessions.pop(session).end()
            self.box.note("deleted", session)
            standing = self.standing.pop(session, None)
            if standing is not None:
                standing.end()
            wire.respond(200)
        elif method == "GET" and session in self.sessions:
            self.standing[session] = wire
            wire.start_stream()
            self.box.note("standing", session)
        elif method == "POST":
            self._post(wire, session, json.loads(body))
        else:
            wire.respond(405 if not session else 404)

    def left(self, wire: _Wire) -> None:
        """A connection was closed by its client."""
        self.wires.discard(wire)
        self.standing = {session: one for session, one in self.standing.items() if one is not wire}
        for key, waiting in list(self.posts.items()):
            if waiting is wire:
                del self.posts[key]
                self.box.note("left", key[1])
                if not key[0]:
                    self.modern.cancelled(key[1])

    def _post(self, wire: _Wire, session: str, message: Json) -> None:
        if message.get("method") == "initialize" and "handshake" in self.box.eras:
            session = secrets.token_hex(8)
            self.sessions[session] = self.box.converse(lambda said, about: self._out(session, said, about))
            wire.session = session
        is_modern = META + "protocolVersion" in message.get("params", {}).get("_meta", {})
        conversation = self.modern if is_modern else self.sessions.get(session)
        if conversation is None:
            wire.respond(404 if session else 400)
            return
        if "method" not in message or "id" not in message:
            wire.respond(202)
            conversation.take(message)
            return
        self.posts[session if not is_modern else "", message["id"]] = wire
        conversation.take(message)

    def _out(self, session: str, message: Json, about: int | None) -> None:
        if about is None:
            wire = self.standing.get(session)
            if wire is not None:
                wire.event(message)
            return
        wire = self.posts.get((session, about))
        if wire is None:
            return
        if "method" in message:
            if not wire.is_streaming:
                wire.start_stream()
            wire.event(message)
            return
        del self.posts[session, about]
        if wire.is_streaming:
            wire.event(message)
            wire.end()
        else:
            wire.respond(200, json.dumps(message).encode())


class _Wire(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, host: HttpHost) -> None:
        self._host = host
        self._transport: asyncio.Transport
        self._parser: Any = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self.session = ""
        self.is_streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.wires.add(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.left(self)

    def on_message_begin(self) -> None:
        self._headers, self._body, self.is_streaming, self.session = {}, b"", False, ""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._host.serve(self, self._parser.get_method().decode(), self._headers, self._body)

    def respond(self, status: int, body: bytes = b"") -> None:
        extra = f"Mcp-Session-Id: {self.session}\r\n" if self.session else ""
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self._write(head.encode() + body)

    def start_stream(self) -> None:
        self.is_streaming = True
        self._write(b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def event(self, message: Json) -> None:
        data = b"data: " + json.dumps(message).encode() + b"\n\n"
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        """What comes too late is dropped: uvloop raises for a transport that is closed."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        self.is_streaming = False
        self._write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Break off."""
        self._transport.abort()


@asynccontextmanager
async def hosting(box: Toolbox) -> AsyncIterator[HttpHost]:
    """Serve it until the end."""
    host = HttpHost(box)
    server = await asyncio.get_running_loop().create_server(lambda: _Wire(host), "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for wire in list(host.wires):
            wire.abort()


@asynccontextmanager
async def deaf_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""
    transports: list[asyncio.BaseTransport] = []

    class Deaf(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

    server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in transports:
            cast(asyncio.Transport, transport).abort()
