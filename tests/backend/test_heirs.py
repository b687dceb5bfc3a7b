"""Subscriptions of one session on several replicas: each carried by one, taken up by another when that one is dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import Raw

from backend.test_relay import CLIENT, until
from backend.test_standing import TOOLS, UPDATED, Backend, Session, heard
from gatewright.backend.carriers import Carriers
from gatewright.backend.feed import Feed
from gatewright.backend.heirs import Heirs
from gatewright.backend.standing import LISTS, Standing
from gatewright.background import Background
from gatewright.call import ANONYMOUS, Caller, Client, Result
from gatewright.errors import StoreUnavailable
from gatewright.stores.base import Record
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

pytestmark = pytest.mark.anyio
OK = Result(b"{}")
NOTE = "a:1"


class Replica:
    """One replica, with the session `id` in memory, known as `ref`."""

    def __init__(self, shelf: Shelf, name: str, backend: Backend, background: Background) -> None:
        self.store = MemoryStore(shelf, name)
        self.post = Post(self.store, background, beat_s=0.02, settle_s=0.5)
        self.client = Session()
        self.outlets = {"id": self.client}
        self.has_stream = False
        self.is_down = False
        self.feed = Feed("box", backend, background)
        self.stand = Standing(self.outlets, background, Carriers("box", self, self.post))
        self.heirs = Heirs({"box": self}, self, self.post, background, 0.2)
        self.is_stood_in = True
        self.running = background(self.post.run())
        self.post.on_gone = self.heirs.bereave
        self.post.on_lapsed = self.heirs.recheck

    def ref_of(self, session: str) -> str | None:
        """See Records."""
        return "ref" if session == "id" else None

    async def claimed(self, session: str, backend: str) -> bytes | None:
        """See Records."""
        return await self.store.claimed("ref", backend)

    async def claims(self, session: str) -> dict[str, bytes]:
        """See Records."""
        if self.is_down:
            raise StoreUnavailable("down")
        return await self.store.claims("ref")

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See Records."""
        if self.is_down:
            raise StoreUnavailable("down")
        return await self.store.claim("ref", backend, claim, instead_of)

    async def unclaim(self, session: str, backend: str, claim: bytes) -> None:
        """See Records."""
        await self.store.unclaim("ref", backend, claim)

    def listening(self) -> list[str]:
        """See Heard."""
        return ["id"] if self.has_stream else []

    def client_of(self, session: str) -> Client | None:
        """See Heard."""
        return CLIENT if session in self.outlets else None

    def member(self, ref: str) -> tuple[Client, Caller] | None:
        """See Heard."""
        return (CLIENT, ANONYMOUS) if ref == "ref" else None

    async def inherit(self, client: Client, key: str, since: float) -> None:
        """See Carrying."""
        await self.stand.inherit(client.session, key, self.feed, since)

    async def let_go(self, session: str, key: str) -> None:
        """See Carrying."""
        await self.stand.let_go(session, key)

    async def recheck(self) -> None:
        """See Carrying."""
        await self.stand.recheck()

    async def subscribe(self, uri: str = NOTE) -> Result:
        """The client does, through this replica."""
        answer = await self.stand.subscribe("id", uri, self.feed)
        assert isinstance(answer, Result)
        return answer

    def heard(self) -> list[tuple[str, bytes]]:
        """All that was said to the client here."""
        said = []
        while not self.client.heard.empty():
            said.append(self.client.heard.get_nowait())
        return said

    async def carried(self) -> set[str]:
        """What the store says that this replica carries."""
        claims = (await self.store.claims("ref")).items()
        return {name.partition(" ")[2] for name, claim in claims if claim.decode() == self.store.replica}

    def die(self) -> None:
        """Without a word, its stream to the backend too."""
        assert self.running is not None
        self.running.cancel()
        self.feed.close()
        self.stand.release("id")


