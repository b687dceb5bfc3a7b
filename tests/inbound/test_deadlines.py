"""One timer for all connections: it visits each, and rests when there is none."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.inbound.deadlines import Deadlines
from gatewright.inbound.settings import Limits

pytestmark = pytest.mark.anyio


class Visited:
    """A connection that notes when it was looked at."""

    def __init__(self) -> None:
        self.seen_s: list[float] = []
        self.is_seen = asyncio.Event()

    def sweep(self, now_s: float) -> None:
        self.seen_s.append(now_s)
        self.is_seen.set()


def test_the_shortest_wait_decides_how_often() -> None:
    """A quarter of it, a second at most."""
    assert Deadlines(Limits()).period_s == 1.0
    assert Deadlines(Limits(header_timeout_s=0.4)).period_s == pytest.approx(0.1)


async def test_every_connection_is_visited_until_it_is_forgotten() -> None:
    """With the time that they measure by."""
    deadlines, loop = Deadlines(Limits(keep_alive_s=0.04)), asyncio.get_running_loop()
    gone, there = Visited(), Visited()
    deadlines.watch(gone, loop)
    deadlines.watch(there, loop)
    deadlines.forget(gone)
    began_s = deadlines.now_s
    async with asyncio.timeout(5):
        await there.is_seen.wait()
    assert not gone.seen_s
    assert there.seen_s[0] == deadlines.now_s >= began_s + deadlines.period_s / 2


async def test_the_timer_rests_while_nobody_is_there() -> None:
    """And begins again."""
    deadlines, loop = Deadlines(Limits(keep_alive_s=0.04)), asyncio.get_running_loop()
    one = Visited()
    deadlines.watch(one, loop)
    deadlines.forget(one)
    assert deadlines._timer is None
    deadlines.watch(one, loop)
    async with asyncio.timeout(5):
        await one.is_seen.wait()
    deadlines.forget(one)
    assert deadlines._timer is None
