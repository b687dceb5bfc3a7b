"""Dispatch asks for a permit, and for the right one."""

import pytest

from gatewright.call import Caller, Permit, Result, Target
from gatewright.policy.dispatch import Unpermitted, dispatch
from policy.calls import Behind, a_call

pytestmark = pytest.mark.anyio


async def test_a_permitted_call_is_carried_out() -> None:
    """By its target's backend, which gets the call itself."""
    behind = Behind(outcome=Result(b'{"x":1}'))
    target = Target(behind, "tool")
    call = a_call(target=target)
    call.permit = Permit(call.caller, target)
    assert await dispatch(call) == Result(b'{"x":1}')
    assert behind.calls == [call]


@pytest.mark.parametrize("wrong", ["none", "caller", "target"])
async def test_another_permit_is_none(wrong: str) -> None:
    """Neither another caller's nor one for another target, however alike."""
    behind = Behind()
    call = a_call(caller=Caller("ada"), target=Target(behind, "tool"))
    assert call.target is not None
    if wrong == "caller":
        call.permit = Permit(Caller("ada", frozenset({"admin"})), call.target)
    elif wrong == "target":
        call.permit = Permit(call.caller, Target(behind, "tool"))
    with pytest.raises(Unpermitted):
        await dispatch(call)
    assert behind.calls == []
