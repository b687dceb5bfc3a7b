"""Calls and how long they took, by method, backend and outcome: slots in lists, found by two look-ups.

Contract: `record` costs a quarter of a microsecond, allocates nothing after the first call of its kind, and never grows
beyond methods x backends x outcomes, all known at the start: a method or backend that is not among them counts as
`OTHER` or `NOWHERE`, so no client can make series. Used from one event loop, never locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, final

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the latency buckets in seconds; a last one has none. The loop's clock ticks in milliseconds."""
SUM: Final = len(BOUNDS_S) + 1
"""Where the seconds of a series stand, behind its buckets."""
OTHER: Final = "other"
"""The method of a call whose own is not in the table."""
NOWHERE: Final = "(none)"
"""The backend of a call that had none yet; no backend can be named so."""

OUTCOMES: Final = (
    "result",  # the backend's, or the gateway's own
    "failure",  # a JSON-RPC error of the backend
    "input_required",  # it asked, and waits for the retry
    "refused",  # by the gateway: the client is at fault
    "overloaded",  # by the gateway: a bound is reached
    "unavailable",  # the backend was not reached; nothing ran
    "timeout",  # the backend did not answer in time
    "garbage",  # the backend broke the protocol
    "cancelled",  # by the client
    "internal",  # a bug of ours
)
RESULT, FAILURE, INPUT_REQUIRED, REFUSED, OVERLOADED, UNAVAILABLE, TIMEOUT, GARBAGE, CANCELLED, INTERNAL = range(10)
"""Indices into OUTCOMES: what `record` takes."""


_EDGES: Final = tuple(bound_s + 1e-6 for bound_s in BOUNDS_S)
"""What durations are compared with: the difference of two ticks of the clock is a hair off a whole millisecond."""
_FIRST_EDGE: Final = _EDGES[0]
_Slots: TypeAlias = list[float]


@final
class Calls:
    """One latency histogram for each method, backend and outcome that was seen."""

    def __init__(self, methods: Iterable[str], backends: Iterable[str]) -> None:
        """`methods` and `backends` are all that will be told apart."""
        self._methods = frozenset(methods)
        self._seen: dict[str, dict[str, list[_Slots]]] = {name: {} for name in (NOWHERE, *backends)}

    def record(self, method: str, backend: str, outcome: int, duration_s: float) -> None:
        """One call has ended. `outcome` is an index into OUTCOMES."""
        try:
            slots = self._seen[backend][method][outcome]
        except KeyError:
            slots = self._place(method, backend)[outcome]
        if duration_s <= _FIRST_EDGE:
            slots[0] += 1.0
        else:
            slots[bisect_left(_EDGES, duration_s)] += 1.0
        slots[SUM] += duration_s

    def series(self) -> Iterator[tuple[tuple[str, str, str], list[float]]]:
        """What was seen: method, backend and outcome, and a copy of its buckets with the sum of seconds behind."""
        for backend, methods in self._seen.items():
            for method, outcomes in methods.items():
                for outcome, slots in zip(OUTCOMES, outcomes, strict=True):
                    if any(slots):
                        yield (method, backend, outcome), slots.copy()

    def _place(self, method: str, backend: str) -> list[_Slots]:
        """Where calls of that method to that backend are counted, which is made when there is the first one."""
        seen = self._seen.get(backend)
        if seen is None:
            seen = self._seen[NOWHERE]
        if method not in self._methods:
            method = OTHER
        found = seen.get(method)
        if found is None:
            found = seen[method] = [[0.0] * (SUM + 1) for _ in OUTCOMES]
        return found
