"""A raw HTTP/1.1 client connection for the benches: one request at a time, keep-alive, nothing between it and the wire.

It can be aborted in the middle of an answer, which is what the isolation bench is about. Never pipelines, never
reconnects by itself, never retries.
"""

import asyncio
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from bench.calls import Call, initialize, initialized


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")


class Connection(asyncio.Protocol):
    """One connection to `url`; `send` raises ConnectionError when it breaks before the answer is complete."""

    def __init__(self, authority: str, path: str) -> None:
        self.authority = authority
        self.path = path
        self.is_open = False
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, url: str) -> "Connection":
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(parts.netloc, parts.path or "/"), parts.hostname or "", parts.port or 80
        )
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(f"the connection closed before the answer: {exc}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(ConnectionError(f"the answer is not HTTP: {error}"))
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._chunks))
        self._headers = {}
        self._chunks = []
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)

    async def send(self, call: Call) -> Answer:
        """Send one call and wait for its whole answer, however long: the caller bounds the wait."""
        if not self.is_open:
            raise ConnectionError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(call.encode(self.authority, self.path))
        return await self._waiter

    def abort(self) -> None:
        """Close at once, as a client that goes away does."""
        self.is_open = False
        self._transport.abort()


async def open_session(connection: Connection) -> str:
    """Do the handshake on this connection; returns the session id, "" when the server is stateless."""
    answer = await connection.send(initialize())
    if answer.status != 200 or b'"protocolVersion"' not in answer.body:
        raise ConnectionError(f"initialize was answered {answer.status}: {answer.body[:300]!r}")
    session = answer.headers.get("mcp-session-id", "")
    if not connection.is_open:
        raise ConnectionError("the connection closed after initialize")
    accepted = await connection.send(initialized(session))
    if accepted.status != 202:
        raise ConnectionError(f"notifications/initialized was answered {accepted.status}: {accepted.body[:300]!r}")
    return session
