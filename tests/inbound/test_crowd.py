"""All connections of a listener: how many there is room for, what the others are told, and in which order all end."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.inbound.crowd import Crowd, Places, places
from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.responder import Responder
from inbound.test_responder import Wire

pytestmark = pytest.mark.anyio


class Cut:
    """A connection, as the crowd sees it."""

    def __init__(self) -> None:
        self.is_draining = False
        self.cuts = 0

    def cut(self) -> None:
        self.cuts += 1


@given(st.integers(16, 1 << 20), st.integers(0, 1 << 20), st.none() | st.integers(1, 1_000_000))
def test_what_is_promised_fits_into_the_descriptors(descriptors: int, backends: int, wanted: int | None) -> None:
    """Clients and surplus never take all; without greedy backends there is room for them too."""
    room = places(descriptors, backends, wanted)
    assert room.connections >= 1
    assert room.surplus >= 1
    assert room.connections + room.surplus < descriptors
    if wanted is not None:
        assert room.connections <= wanted
    if backends < descriptors // 4:
        assert room.connections + room.surplus + backends < descriptors


@pytest.mark.parametrize(
    ("descriptors", "backends", "room"),
    [
        (20_000, 512, Places(18_336, 1_024)),
        (1_024, 512, Places(448, 64)),
        (65_536, 50 * 512, Places(38_784, 1_024)),
        (20_000, 50 * 512, Places(8_976, 1_024)),
    ],
)
def test_room_by_descriptors(descriptors: int, backends: int, room: Places) -> None:
    """A container of 20,000 serves 18,000 clients; with many backends clients keep half."""
    assert places(descriptors, backends, None) == room


async def served(request: HttpRequest, responder: Responder) -> None:
    responder.respond(200, b"{}")


def request(path: str) -> HttpRequest:
    return HttpRequest(method="GET", path=path, query=b"", headers={}, body=b"", peer=None)


async def test_one_too_many_is_answered_once() -> None:
    """A probe as ever, anything else with when to come back; neither connection is kept."""
    crowd = Crowd(Places(0, 2))
    for path, status in (("/livez", b"200"), ("/readyz", b"200"), ("/health", b"200"), ("/mcp", b"503")):
        wire = Wire()
        await crowd.shed(Cut(), served)(request(path), wire.responder())
        line, fields, _ = wire.parsed()
        assert line.split()[1] == status
        assert fields["Connection"] == "close"
        assert (fields["Retry-After"] is not None) == (status == b"503")


def test_those_that_say_nothing_make_way_for_those_that_come() -> None:
    """The oldest is cut first; one that has left is none of them."""
    crowd = Crowd(Places(0, 2))
    first, second, third, fourth = (Cut() for _ in range(4))
    crowd.shed(first, served)
    crowd.shed(second, served)
    crowd.leave(first)
    crowd.shed(third, served)
    assert (first.cuts, second.cuts, third.cuts) == (0, 0, 0)
    crowd.shed(fourth, served)
    assert (first.cuts, second.cuts, third.cuts, fourth.cuts) == (0, 1, 0, 0)


def test_a_crowd_that_is_sent_away_does_not_return_as_one() -> None:
    """Whole seconds from 1 on, each as likely as the other."""
    chances = (number / 100 for number in range(100))
    crowd = Crowd(Places(1, 1), retry_after_s=10.0, chance=lambda: next(chances))
    told = Counter(crowd.retry_after() for _ in range(100))
    assert told == {b"Retry-After: %d\r\n" % second: 10 for second in range(1, 11)}


def test_draining_is_told_to_all_and_to_those_who_come() -> None:
    """Those who come read it when they do."""
    crowd = Crowd(Places(1, 1))
    here = [Cut(), Cut()]
    crowd.announce(here)
    assert crowd.is_draining
    assert all(one.is_draining for one in here)
    assert [one.cuts for one in here] == [0, 0]


@pytest.mark.parametrize(("streams", "within_s", "lasts_s"), [(10, 5.0, 0.0), (2_000, 5.0, 2.0), (50_000, 5.0, 5.0)])
def test_streams_are_ended_a_few_at_a_time(streams: int, within_s: float, lasts_s: float) -> None:
    """A thousand in a second, or as many more as it takes to be through in time."""
    crowd = Crowd(Places(1, 1))
    crowd.end(streams, within_s)
    turns = [crowd.turn_s() for _ in range(streams)]
    assert turns == sorted(turns)
    assert turns[0] == 0.0
    assert turns[-1] == pytest.approx(lasts_s, abs=0.06)


def test_clients_are_asked_back_over_as_long_as_it_takes_to_serve_them() -> None:
    """A thousand in a second; nobody waits where there are few."""
    ticks = count()
    crowd = Crowd(Places(1, 1), chance=lambda: next(ticks) / 4)
    assert crowd.spread_s() == 0.0
    crowd.end(8_000, 5.0)
    assert [crowd.spread_s() for _ in range(3)] == [2.0, 4.0, 6.0]


def test_who_is_in_a_hurry_reads_no_idle_connection() -> None:
    """SIGINT."""
    crowd = Crowd(Places(1, 1), idle_s=5.0)
    crowd.hurry()
    assert crowd.idle_s == 0.0


def test_nothing_here_is_a_coroutine() -> None:
    """Deciding takes no turn of the loop."""
    assert not any(asyncio.iscoroutinefunction(getattr(Crowd, name)) for name in dir(Crowd))