@asynccontextmanager
async def replicas(*names: str) -> AsyncIterator[tuple[Backend, list[Replica]]]:
    """That many, and the backend that they all listen to."""
    shelf, backend = Shelf(dead_s=0.2), Backend({NOTE, "a:2"})
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        them = [Replica(shelf, name, backend, background) for name in names]
        await them[0].store.create("ref", Record("r", b"{}", b"{}", 0.0))
        await until(lambda: all(len(one.post.alive) == len(names) and one.post.is_fresh for one in them))
        try:
            yield backend, them
        finally:
            for one in them:
                one.outlets.clear()
                one.die()


def updated(backend: Backend, uri: str = NOTE) -> tuple[str, bytes]:
    """The backend says so, and what that is to the client."""
    backend.say(UPDATED, {"uri": Raw(b'"%b"' % uri.encode())})
    return UPDATED, b'{"uri":"%b"}' % uri.encode()


async def test_a_subscription_is_carried_by_one() -> None:
    """Whoever is asked first; asked again, or elsewhere, nothing is heard twice."""
    async with replicas("a", "b", "c") as (backend, (a, b, c)):
        assert await asyncio.gather(*(one.subscribe() for one in (a, b, c, a, b))) == [OK] * 5
        await asyncio.gather(*(one.stand.watch("id", one.feed) for one in (b, a, c, b)))
        told = updated(backend)
        backend.say(TOOLS)
        await until(lambda: sum(one.client.heard.qsize() for one in (a, b, c)) == 2)
        assert sorted(said for one in (a, b, c) for said in one.heard()) == [told, (TOOLS, b"{}")]
        assert sum([len(await one.carried()) for one in (a, b, c)]) == 2


async def test_it_ends_everywhere_through_any_replica() -> None:
    """When that is answered nothing comes any more; it can be had anew, anywhere."""
    async with replicas("a", "b") as (backend, (a, b)):
        await a.subscribe()
        await b.subscribe("a:2")
        assert await b.stand.unsubscribe("id", NOTE) == OK
        updated(backend)
        told = updated(backend, "a:2")
        assert await heard(b.client) == told
        assert a.heard() == b.heard() == []
        assert await b.stand.unsubscribe("id", NOTE) == OK  # never subscribed, for all that is known
        assert await b.subscribe() == OK
        told = updated(backend)
        assert await heard(b.client) == told
        assert a.heard() == []
        assert await b.stand.unsubscribe("id", NOTE) == OK
        assert await a.carried() == set()
        assert await b.carried() == {"a:2"}


async def test_what_a_dead_replica_carried_is_carried_where_the_stream_is() -> None:
    """By one of those that are left; what may have been missed is said once, and from then on each update once."""
    async with replicas("a", "b", "c", "d") as (backend, (a, b, c, d)):
        await a.subscribe()
        await a.stand.watch("id", a.feed)
        await d.subscribe("a:2")
        b.has_stream = c.has_stream = True
        a.die()
        await until(lambda: len(b.client.heard._queue) + len(c.client.heard._queue) >= 2)  # type: ignore[attr-defined]
        heir, other = (b, c) if await b.carried() else (c, b)
        assert sorted(heir.heard()) == [(UPDATED, b'{"uri":"a:1"}'), (TOOLS, b"{}")]
        assert await heir.carried() == {NOTE, LISTS}
        assert await d.carried() == {"a:2"}
        told = updated(backend)
        assert await heard(heir.client) == told
        assert other.heard() == d.heard() == []
        assert await d.stand.unsubscribe("id", NOTE) == OK
        updated(backend)
        backend.say(TOOLS)
        assert await heard(heir.client) == (TOOLS, b"{}")


