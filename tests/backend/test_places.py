"""Places of parked calls: bounded over all replicas, by one store."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.backend.places import RESTATED, ParkingPlaces
from gatewright.errors import StoreUnavailable
from gatewright.stores.base import Share
from gatewright.stores.memory import MemoryStore, Shelf

pytestmark = pytest.mark.anyio


class Flaky:
    """A store that can be out of reach."""

    def __init__(self, shelf: Shelf, replica: str) -> None:
        self.store = MemoryStore(shelf, replica)
        self.is_down = False
        self.said: list[tuple[str, Share]] = []
        self.held_up: asyncio.Event | None = None

    async def admit(self, what: str, caller: str, own: Share, most: Share) -> bool:
        if self.is_down:
            raise StoreUnavailable("down")
        if self.held_up is not None:
            await self.held_up.wait()
        return await self.store.admit(what, caller, own, most)

    def hold(self, what: str, caller: str, own: Share) -> None:
        self.said.append((caller, own))
        if not self.is_down:
            self.store.hold(what, caller, own)


def two(most: Share, replicas: int = 2) -> tuple[tuple[ParkingPlaces, Flaky], tuple[ParkingPlaces, Flaky], Shelf]:
    """Two replicas on one shelf."""
    shelf = Shelf(dead_s=60.0)
    stores = Flaky(shelf, "a"), Flaky(shelf, "b")
    a, b = (ParkingPlaces("box", store, most, lambda: replicas) for store in stores)
    return (a, stores[0]), (b, stores[1]), shelf


async def test_places_are_those_of_all_replicas() -> None:
    """What one has taken the other has not; what one leaves the other may take."""
    (a, _), (b, _), _ = two(Share(2, 3))
    assert [await a.take("ada"), await b.take("ada"), await b.take("ada")] == [True, True, False]
    assert [await a.take("alan"), await b.take("alan")] == [True, False]
    a.leave("ada")
    assert await b.take("ada")
    assert not await a.take("ada")


async def test_who_left_while_it_was_decided_holds_nothing() -> None:
    """Cancelled in the middle, a place is free again."""
    (a, flaky), (b, _), _ = two(Share(1, 1))
    flaky.held_up = asyncio.Event()
    taking = asyncio.get_running_loop().create_task(a.take("ada"))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait({taking})
    assert flaky.said[-1] == ("ada", Share(0, 0))
    assert await b.take("ada")


async def test_without_the_store_each_goes_on_with_its_part() -> None:
    """Half of the bounds for each of two, rounded up; never none."""
    (a, flaky), _, _ = two(Share(3, 4))
    flaky.is_down = True
    assert [await a.take("ada") for _ in range(3)] == [True, True, False]
    assert not await a.take("alan")
    (a, flaky), _, _ = two(Share(1, 1), replicas=0)
    flaky.is_down = True
    assert await a.take("ada")


async def test_what_is_held_is_said_again_until_the_store_knows_it() -> None:
    """After the store was emptied, some callers at a time."""
    (a, flaky), (b, _), shelf = two(Share(1, 1_000))
    callers = [f"caller {number}" for number in range(RESTATED + 5)]
    for caller in callers:
        assert await a.take(caller)
    shelf.emptied()
    a.restate()
    a.leave(callers[-1])
    a.restate()
    assert [caller for caller in callers if await b.take(caller)] == [callers[-1]]
    flaky.said.clear()
    a.restate()
    assert len(flaky.said) == RESTATED
    empty = two(Share(1, 1))[0]
    empty[0].restate()
    assert not empty[1].said
