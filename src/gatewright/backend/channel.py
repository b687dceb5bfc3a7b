"""The pooled HTTP/1.1 channel to one origin, over httptools: the wire below the HTTP link.

A connection carries one exchange at a time. One whose exchange was cancelled or broke half-way is closed, never
reused, so that an answer can never meet another's question. Redirects are answers, not followed. A request is sent
again only when the caller says that this is safe, the connection had been used before, and not a byte of an answer
had come. Never parses JSON or SSE. Bounds are the backend's settings. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, cast, final

import httptools
import msgspec
from typing_extensions import override

from gatewright.errors import BackendGarbage, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatewright.backend.settings import BackendSettings

PAUSE_BYTES: Final = 256 * 1024
"""A stream whose reader is this far behind is not read from the socket any more: back-pressure, not memory."""
MAX_HEADERS: Final = 128
"""Header fields in one answer; llhttp bounds their bytes no further."""
DRAIN_S: Final = 2.0
"""How long a stream that already gave its answer may take to end before its connection is dropped."""


@final
class Origin(msgspec.Struct, frozen=True):
    """Where the connections go. `tls` is None for plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@final
class HttpResponse:
    """One response: `body` once whole, or a stream to `read` when `is_stream`."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_error",
        "_is_whole",
        "_queued_bytes",
        "_waiter",
        "body",
        "headers",
        "is_stream",
        "status",
    )

    def __init__(self, connection: HttpConnection) -> None:
        self._connection: HttpConnection | None = connection
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_stream = False
        """It is an event stream: it is handed over at its head, and read piece by piece."""
        self.body = b""
        self._chunks: deque[bytes] = deque()
        self._queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_whole = False
        self._error: BackendGarbage | None = None

    async def read(self) -> bytes:
        """The next piece of the stream, empty at its end. Raises BackendGarbage when the connection died in it."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_whole:
                return b""
            connection = self._connection
            if connection is not None:
                connection.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._queued_bytes = 0
        return piece

    def finish(self) -> None:
        """Nothing more of the stream is wanted: its connection is kept if it ends soon, else closed."""
        connection = self._connection
        if connection is not None and not self._is_whole:
            connection.drain_or_close()

    def abort(self) -> None:
        """Close the connection now: for a peer that takes the close as a cancel (2026-07-28), and for broken ones."""
        connection = self._connection
        if connection is not None and not self._is_whole:
            connection.close()

    def push(self, piece: bytes) -> bool:
        """Take a piece from the socket. Returns whether the reader is too far behind."""
        self._chunks.append(piece)
        self._queued_bytes += len(piece)
        self._wake()
        return self._queued_bytes > PAUSE_BYTES

    def complete(self) -> None:
        """The message is whole; the connection is somebody else's from here on."""
        self._is_whole = True
        self._connection = None
        self._wake()

    def fail(self, error: BackendGarbage) -> None:
        """The connection died in the stream."""
        self._error = error
        self._connection = None
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Unsent(Exception):
    """The connection was gone before anything was sent."""


class _Lost(Exception):
    """The connection closed before an answer. `is_safe`: it was a reused one, so most likely it was never read."""

    def __init__(self, *, is_safe: bool) -> None:
        super().__init__()
        self.is_safe = is_safe


