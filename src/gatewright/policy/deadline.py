"""Deadline: a call ends in time, whatever its backend does.

A call fails when its backend says nothing for `timeout_s`, and after `max_total_s` however much progress it reports
(basic/patterns/cancellation, "Timeouts"). While a question of the backend is open with the client, it is the client's
silence, and only the second bound counts. One timer serves all calls, TICK_S apart, so that a call costs no timer.
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
class Deadline:
    """Cancels calls that take too long, and says so. It keeps those that run in `watched`, for others to count."""

    def __init__(self, watched: set[Call] | None = None) -> None:
        self._watched: set[Call] = set() if watched is None else watched
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, call: Call, proceed: Handler) -> Outcome:
        """Bound the call by its target's settings. Raises BackendTimeout."""
        if call.method in UNBOUNDED:
            return await proceed(call)
        loop = self._loop
        if loop is None:
            loop = self._loop = call.task.get_loop()
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick, loop)
        call.started_at = call.heard_at = loop.time()
        watched = self._watched
        watched.add(call)
        try:
            return await proceed(call)
        except asyncio.CancelledError:
            if not call.is_expired:
                raise
            call.is_expired = False
            if call.task.uncancel():
                raise  # cancelled by somebody else as well
            raise BackendTimeout(_overdue(call, loop.time())) from None
        finally:
            watched.discard(call)
            if call.is_expired:
                call.task.uncancel()  # the cancel was lost on the way: the task serves other requests after this one

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for call in self._watched:
            if call.is_expired or call.target is None:
                continue
            bounds = call.target.backend.bounds
            if call.open_asks:
                call.heard_at = now
            if now - call.heard_at >= bounds.timeout_s or now - call.started_at >= bounds.max_total_s:
                call.is_expired = True
                call.task.cancel()
        self._timer = loop.call_later(TICK_S, self._tick, loop) if self._watched else None


def _overdue(call: Call, now: float) -> str:
    """Which bound was reached."""
    assert call.target is not None
    backend, bounds = call.target.backend, call.target.backend.bounds
    if now - call.started_at >= bounds.max_total_s:
        return f"{backend.name} did not finish within {bounds.max_total_s:g} s (max_total_s)"
    return f"{backend.name} did not answer within {bounds.timeout_s:g} s (timeout_s)"
