"""Resolve sets the target, asking backends only when it has to."""

from __future__ import annotations

import pytest

from gatewright.call import Call, Outcome, Result, Target
from gatewright.errors import InvalidParams, ResourceNotFound
from gatewright.policy.resolve import Resolve
from policy.calls import Behind, a_call

pytestmark = pytest.mark.anyio


class Table:
    """Targets that are known, or have to be found."""

    def __init__(self, known: Target | Exception | None, found: Target | Exception | None = None) -> None:
        self._known = known
        self._found = found

    def known(self, call: Call) -> Target | None:
        if isinstance(self._known, Exception):
            raise self._known
        return self._known

    async def found(self, call: Call) -> Target:
        if isinstance(self._found, Exception):
            raise self._found
        assert self._found is not None, "nothing had to be found"
        return self._found


async def proceed(call: Call) -> Outcome:
    """What follows sees a target, always."""
    assert call.target is not None
    return Result(b"{}")


async def test_a_known_target_is_not_looked_for() -> None:
    """Backends are not asked."""
    target = Target(Behind(), "tool")
    call = a_call()
    assert await Resolve(Table(target))(call, proceed) == Result(b"{}")
    assert call.target is target


async def test_an_unknown_target_is_found() -> None:
    """By asking."""
    target = Target(Behind(), "tool")
    call = a_call()
    assert await Resolve(Table(None, target))(call, proceed) == Result(b"{}")
    assert call.target is target


@pytest.mark.parametrize("table", [Table(InvalidParams("no")), Table(None, ResourceNotFound("no"))])
async def test_what_has_no_target_goes_no_further(table: Table) -> None:
    """The refusal says why."""
    call = a_call()
    with pytest.raises((InvalidParams, ResourceNotFound)):
        await Resolve(table)(call, proceed)
    assert call.target is None
