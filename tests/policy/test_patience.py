"""Patience: what was surely not carried out is tried again, for a bounded time; nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gatewright.backend.base import Refused, SessionLost
from gatewright.call import Call, Outcome, Result
from gatewright.errors import BackendGarbage, BackendTimeout, BackendUnavailable, GatewayError, InvalidParams
from gatewright.policy.patience import Patience, is_worth_waiting

pytestmark = pytest.mark.anyio
CALL = cast("Call", object())


class Server:
    """Raises each of its errors once, then answers."""

    def __init__(self, *errors: GatewayError) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self, call: Call) -> Outcome:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return Result(b"{}")


async def test_a_server_that_comes_up_is_reached() -> None:
    """At the third attempt."""
    server = Server(BackendUnavailable("refused"), BackendUnavailable("refused"))
    assert await Patience(5).around(server)(CALL) == Result(b"{}")
    assert server.attempts == 3


async def test_without_patience_there_is_one_attempt() -> None:
    """0 seconds."""
    server = Server(BackendUnavailable("refused"))
    with pytest.raises(BackendUnavailable):
        await Patience(0).around(server)(CALL)
    assert server.attempts == 1


async def test_patience_ends() -> None:
    """With the newest reason, and not after the time."""
    started = asyncio.get_running_loop().time()
    server = Server(*(BackendUnavailable(f"refused {n}") for n in range(100)))
    with pytest.raises(BackendUnavailable, match="refused 1"):
        await Patience(0.4).around(server)(CALL)
    assert asyncio.get_running_loop().time() - started < 0.4 + 1
    assert server.attempts == 2


@pytest.mark.parametrize("error", [BackendTimeout("t"), BackendGarbage("g"), InvalidParams("p")])
async def test_what_may_have_run_or_would_fail_again_is_not_repeated(error: GatewayError) -> None:
    """Raised as it is."""
    server = Server(error)
    with pytest.raises(type(error)):
        await Patience(5).around(server)(CALL)
    assert server.attempts == 1


@pytest.mark.parametrize(
    ("error", "is_worth"),
    [
        (BackendUnavailable("refused"), True),
        (SessionLost("gone"), True),
        (Refused("busy", 503, None), True),
        (Refused("too many", 429, None), True),
        (Refused("who are you", 401, None), False),
        (Refused("broken", 500, None), False),
    ],
)
async def test_a_refusal_is_waited_for_only_when_time_mends_it(error: Any, is_worth: bool) -> None:
    """Busy servers, yes; wrong credentials, no."""
    assert is_worth_waiting(error) is is_worth


async def test_waiting_can_be_cancelled() -> None:
    """The host does not want it any more."""
    server = Server(*(BackendUnavailable("refused") for _ in range(100)))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(cast("Any", Patience(60).around(server)(CALL)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
    assert server.attempts == 1
