"""Counts that components keep themselves: one attribute to change, nothing to look up.

Contract: used from one event loop, never locked. A `Count` goes up, or up and down (then it is a gauge); whoever owns
it changes `value`, and only `telemetry.meters` reads it. `RoundTrips` is what a store tells of its journeys to a
server: the proof that no call waits for one in steady state.
"""

from __future__ import annotations

from typing import final


@final
class Count:
    """One number."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


@final
class Streams:
    """Event streams that stand open, whatever is said on them; the answers of calls are not among them."""

    __slots__ = ("get", "listen", "sse")

    def __init__(self) -> None:
        self.get = 0
        """GET streams of handshake sessions (2025-03-26 to 2025-11-25)."""
        self.sse = 0
        """Streams of the transport of 2024-11-05."""
        self.listen = 0
        """`subscriptions/listen` (2026-07-28)."""


@final
class RoundTrips:
    """Journeys of a store to its server, by what they were for: one per command or pipeline that was awaited.

    `verb` is a word of the store's own source (`load`, `touch`, `append`), never of a caller: it is a metric label.
    """

    __slots__ = ("failed", "made")

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def add(self, verb: str) -> None:
        """One was made, whatever came of it."""
        self.made[verb] = self.made.get(verb, 0) + 1

    def fail(self, verb: str) -> None:
        """One that was made found no server, or no answer in time."""
        self.failed[verb] = self.failed.get(verb, 0) + 1

    def total(self) -> int:
        """All of them."""
        return sum(self.made.values())
