"""Notices for a stream that is on another replica: to where the client is, once, also while it changes replicas."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.inbound.session import Session
from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from inbound.neighbours import Neighbour, neighbours, until

pytestmark = pytest.mark.anyio
NOTICE = "notifications/resources/updated"


def notice(number: int) -> bytes:
    """The message of that number."""
    return jsonrpc.notification(NOTICE, b'{"n":%d}' % number)


async def emit(session: Session, *numbers: int) -> None:
    """A backend says these in that session."""
    for number in numbers:
        await session.emit(NOTICE, b'{"n":%d}' % number)


async def listening(on: Neighbour) -> tuple[Session, Standing]:
    """A standing stream of the session on that replica."""
    session, standing = await on.found(), Standing(1_000)
    session.join(standing)
    return session, standing


async def test_what_comes_while_the_client_changes_replicas_waits_for_it() -> None:
    """Its replica dies without a word: what is said from then on reaches it where it turns up, in order, once."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        _, before = await listening(b)
        await emit(opened, 1)
        await until(lambda: before.unsent() == [notice(1)])
        b.die()
        await emit(opened, 2, 3)
        await until(lambda: a.post.is_dead("b"))
        _, after = await listening(c)
        await until(lambda: after.unsent() == [notice(2), notice(3)])
        assert before.unsent() == [notice(1)]
        assert not a.elsewhere.notices


async def test_the_client_may_turn_up_where_they_wait() -> None:
    """The replica that hears the backend is as good as any other."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        await listening(b)
        b.die()
        await emit(opened, 1)
        await until(lambda: a.post.is_dead("b"))
        _, here = await listening(a)
        await until(lambda: here.unsent() == [notice(1)])


async def test_who_has_no_stream_any_more_says_so() -> None:
    """The store believes in a stream that is none: whoever is asked puts that right, and the next one is asked."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        await b.found()
        b.store.stand(opened.ref, is_standing=True)
        _, standing = await listening(c)
        await emit(opened, 1)
        await until(lambda: standing.unsent() == [notice(1)])
        assert await a.store.standing(opened.ref) == {"c"}


async def test_without_any_stream_nobody_is_told() -> None:
    """Nothing waits for a client that never listened, and nothing is left of a session that ended."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        await emit(opened, 1)
        await until(lambda: not a.elsewhere.notices)
        _, late = await listening(b)
        b.die()
        await emit(opened, 2)
        a.sessions.drop(opened)
        await until(lambda: not a.elsewhere.notices)
        assert late.unsent() == []


async def test_a_stream_that_moves_loses_nothing_on_the_way() -> None:
    """Between the replica that lets it go and the one where it goes on, what is said waits."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        there, standing = await b.found(), Standing(10)
        stream = there.open(is_standing=True)
        standing = Standing(10, stream)
        there.join(standing)
        there.attach(stream, _nowhere, standing.close)
        resuming = asyncio.get_running_loop().create_task(c.far.resume(await c.found(), f"{stream.number}-0"))
        rest = await asyncio.wait_for(resuming, 5)
        assert rest.is_standing
        there.leave(standing)
        await emit(opened, 1)
        session, after = await listening(c)
        await until(lambda: after.unsent() == [notice(1)])
        session.leave(after)


async def _nowhere(chunk: bytes) -> None:
    """Nobody reads."""


async def test_who_is_taken_for_dead_for_a_moment_keeps_its_streams() -> None:
    """A list change that is said meanwhile takes nothing away from it: what comes afterwards reaches its stream."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        _, standing = await listening(b)
        b.die()
        await until(lambda: a.post.is_dead("b"))
        a.elsewhere.changed("box", opened.id, "notifications/tools/list_changed")
        await emit(opened, 1)
        b.running = a.background(b.post.run())
        await until(lambda: standing.unsent() == [notice(1)])
        assert await a.store.standing(opened.ref) == {"b"}


async def test_who_died_before_this_replica_began_holds_nothing_up() -> None:
    """The store still names it, and fifty like it: none of them is asked."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        _, standing = await listening(b)
        a.store._shelf.sessions[opened.ref].standing |= {f"0{number}" for number in range(50)}
        began = asyncio.get_running_loop().time()
        await emit(opened, 1)
        await until(lambda: standing.unsent() == [notice(1)])
        assert asyncio.get_running_loop().time() < began + 1
