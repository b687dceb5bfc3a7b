"""The places of parked calls, which all replicas share: how many there may be together, of one caller and in all.

A call takes a place when its client is asked for the first time, and leaves it when it ends. Each replica says what it
holds, again and again while it holds any, so that a dead one's places are free, and so that a store that lost them
knows them again. The store down: each replica goes on with its own part of the bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, final

from gatewright.errors import StoreUnavailable
from gatewright.stores.base import Share, ShareStore

RESTATED: Final = 100
"""Callers whose places are said again at once: 10,000 within two minutes."""


@final
class ParkingPlaces:
    """The places of one backend."""

    def __init__(self, backend: str, store: ShareStore, most: Share, replicas: Callable[[], int]) -> None:
        """`replicas`: how many are known to live."""
        self._what: Final = f"parked {backend}"
        self._store = store
        self._most = most
        self._replicas = replicas
        self._by_caller: Counter[str] = Counter()
        self._in_all = 0
        self._due: list[str] = []
        """Callers whose places are to be said again."""

    async def take(self, caller: str) -> bool:
        """Take a place for a call of that caller. False when there is none."""
        self._by_caller[caller] += 1
        self._in_all += 1
        is_taken = False
        try:
            is_taken = await self._store.admit(self._what, caller, self._own(caller), self._most)
        except StoreUnavailable:
            is_taken = self._has_part(caller)
        finally:  # also when whoever asked is gone
            if not is_taken:
                self.leave(caller)
        return is_taken

    def leave(self, caller: str) -> None:
        """A call of that caller leaves its place."""
        self._by_caller[caller] -= 1
        self._in_all -= 1
        self._store.hold(self._what, caller, self._own(caller))
        if not self._by_caller[caller]:
            del self._by_caller[caller]

    def restate(self) -> None:
        """Say again what is held here, of some callers: to be called from time to time while calls are parked."""
        if not self._due:
            self._due = list(self._by_caller)
        for caller in self._due[:RESTATED]:
            if caller in self._by_caller:
                self._store.hold(self._what, caller, self._own(caller))
        del self._due[:RESTATED]

    def _own(self, caller: str) -> Share:
        return Share(self._by_caller[caller], self._in_all)

    def _has_part(self, caller: str) -> bool:
        """Whether what is held here is no more than this replica's part of the bounds."""
        parts, own, most = max(1, self._replicas()), self._own(caller), self._most
        return own.of_caller <= -(-most.of_caller // parts) and own.in_all <= -(-most.in_all // parts)
