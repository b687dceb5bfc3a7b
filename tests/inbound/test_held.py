"""Standing streams without tasks: what a silent one keeps, what it sends, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.inbound.settings import Sessions as SessionSettings
from inbound.sides import Sides, content, listening, quiet
from journeys.wire import Answer, HandshakeClient, Wire

pytestmark = pytest.mark.anyio

CHANGED = "notifications/tools/list_changed"


async def settled() -> None:
    """Return when no task has anything to do but wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def standing(client: HandshakeClient) -> tuple[Wire, Answer]:
    """A connection with a standing stream on it."""
    wire = await client.wire()
    return wire, await wire.send("GET", "/mcp", {"Accept": "text/event-stream", **client.headers({})})


async def test_a_silent_stream_costs_no_task_and_no_parser() -> None:
    """However many are open; the connection serves on when the stream has ended."""
    async with listening(content) as sides:
        client = await sides.handshake()
        client.close()
        while sides.state.connections:
            await asyncio.sleep(0)
        await settled()
        before = len(asyncio.all_tasks())
        opened = [await standing(client) for _ in range(5)]
        await settled()
        assert len(asyncio.all_tasks()) == before
        assert [one._reader._parser for one in sides.state.connections] == [None] * 5
        [session] = sides.sessions._by_id.values()
        session.streams[0].close()
        wire, answer = opened[0]
        assert await answer.event() is None
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        fields = {"Content-Type": "application/json", "Accept": "*/*", **client.headers({})}
        assert (await wire.send("POST", "/mcp", fields, body)).status == 200


async def test_what_is_put_meanwhile_is_sent_in_order() -> None:
    """One task for a burst, which ends with it."""
    async with listening(content) as sides:
        client = await sides.handshake()
        _, answer = await standing(client)
        await settled()
        before = len(asyncio.all_tasks())
        [session] = sides.sessions._by_id.values()
        for number in range(20):
            await session.emit("notifications/message", b'{"data":%d}' % number)
        heard = [await answer.event() for _ in range(20)]
        assert [one["params"]["data"] for one in heard if one is not None] == list(range(20))
        await settled()
        assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("how", ["left", "ended", "drained"])
async def test_it_ends_once_and_is_forgotten(how: str) -> None:
    """By the client, with the session, or with the listener: what waits is sent before."""
    async with listening(content) as sides:
        client = await sides.handshake()
        wire, answer = await standing(client)
        [session] = sides.sessions._by_id.values()
        await session.emit(CHANGED, b"{}")
        if how == "left":
            wire.close()
        elif how == "ended":
            sides.sessions.end(session)
        else:
            sides.drain()
        if how != "left":
            assert (await answer.event() or {}).get("method") == CHANGED
            assert await answer.event() is None
        await quiet(sides)
        assert session.streams == []


async def test_a_drained_client_is_told_when_to_come_back() -> None:
    """By the last event: an id to resume from and a retry time, without data (2025-11-25, "Resumability")."""
    async with listening(content, settings=SessionSettings(retry_s=2.5)) as sides:
        client = await sides.handshake()
        _, answer = await standing(client)
        [session] = sides.sessions._by_id.values()
        await session.emit(CHANGED, b"{}")
        await settled()
        sides.drain()
        first, heard, *last = (await answer.body()).split(b"\n\n")
        assert first == b"id: 1-0\nretry: 2500\ndata: "
        assert heard.startswith(b"id: 1-1\n")
        assert last == [b"id: 1-1\nretry: 2500\ndata: ", b""]


async def test_a_slow_client_keeps_its_task_until_it_reads_on() -> None:
    """What it was sent it gets, in order, and the stream ends behind it."""
    async with listening(content) as sides:
        client = await sides.handshake()
        wire, answer = await standing(client)
        wire.pause()
        [session] = sides.sessions._by_id.values()
        await fill(sides)
        await session.emit(CHANGED, b"{}")
        sides.sessions.end(session)
        await settled()
        assert len(sides.keepalive._replies) == 1
        wire.resume()
        methods = []
        while (message := await answer.event()) is not None:
            methods.append(message["method"])
        assert methods[-1] == CHANGED
        await quiet(sides)


async def fill(sides: Sides) -> None:
    """Send until the connection takes no more."""
    [session] = sides.sessions._by_id.values()
    async with asyncio.timeout(5):
        while not any(one.is_paused for one in sides.state.connections):
            await session.emit("notifications/message", b'{"data":"%b"}' % (b"x" * 100_000))
            await settled()
