"""Telemetry: every call is counted, with how long it took and what became of it.

Contract: changes nothing about a call and waits for nothing. One clock reading, at the end: the time runs from where
the deadline started it (`call.started_at`), so it is the backend's and the bridge's, not that of a person who was asked
a question; a call that never got so far took no time. Names go into metrics only if they were known at the start
(`telemetry.calls`). `record` stands alone so that a policy that has a `finally` anyway can call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, final

from gatewright.call import Call, Failure, Handler, InputRequired, Outcome, Result
from gatewright.errors import (
    BackendGarbage,
    BackendTimeout,
    BackendUnavailable,
    ClientError,
    Overloaded,
)
from gatewright.telemetry import calls
from gatewright.telemetry.calls import NOWHERE, Calls

OUTCOMES: Final = {Result: calls.RESULT, Failure: calls.FAILURE, InputRequired: calls.INPUT_REQUIRED}
"""What a call ended in, by its class."""
ERRORS: Final = (
    (ClientError, calls.REFUSED),
    (Overloaded, calls.OVERLOADED),
    (BackendUnavailable, calls.UNAVAILABLE),
    (BackendTimeout, calls.TIMEOUT),
    (BackendGarbage, calls.GARBAGE),
    (asyncio.CancelledError, calls.CANCELLED),
)
"""What it was ended by, by the first class that it is of; anything else is a bug of ours."""


def ended_by(error: BaseException) -> int:
    """The outcome of a call that an exception ended, as an index into `telemetry.calls.OUTCOMES`."""
    for kind, outcome in ERRORS:
        if isinstance(error, kind):
            return outcome
    return calls.INTERNAL


@final
class Telemetry:
    """Counts calls into `counts`. `now` is the clock that the deadline measures with: the loop's."""

    def __init__(self, counts: Calls, now: Callable[[], float]) -> None:
        self._record = counts.record
        self._now = now

    async def __call__(self, call: Call, proceed: Handler) -> Outcome:
        """Count it when it has ended, however that was."""
        try:
            outcome = await proceed(call)
        except BaseException as error:
            self.record(call, ended_by(error))
            raise
        self.record(call, OUTCOMES[type(outcome)])
        return outcome

    def record(self, call: Call, outcome: int) -> None:
        """The call has ended. `outcome` is an index into `telemetry.calls.OUTCOMES`."""
        target = call.target
        started_at = call.started_at
        self._record(
            call.method,
            NOWHERE if target is None else target.backend.name,
            outcome,
            self._now() - started_at if started_at else 0.0,
        )
