"""Where backend sessions live: one for a client session, whichever replica opens it first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from backend.test_relay import until
from gatewright.backend.base import Link
from gatewright.backend.homes import BackendSession, Homes
from gatewright.backend.http import HttpConnector, HttpLink
from gatewright.backend.relay import RelayLink
from gatewright.backend.settings import BackendSettings
from gatewright.backend.sinks import SessionSink
from gatewright.background import Background
from gatewright.call import Caller, Client
from gatewright.errors import BackendUnavailable
from gatewright.outbox import Outbox
from gatewright.protocol.handshake import OFFERED, InitializeResult
from gatewright.stores.base import Record
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

pytestmark = pytest.mark.anyio
RESULT = InitializeResult(OFFERED.name)


class Sink:
    """What a session's sink is here."""

    def __init__(self) -> None:
        self.session = "id"
        self.link: Link | None = None


class Pipe:
    """A link that only its process has."""

    is_open = True

    def __init__(self) -> None:
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


class Registry:
    """Of one session, `id`, known as `ref`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def ref_of(self, session: str) -> str | None:
        return "ref" if session == "id" else None

    def member(self, ref: str) -> tuple[Client, Caller] | None:
        return None

    async def claimed(self, session: str, backend: str) -> bytes | None:
        return await self._store.claimed("ref", backend)

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        return await self._store.claim("ref", backend, claim, instead_of)


class House:
    """One replica."""

    def __init__(self, shelf: Shelf, name: str, connector: HttpConnector, is_pipe: bool) -> None:
        self.store = MemoryStore(shelf, name)
        self.post: Post
        self.connector = connector
        self.is_pipe = is_pipe
        self.opened: list[BackendSession] = []
        self.homes: Homes

    async def fresh(self) -> BackendSession:
        """A session by `initialize`."""
        await asyncio.sleep(0)
        number = len(self.opened) + 1
        session_id = f"{self.store.replica}{number}".encode()
        link = Pipe() if self.is_pipe else HttpLink(self.connector, cast(SessionSink, Sink()), session_id)
        self.opened.append(BackendSession(cast(Link, link), cast(SessionSink, Sink()), OFFERED, RESULT))
        return self.opened[-1]

    async def settle(self, session: str = "id") -> BackendSession:
        """The session for a call that came here."""
        return await self.homes.settle(session, cast(SessionSink, Sink()), self.fresh)


@asynccontextmanager
async def houses(*names: str, is_pipe: bool = False) -> AsyncIterator[list[House]]:
    """Replicas that share a client session."""
    shelf = Shelf(dead_s=0.2)
    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        connector = HttpConnector(
            "box", BackendSettings(url="http://127.0.0.1:1/mcp"), tasks, Outbox(asyncio.get_running_loop().call_soon)
        )
        them = [House(shelf, name, connector, is_pipe) for name in names]
        await them[0].store.create("ref", Record("r", b"{}", b"{}", 0.0))
        running = []
        for one in them:
            one.post = Post(one.store, background, beat_s=0.02, settle_s=0.5)
            one.homes = Homes("box", connector, Registry(one.store), one.post)
            running.append(background(one.post.run()))
        await until(lambda: all(len(one.post.alive) == len(names) for one in them))
        try:
            yield them
        finally:
            for task in running:
                assert task is not None
                task.cancel()
            for one in them:
                for session in one.opened:
                    await session.leave()
            await connector.aclose()


async def test_others_go_on_with_the_same_session_over_http() -> None:
    """The id and what was agreed come along; one of them carries what is said outside calls."""
    async with houses("a", "b", "c") as (a, b, c):
        opened = await a.settle()
        found = [await one.settle() for one in (b, c)]
        assert [len(one.opened) for one in (a, b, c)] == [1, 0, 0]
        for one in found:
            assert isinstance(one.link, HttpLink)
            assert one.link.session_id == b"a1"
            assert (one.revision, one.result, one.claim) == (OFFERED, RESULT, opened.claim)
        assert [one.hears for one in (opened, *found)] == [True, False, False]


@pytest.mark.parametrize("is_pipe", [False, True])
async def test_of_two_at_once_one_wins(is_pipe: bool) -> None:
    """The other one's is closed, and goes on with the winner's."""
    async with houses("a", "b", "c", is_pipe=is_pipe) as them:
        found = await asyncio.gather(*(one.settle() for one in them))
        assert len({one.claim for one in found}) == 1
        assert sum(not isinstance(one.link, RelayLink) and one.hears for one in found) == 1
        opened = [session.link for one in them for session in one.opened]
        assert sum(not link.is_closed for link in opened if isinstance(link, Pipe)) == (1 if is_pipe else 0)


async def test_a_process_is_reached_through_its_replica() -> None:
    """Until that is dead: then it is opened anew, once."""
    async with houses("a", "b", "c", is_pipe=True) as (a, b, c):
        await a.settle()
        relayed = await b.settle()
        assert isinstance(relayed.link, RelayLink)
        await a.store.leave()
        b.homes.lost("id", relayed.claim)
        fresh = await b.settle()
        assert not isinstance(fresh.link, RelayLink)
        assert isinstance((await c.settle()).link, RelayLink)


async def test_a_lost_session_is_replaced_once() -> None:
    """Whoever noticed first opens another; who notices later finds that one."""
    async with houses("a", "b") as (a, b):
        old = await a.settle()
        also = await b.settle()
        a.homes.lost("id", old.claim)
        b.homes.lost("id", also.claim)
        new = await b.settle()
        assert (await a.settle()).claim == new.claim != old.claim
        assert [len(one.opened) for one in (a, b)] == [1, 1]


async def test_who_hears_for_all_is_followed_by_one() -> None:
    """When that replica dies; the others are told who it is, and only of those that died."""
    async with houses("a", "b", "c") as (a, b, c):
        await a.settle()
        found = [await one.settle() for one in (b, c)]
        assert not await b.homes.take_over(found[0], frozenset({"x"}))
        took = [
            await one.homes.take_over(session, frozenset({"a"})) for one, session in zip((b, c), found, strict=True)
        ]
        assert took == [True, False]
        assert found[0].claim == found[1].claim


async def test_what_is_nobody_elses_is_opened_here() -> None:
    """A client session that other replicas do not know claims nothing; one that has ended opens nothing."""
    async with houses("a") as (a,):
        own = await a.settle("mine alone")
        assert (own.claim, own.hears) == (b"", True)
        assert not await a.homes.has("id")
        await a.settle()
        assert await a.homes.has("id")
        assert not await a.homes.has("")
        await a.store.end("ref")
        with pytest.raises(BackendUnavailable):
            await a.settle()


def test_ids_of_two_replicas_are_never_the_same() -> None:
    """They share links; and JavaScript can count that far."""
    ids = {Homes.first_id() for _ in range(50)}
    assert len(ids) > 40
    assert max(ids) + (1 << 32) < 1 << 53


@pytest.mark.parametrize("is_pipe", [False, True])
async def test_who_was_taken_for_dead_looks_again(is_pipe: bool) -> None:
    """A process that was replaced meanwhile is not used any more; an HTTP session goes on, heard by another one."""
    async with houses("a", "b", is_pipe=is_pipe) as (a, b):
        own = await a.settle()
        assert await a.homes.still_holds(own)
        b.post.alive = frozenset({"b"})
        b.post._dead["a"] = None
        other = await b.settle()
        assert other.hears
        own.sink.session = "id"
        assert await a.homes.still_holds(own) is not is_pipe
        if not is_pipe:
            assert (own.claim, own.hears) == (other.claim, False)


async def test_leaving_ends_nothing_that_others_go_on_with() -> None:
    """No DELETE for what is claimed; a session of this one's own is ended."""
    async with houses("a", is_pipe=True) as (a,):
        own = await a.settle()
        await own.leave()
        assert cast(Pipe, own.link).is_closed
    async with houses("a") as (a,):
        shared = await a.settle()
        await shared.leave()  # nobody listens at that address: a DELETE would take its time and fail
        assert not shared.link.is_open


@pytest.mark.parametrize(
    "claim",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["a", b"id"]),
        msgspec.msgpack.encode(["a", b"id\r\nx-injected: 1", b'{"protocolVersion":"2025-11-25"}', "n"]),
        msgspec.msgpack.encode(["a", b"\xff", b'{"protocolVersion":"2025-11-25"}', "n"]),
    ],
)
async def test_a_claim_that_nobody_can_have_made_is_replaced(claim: bytes) -> None:
    """The store may hold anything: a session is opened anew, and no header of ours says what it likes."""
    async with houses("a", "b") as (a, b):
        assert await a.store.claim("ref", "box", claim, None) == claim
        found = await b.settle()
        assert isinstance(found.link, HttpLink)
        assert found.link.session_id == b"b1"
        again = await a.settle()
        assert isinstance(again.link, HttpLink)
        assert again.link.session_id == b"b1"
        found.claim = claim
        assert await b.homes.take_over(found, frozenset("a")) is False
