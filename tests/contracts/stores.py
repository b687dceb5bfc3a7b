"""The contract of `gatewright.stores.base`: one suite for every store.

A store's own test module derives a class from `StoreContract` and defines a fixture `open_stores`: a callable that
takes the names of replicas and bounds, and returns an async context manager of their stores, which share what they
hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest

from gatewright.call import ANONYMOUS, Caller
from gatewright.stores.base import Found, Record, Replayed, Share, Store, reference

OpenStores: TypeAlias = Callable[..., AbstractAsyncContextManager[Sequence[Store]]]
RECORD = Record("2025-11-25", b'{"name":"n"}', b'{"roots":{}}', 12.5, "", {"k": "v"})
REF = reference("id", "", ANONYMOUS)
ODD = ["a:b", "*", "{x}", "%s", "\0", "[a-z]", "é", " ", "'", "a" * 10_000, "\ud800"]
BOUND_S = 5.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, within the bound."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.005)


async def settled(*stores: Store) -> None:
    """What nobody waited for is done: verbs keep their order."""
    for store in stores:
        await store.load("nobody")


@pytest.mark.anyio
class StoreContract:
    """What every store does."""

    async def test_a_session_is_found_by_any_replica(self, open_stores: OpenStores) -> None:
        """With everything it was created with, and those who found it are its owners."""
        async with open_stores("a", "b") as (a, b):
            assert await b.load(REF) is None
            await a.create(REF, RECORD)
            assert await b.load(REF) == Found(RECORD, None)
            assert await a.owners(REF) == {"a", "b"}
            await a.set_log_level(REF, "error")
            assert await b.load(REF) == Found(RECORD, "error")

    async def test_a_session_ends_once_and_everywhere(self, open_stores: OpenStores) -> None:
        """Whoever ends it is told whom to tell; nothing brings it back."""
        async with open_stores("a", "b") as (a, b):
            await a.create(REF, RECORD)
            await b.load(REF)
            assert await b.end(REF) == {"a", "b"}
            assert await a.end(REF) is None
            await a.set_log_level(REF, "error")
            a.touch(REF)
            a.record(REF, "a.1", 1, b"late")
            a.stand(REF, is_standing=True)
            assert await a.claim(REF, "box", b"c", None) is None
            assert await a.load(REF) is None
            assert await a.owners(REF) == frozenset()
            assert await a.standing(REF) == frozenset()
            assert await a.replay(REF, "a.1") == Replayed([], None, None)

    async def test_a_session_that_nobody_uses_ends(self, open_stores: OpenStores) -> None:
        """Touching keeps it, looking whether it lives does not."""
        async with open_stores("a", "b", idle_s=0.4) as (a, b):
            await a.create(REF, RECORD)
            await a.create(reference("other", "", ANONYMOUS), RECORD)
            for _ in range(6):
                await asyncio.sleep(0.1)
                b.touch(REF)
            assert await a.lives([REF, reference("other", "", ANONYMOUS)]) == [True, False]
            await asyncio.sleep(0.5)
            assert await a.load(REF) is None
            assert await a.lives([]) == []

    async def test_an_id_that_is_used_anew_has_nothing_of_the_old(self, open_stores: OpenStores) -> None:
        """Not that ids come back; but nothing of one session may ever be in another."""
        async with open_stores("a", "b") as (a, b):
            await a.create(REF, RECORD)
            await a.set_log_level(REF, "error")
            await a.claim(REF, "box", b"c", None)
            a.record(REF, "a.1", 1, b"m")
            await settled(a)
            await b.create(REF, RECORD)
            assert await b.load(REF) == Found(RECORD, None)
            assert await b.claimed(REF, "box") is None
            assert await b.owners(REF) == {"b"}
            assert await b.replay(REF, "a.1") == Replayed([], None, None)

    async def test_owners_come_and_go(self, open_stores: OpenStores) -> None:
        """Who has it no longer is not told of it; any replica may say so of a dead one."""
        async with open_stores("a", "b", "c") as (a, b, c):
            await a.create(REF, RECORD)
            await b.load(REF)
            await c.load(REF)
            a.disown(REF, "a")
            a.disown(REF, "c")
            assert await a.owners(REF) == {"b"}

    async def test_standing_streams_are_found(self, open_stores: OpenStores) -> None:
        """A replica says that it holds one, and that it holds none any more."""
        async with open_stores("a", "b") as (a, b):
            await a.create(REF, RECORD)
            assert await a.standing(REF) == frozenset()
            b.stand(REF, is_standing=True)
            a.stand(REF, is_standing=True)
            await settled(a, b)
            assert await b.standing(REF) == {"a", "b"}
            a.stand(REF, is_standing=False)
            assert await a.standing(REF) == {"b"}
            a.disown(REF, "b")
            assert await a.standing(REF) == frozenset()

    async def test_the_first_claim_stands(self, open_stores: OpenStores) -> None:
        """Of many at once one wins, and all hear which; only who names the claim that stands replaces it."""
        async with open_stores("a", "b", "c") as stores:
            await stores[0].create(REF, RECORD)
            assert await stores[1].claimed(REF, "box") is None
            claims = await asyncio.gather(
                *(store.claim(REF, "box", f"{store.replica}{n}".encode(), None) for store in stores for n in range(20))
            )
            (won,) = set(claims)
            assert won is not None
            assert await stores[2].claimed(REF, "box") == won
            assert await stores[1].claim(REF, "box", b"new", b"never was") == won
            assert await stores[1].claim(REF, "box", b"new", won) == b"new"
            assert await stores[0].claim(REF, "box", b"late", won) == b"new"
            assert await stores[0].claim(REF, "other", b"\0\xff", None) == b"\0\xff"
            assert await stores[0].claim("nobody", "box", b"c", None) is None

    async def test_claims_are_listed_and_taken_back(self, open_stores: OpenStores) -> None:
        """All of a session and of no other; only the claim that stands is taken back."""
        async with open_stores("a", "b") as (a, b):
            await a.create(REF, RECORD)
            await a.create("other", RECORD)
            await a.set_log_level(REF, "error")
            await a.claim(REF, "box", b"one", None)
            await a.claim(REF, "box c:note://\u00e9 x", b"a", None)
            await a.claim("other", "box", b"two", None)
            assert await b.claims(REF) == {"box": b"one", "box c:note://\u00e9 x": b"a"}
            await b.unclaim(REF, "box c:note://\u00e9 x", b"b")
            await b.unclaim(REF, "box", b"one")
            await b.unclaim("nobody", "box", b"one")
            assert await b.claims(REF) == {"box c:note://\u00e9 x": b"a"}
            assert await b.claim(REF, "box", b"three", None) == b"three"
            await b.end(REF)
            assert await a.claims(REF) == {}

    async def test_events_are_replayed_by_stream(self, open_stores: OpenStores) -> None:
        """In order, with what the stream was opened with and where it ended; another stream's are not among them."""
        async with open_stores("a", "b") as (a, b):
            await a.create(REF, RECORD)
            a.opened(REF, "a.1", b"7")
            for place in range(1, 6):
                a.record(REF, "a.1", place, b"one %d" % place)
                a.record(REF, "a.2", place, b"two \0\r\n%d" % place)
            a.done(REF, "a.1", 5)
            ones = [(place, b"one %d" % place) for place in range(1, 6)]
            twos = [(place, b"two \0\r\n%d" % place) for place in range(1, 6)]
            await settled(a)
            assert await b.replay(REF, "a.1") == Replayed(ones, b"7", 5)
            assert await b.replay(REF, "a.2") == Replayed(twos, None, None)
            assert await b.replay(REF, "a.3") == Replayed([], None, None)
            assert await b.replay("nobody", "a.1") == Replayed([], None, None)

    async def test_the_oldest_events_go_first(self, open_stores: OpenStores) -> None:
        """Bounded in number and in bytes, over all streams of the session."""
        async with open_stores("a", max_events=10, max_event_bytes=1_000) as (a,):
            await a.create(REF, RECORD)
            for place in range(1, 31):
                a.record(REF, "a.1", place, b"x")
            found = await a.replay(REF, "a.1")
            assert [place for place, _ in found.events] == list(range(21, 31))
            for place in range(1, 7):
                a.record(REF, "a.2", place, b"y" * 300)
            found = await a.replay(REF, "a.2")
            assert [place for place, _ in found.events] == [4, 5, 6]
            assert (await a.replay(REF, "a.1")).events == []
            a.record(REF, "a.2", 7, b"z" * 2_000)
            assert (await a.replay(REF, "a.2")).events == []
            a.record(REF, "a.2", 8, b"after")
            assert (await a.replay(REF, "a.2")).events == [(8, b"after")]

    async def test_letters_reach_their_replica_in_order(self, open_stores: OpenStores) -> None:
        """And no other one; who waits is woken."""
        async with open_stores("a", "b", "c") as (a, b, c):
            waiting = asyncio.get_running_loop().create_task(b.receive(BOUND_S))
            assert await a.send("b", [b"0"])
            got = await waiting
            for number in range(0, 300, 3):
                assert await a.send("b", [b"%d" % (number + more + 1) for more in range(3)])
            while len(got) < 301:
                got += await b.receive(BOUND_S)
            assert got == [b"%d" % number for number in range(301)]
            assert await b.receive(0.01) == []
            assert await c.receive(0.01) == []

    async def test_a_dead_replica_gets_no_letters(self, open_stores: OpenStores) -> None:
        """Whoever sends hears at once that nobody is there."""
        async with open_stores("a", "b") as (a, b):
            assert not await a.send("nobody", [b"x"])
            assert await a.send("b", [b"x"])
            await b.leave()
            assert not await a.send("b", [b"x"])
            assert (await a.beat()).alive == {"a"}

    async def test_a_full_inbox_takes_no_more(self, open_stores: OpenStores) -> None:
        """Whoever sends hears so; what it holds stays."""
        async with open_stores("a", "b") as (a, b):
            for number in range(10):
                assert await a.send("b", [b"%d" % number] * 1_000)
            assert not await a.send("b", [b"one too many"])
            got: list[bytes] = []
            while len(got) < 10_000:
                got += await b.receive(BOUND_S)
            assert got[-1] == b"9"
            await settled(b)
            assert await a.send("b", [b"again"])

    async def test_a_full_inbox_is_full_in_bytes_too(self, open_stores: OpenStores) -> None:
        """One letter may be larger than that, as a body may be; what was read makes room."""
        async with open_stores("a", "b", max_letter_bytes=1_000) as (a, b):
            for _ in range(3):
                assert await a.send("b", [b"x" * 2_000])
                assert not await a.send("b", [b"y"])
                assert await b.receive(BOUND_S) == [b"x" * 2_000]
                await settled(b)
            assert await a.send("b", [b"x" * 400] * 2)
            assert await a.send("b", [b"x" * 200])
            assert not await a.send("b", [b"x"])

    async def test_a_replica_lives_as_long_as_it_says_so(self, open_stores: OpenStores) -> None:
        """One that was silent too long is dead to the others, and hears of it itself."""
        async with open_stores("a", "b", dead_after_s=2.0) as (a, b):
            assert (await a.beat()).alive == {"a", "b"}
            assert not (await a.beat()).is_lapsed
            alive = frozenset({"b"})
            async with asyncio.timeout(BOUND_S):
                while "b" in alive:
                    await asyncio.sleep(0.1)
                    alive = (await a.beat()).alive
            assert alive == {"a"}
            beat = await b.beat()
            assert beat.is_lapsed
            assert beat.alive == {"a", "b"}
            assert not (await b.beat()).is_lapsed

    async def test_a_letter_is_taken_once(self, open_stores: OpenStores) -> None:
        """By one of all that try at the same time."""
        async with open_stores("a", "b", "c") as stores:
            tried = await asyncio.gather(*(store.take("letter") for store in stores for _ in range(20)))
            assert sum(tried) == 1
            assert not await stores[0].take("letter")
            assert await stores[0].take("other")

    async def test_all_replicas_know_the_same_secret(self, open_stores: OpenStores) -> None:
        """The first one's, whoever asks when."""
        async with open_stores("a", "b", "c") as stores:
            fresh = [bytes([number]) * 32 for number in range(3)]
            told = await asyncio.gather(
                *(store.secret("keys", own) for store, own in zip(stores, fresh, strict=True) for _ in range(5))
            )
            assert len(set(told)) == 1
            assert told[0] in fresh
            assert await stores[0].secret("others", b"x") == b"x"

    async def test_shares_are_bounded_over_all_replicas(self, open_stores: OpenStores) -> None:
        """Of one caller and in all; what one lets go another may take; what is not the same thing is not counted."""
        async with open_stores("a", "b") as (a, b):
            most = Share(2, 3)
            assert await a.admit("parked", "ada", Share(1, 1), most)
            assert await b.admit("parked", "ada", Share(1, 1), most)
            assert not await b.admit("parked", "ada", Share(2, 2), most)
            assert await b.admit("parked", "alan", Share(1, 2), most)
            assert not await a.admit("parked", "grace", Share(1, 2), most)
            assert await a.admit("other", "grace", Share(1, 1), most)
            b.hold("parked", "ada", Share(0, 1))
            await settled(b)
            assert await a.admit("parked", "ada", Share(2, 2), most)
            assert not await b.admit("parked", "ada", Share(1, 2), most)
            b.hold("parked", "ada", Share(1, 2))  # what is said stands, whatever there is
            await settled(b)
            assert not await a.admit("parked", "grace", Share(1, 3), most)

    async def test_no_more_are_admitted_however_many_ask_at_once(self, open_stores: OpenStores) -> None:
        """As many as there may be, exactly."""
        async with open_stores("a", "b", "c") as stores:

            async def ask(store: Store) -> int:
                held = 0
                for _ in range(30):
                    held += await store.admit("parked", "ada", Share(held + 1, held + 1), Share(40, 1_000))
                return held

            assert sum(await asyncio.gather(*(ask(store) for store in stores))) == 40

    async def test_what_a_dead_replica_held_is_free(self, open_stores: OpenStores) -> None:
        """One that says it again in time is believed on; one that says it again later is counted again."""
        async with open_stores("a", "b", "c", dead_after_s=2.0) as (a, b, c):
            most, own = Share(2, 2), Share(1, 1)
            assert await a.admit("parked", "ada", own, most)
            assert await b.admit("parked", "ada", own, most)
            is_admitted = False
            async with asyncio.timeout(BOUND_S):
                while not is_admitted:
                    await asyncio.sleep(0.1)
                    b.hold("parked", "ada", own)
                    is_admitted = await c.admit("parked", "ada", own, most)
            assert not await a.admit("parked", "ada", own, most)
            a.hold("parked", "ada", own)
            c.hold("parked", "ada", Share(0, 0))
            await settled(a, c)
            assert not await c.admit("parked", "ada", own, most)

    @pytest.mark.parametrize("odd", ODD, ids=ascii)
    async def test_odd_callers_are_callers(self, open_stores: OpenStores, odd: str) -> None:
        """Nobody else's share is theirs."""
        async with open_stores("a", "b") as (a, b):
            assert await a.admit("parked x", odd, Share(1, 1), Share(1, 9))
            assert not await b.admit("parked x", odd, Share(1, 1), Share(1, 9))
            assert await b.admit("parked x", odd + "x", Share(1, 1), Share(1, 9))

    @pytest.mark.parametrize("odd", ODD, ids=ascii)
    async def test_odd_names_are_names(self, open_stores: OpenStores, odd: str) -> None:
        """Whatever stands in an id, a path or a caller: it is one session's and no other's."""
        async with open_stores("a", "b") as (a, b):
            refs = [reference(odd, "", ANONYMOUS), reference("id", odd, ANONYMOUS), reference("id", "", Caller(odd))]
            for number, ref in enumerate(refs):
                await a.create(ref, Record("r", b"{}", b"{}", float(number)))
            found = [await b.load(ref) for ref in refs]
            assert [one and one.record.created_at for one in found] == [0.0, 1.0, 2.0]
            assert await b.load(reference("id", "", ANONYMOUS)) is None

    async def test_cancelled_callers_leave_nothing_behind(self, open_stores: OpenStores) -> None:
        """Whoever is cancelled in the middle of a verb takes no answer from, and gives none to, anybody else."""
        async with open_stores("a", "b") as (a, b):
            refs = [reference(str(number), "", ANONYMOUS) for number in range(50)]
            for number, ref in enumerate(refs):
                await a.create(ref, Record("r", b"{}", b"{}", float(number)))
            wrong: list[object] = []

            async def ask(store: Store, number: int) -> None:
                found = await store.load(refs[number])
                if found is None or found.record.created_at != float(number):
                    wrong.append((number, found))

            loop = asyncio.get_running_loop()
            for turn in range(40):
                tasks = [loop.create_task(ask(store, number)) for number in range(50) for store in (a, b)]
                for steps in range(turn % 7):
                    await asyncio.sleep(0.0002 * steps)
                for task in tasks[turn % 3 :: 2]:
                    task.cancel()
                await asyncio.wait(tasks, timeout=BOUND_S)
                assert all(task.done() for task in tasks)
            assert wrong == []
            assert [found and found.record.created_at for found in [await a.load(ref) for ref in refs]] == [
                float(number) for number in range(50)
            ]
