"""Writing one HTTP/1.1 response.

Contract: a `Responder` answers exactly one request, either whole (`respond`) or as an event stream (`start_stream`,
`send`, `end`). It is made per request, so that a late use of it never reaches the next answer of the connection.
It writes what it is given: values that come from a peer are the caller's to check. Answering twice is a bug and raises
`RuntimeError`; answering after the client left does nothing. Sources: RFC 9112 sections 6 and 7, RFC 9110 section 15;
`X-Accel-Buffering: no` keeps nginx from holding events back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import msgspec

from gatewright.outbox import Outbox

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_JSON_OK: Final = _STATUS_LINES[200] + b"Content-Type: application/json\r\nContent-Length: "
_CLOSE: Final = b"Connection: close\r\n"
_STREAM: Final = (
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
)
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_COPY_BELOW_BYTES: Final = 65_536
"""Head and body are joined into one write below this size; above it copying costs more than a second buffer does."""


class Crowd(Protocol):
    """What all connections of a listener agree on."""

    def retry_after(self) -> bytes:
        """The field that says when to come back."""

    def spread_s(self) -> float:
        """How much later than others the client of a stream that was ended is asked to return."""


class Connection(Protocol):
    """What a response needs of its connection."""

    @property
    def crowd(self) -> Crowd:
        """All connections of its listener."""

    outbox: Outbox
    """What the connections of its loop send in this turn."""
    is_draining: bool
    is_ending: bool
    is_paused: bool

    def write(self, data: bytes, /) -> None:
        """Send bytes now, past what waits in the outbox."""

    def write_soon(self, data: bytes, /) -> None:
        """Send bytes at the end of this turn of the loop, together with what else is sent in it."""

    def flush(self) -> None:
        """Send now what was to be sent soon."""

    def writelines(self, parts: Iterable[bytes], /) -> None:
        """Send the parts now, without copying them into one."""

    async def writable(self) -> None:
        """Return when the transport takes bytes again, or the client left."""

    def finish(self, responder: Responder, /) -> None:
        """The response is complete."""

    def run(self, work: Coroutine[Any, Any, None], /) -> bool:
        """Start work of the response's own, beside the requests of the connection. False when nothing starts any
        more."""


class Responder(msgspec.Struct, eq=False):
    """The answer to one request. A struct because one is made per request: that halves the cost of making it."""

    _connection: Connection
    is_last: bool
    """The connection ends after this answer."""
    is_old: bool
    """The client speaks HTTP/1.0."""
    is_bare: bool
    """The request was HEAD: no body is sent."""
    is_started: bool = False
    is_ended: bool = False
    is_held: bool = False
    """Whoever answers it keeps it open without a task: callbacks end it."""
    is_gone: bool = False
    """The client closed the connection before the response ended."""
    is_tied: bool = False
    """Leaving cancels the task. Whoever sets it looks first whether the client has left."""
    task: asyncio.Task[object] | None = None
    """The task that serves the request, set by the connection: asking asyncio for it costs a system call."""
    _on_gone: Callable[[], object] | None = None
    _on_drain: Callable[[], object] | None = None

    @property
    def on_gone(self) -> Callable[[], object] | None:
        """Called once, synchronously, when the client leaves before the response ended: at once, if it has left."""
        return self._on_gone

    @on_gone.setter
    def on_gone(self, on_gone: Callable[[], object] | None) -> None:
        self._on_gone = on_gone
        if self.is_gone and on_gone is not None:
            self._on_gone = None
            on_gone()

    @property
    def on_drain(self) -> Callable[[], object] | None:
        """Called once, synchronously, when the listener ends its streams before the response ended: at once, if it has
        begun to."""
        return self._on_drain

    @on_drain.setter
    def on_drain(self, on_drain: Callable[[], object] | None) -> None:
        self._on_drain = on_drain
        if on_drain is not None and self._connection.is_ending:
            self.drain()

    @property
    def is_draining(self) -> bool:
        """The listener ends its streams: who is told to leave must not come back to it."""
        return self._connection.is_ending

    @property
    def is_behind(self) -> bool:
        """The client does not take what was sent to it."""
        return self._connection.is_paused

    def run(self, work: Coroutine[Any, Any, None]) -> bool:
        """See Connection.run."""
        return self._connection.run(work)

    def spread_s(self) -> float:
        """See Crowd.spread_s."""
        return self._connection.crowd.spread_s()

    def respond(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: bytes = b"application/json",
        headers: bytes = b"",
    ) -> None:
        """Send the whole response. `headers`: extra lines, each ended by CRLF. Raises RuntimeError on a second
        answer."""
        if self.is_started:
            raise RuntimeError("the request is answered already")
        self.is_started = self.is_ended = True
        connection = self._connection
        if self.is_gone:
            connection.outbox.pass_by()
            return
        if connection.is_draining:
            self.is_last = True
        if self.is_last:
            headers += _CLOSE
        size = len(body)
        if status == 200 and 0 < size < _COPY_BELOW_BYTES and content_type == b"application/json" and not self.is_bare:
            whole = b"%b%d\r\n%b\r\n%b" % (_JSON_OK, size, headers, body)
            connection.outbox.post(connection.write, whole)
        else:
            if status == 503:
                headers += connection.crowd.retry_after()
            head = _head(status, size, content_type, headers)
            if size and not self.is_bare:
                connection.outbox.pass_by()
                connection.writelines((head, body))
            else:
                connection.outbox.post(connection.write, head)
        connection.finish(self)

    def start_stream(self, *, headers: bytes = b"") -> None:
        """Begin a 200 `text/event-stream`. Raises RuntimeError on a second answer."""
        if self.is_started:
            raise RuntimeError("the request is answered already")
        self.is_started = True
        connection = self._connection
        connection.outbox.pass_by()
        if self.is_gone:
            return
        if connection.is_draining or self.is_old:
            self.is_last = True
        coding = b"" if self.is_old else _CHUNKED
        close = _CLOSE if self.is_last else b""
        connection.write_soon(b"".join((_STATUS_LINES[200], _STREAM, coding, close, headers, b"\r\n")))
        if self.is_bare:
            self.is_ended = True
            connection.flush()
            connection.finish(self)

    async def send(self, chunk: bytes) -> None:
        """Send one piece of the stream; return when the client's connection takes more. Nothing after the end.

        Of many who send at once each waits for its turn: what a slow client does not take is theirs to hold back.
        """
        connection = self._connection
        while connection.is_paused and not self.is_gone:
            await connection.writable()
        if self.is_gone or self.is_ended or not chunk:
            return
        if not self.is_started:
            raise RuntimeError("the stream has not been started")
        self._write(chunk)
        if connection.is_paused:
            await connection.writable()

    def send_nowait(self, chunk: bytes) -> None:
        """Send a piece that nobody misses, such as a comment: a client that is behind does not get it."""
        if self.is_started and not self.is_gone and not self.is_ended and not self._connection.is_paused:
            self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        """One chunk of the stream."""
        connection = self._connection
        if self.is_old:
            connection.write_soon(chunk)
        elif len(chunk) < _COPY_BELOW_BYTES:
            connection.write_soon(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            connection.flush()
            connection.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))

    def end(self) -> None:
        """End the stream. Nothing when it has ended or the client left."""
        if self.is_ended or self.is_gone:
            return
        self.is_ended = True
        connection = self._connection
        if not self.is_old:
            connection.write_soon(b"0\r\n\r\n")
        connection.flush()
        connection.finish(self)

    def leave(self) -> None:
        """The client left. For the connection only; calls `on_gone` once if the response had not ended."""
        if self.is_ended or self.is_gone:
            return
        self.is_gone = True
        if self.is_tied and self.task is not None:
            self.task.cancel()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def drain(self) -> None:
        """The listener shuts down. For the connection only; calls `on_drain` once if the response had not ended."""
        on_drain, self._on_drain = self._on_drain, None
        if on_drain is not None and not self.is_ended and not self.is_gone:
            on_drain()


def running_task(responder: Responder) -> asyncio.Task[object]:
    """The task that serves the request. Before its connection said which, asyncio is asked."""
    task = responder.task or asyncio.current_task()
    assert task is not None
    return task


class Done:
    """What to await when nothing is to be waited for: an answer that was written at once costs no coroutine."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return _NOTHING


_NOTHING: Final = cast("Generator[None, None, None]", iter(()))
DONE: Final = Done()


def _head(status: int, size: int, content_type: bytes, headers: bytes) -> bytes:
    """A head with the fields that its body calls for (RFC 9110 section 8.6: none in a 204 or 304)."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    if status in (204, 304):
        return b"%b%b\r\n" % (line, headers)
    if not size:
        return b"%bContent-Length: 0\r\n%b\r\n" % (line, headers)
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (line, content_type, size, headers)


def error_body(code: int, message: str, error_id: str | None = None) -> bytes:
    """A JSON-RPC error that answers no particular request: without id. `error_id` is what the log shows too."""
    error: dict[str, object] = {"code": code, "message": message}
    if error_id is not None:
        error["data"] = {"errorId": error_id}
    return msgspec.json.encode({"jsonrpc": "2.0", "error": error})


def refusal_bytes(status: int, message: str, headers: bytes = b"") -> bytes:
    """The complete answer to a request that was not served; the connection ends after it."""
    code = -31001 if status == 503 else -32600
    body = error_body(code, message)
    return _head(status, len(body), b"application/json", headers + _CLOSE) + body
