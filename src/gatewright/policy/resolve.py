"""Resolve: which backend a call goes to, and under which name."""

from __future__ import annotations

from typing import Protocol, final

from gatewright.call import Call, Handler, Outcome, Target


class Targets(Protocol):
    """Finds the target of a call. Raises ClientError when there is none."""

    async def target(self, call: Call) -> Target: ...


@final
class Resolve:
    """Sets `call.target`."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def __call__(self, call: Call, proceed: Handler, /) -> Outcome:
        """Find the target, then go on."""
        call.target = await self._targets.target(call)
        return await proceed(call)
