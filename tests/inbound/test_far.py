"""Streams of other replicas, resumed: handed over, passed on, or replayed from the store."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.errors import InvalidRequest
from gatewright.inbound.far import Rest
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.protocol.sse import Decoder
from inbound.neighbours import neighbours, until

pytestmark = pytest.mark.anyio


def read(chunk: bytes) -> list[tuple[str, bytes]]:
    """Its events: id and data."""
    return [(one.event_id or "", one.data) for one in Decoder().feed(chunk)]


async def nothing(chunk: bytes) -> None:
    """A connection that nobody looks at."""


async def rest_of(rest: Rest) -> list[tuple[str, bytes]]:
    """All of it."""
    found = read(rest.missed)
    if rest.talk is not None:
        while (chunk := await asyncio.wait_for(rest.talk.next(), 5)) is not None:
            found += read(chunk)
        rest.talk.close()
    return found


async def test_a_standing_stream_moves() -> None:
    """What was missed comes along, each event once; it is over where it was."""
    async with neighbours("a", "b") as (a, b):
        session = await a.begin()
        stream = session.open(is_standing=True)
        ended = asyncio.Event()
        session.attach(stream, nothing, ended.set)
        for message in (b"1", b"2", b"3"):
            await stream.send(message)
        rest = await b.far.resume(await b.found(), f"{stream.number}-1")
        assert (rest.is_standing, rest.talk) == (True, None)
        assert read(rest.missed) == [(f"{stream.number}-2", b"2"), (f"{stream.number}-3", b"3")]
        assert stream.is_done
        assert ended.is_set()


async def test_a_requests_stream_is_passed_on() -> None:
    """What was missed, then what comes, to the end."""
    async with neighbours("a", "b") as (a, b):
        session = await a.begin()
        stream = session.open()
        await stream.send(b"1")
        rest = await b.far.resume(await b.found(), f"{stream.number}-0")
        assert not rest.is_standing
        await until(lambda: stream.is_attached)
        await stream.send(b"2")
        session.finish(stream)
        assert [data for _, data in await rest_of(rest)] == [b"1", b"2"]


async def test_a_reader_who_leaves_is_detached() -> None:
    """What comes then is kept for the next one."""
    async with neighbours("a", "b") as (a, b):
        session = await a.begin()
        stream = session.open()
        rest = await b.far.resume(await b.found(), f"{stream.number}-0")
        await until(lambda: stream.is_attached)
        assert rest.talk is not None
        rest.talk.leave()
        assert await rest.talk.next() is None
        rest.talk.close()
        await until(lambda: not stream.is_attached)
        await stream.send(b"1")
        assert session.resume(f"{stream.number}-0")[1]


async def test_a_dead_replicas_streams_are_replayed() -> None:
    """What it sent is in the store; a request without an answer is answered with an error, once for all who ask."""
    async with neighbours("a", "b") as (a, b):
        session = await a.begin()
        standing, done, open_ = session.open(is_standing=True), session.open(), session.open()
        session.opened(open_, [7, "x"])
        for stream in (standing, done, open_):
            await stream.send(b"1")
            await stream.send(b"2")
        session.finish(done)
        a.die()
        await until(lambda: "a" not in b.post.alive)
        found = await b.found()
        rest = await b.far.resume(found, f"{standing.number}-1")
        assert (rest.is_standing, [data for _, data in read(rest.missed)]) == (True, [b"2"])
        assert [data for _, data in read((await b.far.resume(found, f"{done.number}-1")).missed)] == [b"2"]
        assert read((await b.far.resume(found, f"{done.number}-2")).missed) == []
        for _ in range(2):
            events = read((await b.far.resume(found, f"{open_.number}-2")).missed)
            assert [event_id for event_id, _ in events] == [f"{open_.number}-3", f"{open_.number}-4"]
            assert all(b"may have run" in data for _, data in events)
            assert [b'"id":7' in data or b'"id":"x"' in data for _, data in events] == [True, True]


@pytest.mark.parametrize(
    "event_id", ["", "1-1", "a.1-1", "b.1-1", "z.1-1", "z.s1", "a.9-0", "a.1-", "a.1-99999999999999"]
)
async def test_what_is_no_stream_is_refused(event_id: str) -> None:
    """Whoever it is said to be of: alive, dead, this one, or nobody."""
    async with neighbours("a", "b") as (a, b):
        await a.begin()
        with pytest.raises(InvalidRequest):
            await b.far.resume(await b.found(), event_id)


async def test_what_is_not_kept_any_more_is_refused() -> None:
    """Rather than with a gap."""
    async with neighbours("a", "b", settings=SessionSettings(max_events=2)) as (a, b):
        session = await a.begin()
        stream = session.open(is_standing=True)
        for message in (b"1", b"2", b"3", b"4"):
            await stream.send(message)
        with pytest.raises(InvalidRequest, match="too old"):
            await b.far.resume(await b.found(), f"{stream.number}-1")
        a.die()
        await until(lambda: "a" not in b.post.alive)
        with pytest.raises(InvalidRequest, match="too old"):
            await b.far.resume(await b.found(), f"{stream.number}-1")
        assert read((await b.far.resume(await b.found(), f"{stream.number}-2")).missed)


async def test_what_was_lost_in_the_middle_is_not_passed_over() -> None:
    """The store was not there for a moment: a client that resumes is told that it misses something, not spared it."""
    async with neighbours("a", "b", dead_s=1.0) as (a, b):
        session = await a.begin()
        for place in (1, 2, 4):
            a.store.record(session.ref, "a.s1", place, b"%d" % place)
        a.die()
        await until(lambda: "a" not in b.post.alive)
        found = await b.found()
        for last in ("a.s1-0", "a.s1-1", "a.s1-2"):
            with pytest.raises(InvalidRequest, match="too old"):
                await b.far.resume(found, last)
        assert [data for _, data in read((await b.far.resume(found, "a.s1-3")).missed)] == [b"4"]
        b.store.record(session.ref, "a.s1", 4, b"4")
        assert len(read((await b.far.resume(found, "a.s1-3")).missed)) == 1


@pytest.mark.parametrize("opened", [b"", b"x", b"[null]", b'{"a":1}', b"\xff"])
async def test_a_stream_that_was_opened_with_garbage_cannot_be_resumed(opened: bytes) -> None:
    """The store may hold anything."""
    async with neighbours("a", "b", dead_s=1.0) as (a, b):
        session = await a.begin()
        a.store.opened(session.ref, "a.1", opened)
        a.die()
        await until(lambda: "a" not in b.post.alive)
        with pytest.raises(InvalidRequest):
            await b.far.resume(await b.found(), "a.1-0")
