"""Resolve: which backend a call goes to, and under which name."""

from __future__ import annotations

from typing import Protocol, final

from gatewright.call import Call, Handler, Outcome, Target


class Targets(Protocol):
    """Finds the target of a call. Raises ClientError when there is none."""

    def known(self, call: Call) -> Target | None:
        """The target, when it can be told without asking a backend."""

    async def found(self, call: Call) -> Target:
        """The target, asking backends what they list."""


@final
class Resolve:
    """Sets `call.target`."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def __call__(self, call: Call, proceed: Handler, /) -> Outcome:
        """Find the target, then go on."""
        call.target = self._targets.known(call) or await self._targets.found(call)
        return await proceed(call)