@final
class HttpConnection(asyncio.Protocol):
    """One connection: framing in, bytes out. Owned by its channel."""

    __slots__ = (
        "_body", "_body_bytes", "_channel", "_drain_timer", "_is_draining", "_is_paused", "_is_reused", "_parser",
        "_response", "_waiter", "idle_since", "transport",
    )  # fmt: skip

    def __init__(self, channel: HttpChannel) -> None:
        self._channel = channel
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._response: HttpResponse | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_reused = False
        self._is_paused = False
        self._is_draining = False
        self._drain_timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    def ask(self, payload: bytes) -> asyncio.Future[HttpResponse]:
        """Send one request. The future is its response (a stream: its head); give it to `left` if it is not awaited
        to its end. Raises _Unsent."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise _Unsent
        self._waiter = waiter = self._channel.loop.create_future()
        transport.write(payload)
        return waiter

    def left(self, waiter: asyncio.Future[HttpResponse]) -> None:
        """Whoever awaited the response was cancelled: the exchange is broken off and its connection closes."""
        if self._waiter is waiter:
            self._waiter = None
            self.close()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            # Answered in the same turn: the connection may be another's by now, unless a stream is still on it.
            waiter.result().abort()

    @property
    def is_fresh(self) -> bool:
        """Whether it has carried nothing yet."""
        return not self._is_reused

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent on it."""
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        """Drop it, without waiting for buffered bytes."""
        if self.transport is not None:
            self.transport.abort()

    def resume_reading(self) -> None:
        """The reader of the stream has caught up."""
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()

    def drain_or_close(self) -> None:
        """Discard the rest of a stream; if it does not end within DRAIN_S the connection closes."""
        self._is_draining = True
        self.resume_reading()
        self._drain_timer = self._channel.loop.call_later(DRAIN_S, self.close)

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        waiter, response = self._waiter, self._response
        if response is not None and self._ended_by_close(response):
            pass
        elif waiter is not None and not waiter.done():
            has_begun = response is not None
            waiter.set_exception(_Lost(is_safe=self._is_reused and not has_begun))
        elif response is not None:
            response.fail(BackendGarbage("the backend closed the connection in the middle of its answer"))
        self._channel.forget(self)

    def _ended_by_close(self, response: HttpResponse) -> bool:
        """A response without a length ends where the connection does (RFC 9112, 6.3): that is not a failure."""
        if not response.status or b"content-length" in response.headers or b"transfer-encoding" in response.headers:
            return False
        self.on_message_complete()
        return True

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"the backend's answer is not HTTP: {error}")

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._waiter is None and not self._is_draining:
            self.close()  # an answer nobody asked for
        self._response = HttpResponse(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        if response is not None:
            response.headers[name.lower()] = value
            if len(response.headers) > MAX_HEADERS:
                self._break("the backend's answer has too many headers")

    def on_headers_complete(self) -> None:
        response = self._response
        if response is None:
            return
        response.status = self._parser.get_status_code()
        if response.status < 200:
            return
        response.is_stream = response.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        if response.is_stream:
            self._hand_over(response)

    def on_body(self, data: bytes) -> None:
        response = self._response
        if response is None or self._is_draining:
            return
        if response.is_stream:
            if response.push(data) and not self._is_paused and self.transport is not None:
                self._is_paused = True
                self.transport.pause_reading()
            return
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._channel.max_response_bytes:
            self._break(f"the backend's answer is longer than {self._channel.max_response_bytes} bytes")

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or response.status < 200:
            return
        self._response = None
        if not response.is_stream:
            body = self._body
            response.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
            self._body_bytes = 0
            self._hand_over(response)
        response.complete()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        self._is_draining = False
        self._is_reused = True
        if self._parser.should_keep_alive() and self.is_usable:
            self.resume_reading()
            self._channel.release(self)
        else:
            self.close()

    def _hand_over(self, response: HttpResponse) -> None:
        """Wake whoever sent the request. From here on the connection owes it nothing."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _break(self, why: str) -> None:
        waiter, response, self._response = self._waiter, self._response, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(BackendGarbage(why))
        elif response is not None:
            response.fail(BackendGarbage(why))
        self.close()


@final
class HttpChannel:
    """A pool of connections to one origin. Callers wait in order when all are busy; their own deadline bounds that."""

    def __init__(self, name: str, origin: Origin, settings: BackendSettings) -> None:
        self._name = name
        self._origin = origin
        self._settings = settings
        self.max_response_bytes = settings.max_response_bytes
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[HttpConnection | None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    async def send(self, payload: bytes, is_retry_safe: bool = False) -> HttpResponse:
        """Send one request (head and body) and await the response.

        Raises BackendUnavailable when it surely was not carried out, BackendGarbage when it may have been.
        """
        while True:
            connection = self._take() or await self._acquire()
            waiter: asyncio.Future[HttpResponse] | None = None
            try:
                waiter = connection.ask(payload)
                return await waiter
            except _Lost as lost:
                if not (lost.is_safe and is_retry_safe):
                    raise BackendGarbage(f"{self._name} closed the connection without an answer") from None
            except _Unsent:
                if connection.is_fresh:
                    raise BackendUnavailable(f"{self._name} closed a new connection at once") from None
            except asyncio.CancelledError:
                if waiter is not None:
                    connection.left(waiter)
                raise

    def release(self, connection: HttpConnection) -> None:
        """An exchange is over and its connection may carry another."""
        waiting = self._waiting
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        now = self.loop.time()
        idle = self._idle
        if len(idle) >= self._settings.max_idle_connections:
            connection.close()
            return
        connection.idle_since = now
        idle.append(connection)
        oldest = idle[0]
        if now - oldest.idle_since > self._settings.keep_alive_s:
            del idle[0]
            oldest.close()

    def forget(self, connection: HttpConnection) -> None:
        """A connection closed. Somebody who waits for one may open another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def aclose(self) -> None:
        """Close every connection; whoever waits is told that the backend is unavailable."""
        self._is_closed = True
        for connection in list(self._open):
            connection.close()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(BackendUnavailable(f"{self._name} is being closed"))

    def _take(self) -> HttpConnection | None:
        """An idle connection that is still good, the most recently used first."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _acquire(self) -> HttpConnection:
        while True:
            if self._is_closed:
                raise BackendUnavailable(f"{self._name} is being closed")
            if len(self._open) + self._connecting < self._settings.max_connections:
                return await self._connect()
            waiter: asyncio.Future[HttpConnection | None] = self.loop.create_future()
            self._waiting.append(waiter)
            try:
                connection = await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    handed = waiter.result()
                    if handed is not None:
                        self.release(handed)
                raise
            if connection is not None and connection.is_usable:
                return connection

    async def _connect(self) -> HttpConnection:
        origin = self._origin
        self._connecting += 1
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                _, connection = await self.loop.create_connection(
                    self._factory(),
                    origin.host,
                    origin.port,
                    ssl=origin.tls,
                    server_hostname=origin.host if origin.tls is not None else None,
                )
        except TimeoutError:
            raise BackendUnavailable(
                f"{self._name} did not accept a connection within {self._settings.connect_timeout_s:g} s"
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise BackendUnavailable(f"{self._name} cannot be reached: {_reason(error)}") from error
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    def _factory(self) -> Callable[[], HttpConnection]:
        return lambda: HttpConnection(self)


def _reason(error: OSError) -> str:
    """What went wrong, without addresses of ours."""
    return error.strerror or type(error).__name__
