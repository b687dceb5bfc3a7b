"""One HTTP/1.1 connection to a backend, over httptools: framing in, bytes out.

It carries one exchange at a time. One whose exchange was cancelled or broke half-way is closed, never reused, and so is
one that says something unasked: an answer can never meet another's question. Never parses JSON or events, never sends
anything again. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast, final

import httptools
from typing_extensions import override

from gatewright.backend.response import HttpResponse, HttpStream, is_event_stream
from gatewright.errors import BackendGarbage
from gatewright.pieces import Pieces, hold

if TYPE_CHECKING:
    from gatewright.backend.channel import HttpChannel

MAX_HEADERS: Final = 128
"""Header fields in one answer."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""What one answer may hold besides its body: head, informational heads before it, chunk extensions, trailers."""
DRAIN_S: Final = 2.0
"""How long a stream that already gave its answer may take to end before its connection is dropped."""
LARGE_BYTES: Final = 64 * 1024
"""A request that may still be on its way out when its answer comes; a smaller one fits into any socket's buffer."""
KEEP_ALIVE: Final = b"keep-alive"
"""The field in which servers say how long they keep an idle connection."""
FRAMING: Final = (b"content-length", b"transfer-encoding", KEEP_ALIVE)
"""The fields that are looked at when a message ends."""


def _unconnected(data: bytes) -> None:
    """Where there is no transport yet nothing can be sent."""
    raise RuntimeError("the connection is not open")


class Lost(Exception):
    """The connection closed before an answer. `is_safe`: it was a reused one, so most likely it was never read."""

    def __init__(self, *, is_safe: bool) -> None:
        super().__init__()
        self.is_safe = is_safe


class _Refused(Exception):
    """Raised in a callback to stop the parser: what it read is HTTP, but not what may stand here."""


