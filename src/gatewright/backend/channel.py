"""The pooled HTTP/1.1 channel to one origin: the wire below the HTTP link.

A connection carries one exchange at a time, and is kept for the next one when it ended well: for `keep_alive_s`, or for
less where the backend says in `Keep-Alive` that it keeps them for less, so that the gateway closes first and no request
meets a connection that is going away. Redirects are answers, not followed. A request is sent again, once and over
another connection, only when the caller says that this is safe, the connection had been used before, and not a byte of
an answer had come. Bounds are the backend's settings. Source: RFC 9112, section 9.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from gatewright.backend.connection import HttpConnection, Lost
from gatewright.backend.heads import KnownHead
from gatewright.backend.response import HttpResponse, idle_timeout_s
from gatewright.errors import BackendGarbage, BackendUnavailable

if TYPE_CHECKING:
    from gatewright.backend.origin import Origin
    from gatewright.backend.settings import BackendSettings
    from gatewright.outbox import Outbox

CLOSE_S: Final = 1.0
"""How long closing waits for the loop to take note of aborted connections."""
SWEEPS: Final = 4
"""Looks at the idle connections in one `keep_alive_s`: a timer for all, none per connection."""
HEEDED: Final = 0.8
"""Of the time that a backend says it keeps idle connections: 4 s of Node's 5. The rest is for the way there."""
NOT_SENT: Final = "nothing was sent"
"""The argument of a CancelledError that ended a request before it had a connection."""


