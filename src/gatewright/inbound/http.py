"""The listener's protocol class: one client connection, its requests in order, its bounds and deadlines.

Contract: reads requests strictly (`framing`), runs `serve` for one at a time per connection in the given task group,
queues at most `max_pipelined` more and then stops reading (one read of up to 4 KiB is parsed whole, whatever it holds),
and answers framing errors itself: after one, nothing more of the connection is served. Every wait has a deadline from
`Limits`, kept by one sweep per process and second instead of timers per connection, so a deadline passes up to two
sweeps late, never early. Never logs per request, never touches the meaning of a request.

A client that sends EOF has left, even if it only shut down its sending half: a `close()` cannot be told from it, and
in the modern era leaving is the cancellation, which must be noticed at once (as uvicorn, nginx and Go's net/http do).
Requests it sent before that and that were not answered are dropped.

It is uvicorn's `Config(http=protocol_factory(...))` class: uvicorn keeps sockets, TLS and signals, and on shutdown
calls `shutdown()` on each member of `server_state.connections`. Sources: RFC 9112, RFC 9110.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeAlias, cast

import structlog
from typing_extensions import override

from gatewright.background import Background
from gatewright.inbound.crowd import DEFAULT_CONNECTIONS, TOO_MANY, Crowd, Places, Serve
from gatewright.inbound.deadlines import Deadlines
from gatewright.inbound.framing import HttpRequest, Peer, Refusal, RequestReader, may_hold_many
from gatewright.inbound.responder import Responder, error_body, refusal_bytes
from gatewright.inbound.settings import Limits
from gatewright.outbox import Outbox

__all__ = ["HttpProtocol", "HttpRequest", "Responder", "Serve", "protocol_factory"]

_log: Final = structlog.get_logger("gatewright.inbound.http")

_LINGER_S: Final = 2.0
"""After a refusal input is read and dropped this long, so that the client reads the answer instead of a reset
(RFC 9112 section 9.6)."""
_SHORTEST_REQUEST_BYTES: Final = 26
"""`GET / HTTP/1.1`, `Host:a` and the empty line: how many bytes one pipelined request takes at least."""
_MANY_BYTES: Final = 4_096
"""A read up to this size is parsed whole: looking for pipelined requests costs more than the few it may hold."""
_MAX_HELD_BYTES: Final = 16_384
"""Pieces of a stream wait for each other up to this size; the transport has to see them to hold the sender back."""

# What a connection is doing, beside what its reader says.
_OPEN, _DEAF, _LINGERING, _CLOSING = range(4)

_Job: TypeAlias = tuple[HttpRequest, Responder]
_Pending: TypeAlias = tuple[HttpRequest, bool, bool]


class HttpProtocol(asyncio.Protocol):
    """One client connection."""

    __slots__ = ("_connections", "_current", "_deadlines", "_held", "_held_bytes", "_idle", "_limits",
                 "_loop", "_reader", "_refusal", "_serve", "_since_s", "_stage", "_stall", "_state", "_tasks",
                 "_transport", "_unread", "_waiting", "_writable", "crowd", "is_draining", "is_ending", "is_paused",
                 "outbox", "write")  # fmt: skip

    def __init__(
        self,
        *,
        serve: Serve,
        limits: Limits,
        tasks: asyncio.TaskGroup,
        connections: set[Any],
        deadlines: Deadlines,
        crowd: Crowd,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
    ) -> None:
        self._serve = serve
        self._limits = limits
        self._tasks = tasks
        self._connections = connections
        self._deadlines = deadlines
        self.crowd = crowd
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._reader: RequestReader = cast(RequestReader, None)
        self.outbox = outbox
        # The transport's own, once there is one: what is sent by it is sent now, past what waits in the outbox.
        self.write: Callable[[bytes], None] = cast(Callable[[bytes], None], None)
        self._state = _OPEN
        self._stage = -1  # the reader's when last looked at; -1: nothing received yet
        self._since_s = 0.0  # when the current wait began
        self._current: Responder | None = None
        self._waiting: list[_Pending] = []
        self._refusal: Refusal | None = None  # answered behind everything that waits
        self._unread = b""  # received behind a full queue, not parsed yet
        self._idle: asyncio.Future[_Job | None] | None = None  # the connection's task waits here for the next request
        self._writable: asyncio.Event | None = None
        self._held: list[bytes] = []  # to be sent at the end of this turn of the loop
        self._held_bytes = 0
        self._stall = (0.0, 0)  # since when, with how many bytes buffered
        self.is_draining = crowd.is_draining
        self.is_ending = False
        self.is_paused = False

    # asyncio's side.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self.write = transport.write
        deadlines = self._deadlines
        deadlines.watch(self, self._loop)
        self._since_s = deadlines.now_s
        peer = transport.get_extra_info("peername")
        known: Peer = (peer[0], peer[1]) if isinstance(peer, tuple) and len(peer) >= 2 else None
        self._reader = RequestReader(self._deliver, self._limits, known)
        if len(self._connections) < self.crowd.max_connections:
            self._connections.add(self)
        else:
            self._serve = self.crowd.shed(self, self._serve)

    @override
    def data_received(self, data: bytes) -> None:
        if self._state != _OPEN:
            return
        reader = self._reader
        if self._current is None and not self._waiting and not self.is_paused and (request := reader.known(data)):
            self._stage = reader.stage
            self._since_s = self._deadlines.now_s
            self._start(request, False, False)
            return
        is_long = len(data) > max(_MANY_BYTES, reader.body_left)  # else it is all of one body
        if self._current is not None or self._waiting or (is_long and may_hold_many(data, reader.stage)):
            self._feed_sparingly(data)
            return
        try:
            reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if reader.stage != self._stage:
            self._stage = reader.stage
            self._since_s = self._deadlines.now_s
            if reader.awaits_continue:
                self._continue()

    @override
    def eof_received(self) -> bool:
        self.outbox.flush()  # what was answered before
        self._leave()
        return False  # the transport flushes what is buffered and closes

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSING
        self.outbox.drop(self.write)
        self._connections.discard(self)
        self.crowd.leave(self)
        self._deadlines.forget(self)
        self._reader.close()
        self.is_paused = False
        if self._writable is not None:
            self._writable.set()
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)
        self._leave()

    @override
    def pause_writing(self) -> None:
        self.is_paused = True
        self._stall = (self._deadlines.now_s, self._transport.get_write_buffer_size())

    @override
    def resume_writing(self) -> None:
        self.is_paused = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._current is None:
            self._advance()

    # The server's side.

    def shutdown(self) -> None:
        """Begin to end: a stream is told when it is its turn, the next answer is the last one. An idle connection is
        closed, if the crowd's idle time is over before it has begun."""
        self.is_draining = self.is_ending = True
        current, crowd = self._current, self.crowd
        if current is not None:
            turn_s = crowd.turn_s() if current.on_drain is not None else 0.0
            if turn_s:
                self._loop.call_later(turn_s, current.drain)
            else:
                current.drain()
        elif self._state == _OPEN and not self._reader.stage % 3:
            self._since_s = self._deadlines.now_s
            if not crowd.idle_s:
                self._close()

    def cut(self) -> None:
        """Close at once, whatever is going on. A client that said nothing yet may still read why."""
        if self._stage >= 0:
            self._transport.abort()
        elif self._state == _OPEN:
            self.write(refusal_bytes(503, TOO_MANY, self.crowd.retry_after()))
            self._close()

    def sweep(self, now_s: float) -> None:
        """End the connection if what it waits for is overdue."""
        limits = self._limits
        if self.is_paused or self._state >= _LINGERING:
            self._sweep_writing(now_s)
        waited_s = now_s - self._since_s - self._deadlines.period_s
        if self._state == _LINGERING:
            if self._transport.get_write_buffer_size():
                self._since_s = now_s  # it counts from when the answer is on its way
            elif waited_s > _LINGER_S:
                self._transport.abort()
        elif self._state != _OPEN or self._unread:
            return  # our own turn, not the client's
        elif self._stage < 0 or not self._stage % 3:
            wait_s = limits.header_timeout_s if self._stage < 0 else limits.keep_alive_s
            if self._current is None and waited_s > (self.crowd.idle_s if self.is_ending else wait_s):
                self._close()
        elif waited_s > (limits.header_timeout_s if self._stage % 3 == 1 else limits.body_timeout_s):
            self._refuse(Refusal(408, "the request took too long to arrive"))

    def _sweep_writing(self, now_s: float) -> None:
        since_s, buffered = self._stall
        size = self._transport.get_write_buffer_size()
        if size != buffered:
            self._stall = (now_s, size)
        elif now_s - since_s - self._deadlines.period_s > self._limits.write_stall_s:
            self._transport.abort()

    # The responder's side.

    def run(self, work: Coroutine[Any, Any, None], /) -> bool:
        """Start work of a response's own. False when nothing starts any more."""
        return Background(self._tasks)(work) is not None

    def write_soon(self, data: bytes, /) -> None:
        """Send bytes at the end of this turn of the loop, in one system call with what else is sent in it: a stream's
        head and first event, or all events of one read from a backend."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send now what was to be sent soon."""
        if self._held:
            held, self._held = self._held, []
            self._held_bytes = 0
            self.outbox.flush()
            self.write(held[0] if len(held) == 1 else b"".join(held))

    def writelines(self, parts: Iterable[bytes], /) -> None:
        """Send the parts now, without copying them into one."""
        self.outbox.flush()
        self._transport.writelines(parts)

    async def writable(self) -> None:
        """Return when the transport takes bytes again, or the client left."""
        if self._writable is None:
            self._writable = asyncio.Event()
        await self._writable.wait()

    def finish(self, responder: Responder, /) -> None:
        """The response is complete: go on with the next request, or end the connection."""
        self._current = None
        self._since_s = self._deadlines.now_s
        if responder.is_last:
            self._close()
        elif self._waiting or self._refusal is not None or self._unread or self.is_ending:
            self._advance()
        elif self._reader.awaits_continue:
            self._continue()

    # Requests in order.

    def _deliver(self, request: HttpRequest, is_last: bool, is_old: bool) -> None:
        """The reader has a request."""
        if self._current is None and not self._waiting and not self.is_paused:
            self._start(request, is_last, is_old)
        else:
            self._waiting.append((request, is_last, is_old))

    def _start(self, request: HttpRequest, is_last: bool, is_old: bool) -> None:
        """Serve a request: by the connection's own task if it is free, else by a new one."""
        # pyright takes a function in a slot for a method.
        responder = Responder(self, is_last, is_old, request.method == "HEAD")  # pyright: ignore[reportArgumentType]
        self._current = responder
        self.outbox.expected += 1
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result((request, responder))
            return
        work = self._work(request, responder)
        try:
            self._tasks.create_task(work)
        except RuntimeError:  # the task group is ending
            work.close()
            self._abort()

    async def _work(self, request: HttpRequest, responder: Responder) -> None:
        """Serve requests of this connection until another task waits for the next one, or the connection is closed.

        One task for many requests: making one costs as much as reading the request does.
        """
        task = asyncio.current_task()
        while True:
            responder.task = task
            try:
                await self._serve(request, responder)
                if not responder.is_ended and not responder.is_gone and self._is_held(responder):
                    return  # nothing here is needed until it ends
            except Exception:  # noqa: BLE001 - the outermost edge: a bug ends one request, not the process
                self._fail(request, responder)
            except BaseException:
                if not responder.is_ended:
                    self._abort()
                raise
            if self._idle is not None or self._state >= _LINGERING:
                return
            del request, responder
            self._idle = idle = self._loop.create_future()
            try:
                job = await idle
            finally:
                if self._idle is idle:
                    self._idle = None
            if job is None:
                return
            request, responder = job

    def _is_held(self, responder: Responder) -> bool:
        """`serve` returned with the response open: end it, unless it is held open without a task."""
        if not responder.is_started:
            raise RuntimeError("the request was not answered")
        if responder.is_held:
            responder.task = None
            self._reader.rest()
            return True
        responder.end()
        return False

    def _fail(self, request: HttpRequest, responder: Responder) -> None:
        """`serve` raised: a bug. The client gets an id that the log has too."""
        error_id = secrets.token_hex(8)
        _log.exception("http.serve_failed", error_id=error_id, method=request.method, path=request.path)
        if not responder.is_started:
            responder.respond(500, error_body(-32603, "Internal error", error_id))
        elif not responder.is_ended:
            self._abort()

    def _advance(self) -> None:
        """Go on behind a complete answer."""
        if self._state >= _LINGERING:
            return
        if self.is_ending and not self.crowd.idle_s and not self._waiting and not self._reader.stage % 3:
            self._close()
            return
        if self._unread and len(self._waiting) < self._limits.max_pipelined:
            unread, self._unread = self._unread, b""
            self._since_s = self._deadlines.now_s
            self._feed_sparingly(unread)
            if not self._unread:
                self._transport.resume_reading()
        if self._current is not None or self.is_paused:
            return
        if self._waiting:
            self._start(*self._waiting.pop(0))
        elif self._refusal is not None:
            self._goodbye(self._refusal)

    def _feed_sparingly(self, data: bytes) -> None:
        """Read requests that are sent ahead, as many as may wait; keep the rest unparsed and stop reading."""
        reader = self._reader
        view = memoryview(data)
        while view and self._state == _OPEN:
            room = self._limits.max_pipelined - len(self._waiting)
            if room <= 0:
                self._unread += bytes(view)
                self._transport.pause_reading()
                return
            # No more requests can complete in a piece than there is room for.
            size = reader.body_left + room * _SHORTEST_REQUEST_BYTES
            try:
                reader.feed(view[:size])
            except Refusal as refusal:
                self._refuse(refusal)
                return
            view = view[size:]
            if reader.is_last and not reader.stage % 3:
                self._state = _DEAF
        if reader.stage != self._stage:
            self._stage = reader.stage
            self._since_s = self._deadlines.now_s
            if reader.awaits_continue and self._current is None:
                self._continue()

    # Ends.

    def _continue(self) -> None:
        """Tell a waiting client to send its body, when it is its turn."""
        if self._current is None and not self._waiting:
            self._reader.awaits_continue = False
            self.outbox.flush()
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, refusal: Refusal) -> None:
        """Read no more; answer what came before, then the refusal, then close."""
        self._state = _DEAF
        self._refusal = refusal
        if self._current is None and not self._waiting:
            self._goodbye(refusal)

    def _goodbye(self, refusal: Refusal) -> None:
        self.outbox.flush()
        self.write(refusal_bytes(refusal.status, refusal.message, refusal.headers))
        self._state = _LINGERING
        self._since_s = self._deadlines.now_s
        self._stall = (self._since_s, self._transport.get_write_buffer_size())
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _close(self) -> None:
        """Close once what is buffered is sent."""
        self.outbox.flush()
        self._state = _CLOSING
        self._stall = (self._deadlines.now_s, self._transport.get_write_buffer_size())
        self._transport.close()

    def _abort(self) -> None:
        """Cut the connection behind what was answered before."""
        self.outbox.flush()
        self._transport.abort()

    def _leave(self) -> None:
        """The client left: whoever answers it is told at once."""
        self._state = max(self._state, _DEAF)
        self._waiting.clear()
        self._refusal = None
        self._unread = b""
        self._held = []
        self._held_bytes = 0
        current, self._current = self._current, None
        if current is not None:
            current.leave()


class ServerState(Protocol):
    """What we use of uvicorn's `ServerState`."""

    connections: set[Any]


def protocol_factory(
    serve: Serve, limits: Limits, tasks: asyncio.TaskGroup, outbox: Outbox, crowd: Crowd | None = None
) -> Callable[..., HttpProtocol]:
    """What uvicorn calls for each connection: `Config(http=protocol_factory(...))`. One sweep serves them all, and the
    outbox of all connections of the loop."""
    deadlines = Deadlines(limits)
    crowd = crowd or Crowd(Places(limits.max_connections or DEFAULT_CONNECTIONS, 256))

    def create(
        *,
        config: object,
        server_state: ServerState,
        app_state: object,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpProtocol:
        return HttpProtocol(
            serve=serve,
            limits=limits,
            tasks=tasks,
            connections=server_state.connections,
            deadlines=deadlines,
            crowd=crowd,
            loop=_loop or asyncio.get_running_loop(),
            outbox=outbox,
        )

    return create
