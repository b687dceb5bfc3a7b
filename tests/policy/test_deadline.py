"""Deadlines: which silence ends a call, which does not, and what is left of it."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.call import Call, Outcome, Result, Target
from gatewright.errors import BackendGarbage, BackendTimeout
from gatewright.policy.deadline import Deadline
from policy.calls import Behind, Bounds, a_call

pytestmark = pytest.mark.anyio
SOON = Bounds(timeout_s=0.05)


def before(bounds: Bounds, method: str = "tools/call") -> Call:
    """A call to a backend with these bounds."""
    return a_call(method, target=Target(Behind(bounds=bounds), "tool"))


async def never(call: Call) -> Outcome:
    """A backend that says nothing."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_silent_call_is_ended() -> None:
    """With an error that names the backend and the bound; the task is as good as new, nothing is watched any more."""
    deadline = Deadline()
    for _ in range(2):
        call = before(SOON)
        with pytest.raises(BackendTimeout, match=r"box did not answer within 0.05 s \(timeout_s\)"):
            await deadline(call, never)
        assert call.task.cancelling() == 0
        assert deadline._watched == set()


async def test_a_quick_call_is_left_alone() -> None:
    """Its outcome or its error is its own, and the timer comes to rest."""
    deadline = Deadline()

    async def quick(call: Call) -> Outcome:
        return Result(b"{}")

    async def broken(call: Call) -> Outcome:
        raise BackendGarbage("no")

    assert await deadline(before(SOON), quick) == Result(b"{}")
    with pytest.raises(BackendGarbage):
        await deadline(before(SOON), broken)
    assert deadline._watched == set()
    async with asyncio.timeout(5):
        while deadline._timer is not None:
            await asyncio.sleep(0)


async def test_a_sign_of_life_gives_more_time_but_not_for_ever() -> None:
    """Progress moves the first bound and not the second."""

    async def lively(call: Call) -> Outcome:
        loop = asyncio.get_running_loop()
        while True:
            call.heard_at = loop.time()
            await asyncio.sleep(0)

    with pytest.raises(BackendTimeout, match=r"within 0.4 s \(max_total_s\)"):
        await Deadline()(before(Bounds(timeout_s=0.2, max_total_s=0.4)), lively)


async def test_an_open_question_is_the_clients_silence() -> None:
    """While the backend waits for an answer its own time does not run; after it, it does."""
    deadline = Deadline()
    waited: list[float] = []

    async def asks(call: Call) -> Outcome:
        loop = asyncio.get_running_loop()
        began = loop.time()
        call.open_asks += 1
        while loop.time() - began < 0.7:  # several looks of the deadline
            await asyncio.sleep(0)
        call.open_asks -= 1
        waited.append(loop.time() - began)
        return await never(call)

    with pytest.raises(BackendTimeout, match="timeout_s"):
        await deadline(before(Bounds(timeout_s=0.2)), asks)
    assert waited[0] >= 0.7


async def test_a_question_does_not_keep_a_call_for_ever() -> None:
    """The bound in all holds for people too."""

    async def asks(call: Call) -> Outcome:
        call.open_asks += 1
        return await never(call)

    with pytest.raises(BackendTimeout, match="max_total_s"):
        await Deadline()(before(Bounds(timeout_s=0.05, max_total_s=0.1)), asks)


async def test_a_subscription_has_no_deadline() -> None:
    """It is as long as its client's stream."""
    deadline = Deadline()
    call = before(SOON, "subscriptions/listen")

    async def long(call: Call) -> Outcome:
        assert deadline._watched == set()
        return Result(b"{}")

    assert await deadline(call, long) == Result(b"{}")


async def test_a_cancel_from_elsewhere_goes_on() -> None:
    """It is not a timeout, and it is not taken back here."""
    deadline = Deadline()
    begun = asyncio.Event()

    async def work() -> None:
        async def wait(call: Call) -> Outcome:
            begun.set()
            return await never(call)

        await deadline(before(Bounds()), wait)

    task = asyncio.get_running_loop().create_task(work())
    async with asyncio.timeout(5):
        await begun.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert deadline._watched == set()


async def test_two_cancels_are_not_one() -> None:
    """A client that leaves while its call expires has cancelled: its cancel is not lost."""
    deadline = Deadline()
    counts: list[int] = []

    async def work() -> None:
        call = before(SOON)

        async def wait(call: Call) -> Outcome:
            try:
                return await never(call)
            except asyncio.CancelledError:
                call.task.cancel()  # the client leaves in the same turn
                raise

        try:
            await deadline(call, wait)
        finally:
            counts.append(call.task.cancelling())

    task = asyncio.get_running_loop().create_task(work())
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert counts == [1]


@pytest.mark.parametrize("how", ["answers", "fails"])
async def test_a_cancel_that_is_lost_on_the_way_is_taken_back(how: str) -> None:
    """A backend that turns the cancel into something else: that counts, and the task is as good as new."""

    async def stubborn(call: Call) -> Outcome:
        try:
            return await never(call)
        except asyncio.CancelledError:
            if how == "fails":
                raise BackendGarbage("broke while it was cancelled") from None
            return Result(b'{"late":true}')

    call = before(SOON)
    if how == "fails":
        with pytest.raises(BackendGarbage):
            await Deadline()(call, stubborn)
    else:
        assert await Deadline()(call, stubborn) == Result(b'{"late":true}')
    assert call.task.cancelling() == 0


async def test_many_calls_have_one_timer() -> None:
    """Each is ended by its own bound."""
    deadline = Deadline()

    async def one(bounds: Bounds) -> str:
        try:
            await deadline(before(bounds), never)
        except BackendTimeout as error:
            return error.message
        raise AssertionError

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        bounds = [Bounds(timeout_s=0.01 * n) for n in range(1, 51)]
        ended = [tasks.create_task(one(each)) for each in bounds]
    assert [task.result().split(" within ")[1] for task in ended] == [
        f"{each.timeout_s:g} s (timeout_s)" for each in bounds
    ]
    assert deadline._watched == set()
