"""Authorization without identities: a path reaches what it serves, and nothing else."""

import pytest

from gatewright.call import Call, Caller, Outcome, Result, Target
from gatewright.errors import InvalidRequest
from gatewright.policy.authz import GATEWAY, Authz, permit
from policy.calls import Behind, a_call

ADA = Caller("ada")


@pytest.mark.parametrize(
    ("route", "backend", "is_permitted"),
    [
        ("", "files", True),
        ("", GATEWAY, True),
        ("files", "files", True),
        ("files", GATEWAY, True),
        ("files", "git", False),
        ("files", "*", False),
    ],
)
def test_a_path_reaches_its_own_backends(route: str, backend: str, is_permitted: bool) -> None:
    """All on the shared route, its own on a backend's, the gateway itself everywhere."""
    target = Target(Behind(backend), "tool")
    found = permit(ADA, route, target)
    assert (found is not None) is is_permitted
    if found is not None:
        assert found.caller is ADA
        assert found.target is target


@pytest.mark.anyio
async def test_what_is_permitted_goes_on_with_its_permit() -> None:
    """The permit is for this caller and this target."""

    async def proceed(call: Call) -> Outcome:
        assert call.permit is not None
        assert (call.permit.caller, call.permit.target) == (ADA, call.target)
        return Result(b"{}")

    assert await Authz()(a_call(caller=ADA, target=Target(Behind(), None)), proceed) == Result(b"{}")


@pytest.mark.anyio
@pytest.mark.parametrize("target", [None, Target(Behind("git"), "tool")])
async def test_what_is_not_goes_no_further(target: Target | None) -> None:
    """Neither without a target nor to another path's."""

    async def proceed(call: Call) -> Outcome:
        raise AssertionError("it went on")

    call = a_call(route="files", target=target)
    with pytest.raises(InvalidRequest):
        await Authz()(call, proceed)
    assert call.permit is None
