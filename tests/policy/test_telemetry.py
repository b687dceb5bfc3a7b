"""Every call is counted once, under what became of it."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.call import Call, Failure, InputRequired, Outcome, Result, Target
from gatewright.errors import (
    BackendGarbage,
    BackendTimeout,
    BackendUnavailable,
    GatewayError,
    HeaderMismatch,
    InvalidParams,
    Overloaded,
    UnknownSession,
)
from gatewright.policy.deadline import Deadline
from gatewright.policy.pipeline import compose
from gatewright.policy.telemetry import Telemetry, ended_by
from gatewright.telemetry.calls import BOUNDS_S, OUTCOMES, SUM, Calls
from policy.calls import Behind, a_call

pytestmark = pytest.mark.anyio


def counting(now: float = 100.0) -> tuple[Calls, Telemetry]:
    """A policy whose clock stands."""
    counts = Calls(["tools/call", "tools/list"], ["box"])
    return counts, Telemetry(counts, lambda: now)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [(Result(b"{}"), "result"), (Failure(-32000, "no"), "failure"), (InputRequired(b"{}"), "input_required")],
)
async def test_an_outcome_is_counted(outcome: Outcome, word: str) -> None:
    """And passed on as it is, with the time since the deadline began."""
    counts, policy = counting()

    async def proceed(call: Call) -> Outcome:
        call.started_at = 99.96
        return outcome

    assert await policy(a_call(target=Target(Behind(), "tool")), proceed) is outcome
    ((labels, slots),) = counts.series()
    assert labels == ("tools/call", "box", word)
    assert slots[BOUNDS_S.index(0.05)] == 1
    assert slots[SUM] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (InvalidParams("x"), "refused"),
        (HeaderMismatch("x"), "refused"),
        (UnknownSession("x"), "refused"),
        (Overloaded("x"), "overloaded"),
        (BackendUnavailable("x"), "unavailable"),
        (BackendTimeout("x"), "timeout"),
        (BackendGarbage("x"), "garbage"),
        (asyncio.CancelledError(), "cancelled"),
        (GatewayError("x"), "internal"),
        (KeyError("x"), "internal"),
        (KeyboardInterrupt(), "internal"),
    ],
)
async def test_what_is_raised_is_counted_and_goes_on(error: BaseException, word: str) -> None:
    """Raised at once or while it runs: every class of the tree has a word."""
    assert OUTCOMES[ended_by(error)] == word
    counts, policy = counting()

    def at_once(call: Call) -> None:
        raise error

    async def later(call: Call) -> None:
        await asyncio.sleep(0)
        raise error

    for proceed in (at_once, later) if not isinstance(error, KeyboardInterrupt) else (at_once,):
        with pytest.raises(type(error)) as raised:
            await policy(a_call(), proceed)  # type: ignore[arg-type]
        assert raised.value is error
    ((labels, slots),) = counts.series()
    assert labels == ("tools/call", "(none)", word)
    assert slots[SUM] == 0.0


async def test_the_time_is_the_deadlines() -> None:
    """The two policies measure with the same clock."""
    loop = asyncio.get_running_loop()
    counts = Calls(["tools/call"], ["box"])
    handle = compose([Telemetry(counts, loop.time), Deadline()], Behind())
    for _ in range(3):
        await handle(a_call(target=Target(Behind(), "tool")))
    ((labels, slots),) = counts.series()
    assert labels == ("tools/call", "box", "result")
    assert sum(slots[:SUM]) == 3
    assert 0 <= slots[SUM] < 5


async def test_clients_make_no_series() -> None:
    """Whatever methods they think of."""
    counts, policy = counting()
    for number in range(100):
        await policy(a_call(f"made/up{number}", {}, target=Target(Behind(f"b{number}"), None)), Behind())
    ((labels, slots),) = counts.series()
    assert labels == ("other", "(none)", "result")
    assert sum(slots[:SUM]) == 100
