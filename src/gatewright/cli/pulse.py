"""Signs of life of several processes, in memory that they share with the one that watches them.

Contract: a beat is one byte stored, no system call and nothing to wait for, so that neither side can hold up the other.
Silence is counted in the looks of the one that watches: while that one did not run itself (the machine was suspended,
the whole container paused) nobody was silent. Made before the processes are forked; never reads a clock.
"""

from __future__ import annotations

import mmap
from typing import Final, final

BEATS: Final = 8
"""In the time after which silence is too long: most of them may be late."""
MAX_PAUSE_S: Final = 1.0
"""Between two beats, however long silence may last."""


@final
class Pulses:
    """The beats of `count` processes, and for how long each has been silent. Beyond `bound_s` that is too long."""

    def __init__(self, count: int, bound_s: float) -> None:
        self.pause_s: Final = min(MAX_PAUSE_S, bound_s / BEATS)
        """Between two beats, and between two looks."""
        self._bound_s = bound_s
        self._beats = mmap.mmap(-1, count)
        self._seen = [0] * count
        self._silent_s = [0.0] * count
        self._looked_s: float | None = None

    def beat(self, number: int) -> None:
        """That process lives. Called in it."""
        self._beats[number] = (self._beats[number] + 1) % 256

    def forget(self, number: int) -> None:
        """Another process is in that place now."""
        self._silent_s[number] = 0.0

    def look(self, now_s: float) -> None:
        """See who has given a sign of life since the last look."""
        passed_s = 0.0 if self._looked_s is None else min(now_s - self._looked_s, 2 * self.pause_s)
        self._looked_s = now_s
        for number, seen in enumerate(self._seen):
            beats = self._beats[number]
            self._silent_s[number] = self._silent_s[number] + passed_s if beats == seen else 0.0
            self._seen[number] = beats

    def is_silent(self, number: int) -> bool:
        """Whether that process has been silent for too long."""
        return self._silent_s[number] > self._bound_s
