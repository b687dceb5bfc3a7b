"""Calls and how long they took, by method, backend and outcome: slots in lists, found by two look-ups.

Contract: `record` costs well under a microsecond, allocates nothing after the first call of its kind, and never grows
beyond methods x backends x outcomes, all known at the start: a method or backend that is not among them counts as
`OTHER` or `NOWHERE`, so no client can make series. Used from one event loop, never locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final, final

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


@final
class Calls:
    """One latency histogram for each method, backend and outcome that was seen."""

    def __init__(self, methods: Iterable[str], backends: Iterable[str]) -> None:
        """`methods` and `backends` are all that will be told apart."""
        self._names = [OTHER, *methods], [NOWHERE, *backends]
        width = len(OUTCOMES)
        self._methods = {name: index * width for index, name in enumerate(self._names[0])}
        block = width * len(self._names[0])
        self._backends = {name: index * block for index, name in enumerate(self._names[1])}
        self._slots: list[list[float] | None] = [None] * (block * len(self._names[1]))
        self._method_index = self._methods.get  # bound once: the look-up of a method is as dear as its call
        self._backend_index = self._backends.get

    def record(self, method: str, backend: str, outcome: int, duration_s: float) -> None:
        """One call has ended. `outcome` is an index into OUTCOMES."""
        index = self._method_index(method, 0) + self._backend_index(backend, 0) + outcome
        slots = self._slots[index]
        if slots is None:
            slots = self._slots[index] = [0.0] * (SUM + 1)
        slots[bisect_left(BOUNDS_S, duration_s)] += 1.0
        slots[SUM] += duration_s

    def series(self) -> Iterator[tuple[tuple[str, str, str], list[float]]]:
        """What was seen: method, backend and outcome, and a copy of its buckets with the sum of seconds behind."""
        methods, backends = self._names
        for (backend, method, outcome), slots in zip(product(backends, methods, OUTCOMES), self._slots, strict=True):
            if slots is not None:
                yield (method, backend, outcome), slots.copy()
