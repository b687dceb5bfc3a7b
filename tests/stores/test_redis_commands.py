"""Commands travel together, in order, and fail together when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from stores.redis_servers import RedisServer, needs_redis, redis_server

needs_redis()

from gatewright.background import Background  # noqa: E402
from gatewright.errors import StoreUnavailable  # noqa: E402
from gatewright.secret import Secret  # noqa: E402
from gatewright.stores.redis_commands import MAX_WAITING, MAX_WAITING_BYTES, Commands  # noqa: E402
from gatewright.stores.redis_connections import Server  # noqa: E402
from gatewright.stores.redis_scripts import Script  # noqa: E402
from gatewright.stores.settings import Store  # noqa: E402

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A plain server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def commanding(url: str) -> AsyncIterator[Commands]:
    """Commands to it."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(Server(Store(url=Secret(url))), Background(tasks), 1.0)
        yield commands
        await commands.aclose()


async def test_order_is_kept(running: RedisServer) -> None:
    """Between those that somebody waits for and those that nobody does."""
    async with commanding(running.url) as commands:
        commands.push("DEL", "list")
        for number in range(2_500):
            commands.push("RPUSH", "list", number)
        found = await commands.run("LRANGE", "list", 0, -1)
        assert [int(one) for one in found] == list(range(2_500))
        assert commands.round_trips <= 4


async def test_what_waits_is_sent_before_the_end(running: RedisServer) -> None:
    """An orderly end loses nothing."""
    async with commanding(running.url) as commands:
        commands.push("SET", "last", "word")
    async with commanding(running.url) as commands:
        assert await commands.run("GET", "last") == b"word"


async def test_after_the_end_nothing_is_sent(running: RedisServer) -> None:
    """No connection is opened again for who comes late, such as a sign of life that was due."""
    async with commanding(running.url) as commands:
        assert await commands.run("ECHO", "x") == b"x"
        await commands.aclose()
        asked = commands.round_trips
        commands.push("SET", "late", "word")
        with pytest.raises(StoreUnavailable):
            await commands.run("ECHO", "x")
        assert (commands.round_trips, commands.lost) == (asked, 1)


async def test_a_wrong_command_is_a_bug_and_hurts_nobody_else(running: RedisServer) -> None:
    """Whoever waits for it hears so; what nobody waits for is counted."""
    async with commanding(running.url) as commands:
        commands.push("NOSUCH")
        with pytest.raises(RuntimeError, match="refused a command"):
            await commands.run("INCR", "too", "many", "words")
        assert await commands.run("ECHO", "x") == b"x"
        assert commands.lost == 1
        assert await commands.script(Script("return ARGV[1]"), ["k"], "y") == b"y"


async def test_what_nobody_takes_is_lost_and_counted() -> None:
    """Without a server memory does not fill up with what waits for one."""
    async with commanding("redis://127.0.0.1:1") as commands:
        with pytest.raises(StoreUnavailable):
            await commands.run("ECHO", "x")
        with pytest.raises(StoreUnavailable):
            await commands.run_all([("ECHO", "x")])
        for _ in range(MAX_WAITING + 10):
            commands.push("ECHO", "x")
        assert commands.lost >= 10


async def test_what_waits_is_bounded_in_bytes(running: RedisServer) -> None:
    """Events are as large as answers are: what there is no room for is lost and counted, the rest goes in parts."""
    async with commanding(running.url) as commands:
        await commands.run("DEL", "large")
        body = b"x" * (MAX_WAITING_BYTES // 16)
        for _ in range(20):
            commands.push("RPUSH", "large", body)
        assert commands.lost == 4
        async with asyncio.timeout(20):
            while commands._waiting:
                await asyncio.sleep(0.01)
        assert await commands.run("LLEN", "large") == 16
        assert commands._waiting_bytes == 0
        await commands.run("DEL", "large")


async def test_nothing_is_sent_after_the_end() -> None:
    """Work that comes while the gateway ends is refused, not left waiting."""
    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        commands = Commands(Server(Store(url=Secret("redis://127.0.0.1:1"))), background, 1.0)
    with pytest.raises(StoreUnavailable):
        await commands.run("ECHO", "x")
