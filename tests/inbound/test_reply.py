"""Keeping silent streams alive: one timer for all, which rests when there is nothing to do."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.call import Call, Outcome, Result
from gatewright.inbound.reply import HttpReply, Keepalive
from inbound.sides import listening, quiet
from journeys.wire import soon

pytestmark = pytest.mark.anyio


class Silent(HttpReply):
    """A reply that only counts how often it was kept alive."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def keep_alive(self) -> None:
        self.count += 1


async def test_every_reply_is_visited_until_it_is_removed() -> None:
    """Each once an interval; one that is removed no more, and removing twice is harmless."""
    keepalive = Keepalive(0.01)
    kept, removed = Silent(), Silent()
    keepalive.add(kept)
    keepalive.add(removed)
    keepalive.remove(removed)
    keepalive.remove(removed)
    async with asyncio.timeout(5):
        while kept.count < 3:
            await asyncio.sleep(0)
    assert removed.count == 0
    keepalive.remove(kept)


async def test_a_crowd_is_visited_a_few_at_a_time() -> None:
    """Everyone within half the interval, never all in one turn of the loop; one removed meanwhile is left out."""
    keepalive = Keepalive(0.4)
    crowd = [Silent() for _ in range(1_000)]
    for one in crowd:
        keepalive.add(one)
    steps = []
    async with asyncio.timeout(5):
        while not (seen := sum(one.count for one in crowd)):
            await asyncio.sleep(0)
        gone = [one for one in crowd if not one.count][:100]
        for one in gone:
            keepalive.remove(one)
        while sum(one.count for one in crowd) < 900:
            await asyncio.sleep(0)
            now = sum(one.count for one in crowd)
            if now != seen:
                steps.append(now - seen)
                seen = now
    assert max(steps) <= 200
    assert not any(one.count for one in gone)
    for one in crowd:
        keepalive.remove(one)


async def test_one_that_fails_does_not_end_the_others() -> None:
    """A connection that breaks just then costs its own comment; the timer goes on."""

    class Broken(Silent):
        def keep_alive(self) -> None:
            self.count += 1
            raise RuntimeError("the handler is closed")

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    keepalive = Keepalive(0.01)
    broken, kept = Broken(), Silent()
    keepalive.add(broken)
    keepalive.add(kept)
    async with asyncio.timeout(5):
        while broken.count < 2:
            await asyncio.sleep(0)
        keepalive.remove(broken)
        kept.count = 0
        while kept.count < 2:
            await asyncio.sleep(0)
    keepalive.remove(kept)
    assert len(failures) >= 2


async def test_the_timer_rests_while_nothing_is_silent() -> None:
    """Without replies there is no timer, and the next one starts it again."""
    keepalive = Keepalive(0.01)
    for _ in range(2):
        reply = Silent()
        keepalive.add(reply)
        async with asyncio.timeout(5):
            while not reply.count:
                await asyncio.sleep(0)
        keepalive.remove(reply)
        async with asyncio.timeout(5):
            while keepalive._timer is not None:
                await asyncio.sleep(0)


async def test_an_emitted_message_begins_the_stream_and_the_answer_ends_it() -> None:
    """Event by event, each as it is said."""
    gate = asyncio.Event()

    async def handle(call: Call) -> Outcome:
        await call.reply.emit("notifications/progress", b'{"progress":1}')
        await gate.wait()
        return Result(b'{"done":true}')

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.post(client.request("tools/call", {"name": "t"}))
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        first = await answer.event()
        assert first is not None
        assert first["params"] == {"progress": 1}
        gate.set()
        last = await answer.event()
        assert last is not None
        assert last["result"]["done"] is True
        assert await answer.event() is None
        await quiet(sides)


async def test_what_is_said_after_the_answer_is_not_sent() -> None:
    """A backend that goes on talking does not reach the next answer of the connection."""
    late: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    async def afterwards(call: Call) -> None:
        await go.wait()
        await call.reply.emit("notifications/progress", b'{"progress":"late"}')

    async with asyncio.TaskGroup() as tasks:

        async def handle(call: Call) -> Outcome:
            late.append(tasks.create_task(afterwards(call)))
            return Result(b"{}")

        async with listening(handle) as sides:
            client = sides.modern()
            assert await client.result("tools/call", {"name": "t"}) == {"resultType": "complete"}
            go.set()
            await soon(asyncio.wait(late))
            assert await client.result("tools/call", {"name": "t"}) == {"resultType": "complete"}


async def test_a_slow_reader_holds_up_its_own_backend_alone() -> None:
    """Emitting waits for the client that does not read; others are served meanwhile; when it leaves the wait ends."""
    emitted = 0
    left = asyncio.Event()

    async def handle(call: Call) -> Outcome:
        nonlocal emitted
        if call.name == "quick":
            return Result(b"{}")
        try:
            for _ in range(1_000):
                await call.reply.emit("notifications/progress", b'{"padding":"%b"}' % (b"x" * 50_000))
                emitted += 1
        finally:
            left.set()
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern()
        request = client.request("tools/call", {"name": "slow"})
        answer = await client.post(request)
        client._wires[-1].pause()
        for _ in range(20):
            assert "resultType" in await client.result("tools/call", {"name": "quick"})
        assert 0 < emitted < 1_000
        answer.close()
        await soon(left.wait())
        assert emitted < 1_000
        await quiet(sides)
