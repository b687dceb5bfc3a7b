"""The store in Redis, held to the contract of all stores, on real servers of every kind."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.stores import RECORD, REF, OpenStores, StoreContract, until
from stores.redis_servers import RedisServer, cluster, descriptors, needs_redis, redis_server, sentinel, tls_server

needs_redis()

from gatewright.background import Background  # noqa: E402
from gatewright.errors import StoreUnavailable  # noqa: E402
from gatewright.secret import Secret  # noqa: E402
from gatewright.stores.base import Beat, Record, Replayed, Store  # noqa: E402
from gatewright.stores.redis import RedisStore  # noqa: E402
from gatewright.stores.settings import Store as StoreSettings  # noqa: E402


@asynccontextmanager
async def opened(url: str, *replicas: str, **more: Any) -> AsyncIterator[list[RedisStore]]:
    """The stores of these replicas, under a prefix of their own."""
    given = {name: more.pop(name) for name in ("dead_after_s", "timeout_s", "tls_ca", "key_prefix") if name in more}
    settings = StoreSettings(**{"url": Secret(url), "key_prefix": secrets.token_hex(8), **given})
    bounds = {"idle_s": 60.0, "max_events": 1_000, "max_event_bytes": 1 << 20, "wait_s": 5.0, **more}
    async with asyncio.TaskGroup() as tasks:
        stores = [RedisStore(settings, replica, Background(tasks), **bounds) for replica in replicas]
        for store in stores:
            await store.beat()
        try:
            yield stores
        finally:
            for store in stores:
                await store.aclose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A plain server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A Cluster."""
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


class TestRedisStore(StoreContract):
    """Everything that every store does, on one server."""

    @pytest.fixture
    def open_stores(self, server: RedisServer) -> OpenStores:
        @asynccontextmanager
        async def there(*replicas: str, **more: Any) -> AsyncIterator[Sequence[Store]]:
            async with opened(server.url, *replicas, **more) as stores:
                yield stores

        return there


class TestRedisClusterStore(StoreContract):
    """And on a Cluster of three, where a script may touch one slot only."""

    @pytest.fixture
    def open_stores(self, nodes: list[RedisServer]) -> OpenStores:
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)

        @asynccontextmanager
        async def there(*replicas: str, **more: Any) -> AsyncIterator[Sequence[Store]]:
            async with opened(f"redis+cluster://{places}", *replicas, **more) as stores:
                yield stores

        return there


@pytest.mark.anyio
async def test_tls_is_spoken(tmp_path: Path) -> None:
    """With the authority it was told to trust, and with no other."""
    with tls_server(tmp_path) as (server, authority):
        url = server.url.replace("redis:", "rediss:")
        async with opened(url, "a", tls_ca=str(authority)) as (store,):
            await store.create(REF, RECORD)
            assert await store.load(REF) is not None
        with pytest.raises(ExceptionGroup) as refused:
            async with opened(url, "a"):
                pass
        assert refused.group_contains(StoreUnavailable)


