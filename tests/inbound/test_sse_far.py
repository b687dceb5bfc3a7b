"""POSTs for HTTP+SSE streams of other replicas: taken there, answered here."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.call import ANONYMOUS, Caller
from gatewright.errors import UnknownSession
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.inbound.sse_far import Answer, FarPosts, FarResponder
from inbound.neighbours import Neighbour, neighbours, until

pytestmark = pytest.mark.anyio


class Streams:
    """The streams of one replica."""

    def __init__(self, one: Neighbour) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.is_over = False
        self.go_on = asyncio.Event()
        self.far = FarPosts(one.elsewhere, self.take)

    async def take(self, stream_id: str, body: bytes, responder: FarResponder) -> None:
        """Answer, then work on."""
        self.taken.append((stream_id, body))
        responder.respond(202 if body != b"wrong" else 400, b"" if body != b"wrong" else b"no")
        await self.go_on.wait()
        self.is_over = True


async def test_a_post_is_answered_before_its_work_is_done() -> None:
    """What it asked for goes on when nobody waits any more."""
    async with neighbours("a", "b") as (a, b):
        there, here = Streams(a), Streams(b)
        await there.far.opened("id", "box", ANONYMOUS)
        assert await here.far.post(b"id", "box", ANONYMOUS, b"body") == Answer(202, b"")
        assert await here.far.post(b"id", "box", ANONYMOUS, b"wrong") == Answer(400, b"no")
        assert there.taken == [("id", b"body"), ("id", b"wrong")]
        assert not there.is_over
        there.go_on.set()
        await until(lambda: there.is_over)


async def test_a_foreign_stream_is_an_unknown_one() -> None:
    """Another caller, another path, another id, one that has ended, one whose replica is dead."""
    async with neighbours("a", "b") as (a, b):
        there, here = Streams(a), Streams(b)
        ref = await there.far.opened("id", "box", ANONYMOUS)
        await b.begin("plain")
        for stream, route, caller in (
            (b"id", "", ANONYMOUS), (b"id", "box", Caller("eve")), (b"x", "box", ANONYMOUS), (b"plain", "", ANONYMOUS)
        ):  # fmt: skip
            with pytest.raises(UnknownSession):
                await here.far.post(stream, route, caller, b"body")
        await there.far.closed(ref)
        with pytest.raises(UnknownSession):
            await here.far.post(b"id", "box", ANONYMOUS, b"body")
        await there.far.opened("next", "box", ANONYMOUS)
        a.die()
        with pytest.raises(UnknownSession):
            await asyncio.wait_for(here.far.post(b"next", "box", ANONYMOUS, b"body"), 5)


async def test_a_stream_lives_as_long_as_it_is_held() -> None:
    """However long nothing is posted."""
    async with neighbours("a", "b", settings=SessionSettings(idle_s=0.3)) as (a, b):
        there, here = Streams(a), Streams(b)
        await there.far.opened("id", "", ANONYMOUS)
        held = a.sessions.add("id", "", ANONYMOUS, (await a.begin("x")).client, is_shared=False)
        held.calls[asyncio.get_running_loop().create_task(asyncio.sleep(0))] = 1
        for _ in range(8):
            await asyncio.sleep(0.1)
            a.elsewhere.keep()
        assert (await here.far.post(b"id", "", ANONYMOUS, b"body")).status == 202
        there.go_on.set()