async def test_a_stream_that_opens_later_finds_what_was_carried() -> None:
    """Nobody carries for a session that has no stream; the replica where it opens one does. What another one carries
    that is alive stays there."""
    async with replicas("a", "b", "c") as (backend, (a, b, c)):
        await a.subscribe()
        await c.subscribe("a:2")
        a.die()
        await until(lambda: b.post.is_dead("a"))
        assert await b.carried() == set()
        b.has_stream = True
        b.heirs.joined("id")
        assert await heard(b.client) == (UPDATED, b'{"uri":"a:1"}')
        assert await b.carried() == {NOTE}
        told = updated(backend)
        assert await heard(b.client) == told
        b.heirs.joined("id")
        b.is_stood_in = False
        b.heirs.joined("id")
        told = updated(backend)
        assert await heard(b.client) == told
        assert b.heard() == []


async def test_list_changes_that_nobody_missed_are_not_said_again() -> None:
    """The heir had heard everything from the backend all along: nothing was announced meanwhile."""
    async with replicas("a", "b") as (backend, (a, b)):
        await a.stand.watch("id", a.feed)
        ours = await b.feed.join(a.stand._held["id"][LISTS][1].wants, lambda method, params: None)
        enough_at = asyncio.get_running_loop().time() + 0.5  # longer than the other may be dead unnoticed
        await until(lambda: asyncio.get_running_loop().time() > enough_at)
        b.has_stream = True
        a.die()
        await until(lambda: b.stand.holds("id"))
        backend.say(TOOLS)
        assert await heard(b.client) == (TOOLS, b"{}")
        assert b.heard() == []
        b.feed.leave(ours)


async def test_a_backend_that_is_away_is_asked_again() -> None:
    """The heir keeps the subscription, and opens it when it can."""
    async with replicas("a", "b") as (backend, (a, b)):
        await a.subscribe()
        b.has_stream = True
        backend.is_there = False
        a.die()
        await until(lambda: "b" in b.post.alive and b.post.is_dead("a"))
        async with asyncio.timeout(5):
            while not await b.carried():
                await asyncio.sleep(0.01)
        assert not b.stand.holds("id")
        backend.is_there = True
        assert await heard(b.client) == (UPDATED, b'{"uri":"a:1"}')


async def test_without_the_store_it_is_taken_up_later() -> None:
    """When the store is there again: not before it was seen what there is, nor before it was claimed."""
    async with replicas("a", "b") as (_, (a, b)):
        await a.subscribe()
        b.has_stream, b.is_down = True, True
        a.die()
        await until(lambda: b.heirs._is_behind)
        b.heirs.catch_up()
        await until(lambda: b.heirs._is_behind)
        await b.heirs._inherited(b, CLIENT, NOTE, 0.0)
        b.heirs.recheck()
        assert b.heard() == []
        b.is_down = False
        b.heirs.catch_up()
        assert await heard(b.client) == (UPDATED, b'{"uri":"a:1"}')
        b.heirs.catch_up()
        assert b.heard() == []


async def test_a_replica_that_was_only_asleep_lets_go_what_others_carry() -> None:
    """When it hears that it was taken for dead."""
    async with replicas("a", "b") as (backend, (a, b)):
        await a.subscribe()
        await a.subscribe("a:2")
        b.has_stream = True
        await b.store.claim("ref", f"box {NOTE}", b"b", b"a")  # as an heir does
        a.heirs.recheck()
        await until(lambda: list(a.stand._held["id"]) == ["a:2"])
        updated(backend)
        told = updated(backend, "a:2")
        assert await heard(a.client) == told


async def test_what_cannot_be_had_is_claimed_by_nobody() -> None:
    """A backend that is away, a resource that it does not offer: another replica may try."""
    async with replicas("a", "b") as (backend, (a, b)):
        await a.stand.subscribe("id", "none", a.feed)
        backend.is_there = False
        await a.stand.watch("id", a.feed)
        async with asyncio.timeout(5):
            while await a.carried():
                await asyncio.sleep(0.01)
        backend.is_there = True
        await b.stand.watch("id", b.feed)
        assert await b.carried() == {LISTS}
