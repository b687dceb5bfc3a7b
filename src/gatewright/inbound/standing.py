"""What waits for a standing stream (GET) of a session: notifications and questions that belong to no call.

Bounded in number and bytes: a slow client holds up no backend, and loses the oldest notifications. Source:
basic/transports "Listening for Messages from the Server" of 2025-03-26 to 2025-11-25; S-23.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import structlog

if TYPE_CHECKING:
    from gatewright.inbound.events import EventStream

MAX_WAITING_BYTES: Final = 1 << 20
"""Notifications waiting for one standing stream; one may exceed it. Their number is bounded by the settings, but 256
of the largest messages would be gigabytes."""
log = structlog.get_logger("gatewright.sessions")


@final
class Standing:
    """One standing stream (GET): what waits for it. Whoever carries it sends it, so nobody else waits for the client.

    It is told by `wake`, or waits in `take`.
    """

    __slots__ = ("_arrived", "_asks", "_bytes", "_lost", "_max_waiting", "_notices", "_wake", "events", "is_closed")

    def __init__(
        self, max_waiting: int, events: EventStream | None = None, wake: Callable[[], None] | None = None
    ) -> None:
        self._max_waiting = max_waiting
        self.events = events
        """What it can be resumed as, where the transport has that."""
        # Lists, short as they are: an empty deque takes 760 bytes, and most of these are empty for hours.
        self._notices: list[bytes] = []
        self._asks: list[bytes] = []
        self._bytes = 0
        self._lost = 0
        self.is_closed = False
        self._wake = wake
        self._arrived: asyncio.Event | None = None

    def put(self, message: bytes) -> None:
        """Add a notification. When too many wait the oldest are dropped: they are advisory."""
        notices = self._notices
        notices.append(message)
        self._bytes += len(message)
        while len(notices) > self._max_waiting or (self._bytes > MAX_WAITING_BYTES and len(notices) > 1):
            self._bytes -= len(notices.pop(0))
            self._lost += 1
        self._changed()

    async def ask(self, message: bytes) -> None:
        """Add a question, or the end of one: never dropped, as their number is bounded by the session."""
        self.put_ask(message)

    def put_ask(self, message: bytes) -> None:
        """See `ask`, which is what whoever sends one awaits."""
        self._asks.append(message)
        self._changed()

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._notices or self._asks)

    async def take(self) -> list[bytes] | None:
        """What waits, once there is any, notifications first; None when the stream is to end."""
        while not self.has_waiting:
            if self.is_closed:
                return None
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        return self.taken()

    def taken(self) -> list[bytes]:
        """What waits now, notifications first: it does not wait any more."""
        if self._lost:
            log.warning("standing stream too slow", notifications_dropped=self._lost)
            self._lost = 0
        taken = [*self._notices, *self._asks]
        self._notices.clear()
        self._asks.clear()
        self._bytes = 0
        return taken

    def unsent(self) -> list[bytes]:
        """The notifications that never were on their way."""
        return list(self._notices)

    def unasked(self) -> list[bytes]:
        """The questions that never were on their way."""
        return list(self._asks)

    def close(self) -> None:
        """End the stream once what waits is sent."""
        self.is_closed = True
        self._changed()

    def _changed(self) -> None:
        """Tell whoever carries it."""
        if self._arrived is not None:
            self._arrived.set()
        if self._wake is not None:
            self._wake()
