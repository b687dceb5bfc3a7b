"""A time limit on an answer that a process which stood still does not use up.

`asyncio.timeout` measures the clock: when the loop stood still for a second, because the machine was busy or asleep,
what came in meanwhile is read only after the time-out has struck, and a healthy Redis is taken for dead. Here the time
is counted in slices, and only those count that ended on time; a loop that is always late waits longer, with an end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, final

SLICES: Final = 8
LATE: Final = 0.5
"""A slice that ends later than by this part of its length does not count."""
STRETCH: Final = 4
"""However late the loop is, it is no more than this many times the bound."""


@final
class Limit:
    """Raises TimeoutError out of its block after so many seconds in which the loop turned. Used once."""

    __slots__ = ("_due_at", "_last_at", "_left", "_loop", "_slice_s", "_timeout", "_timer")

    def __init__(self, bound_s: float) -> None:
        self._slice_s = bound_s / SLICES
        self._left = SLICES
        self._loop = asyncio.get_running_loop()
        self._due_at = self._loop.time() + self._slice_s
        self._last_at = self._loop.time() + bound_s * STRETCH
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_at(self._due_at, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        now = self._loop.time()
        self._left -= now < self._due_at + self._slice_s * LATE
        if self._left and now < self._last_at:
            self._due_at = now + self._slice_s
            self._timer = self._loop.call_at(self._due_at, self._tick)
        else:
            self._timeout.reschedule(now)
