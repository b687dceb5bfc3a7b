"""Numbers that calls hold while they run: each call of a key the lowest one that no other call of it holds.

Contract: in memory, synchronous. Keeps nothing of a key that nobody holds a number of.
"""

from __future__ import annotations

import heapq
from typing import final


@final
class Leases:
    """The numbers held, by key."""

    def __init__(self) -> None:
        self._free: dict[str, list[int]] = {}
        self._highest: dict[str, int] = {}

    def take(self, key: str) -> int:
        """The lowest number that nobody holds, from 1."""
        free = self._free.setdefault(key, [])
        if free:
            return heapq.heappop(free)
        self._highest[key] = number = self._highest.get(key, 0) + 1
        return number

    def give_back(self, key: str, number: int) -> None:
        """Whoever took it lets go of it."""
        free = self._free[key]
        heapq.heappush(free, number)
        if len(free) == self._highest[key]:
            del self._free[key], self._highest[key]

    def __len__(self) -> int:
        """How many keys numbers are held of."""
        return len(self._free)
