"""Patience: what surely did not run is tried again, with growing pauses, for a bounded time.

For a bridge to one server, whose host takes the first error for the last: the server may be starting, or starting
again. Only a server that was not reached, or said that it is too busy (HTTP 429, 503), is waited for; whatever may have
run is not repeated. Source: basic/transports of every revision, which leave the time-outs of senders to them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import structlog

from gatewright.backend.base import Refused
from gatewright.call import Call, Handler, Outcome
from gatewright.errors import BackendUnavailable

FIRST_PAUSE_S: Final = 0.25
"""It doubles each time, up to LAST_PAUSE_S: a server that restarts in a second is not waited for much longer."""
LAST_PAUSE_S: Final = 5.0
BUSY: Final = frozenset({429, 503})
T = TypeVar("T")
log = structlog.get_logger("gatewright.policy")


@final
class Patience:
    """Waits up to `wait_s` in all for a server that cannot be reached; 0 tries once."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def around(self, handler: Handler) -> Handler:
        """That handler, tried again."""

        async def patient(call: Call) -> Outcome:
            return await self.through(lambda: handler(call))

        return patient

    async def through(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the first attempt that reached the server gave or raised; else what the last one raised."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._wait_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await attempt()
            except BackendUnavailable as error:
                wait_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
                if not is_worth_waiting(error) or loop.time() + wait_s >= ends_at:
                    raise
                log.warning("not reached", reason=error.message, next_try_in_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, LAST_PAUSE_S)


def is_worth_waiting(error: BackendUnavailable) -> bool:
    """Whether the same request may succeed later although nothing is changed but the time."""
    return not isinstance(error, Refused) or error.status in BUSY
