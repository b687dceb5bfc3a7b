"""What waits for a standing stream: bounded, in order, and said to whoever carries it."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.inbound.standing import Standing

pytestmark = pytest.mark.anyio


async def test_a_standing_stream_keeps_the_newest() -> None:
    """When too many notifications wait, by number or by size, the oldest go; questions never do."""
    stream = Standing(3)
    for number in range(5):
        stream.put(b"%d" % number)
    await stream.ask(b"?")
    assert await stream.take() == [b"2", b"3", b"4", b"?"]
    stream.put(b"a" * 900_000)
    stream.put(b"b" * 900_000)
    assert await stream.take() == [b"b" * 900_000]
    stream.put(b"c" * 2_000_000)
    assert await stream.take() == [b"c" * 2_000_000]
    stream.put(b"last")
    stream.close()
    assert await stream.take() == [b"last"]
    assert await stream.take() is None


async def test_whoever_waits_is_woken() -> None:
    """By what comes later, and by the end."""
    stream = Standing(4)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(stream.take())
        await asyncio.sleep(0)
        stream.put(b"1")
        assert await taking == [b"1"]
        taking = tasks.create_task(stream.take())
        await asyncio.sleep(0)
        stream.close()
        assert await taking is None


async def test_whoever_gave_a_callback_needs_no_task() -> None:
    """It is called for everything that is put, and for the end; what waits can be had at once."""
    woken: list[bool] = []
    stream = Standing(4, None, lambda: woken.append(stream.has_waiting))
    stream.put(b"1")
    stream.put_ask(b"?")
    assert stream.taken() == [b"1", b"?"]
    assert not stream.has_waiting
    stream.close()
    assert woken == [True, True, False]
