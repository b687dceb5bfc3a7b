"""Whether the gateway should be sent requests: what `/readyz` says, on both of its addresses.

Contract: started, not draining, not overloaded. No backend and no shared dependency has a say: when one of those is
down it is down for every replica, and taking them all out of the balancer helps nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, final

import msgspec

Status: TypeAlias = Literal["ok", "starting", "draining", "overloaded"]


@final
class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """One word, and why."""

    status: Status
    detail: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether to send requests here."""
        return self.status == "ok"


OK: Final = Verdict("ok")


@final
class Readiness:
    """Asks those who know, each time. `overload` says what is full, None when nothing is."""

    def __init__(
        self, is_started: Callable[[], bool], is_draining: Callable[[], bool], overload: Callable[[], str | None]
    ) -> None:
        self._is_started = is_started
        self._is_draining = is_draining
        self._overload = overload

    def verdict(self) -> Verdict:
        """How it stands now."""
        if self._is_draining():
            return Verdict("draining", "the gateway is stopping: it finishes what runs and takes nothing new")
        if not self._is_started():
            return Verdict("starting", "the gateway does not listen yet")
        full = self._overload()
        return OK if full is None else Verdict("overloaded", full)