@final
class HttpChannel:
    """A pool of connections to one origin. Callers wait in order when all are busy; their own deadline bounds that."""

    def __init__(
        self,
        name: str,
        origin: Origin,
        settings: BackendSettings,
        outbox: Outbox,
        *,
        max_connections: int | None = None,
    ) -> None:
        """`outbox`: that of all connections of the loop."""
        self._name = name
        self._origin = origin
        self._connect_timeout_s = settings.connect_timeout_s
        self._max_connections = max_connections or settings.max_connections
        self._max_idle = settings.max_idle_connections
        self._keep_alive_s = settings.keep_alive_s
        self.max_response_bytes: Final = settings.max_response_bytes
        self.known: Final = KnownHead()
        self.loop: Final = asyncio.get_running_loop()
        self.outbox: Final = outbox
        self._open: set[HttpConnection] = set()
        self._idle: list[HttpConnection] = []
        self._slots = 0
        """Connections that are open, being opened, or promised to somebody who waits, less those that are lent."""
        self._max_lent = settings.max_lent
        self._lent = 0
        """Connections on which a call waits for a person: many do for minutes, and others must not wait for them."""
        self._waiting: deque[asyncio.Future[HttpConnection | None]] = deque()
        """Each is handed a connection, or None: the right to open one."""
        self._swept_s = 0.0
        """When the idle connections were last looked at, by the loop's clock."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event = asyncio.Event()
        self._is_closed = False

    @property
    def connections(self) -> tuple[int, int]:
        """How many there are (open, being opened or promised), and how many of them are idle."""
        return self._slots, len(self._idle)

    async def send(self, payload: bytes, is_retry_safe: bool = False) -> HttpResponse:
        """Send one request (head and body) and await the response.

        Raises BackendUnavailable when it surely was not carried out, BackendGarbage when it may have been; a
        CancelledError says NOT_SENT when there was no connection for it yet.
        """
        connection = self.ready() or await self._acquired()
        try:
            return await self._exchange(connection, payload)
        except Lost as lost:
            return await self.send_again(payload, lost, is_retry_safe)

    async def send_again(self, payload: bytes, lost: Lost, is_retry_safe: bool) -> HttpResponse:
        """Send a request whose connection was lost once more, over a new one, if that is safe. Once, since a request
        may be what ends the backend. Raises what `send` does."""
        if lost.is_safe and is_retry_safe:
            connection = await self._acquired()
            try:
                return await self._exchange(connection, payload)
            except Lost:
                pass
        raise BackendGarbage(f"{self._name} closed the connection without an answer") from None

    async def _exchange(self, connection: HttpConnection, payload: bytes) -> HttpResponse:
        """Ask on that connection. Raises Lost."""
        waiter = connection.ask(payload)
        try:
            response = await waiter
        except asyncio.CancelledError:
            connection.left(waiter)
            raise
        if isinstance(response, bytes):
            return HttpResponse(200, connection.headers, response)
        response.unfold()
        return response

    def ready(self) -> HttpConnection | None:
        """A usable connection that nobody uses, if there is one: whoever gets it asks on it at once."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def heed(self, keep_alive: bytes) -> bool:
        """What the backend's `Keep-Alive` field says: whether the connection may be kept at all. None is kept for
        longer than the backend says, less a margin; what it says later may only shorten that."""
        told_s = idle_timeout_s(keep_alive)
        if told_s is not None and 0 < told_s * HEEDED < self._keep_alive_s:
            self._keep_alive_s = told_s * HEEDED
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweep()
        return told_s != 0

    def release(self, connection: HttpConnection) -> None:
        """An exchange is over and its usable connection may carry another."""
        waiting = self._waiting
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        idle = self._idle
        if len(idle) >= self._max_idle:
            connection.close()
            return
        if self._sweeper is None:
            self._watch()
        connection.idle_since_s = self._swept_s
        idle.append(connection)

    def forget(self, connection: HttpConnection) -> None:
        """A connection closed. Somebody who waits for one may open another."""
        if connection not in self._open:
            return  # it never got as far as to be used
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.is_lent:
            self._lent -= 1
        else:
            self._yield_slot()
        if not self._open:
            self._emptied.set()

    def lend(self, connection: HttpConnection) -> None:
        """What is on a connection waits for a person: the next in line may open another, up to a bound."""
        if self._lent < self._max_lent and connection in self._open:
            connection.is_lent = True
            self._lent += 1
            self._yield_slot()

    def regain(self, connection: HttpConnection) -> bool:
        """The exchange on a lent connection has ended. False when there is no room for it among the others any more."""
        if self._slots >= self._max_connections:
            return False
        connection.is_lent = False
        self._lent -= 1
        self._slots += 1
        return True

    async def aclose(self) -> None:
        """Close every connection; whoever waits is told that the backend is unavailable."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(BackendUnavailable(f"{self._name} is being closed"))
        for connection in list(self._open):
            connection.close()
        if self._open:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._emptied.wait()

    def _watch(self) -> None:
        """Look at the idle connections in a while."""
        self._swept_s = self.loop.time()
        self._sweeper = self.loop.call_later(self._keep_alive_s / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for `keep_alive_s`, or will have been before the next look. By the clock: a look
        that comes late, as when the process was stopped, makes up for those that were missed."""
        last_s = self.loop.time() - self._keep_alive_s * (1 - 0.5 / SWEEPS)
        idle = self._idle
        expired = [connection for connection in idle if connection.idle_since_s <= last_s]
        idle[:] = [connection for connection in idle if connection.idle_since_s > last_s]
        for connection in expired:
            connection.close()
        self._sweeper = None
        if idle:
            self._watch()

    async def _acquired(self) -> HttpConnection:
        """A connection for a request of which nothing is sent yet: see `_acquire`."""
        try:
            return await self._acquire()
        except asyncio.CancelledError:
            raise asyncio.CancelledError(NOT_SENT) from None

    async def _acquire(self) -> HttpConnection:
        """A connection that nobody uses: a new one, or the next that is free."""
        queue: Callable[[asyncio.Future[HttpConnection | None]], None] = self._waiting.append
        while True:
            if self._is_closed:
                raise BackendUnavailable(f"{self._name} is being closed")
            if self._slots < self._max_connections:
                self._slots += 1
                return await self._connect()
            if (idle := self.ready()) is not None:
                return idle
            waiter: asyncio.Future[HttpConnection | None] = self.loop.create_future()
            queue(waiter)
            try:
                handed = await waiter
            except asyncio.CancelledError:
                self._give_back(waiter)
                raise
            if handed is None:
                return await self._connect()
            if handed.is_usable:
                return handed
            queue = self._waiting.appendleft  # it closed in the turn it was handed over: first in line again

    def _give_back(self, waiter: asyncio.Future[HttpConnection | None]) -> None:
        """Whoever waited was cancelled: what it was handed meanwhile goes to the next."""
        if not waiter.done() or waiter.cancelled():
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
        elif waiter.exception() is None:
            handed = waiter.result()
            if handed is None:
                self._yield_slot()
            elif handed.is_usable:
                self.release(handed)

    def _yield_slot(self) -> None:
        """One connection fewer: the first in line may open another."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._slots -= 1

    async def _connect(self) -> HttpConnection:
        """A new connection in a slot that is taken already."""
        try:
            connection = await self._origin.open(self._name, lambda: HttpConnection(self), self._connect_timeout_s)
            if self._is_closed or not connection.is_usable:
                connection.close()
                raise BackendUnavailable(f"{self._name} closed a new connection at once")
        except BaseException:
            self._yield_slot()
            raise
        self._open.add(connection)
        return connection
