"""Errors of a server are told from errors of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from stores.redis_servers import RedisServer, needs_redis, redis_server

needs_redis()

from redis.exceptions import ResponseError  # noqa: E402

from gatewright.secret import Secret  # noqa: E402
from gatewright.stores.redis_connections import Server, Unreachable  # noqa: E402
from gatewright.stores.settings import Store  # noqa: E402

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A plain server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def test_a_wrong_command_is_its_own_answer(running: RedisServer) -> None:
    """Its neighbours have theirs."""
    server = Server(Store(url=Secret(running.url)))
    answers = await server.run([("SET", "a", "1"), ("INCR", "a", "b", "c"), ("LPUSH", "a", "x"), ("GET", "a")])
    assert answers[0]
    assert isinstance(answers[1], ResponseError)
    assert isinstance(answers[2], ResponseError)
    assert answers[3] == b"1"
    await server.aclose()


async def test_a_server_that_cannot_write_is_out_of_reach(running: RedisServer) -> None:
    """A read-only replica, one without memory: whoever asked is told to come again, not that the command is wrong."""
    server = Server(Store(url=Secret(running.url)))
    running.cli("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Unreachable, match=r"OOM|OutOfMemory"):
        await server.run([("SET", "a", "1")])
    running.cli("CONFIG", "SET", "maxmemory", "0")
    running.cli("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(Unreachable, match=r"READONLY|ReadOnly"):
        await server.run([("SET", "a", "1")])
    running.cli("REPLICAOF", "NO", "ONE")
    assert await server.run([("SET", "a", "1")])
    await server.aclose()


async def test_reading_waits_for_the_first_entry(running: RedisServer) -> None:
    """And comes back empty-handed in time."""
    server, other = Server(Store(url=Secret(running.url)), 1.0), Server(Store(url=Secret(running.url)))
    assert await server.read("s", "0", 10, 1) == []
    waiting = asyncio.get_running_loop().create_task(server.read("s", "0", 10, 900))
    await other.run([("XADD", "s", "*", "m", "1")])
    ((_, fields),) = await waiting
    assert fields == {b"m": b"1"}
    running.kill()
    with pytest.raises(Unreachable):
        await server.read("s", "0", 10, 1)
    await server.aclose()
    await other.aclose()
    running.start()
