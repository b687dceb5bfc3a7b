"""A time limit on an answer that a process which stood still does not use up.

`asyncio.timeout` measures the clock: when the loop stood still for a second, because the machine was busy or asleep,
what came in meanwhile is read only after the time-out has struck, and a healthy Redis is taken for dead. Here the time
is counted in slices while the loop turns, so that a stall costs one of them at most.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, final

SLICES: Final = 8


@final
class Limit:
    """Raises TimeoutError out of its block after so many seconds in which the loop turned. Used once."""

    __slots__ = ("_left", "_loop", "_slice_s", "_timeout", "_timer")

    def __init__(self, bound_s: float) -> None:
        self._slice_s = bound_s / SLICES
        self._left = SLICES
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._slice_s, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._slice_s, self._tick)
        else:
            self._timeout.reschedule(self._loop.time())
