"""Letters between replicas: told in order, carried out once, and failed in time when the other one dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from contracts.stores import until
from gatewright.background import Background
from gatewright.errors import (
    BackendTimeout,
    GatewayError,
    InvalidParams,
    MissingCapability,
    Overloaded,
    StoreUnavailable,
)
from gatewright.stores.base import ReplicaStore
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import MAX_OUT_BYTES, MAX_SAID, Errand, Post, ReplicaGone, Talk

pytestmark = pytest.mark.anyio


class Office:
    """The posts of two replicas, `a` and `b`."""

    def __init__(self, shelf: Shelf, background: Background) -> None:
        self.shelf = shelf
        self.background = background
        self.a, self.b = (Post(MemoryStore(shelf, name), background, beat_s=0.02, settle_s=0.5) for name in "ab")
        self.running: dict[str, asyncio.Task[None] | None] = {}

    def start(self, post: Post) -> None:
        """Let it read."""
        self.running[post.replica] = self.background(post.run())

    def stop(self, post: Post) -> None:
        """Let it fall silent."""
        task = self.running.pop(post.replica)
        assert task is not None
        task.cancel()


@asynccontextmanager
async def office(dead_s: float = 0.2) -> AsyncIterator[Office]:
    """Two replicas that know each other."""
    shelf = Shelf(dead_s=dead_s)
    async with asyncio.TaskGroup() as tasks:
        there = Office(shelf, Background(tasks))
        there.start(there.a)
        there.start(there.b)
        await until(lambda: there.a.alive == there.b.alive == {"a", "b"})
        try:
            yield there
        finally:
            for post in (there.a, there.b):
                if post.replica in there.running:
                    there.stop(post)


async def outcome(post: Post, replica: str, kind: str, body: bytes = b"") -> tuple[list[bytes], bytes]:
    """All that is said, and the outcome."""
    talk = post.ask(replica, kind, body)
    said = []
    try:
        async with asyncio.timeout(5):
            while (one := await talk.next()) is not None:
                said.append(one)
        return said, talk.outcome
    finally:
        talk.close()


async def drained(talk: Talk) -> None:
    """Take all that is said."""
    while await talk.next() is not None:
        pass


async def test_what_is_told_is_heard_in_order() -> None:
    """Also when it is much; what nobody listens to is dropped."""
    async with office() as there:
        heard: list[tuple[str, bytes]] = []
        there.b.hear("news", lambda sender, body: heard.append((sender, body)))
        there.a.tell("b", "other", b"x")
        for number in range(2_000):
            there.a.tell("b", "news", b"%d" % number)
        there.a.tell("nobody", "news", b"x")
        await until(lambda: len(heard) == 2_000)
        assert heard == [("a", b"%d" % number) for number in range(2_000)]


async def test_what_is_asked_is_answered_in_parts() -> None:
    """Everything that is said, then the outcome; many at once keep apart."""
    async with office() as there:

        async def count(errand: Errand) -> bytes:
            for number in range(int(errand.body)):
                errand.say(b"%d" % number)
                await asyncio.sleep(0)
            return b"done " + errand.body

        there.b.carry("count", count)
        found = await asyncio.gather(*(outcome(there.a, "b", "count", b"%d" % number) for number in range(30)))
        assert found == [([b"%d" % number for number in range(most)], b"done %d" % most) for most in range(30)]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (InvalidParams("p", data={"a": [1]}), InvalidParams),
        (BackendTimeout("t"), BackendTimeout),
        (MissingCapability("m", {}), Exception),
    ],
)
async def test_an_error_arrives_as_what_it_is(raised: Exception, seen: type[Exception]) -> None:
    """With its message and data."""
    async with office() as there:

        async def fail(errand: Errand) -> bytes:
            raise raised

        there.b.carry("fail", fail)
        with pytest.raises(seen, match=str(raised)):
            await outcome(there.a, "b", "fail")


async def test_what_the_dead_asked_for_is_broken_off() -> None:
    """The deadline of a call ends what another replica does for it; a dead one keeps none. What outlives it goes on."""
    async with office() as there:
        begun: list[str] = []
        broken: list[str] = []
        over = asyncio.Event()

        async def wait(errand: Errand) -> bytes:
            begun.append(errand.body.decode())
            try:
                await over.wait()
            except asyncio.CancelledError:
                broken.append(errand.body.decode())
                raise
            return b""

        there.b.carry("wait", wait)
        there.b.carry("stay", wait, outlives=True)
        talks = [there.a.ask("b", kind, kind.encode()) for kind in ("wait", "stay")]
        await until(lambda: sorted(begun) == ["stay", "wait"])
        there.stop(there.a)
        await until(lambda: "a" not in there.b.alive)
        await until(lambda: broken == ["wait"])
        for talk in talks:
            talk.forget()
        over.set()


async def test_what_is_on_its_way_to_one_replica_is_bounded() -> None:
    """A store that is slower than who talks: what is told is dropped, what is asked fails, and what is half said is
    broken off, since it must not arrive with a gap."""
    async with office() as there:
        large = b"x" * (MAX_OUT_BYTES // 2)
        heard: list[bytes] = []
        there.b.hear("news", lambda sender, body: heard.append(body[:1]))
        for _ in range(5):
            there.a.tell("b", "news", large)
        talk = there.a.ask("b", "news", large)
        with pytest.raises(Overloaded):
            await talk.next()
        await until(lambda: not there.a._out)
        there.a.tell("b", "news", b"y")
        await until(lambda: b"y" in heard)
        assert heard == [b"x", b"x", b"y"]
        assert there.a._out_bytes.keys() == there.a._out.keys()

        async def talk_on(errand: Errand) -> bytes:
            for _ in range(5):
                errand.say(large)
            await asyncio.Event().wait()
            return b""

        there.b.carry("talk", talk_on)
        with pytest.raises(GatewayError):
            await outcome(there.a, "b", "talk")


async def test_a_letter_that_cannot_be_taken_is_answered() -> None:
    """Only this replica may have missed the store for a moment: whoever asks must not wait for ever."""
    async with office() as there:

        async def unreachable(letter: str) -> bool:
            raise StoreUnavailable("gone")

        there.b._store = cast("ReplicaStore", SimpleNamespace(take=unreachable, send=there.b._store.send))
        with pytest.raises(StoreUnavailable):
            await outcome(there.a, "b", "anything")


async def test_a_cancelled_question_is_cancelled_there() -> None:
    """And its answer, should one come, belongs to nobody."""
    async with office() as there:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait(errand: Errand) -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return b""

        there.b.carry("wait", wait)
        asking = asyncio.get_running_loop().create_task(outcome(there.a, "b", "wait"))
        await asyncio.wait_for(begun.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_replica_that_never_was_cannot_have_run_it() -> None:
    """Nobody has an inbox of that name."""
    async with office() as there:
        with pytest.raises(ReplicaGone) as gone:
            await outcome(there.a, "nobody", "x")
        assert not gone.value.may_have_run


async def test_a_sleeper_does_not_carry_out_what_was_taken_back() -> None:
    """It was asleep when it was asked and taken for dead: it may not wake up and do it all the same."""
    async with office(dead_s=0.2) as there:
        done: list[bytes] = []

        async def do(errand: Errand) -> bytes:
            done.append(errand.body)
            return b""

        there.b.carry("do", do)
        there.stop(there.b)
        there.shelf.inboxes["b"] = inbox = there.shelf.inboxes["b"]
        with pytest.raises(ReplicaGone) as gone:
            await outcome(there.a, "b", "do", b"once")
        assert not gone.value.may_have_run
        there.start(there.b)
        await until(lambda: "b" in there.a.alive)
        there.shelf.inboxes["b"].extend(inbox)
        assert await outcome(there.a, "b", "do", b"again") == ([], b"")
        assert done == [b"again"]


async def test_who_leaves_answers_what_it_began_and_begins_nothing_more() -> None:
    """What was asked too late was surely not carried out: whoever asked may have it done elsewhere."""
    async with office() as there, asyncio.timeout(5), asyncio.TaskGroup() as asking:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def carry(errand: Errand) -> bytes:
            begun.set()
            await may_end.wait()
            return errand.body

        there.b.carry("wait", carry)
        first = asking.create_task(outcome(there.a, "b", "wait", b"in time"))
        await begun.wait()
        leaving = asking.create_task(there.b.aclose())
        await asyncio.sleep(0)
        late = there.a.ask("b", "wait", b"too late")
        await until(lambda: not there.a._out)
        may_end.set()
        await leaving
        there.stop(there.b)
        assert await first == ([], b"in time")
        with pytest.raises(ReplicaGone) as gone:
            await late.next()
        assert not gone.value.may_have_run
        late.close()


async def test_a_death_in_the_middle_leaves_it_open_whether_it_ran() -> None:
    """Whoever asked is told so, within the time after which a replica counts as dead."""
    async with office(dead_s=0.2) as there:
        begun, end = asyncio.Event(), asyncio.Event()

        async def wait(errand: Errand) -> bytes:
            begun.set()
            await end.wait()
            return b""

        there.b.carry("wait", wait)
        gone_replicas: list[frozenset[str]] = []
        there.a.on_gone = gone_replicas.append
        asking = asyncio.get_running_loop().create_task(outcome(there.a, "b", "wait"))
        await asyncio.wait_for(begun.wait(), 5)
        there.stop(there.b)
        with pytest.raises(ReplicaGone) as gone:
            await asking
        assert gone.value.may_have_run
        assert gone_replicas == [frozenset({"b"})]
        end.set()


async def test_who_is_slow_loses_parts_or_breaks_off() -> None:
    """Notifications may get lost, the events of a stream may not."""
    async with office() as there:
        go_on = asyncio.Event()

        async def much(errand: Errand) -> bytes:
            for number in range(MAX_SAID + 10):
                errand.say(b"%d" % number)
            await go_on.wait()
            return b"end"

        there.b.carry("much", much)
        lossy, strict = there.a.ask("b", "much", b"", is_lossy=True), there.a.ask("b", "much", b"")
        async with asyncio.timeout(5):
            assert await lossy.next() is not None
            await asyncio.sleep(0.1)
            go_on.set()
            while (said := await lossy.next()) is not None:
                last = said
            assert last == b"%d" % (MAX_SAID + 9)
            assert lossy.outcome == b"end"
            with pytest.raises(Overloaded):
                await drained(strict)
        lossy.close()
        strict.close()


async def test_an_emptied_store_is_no_death() -> None:
    """What it said before is not believed any more; the others have a moment to say that they live."""
    async with office() as there:
        told: list[str] = []
        there.a.on_stale = lambda: told.append("stale")
        there.a.on_fresh = lambda: told.append("fresh")
        there.a.on_gone = lambda gone: told.append("gone")
        there.shelf.emptied()
        await until(lambda: "fresh" in told and there.a.alive == {"a", "b"})
        assert told == ["stale", "fresh"]


async def test_a_letter_that_nobody_understands_costs_itself() -> None:
    """Garbage, a letter of another version, one that its hearer chokes on: what follows is heard."""
    async with office() as there:
        heard: list[bytes] = []

        def hear(sender: str, body: bytes) -> None:
            heard.append(bytes([body[0]]))

        there.b.hear("news", hear)
        there.shelf.inboxes["b"].extend([b"", b"garbage", b"\x93\x00\x01\x02"])
        there.a.tell("b", "news", b"")
        there.a.tell("b", "news", b"x")
        await until(lambda: heard == [b"x"])
        with pytest.raises(GatewayError):
            await outcome(there.a, "b", "never heard of")


async def test_one_that_has_just_started_is_not_dead() -> None:
    """Only who was alive can have died; of anybody else the store is asked."""
    async with office() as there:
        new = MemoryStore(there.shelf, "new")
        there.a.alive = frozenset({"a", "b"})
        await new.beat()
        assert not there.a.is_dead("new")
        assert await there.a.lives("new")
        assert not await there.a.lives("never")
        await until(lambda: there.a.is_dead("new"))
        assert not await there.a.lives("new")


async def test_what_must_be_known_is_said_again_when_something_was_lost() -> None:
    """What nobody waits for may not have reached the store: once for each time that something did not."""
    said: list[str] = []
    async with office() as there:
        there.a.on_unheard = lambda: said.append("again")
        store = there.a._store
        assert isinstance(store, MemoryStore)
        store.lost += 3
        await until(lambda: said)
        seen = len(there.shelf.alive)
        await until(lambda: there.a.is_fresh and seen == 2)
        assert said == ["again"]


async def test_who_died_a_moment_ago_may_only_be_slow() -> None:
    """What it said is not cleared away yet."""
    async with office() as there:
        there.stop(there.b)
        await until(lambda: there.a.is_dead("b"))
        assert not there.a.is_long_dead("b")
        assert not there.a.is_long_dead("a")
