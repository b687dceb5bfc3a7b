"""The deadlines of a listener's connections, kept by one timer for all.

Contract: visits every watched connection once per period, at most a second; the connection itself knows what it waits
for. So a deadline passes up to two periods late, never early, and an idle connection costs no timer. The timer rests
while there is no connection.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, final

from gatewright.inbound.settings import Limits


class Watched(Protocol):
    """A connection."""

    def sweep(self, now_s: float) -> None:
        """End it if what it waits for is overdue. `now_s` is the loop's time."""


@final
class Deadlines:
    """One repeating timer that visits every connection. Its clock is what the connections measure with."""

    def __init__(self, limits: Limits) -> None:
        waits = (limits.header_timeout_s, limits.body_timeout_s, limits.keep_alive_s, limits.write_stall_s)
        self.period_s = min(1.0, min(waits) / 4)
        self.now_s = 0.0
        """Loop time of the last sweep; at most one period old."""
        self.watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Visit this connection until `forget`."""
        self.watched.add(connection)
        if self._timer is None:
            self.now_s = loop.time()
            self._timer = loop.call_later(self.period_s, self._sweep, loop)

    def forget(self, connection: Watched) -> None:
        """The connection is closed. The timer rests while there is none."""
        self.watched.discard(connection)
        if not self.watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now_s = now_s = loop.time()
        self._timer = loop.call_later(self.period_s, self._sweep, loop)
        for connection in tuple(self.watched):
            connection.sweep(now_s)
