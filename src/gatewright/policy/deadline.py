"""Deadline: a call ends in time, whatever its backend does.

A call fails when its backend says nothing for `timeout_s`, and after `max_total_s` however much progress it reports
(basic/patterns/cancellation, "Timeouts"). One timer serves all calls, TICK_S apart, so that a call costs no timer.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

from gatewright.call import Call, Handler, Outcome
from gatewright.errors import BackendTimeout

TICK_S: Final = 0.25
"""How often calls are looked at: a deadline is kept to this much."""
UNBOUNDED: Final = frozenset({"subscriptions/listen"})
"""Long-lived by nature: bounded by their clients' streams, not by time."""


@final
class _Watch:
    __slots__ = ("call", "is_expired", "started_at", "task", "timeout_s", "total_s")

    def __init__(self, call: Call, task: asyncio.Task[object], timeout_s: float, total_s: float, now: float) -> None:
        self.call = call
        self.task = task
        self.timeout_s = timeout_s
        self.total_s = total_s
        self.started_at = now
        self.is_expired = False


@final
class Deadline:
    """Cancels calls that take too long, and says so."""

    def __init__(self) -> None:
        self._watched: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, call: Call, proceed: Handler, /) -> Outcome:
        """Bound the call by its target's settings. Raises BackendTimeout."""
        target, task = call.target, call.task
        if target is None or call.method in UNBOUNDED:
            return await proceed(call)
        loop = self._loop
        if loop is None:
            loop = self._loop = task.get_loop()
        bounds = target.backend.bounds
        call.heard_at = now = loop.time()
        watch = _Watch(call, task, bounds.timeout_s, bounds.max_total_s, now)
        watched = self._watched
        watched.add(watch)
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick, loop)
        try:
            return await proceed(call)
        except asyncio.CancelledError:
            if watch.is_expired and task.uncancel() == 0:
                raise BackendTimeout(f"{target.backend.name} did not answer within {bounds.timeout_s:g} s") from None
            raise
        finally:
            watched.discard(watch)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in self._watched:
            if watch.is_expired:
                continue
            if now - watch.call.heard_at >= watch.timeout_s or now - watch.started_at >= watch.total_s:
                watch.is_expired = True
                watch.task.cancel()
        self._timer = loop.call_later(TICK_S, self._tick, loop) if self._watched else None