@pytest.mark.anyio
async def test_a_sentinel_names_the_master_also_after_a_failover(tmp_path: Path) -> None:
    """The master dies; within seconds the store goes on with the one that took its place, and what it had."""
    with sentinel(tmp_path) as (watcher, master, second):
        async with opened(f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster/0", "a") as (store,):
            await store.create(REF, RECORD)
            assert "keys=" in master.cli("INFO", "keyspace")
            async with asyncio.timeout(5):
                while "keys=" not in second.cli("INFO", "keyspace"):
                    await asyncio.sleep(0.05)
            master.kill()
            found = None
            async with asyncio.timeout(20):
                while found is None:
                    try:
                        found = await store.load(REF)
                    except StoreUnavailable:
                        await asyncio.sleep(0.1)
            assert found.record == RECORD
            await store.beat()
            assert "role:master" in second.cli("INFO", "replication")


@pytest.mark.anyio
async def test_a_server_that_is_gone_is_said_at_once_and_found_again(tmp_path: Path) -> None:
    """Nothing hangs; what is written meanwhile is lost and counted; after a restart it works, and is empty."""
    with redis_server(tmp_path) as server:
        async with opened(server.url, "a") as (store,):
            await store.create(REF, RECORD)
            server.kill()
            for _ in range(20):
                async with asyncio.timeout(1.5):
                    with pytest.raises(StoreUnavailable):
                        await store.load(REF)
            store.touch(REF)
            await until(lambda: store.lost > 0)
            server.start()
            assert (await eventually(store)).is_lapsed
            assert await store.load(REF) is None
            assert not (await store.beat()).is_lapsed


@pytest.mark.anyio
async def test_a_server_that_pauses_holds_nobody_up(tmp_path: Path) -> None:
    """Commands fail within their time, an inbox too; afterwards no answer belongs to another question."""
    with redis_server(tmp_path) as server:
        async with opened(server.url, "a", timeout_s=0.3, wait_s=0.2) as (store,):
            refs = [f"ref{number}" for number in range(20)]
            for number, ref in enumerate(refs):
                await store.create(ref, Record("r", b"{}", b"{}", float(number)))
            server.pause()
            asked = [asyncio.get_running_loop().create_task(store.load(ref)) for ref in refs]
            async with asyncio.timeout(2):
                done = await asyncio.gather(*asked, store.receive(0.2), return_exceptions=True)
            assert all(isinstance(one, StoreUnavailable) for one in done)
            server.go_on()
            await eventually(store)
            found = [await store.load(ref) for ref in refs]
            assert [one and one.record.created_at for one in found] == [float(number) for number in range(20)]


@pytest.mark.anyio
async def test_a_late_beat_hides_no_death(server: RedisServer) -> None:
    """A beat that was given up may be carried out by a server that was asleep, after others saw this replica dead: it
    learns of that all the same."""
    async with opened(server.url, "a", dead_after_s=0.5, key_prefix="late") as (store,):
        dead_at = asyncio.get_running_loop().time() + 0.6
        await until(lambda: asyncio.get_running_loop().time() > dead_at)
        server.cli("ZADD", "late:replicas", "99999999999999", "a")
        assert (await store.beat()).is_lapsed
        assert not (await store.beat()).is_lapsed


async def eventually(store: RedisStore) -> Beat:
    """The store answers again, within the bound."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await store.beat()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_many_random_cancellations_mix_up_nothing(server: RedisServer) -> None:
    """5,000 calls of all verbs, most cancelled at some random moment: every answer is its own question's, and there
    are as many connections after as before."""
    rng = random.Random(4)  # the same moments in every run
    async with opened(server.url, "a", "b") as stores:
        refs = [f"ref{number}" for number in range(40)]
        for number, ref in enumerate(refs):
            await stores[0].create(ref, Record(f"r{number}", b"{}", b"{}", float(number)))
            await stores[0].claim(ref, "box", b"%d" % number, None)
        await asyncio.gather(*(store.load(ref) for store in stores for ref in refs))
        before, clients = descriptors(), connected(server)
        mismatches: list[object] = []

        async def ask(number: int) -> None:
            store, ref = rng.choice(stores), refs[number]
            if rng.random() < 0.5:
                found = await store.load(ref)
                if found is None or found.record.revision != f"r{number}":
                    mismatches.append((number, found))
            elif (claim := await store.claimed(ref, "box")) != b"%d" % number:
                mismatches.append((number, claim))

        loop = asyncio.get_running_loop()
        for _ in range(100):
            tasks = [loop.create_task(ask(rng.randrange(40))) for _ in range(50)]
            for task in tasks:
                if rng.random() < 0.8:
                    loop.call_later(rng.random() * 0.003, task.cancel)
            _, late = await asyncio.wait(tasks, timeout=5)
            assert not late
        assert mismatches == []
        assert (descriptors(), connected(server)) == (before, clients)


def connected(server: RedisServer) -> int:
    """How many clients the server counts, this question's not among them."""
    return int(server.cli("INFO", "clients").partition("connected_clients:")[2].split()[0]) - 1


@pytest.mark.anyio
async def test_questions_of_one_moment_travel_together(server: RedisServer) -> None:
    """A hundred answers cost one round trip, a hundred touches that nobody waits for one more at the most."""
    async with opened(server.url, "a") as (store,):
        await store.create(REF, RECORD)
        before = store.round_trips
        await asyncio.gather(*(store.load(REF) for _ in range(100)))
        assert store.round_trips - before <= 2
        before = store.round_trips
        for _ in range(100):
            store.touch(REF)
        await store.load(REF)
        assert store.round_trips - before <= 2


@pytest.mark.anyio
async def test_scripts_are_known_again_after_they_were_flushed(server: RedisServer) -> None:
    """A restarted server knows no script by its name: it is told, and nobody notices."""
    async with opened(server.url, "a") as (store,):
        await store.create(REF, RECORD)
        server.cli("SCRIPT", "FLUSH")
        store.touch(REF)
        assert await store.load(REF) is not None
        assert store.lost == 0


@pytest.mark.anyio
async def test_keys_stay_within_the_prefix_and_end_with_their_session(server: RedisServer) -> None:
    """Two deployments on one Redis know nothing of each other; a session that ended leaves no key."""
    async with opened(server.url, "a", key_prefix="one") as (one,), opened(server.url, "a", key_prefix="two") as (two,):
        await one.create(REF, RECORD)
        one.record(REF, "a.1", 1, b"m")
        one.stand(REF, is_standing=True)
        await one.claim(REF, "box", b"c", None)
        assert await two.load(REF) is None
        assert await one.end(REF) == {"a"}
        assert f"{{{REF}}}" not in server.cli("KEYS", "one:*")
        assert all(int(server.cli("PTTL", key)) > 0 for key in server.cli("KEYS", "one:inbox*").split())


@pytest.mark.anyio
async def test_what_is_not_ours_in_redis_is_as_if_it_were_not_there(server: RedisServer) -> None:
    """A session that cannot be read is unknown, an entry of the inbox that is no letter is passed over, and neither
    costs the others anything."""
    async with opened(server.url, "a", key_prefix="odd") as (a,):
        await a.create("ref", Record("r", b"{}", b"{}", 1.0))
        for value in ("x", "", "\\xc1", "[]"):
            server.cli("HSET", "odd:{ref}:s", "r", value)
            assert await a.load("ref") is None
        await a.create("ref", Record("r", b"{}", b"{}", 1.0))
        server.cli("XADD", "odd:{ref}:e", "*", "s", "a.1", "p", "x", "m", "y")
        assert await a.replay("ref", "a.1") == Replayed([], None, None)
        server.cli("XADD", "odd:inbox:{a}", "*", "q", "x")
        assert await a.send("a", [b"letter"])
        assert await a.receive(1.0) == [b"letter"]
