"""The stack runs in the order in which it is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gatewright.call import Call, Handler, Outcome, Policy, Result
from gatewright.errors import InvalidParams
from gatewright.policy.pipeline import compose
from policy.calls import a_call

pytestmark = pytest.mark.anyio


def noting(name: str, seen: list[str]) -> Callable[[Call, Handler], Awaitable[Outcome]]:
    """A policy that notes when it is entered and left."""

    async def policy(call: Call, proceed: Handler) -> Outcome:
        seen.append(f"{name} in")
        try:
            return await proceed(call)
        finally:
            seen.append(f"{name} out")

    return policy


class AtOnce:
    """A policy that decides without waiting."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def __call__(self, call: Call, proceed: Handler) -> Awaitable[Outcome]:
        if self._error is not None:
            raise self._error
        return proceed(call)


async def last(call: Call) -> Outcome:
    """The end of the stack."""
    return Result(b"{}")


async def test_policies_stand_around_what_follows() -> None:
    """First in, last out."""
    seen: list[str] = []
    policies: list[Policy] = [noting("outer", seen), AtOnce(), noting("inner", seen)]
    assert await compose(policies, last)(a_call()) == Result(b"{}")
    assert seen == ["outer in", "inner in", "inner out", "outer out"]


async def test_a_refusal_goes_no_further() -> None:
    """What stands outside sees it, what stands inside is not entered."""
    seen: list[str] = []
    policies: list[Policy] = [noting("outer", seen), AtOnce(InvalidParams("no")), noting("inner", seen)]
    with pytest.raises(InvalidParams):
        await compose(policies, last)(a_call())
    assert seen == ["outer in", "outer out"]


async def test_no_policies_are_a_stack_too() -> None:
    """The end alone."""
    assert await compose([], last)(a_call()) == Result(b"{}")
