"""Resolve: which backend a call goes to, and under which name."""

from __future__ import annotations

from collections.abc import Awaitable
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

    def __call__(self, call: Call, proceed: Handler) -> Awaitable[Outcome]:
        """Find the target, then go on."""
        call.target = self._targets.known(call)
        return proceed(call) if call.target is not None else self._found(call, proceed)

    async def _found(self, call: Call, proceed: Handler) -> Outcome:
        call.target = await self._targets.found(call)
        return await proceed(call)