@final
class HttpConnection(asyncio.Protocol):
    """One connection: framing in, bytes out. Owned by its channel."""

    __slots__ = (
        "_body", "_body_bytes", "_channel", "_drain_timer", "_head", "_headers", "_is_aborted", "_is_draining",
        "_is_large", "_is_paused", "_is_reused", "_known", "_max_bytes", "_missing", "_other_bytes", "_outbox",
        "_parser", "_status", "_stream", "_taken_bytes", "_waiter", "_whole", "_write", "headers", "idle_since_s",
        "is_lent", "is_usable", "transport",
    )  # fmt: skip

    def __init__(self, channel: HttpChannel) -> None:
        self._channel = channel
        self._known = channel.known
        self._outbox = channel.outbox
        self._max_bytes = channel.max_response_bytes
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None] = _unconnected
        self._waiter: asyncio.Future[HttpResponse | bytes] | None = None
        self._headers: dict[bytes, bytes] | None = None
        """Those of the message being read; None between messages."""
        self._status = 0
        """That of the message being read, once its head is whole and it is not informational."""
        self._body: Pieces = []
        self._body_bytes = 0
        self._missing = 0
        """What is still to come of a body under the known head: the parser sees none of that answer."""
        self._taken_bytes = 0
        """What has come of the message being read."""
        self._head = b""
        """Its first bytes up to an empty line, when it takes more than one read and a head may be learnt from it."""
        self._other_bytes = 0
        self._stream: HttpStream | None = None
        self._whole: HttpResponse | None = None
        """The answer that just came whole, whose head may be learnt."""
        self._is_reused = False
        self._is_large = False
        self._is_paused = False
        self._is_draining = False
        self._is_aborted = False
        self._drain_timer: asyncio.TimerHandle | None = None
        self.headers: Mapping[bytes, bytes] = {}
        """Those of the last answer that was handed over as bytes: of the head that was known when it began."""
        self.is_usable = False
        """Whether a request may be sent on it."""
        self.is_lent = False
        """It takes no place in the channel until its exchange ends."""
        self.idle_since_s = 0.0
        """The channel's last look at its idle connections before this became one of them."""

    def ask(self, payload: bytes) -> asyncio.Future[HttpResponse | bytes]:
        """Send one request on a usable connection. The future is its response (a stream: its head), or the body of the
        usual one, a 200 under the known head; give it to `left` if it is not awaited to its end."""
        self._waiter = waiter = self._channel.loop.create_future()
        self._is_large = len(payload) > LARGE_BYTES
        self._outbox.post(self._write, payload)
        return waiter

    def left(self, waiter: asyncio.Future[HttpResponse | bytes]) -> None:
        """Whoever awaited the response was cancelled: the exchange is broken off and its connection closes."""
        if self._waiter is waiter:
            self._waiter = None
            self.close()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            # Answered in the same turn: the connection may be another's by now, unless a stream is still on it.
            response = waiter.result()
            if not isinstance(response, bytes):
                response.abort()

    def close(self) -> None:
        """Drop it, without waiting for buffered bytes."""
        self.is_usable = False
        self._is_aborted = True
        self._outbox.drop(self._write)
        if self.transport is not None:
            self.transport.abort()

    def resume_reading(self) -> None:
        """The reader of the stream has caught up."""
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()

    def rest(self) -> None:
        """See Source.rest: of the head, only what says how the stream ends is kept."""
        self.resume_reading()
        headers = self._headers
        if headers is not None:
            self._headers = {name: headers[name] for name in FRAMING if name in headers}

    def drain_or_close(self) -> None:
        """Discard the rest of a stream; if it does not end within DRAIN_S the connection closes."""
        if not self._is_draining:
            self._is_draining = True
            self.resume_reading()
            self._drain_timer = self._channel.loop.call_later(DRAIN_S, self.close)

    def lend(self) -> None:
        """See Source.lend."""
        if not self.is_lent:
            self._channel.lend(self)

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        self._write = self.transport.write
        self.is_usable = True

    @override
    def eof_received(self) -> None:
        self.is_usable = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.is_usable = False
        self._outbox.drop(self._write)
        self._write = _unconnected  # it holds the transport, of TLS with buffers, and the parser refers back here
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        has_begun = self._headers is not None or self._missing > 0
        if exc is None and self._is_ended_by_close():
            self._complete()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(Lost(is_safe=self._is_reused and not has_begun))
        if self._stream is not None:
            self._stream.fail(BackendGarbage("the backend closed the connection in the middle of its answer"))
            self._stream = None
        self._body = []  # the parser refers back here: what is half an answer would wait for the garbage collector
        self._channel.forget(self)

    def _is_ended_by_close(self) -> bool:
        """A response without a length ends where the peer closes (RFC 9112, 6.3): that is not a failure."""
        headers = self._headers
        if headers is None or not self._status or self._is_aborted:
            return False
        return b"content-length" not in headers and b"transfer-encoding" not in headers

    @override
    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._gather(data)
            return
        is_first = self._headers is None
        if is_first:
            waiter = self._waiter
            if waiter is None:
                self.close()  # an answer nobody asked for
                return
            known = self._known
            at, missing = known.body_in(data, self._max_bytes)
            self.headers = known.headers
            if missing:
                self._missing = missing
                self._body.append(data[at:])
                return
            answer = data[at:] if at else known.stream_in(data, self._max_bytes)
            if answer is not None:
                self._waiter = None
                if not waiter.done():
                    self._outbox.expected += 1
                    waiter.set_result(answer)
                if self._is_large or not self.is_usable:
                    self._free()
                else:
                    self._is_reused = True
                    self._channel.release(self)
                return
        self._parse(data)
        self._taken_bytes = len(data) + (0 if is_first else self._taken_bytes)
        whole = self._whole
        if whole is not None:
            self._whole = None
            if self.is_usable:
                self._learn(data, is_first, whole)
        elif is_first:
            is_plain = self._status == 200 and self._stream is None
            self._head = data[: data.find(b"\r\n\r\n") + 4] if is_plain else b""

    def _gather(self, data: bytes) -> None:
        """Take the next piece of an answer under the known head."""
        waiter = self._waiter
        if waiter is None:
            self.close()
            return
        missing = self._missing
        hold(self._body, data[:missing])
        self._missing = max(0, missing - len(data))
        if self._missing:
            return
        whole, self._body = b"".join(self._body), []
        self._waiter = None
        if not waiter.done():
            self._outbox.expected += 1
            waiter.set_result(whole)
        if data[missing:].strip(b"\r\n"):  # empty lines behind a message mean nothing (RFC 9112, section 2.2)
            self.close()  # it said more than it was asked
        else:
            self._free()

    def _learn(self, data: bytes, is_first: bool, whole: HttpResponse) -> None:
        """An answer is whole with `data`, its only or its last piece: its head may be learnt."""
        if not is_first:
            size = len(whole.body)
            if self._head and self._taken_bytes == len(self._head) + size:
                self._known.learn(self._head, size, whole.headers, size)
        elif whole.stream is None:
            self._known.learn(data, len(whole.body), whole.headers)
        else:
            self._known.learn_events(data, whole.headers)

    def _parse(self, data: bytes) -> None:
        body_bytes = self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                raise
            self._break(str(error.__context__))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"the backend's answer is not HTTP: {error}")
        if self._headers is not None and self._body_bytes == body_bytes:
            self._other_bytes += len(data)
            if self._other_bytes > MAX_HEAD_BYTES:
                self._break(f"the backend's answer has more than {MAX_HEAD_BYTES} bytes around its body")

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._waiter is None:
            raise _Refused("the backend answered what nobody had asked")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if headers is None or self._status:  # a trailer: nothing here wants one
            return
        headers[name.lower()] = value
        if len(headers) > MAX_HEADERS:
            raise _Refused("the backend's answer has too many headers")

    def on_headers_complete(self) -> None:
        headers = self._headers
        assert headers is not None
        status = self._parser.get_status_code()
        if not self._is_reused and self._parser.get_http_version() not in ("1.1", "1.0"):
            raise _Refused(f"the backend answered in HTTP version {self._parser.get_http_version()}")
        if status < 200:
            if status == 101 or status < 100:  # an upgrade was not asked for; below 100 there is nothing
                raise _Refused(f"the backend answered HTTP status {status}")
            return
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"identity", b""):
            raise _Refused("the backend compressed its answer, which it was asked not to do")
        self._status = status
        if is_event_stream(headers.get(b"content-type", b"")):
            self._stream = HttpStream(self)
            self._hand_over(HttpResponse(status, headers, b"", self._stream))

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        stream = self._stream
        if stream is None:
            if self._body_bytes > self._max_bytes:
                raise _Refused(f"the backend's answer is longer than {self._max_bytes} bytes")
            hold(self._body, data)
        elif not self._is_draining and stream.push(data) and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._status:  # else an informational head: the answer is still to come
            self._complete()

    # the end of an exchange

    def _complete(self) -> None:
        """The message is whole."""
        headers, status, stream = self._headers, self._status, self._stream
        assert headers is not None
        self._headers = None
        self._status = 0
        self._body_bytes = 0
        self._other_bytes = 0
        is_kept = self._parser.should_keep_alive()
        if is_kept and KEEP_ALIVE in headers:
            is_kept = self._channel.heed(headers[KEEP_ALIVE])
        if self.is_lent:
            is_kept = is_kept and self._channel.regain(self)
        if stream is None:
            body, self._body = self._body, []
            response = HttpResponse(status, headers, b"".join(body))
            if is_kept and status == 200:
                self._whole = response
            self._hand_over(response)
        else:
            self._stream = None
            stream.complete()
            if is_kept and status == 200:
                self._whole = HttpResponse(status, headers, b"", stream)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        self._is_draining = False
        if is_kept:
            self.resume_reading()
            self._free()
        else:
            self.close()

    def _hand_over(self, response: HttpResponse) -> None:
        """Wake whoever sent the request. From here on the connection owes it nothing."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            self._outbox.expected += 1
            waiter.set_result(response)
        elif response.stream is not None:
            self.close()  # cancelled in this very turn: nobody will read it

    def _free(self) -> None:
        """The exchange is over: the connection may carry another, unless its request is not even out yet."""
        self._is_reused = True
        transport = self.transport
        if self._is_large and transport is not None and transport.get_write_buffer_size():
            self.close()
        if self.is_usable:
            self._channel.release(self)

    def _break(self, why: str) -> None:
        self._headers = None
        waiter, self._waiter = self._waiter, None
        stream, self._stream = self._stream, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(BackendGarbage(why))
        if stream is not None:
            stream.fail(BackendGarbage(why))
        self.close()
