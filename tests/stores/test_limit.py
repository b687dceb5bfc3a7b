"""A limit on an answer: it strikes when nothing comes, and a process that stood still gets what came meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from gatewright.stores.limit import STRETCH, Limit

pytestmark = pytest.mark.anyio


async def test_it_strikes_in_time() -> None:
    """What does not come is not waited for any longer."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Limit(0.1):
            await asyncio.Event().wait()
    assert 0.09 < time.monotonic() - began < 2


async def test_what_comes_is_let_through() -> None:
    """And nothing strikes afterwards, nor hides another error."""
    async with Limit(0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    with pytest.raises(KeyError):
        async with Limit(0.05):
            raise KeyError


async def test_a_process_that_stood_still_reads_what_came_meanwhile() -> None:
    """An answer that was there in time is not late because nobody looked."""
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    async with Limit(0.2):
        reading = asyncio.get_running_loop().create_task(reader.readexactly(1))
        await asyncio.sleep(0)
        far.send(b"x")
        time.sleep(0.5)  # the stall
        assert await reading == b"x"
    writer.close()
    far.close()


async def test_a_cancel_is_a_cancel() -> None:
    """Somebody else's cancel does not become a time-out."""

    async def wait() -> None:
        async with Limit(5):
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_that_is_always_late_waits_with_an_end() -> None:
    """Not one slice ends on time: still it strikes, some times the bound later."""

    async def stall() -> None:
        async with Limit(0.1):
            while True:
                time.sleep(0.05)  # in every turn
                await asyncio.sleep(0)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await stall()
    assert 0.1 * STRETCH <= time.monotonic() - began < 2
