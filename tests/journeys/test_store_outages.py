"""Redis down, paused, emptied: what goes on, what waits, and that all is well again within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from journeys.host import hosting
from journeys.replicas import Replicas, eventually, replicas
from journeys.test_replicas import called, is_heard
from journeys.toolbox import Toolbox
from journeys.wire import HandshakeClient, ModernClient, soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
BACK_S = 5.0


@asynccontextmanager
async def placed(folder: Path) -> AsyncIterator[tuple[Replicas, Toolbox]]:
    """Two replicas before one toolbox of both eras."""
    async with hosting(Toolbox("box")) as host, replicas(folder, {"box": {"url": host.url}}) as there:
        yield there, host.box


async def status_of(client: HandshakeClient) -> int:
    """How a call of that session fares; its answer comes in time."""
    answer = await client.post(called(client, "echo", text="x"))
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status


async def turns(client: HandshakeClient, status: int, within_s: float = BACK_S) -> None:
    """Until it fares so."""

    async def is_so() -> bool:
        return await status_of(client) == status

    await eventually(is_so, within_s)


@asynccontextmanager
async def busy(client: ModernClient) -> AsyncIterator[list[int]]:
    """A modern client calls on and on meanwhile; not one call may fail."""
    done: list[int] = []
    is_over = asyncio.Event()

    async def call() -> None:
        while not is_over.is_set():
            await client.tool("echo", text="x")
            done.append(1)

    calling = asyncio.get_running_loop().create_task(call())
    try:
        yield done
    finally:
        is_over.set()
        await soon(calling)


async def test_without_redis_modern_calls_go_on_and_sessions_wait(tmp_path: Path) -> None:
    """Killed: 503 for sessions, never 404; calls and streams that are there go on. Started anew, and empty: sessions
    are unknown, and clients begin new ones."""
    async with placed(tmp_path) as (there, box):
        client = await there.handshake(0)
        standing = await client.listen()
        running = await client.begin(called(client, "park", key="k"))
        await box.until(lambda it: it.noted("parked"))
        modern = there.modern(1)
        async with busy(modern) as done:
            there.redis.kill()
            await turns(client, 503, 3.0)
            there.at(client, 1)
            assert await status_of(client) == 503
            opening = HandshakeClient(there[1].port, "/mcp/box")
            answer = await opening.post(opening.request("initialize", {"protocolVersion": "2025-11-25"}))
            assert answer.status == 503
            there.at(client, 0)
            assert (await modern.tool("release", key="k")) == {"released": True}
            assert "result" in await running.last()
            before = len(done)
            there.redis.start()
            for replica in (1, 0):  # each finds Redis again in its own time
                there.at(client, replica)
                await turns(client, 404)
            assert len(done) > before
        fresh = await there.handshake(1)
        there.at(fresh, 0)
        assert await status_of(fresh) == 200
        standing.close()


async def test_a_pause_is_survived_by_every_session(tmp_path: Path) -> None:
    """Nothing hangs meanwhile; afterwards every session goes on where it was, without `initialize`, its stream too."""
    async with placed(tmp_path) as (there, _):
        client = await there.handshake(0)
        there.at(client, 1)
        await client.tool("echo", text="x")
        standing = await client.listen()
        async with busy(there.modern(0)) as done:
            there.redis.pause()
            await turns(client, 503)
            before = len(done)
            await asyncio.sleep(3)
            assert await status_of(client) == 503
            assert len(done) > before
            there.redis.go_on()
            for number in (0, 1):
                there.at(client, number)
                await turns(client, 200)
        await is_heard(client, standing)


async def test_an_emptied_redis_makes_sessions_unknown(tmp_path: Path) -> None:
    """404 everywhere within seconds, so that clients initialize anew; never an error of the gateway's own."""
    async with placed(tmp_path) as (there, _):
        clients = [await there.handshake(0), await there.handshake(1)]
        async with busy(there.modern(0)):
            there.redis.cli("FLUSHALL")
            for client in clients:
                await turns(client, 404)
        fresh = await there.handshake(0)
        for number in (1, 0):
            there.at(fresh, number)
            assert await status_of(fresh) == 200


async def test_a_gateway_starts_without_redis(tmp_path: Path) -> None:
    """Modern clients are served at once, handshake clients as soon as it is there."""
    async with placed(tmp_path) as (there, _):
        there.redis.kill()
        await there.start()
        assert await there.modern(2).tool("echo", text="x") == {"label": "box", "text": "x"}
        there.redis.start()

        async def is_served() -> bool:
            try:
                client = await there.handshake(2)
            except KeyError:  # refused: no result, no session
                return False
            return await status_of(client) == 200

        await eventually(is_served)
