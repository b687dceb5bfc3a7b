"""The pooled channel: who holds which connection, for how long it is kept, and what is sent again."""

from __future__ import annotations

import asyncio
import time

import pytest

from backend.channels import answer, echo, outcome, pooled, request, say_once, talking
from backend.raw_server import Peer, Talk, response, serving, soon, until
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


# --- the pool


async def test_callers_wait_in_order() -> None:
    """With one connection, twenty questions are heard in the order they were asked."""
    async with talking(echo, max_connections=1) as (server, channel):
        bodies = [b"%02d" % number for number in range(20)]
        assert await asyncio.gather(*(answer(channel, body) for body in bodies)) == bodies
        assert [heard.body for heard in server.heard] == bodies
        assert len(server.peers) == 1


async def test_callers_wait_in_order_when_connections_close() -> None:
    """A connection that ends with its answer hands its place to the first in line, not to a newcomer."""
    talk = say_once(response(b"1", "200 OK", "connection: close"), is_closing=True)
    async with talking(talk, max_connections=1) as (server, channel), asyncio.TaskGroup() as tasks:
        async with asyncio.timeout(5):
            queue = [tasks.create_task(channel.send(request(b"%02d" % number))) for number in range(10)]
            await queue[0]
            newcomer = tasks.create_task(channel.send(request(b"99")))
            await asyncio.gather(*queue, newcomer)
        assert [heard.body for heard in server.heard] == [b"%02d" % number for number in [*range(10), 99]]


async def test_a_cancelled_waiter_gives_back_what_it_was_handed() -> None:
    """Cancelled in the very turn in which it got the connection: the next in line has it."""
    async with talking(echo, max_connections=1) as (server, channel), asyncio.TaskGroup() as tasks:
        for _ in range(50):
            first = tasks.create_task(channel.send(request(b"1")))
            second = tasks.create_task(channel.send(request(b"2")))
            third = tasks.create_task(channel.send(request(b"3")))
            first.add_done_callback(lambda _, victim=second: victim.cancel())  # type: ignore[misc]
            assert (await soon(third)).body == b"3"
            await asyncio.wait([first, second])
        assert channel.connections == (1, 1)
        assert len(server.peers) <= 51


async def test_a_failed_connect_lets_the_next_in_line_try() -> None:
    """Nobody waits for a slot that is free again because nobody could be reached."""
    async with serving(echo) as server, pooled(server, max_connections=1) as channel:
        await server.stop()
        found = await asyncio.gather(*(outcome(channel.send(request(b"x"))) for _ in range(5)))
        assert all(isinstance(one, BackendUnavailable) for one in found)
        assert channel.connections == (0, 0)
        await server.start()
        assert await answer(channel, b"back") == b"back"


async def test_a_cancelled_connect_lets_the_next_in_line_try() -> None:
    """Also while the first is still connecting, at any turn of it."""
    async with talking(echo, max_connections=1) as (_, channel), asyncio.TaskGroup() as tasks:
        for turns in range(8):
            first = tasks.create_task(channel.send(request(b"1")))
            second = tasks.create_task(channel.send(request(b"2")))
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            assert (await soon(second)).body == b"2"
            await asyncio.wait([first])
            await soon(channel.send(request(b"", "GET")))


async def test_a_peer_that_closes_new_connections_costs_no_slot() -> None:
    """It is unavailable, or broke off; the pool is as empty as before."""

    async def closing(peer: Peer) -> None:
        peer.reset()

    async with talking(closing, max_connections=2) as (_, channel):
        for _ in range(10):
            assert isinstance(await outcome(channel.send(request(b"x"))), BackendError)
        await until(lambda: channel.connections == (0, 0))


async def test_idle_connections_expire() -> None:
    """After keep_alive_s the gateway closes first."""
    async with talking(echo, keep_alive_s=0.2) as (server, channel):
        await asyncio.gather(*(answer(channel, b"%d" % number) for number in range(5)))
        await soon(asyncio.gather(*(peer.closed.wait() for peer in server.peers)))
        await until(lambda: channel.connections == (0, 0))
        assert await answer(channel, b"again") == b"again"


async def test_no_more_idle_connections_than_allowed_are_kept() -> None:
    """The rest is closed when it is done."""
    async with talking(echo, max_idle_connections=2) as (server, channel):
        bodies = [b"%d" % number for number in range(6)]
        assert await asyncio.gather(*(answer(channel, body) for body in bodies)) == bodies
        await until(lambda: channel.connections == (2, 2))
        await until(lambda: len(server.open_peers) == 2)


async def test_a_connection_that_the_peer_closed_is_not_used_again() -> None:
    """The next question goes over a new one."""
    async with talking(say_once(response(b"1"), is_closing=True)) as (server, channel):
        for number in range(5):
            assert await answer(channel, b"x") == b"1"
            await until(lambda: channel.connections == (0, 0))
            assert len(server.peers) == number + 1


async def test_closing_fails_what_waits_and_what_runs() -> None:
    """Whoever waits is told that nothing was sent; whoever asked, that it may have run."""
    async with talking(Peer.until_closed, max_connections=1) as (server, channel), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outcome(channel.send(request(b"1"))))
        waiting = tasks.create_task(outcome(channel.send(request(b"2"))))
        await until(lambda: len(server.peers) == 1)
        await soon(channel.aclose())
        assert isinstance(await running, BackendGarbage)
        assert isinstance(await waiting, BackendUnavailable)
        with pytest.raises(BackendUnavailable):
            await channel.send(request(b"3"))


async def test_closing_while_connecting_leaves_nothing() -> None:
    """A connection that stands only after the close is closed as well."""
    async with talking(echo) as (server, channel), asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(outcome(channel.send(request(b"1")))) for _ in range(5)]
        await asyncio.sleep(0)
        await channel.aclose()
        assert all(isinstance(one, BackendError) for one in await asyncio.gather(*opening))
        await until(lambda: channel.connections == (0, 0) and not server.open_peers)


# --- sending again


async def test_a_request_is_sent_again_only_when_that_is_safe() -> None:
    """A used connection that closes without a byte: a safe request goes over another, any other is in doubt."""

    async def once(peer: Peer) -> None:
        peer.say(response((await peer.hear()).body))
        await peer.hear()
        peer.reset()

    async with talking(once) as (server, channel):
        assert await answer(channel, b"1") == b"1"
        assert (await soon(channel.send(request(b"2"), is_retry_safe=True))).body == b"2"
        assert isinstance(await outcome(channel.send(request(b"3"))), BackendGarbage)
        assert [heard.body for heard in server.heard] == [b"1", b"2", b"2", b"3"]


async def test_a_request_on_a_new_connection_is_not_sent_again() -> None:
    """It was read, or the peer is broken: either way once is enough."""

    async def mute(peer: Peer) -> None:
        await peer.hear()

    async with talking(mute) as (server, channel):
        assert isinstance(await outcome(channel.send(request(b"1"), is_retry_safe=True)), BackendGarbage)
        assert len(server.heard) == 1


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_request_is_not_sent_again_after_a_byte_of_an_answer(first: bytes) -> None:
    """It ran, or runs."""

    async def half(peer: Peer) -> None:
        peer.say(response((await peer.hear()).body))
        await peer.hear()
        peer.say(first)
        peer.close()

    async with talking(half) as (server, channel):
        assert await answer(channel, b"1") == b"1"
        assert isinstance(await outcome(channel.send(request(b"2"), is_retry_safe=True)), BackendGarbage)
        assert [heard.body for heard in server.heard] == [b"1", b"2"]


async def test_a_safe_request_is_sent_again_once_and_over_a_new_connection() -> None:
    """The other idle ones are most likely gone as well, and it may be what ends the backend."""
    fatal = asyncio.Event()

    async def dying(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            if heard.body == b"fatal":
                fatal.set()
                peer.reset()
                return
            if len(server.peers) < 3:
                await until(lambda: len(server.heard) >= 3)  # so that each has a connection of its own
            peer.say(response(heard.body))

    async with talking(dying) as (server, channel):
        await asyncio.gather(*(answer(channel, b"%d" % number) for number in range(3)))
        assert channel.connections == (3, 3)
        assert isinstance(await outcome(channel.send(request(b"fatal"), is_retry_safe=True)), BackendGarbage)
        assert [heard.body for heard in server.heard].count(b"fatal") == 2
        assert len(server.peers) == 4


async def test_where_no_more_connections_may_be_opened_it_is_sent_over_an_idle_one() -> None:
    """Rather than not at all."""

    async def once(peer: Peer) -> None:
        heard = await peer.hear()
        await until(lambda: len(server.heard) >= 2)
        peer.say(response(heard.body))
        heard = await peer.hear()
        if heard.body == b"lost" and [one.body for one in server.heard].count(b"lost") == 1:
            await until(lambda: channel.connections == (2, 1))
            peer.reset()
            return
        peer.say(response(heard.body))
        await peer.hear()

    async with talking(once, max_connections=2) as (server, channel):
        await asyncio.gather(answer(channel, b"1"), answer(channel, b"2"))
        assert channel.connections == (2, 2)
        assert (await soon(channel.send(request(b"lost"), is_retry_safe=True))).body == b"lost"


# --- how long a connection is kept

LIMIT_S = 2.0
"""After what the backends below close an idle connection, as uvicorn and Node do after 5 s. Far above what they
are held against: one loop runs both sides, and it may be held up."""


def impatient(closed_by: list[str], limit_s: float = LIMIT_S, *lines: str) -> Talk:
    """A backend that closes a connection on which nothing came for so long; notes who closed each first."""

    async def talk(peer: Peer) -> None:
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    heard = await peer.hear()
                peer.say(response(heard.body, "200 OK", *lines))
        except EOFError:
            closed_by.append("gateway")
            raise
        except TimeoutError:
            closed_by.append("backend")

    return talk


async def test_the_gateway_closes_before_the_backend_does() -> None:
    """So that no request is ever on its way into a connection that is just being closed, however long calls paused."""
    closed_by: list[str] = []
    async with talking(impatient(closed_by), keep_alive_s=LIMIT_S * 0.2) as (_, channel):
        await asyncio.gather(*(answer(channel, b"%d" % number) for number in range(20)))
        await until(lambda: len(closed_by) == 20)
        assert closed_by == ["gateway"] * 20
        assert await answer(channel, b"again") == b"again"


@pytest.mark.parametrize("line", ["Keep-Alive: timeout=1", "keep-alive: max=5, timeout=1", 'Keep-Alive: timeout = "1"'])
async def test_a_backend_that_says_how_long_it_keeps_them_is_believed(line: str) -> None:
    """Less a margin, where that is less than what is configured."""
    closed_by: list[str] = []
    async with talking(impatient(closed_by, LIMIT_S, line)) as (_, channel):
        await asyncio.gather(*(answer(channel, b"%d" % number) for number in range(5)))
        await until(lambda: len(closed_by) == 5)
        assert closed_by == ["gateway"] * 5


async def test_a_longer_time_than_configured_changes_nothing() -> None:
    """The configuration has the last word."""
    closed_by: list[str] = []
    async with talking(impatient(closed_by, LIMIT_S, "Keep-Alive: timeout=600"), keep_alive_s=0.2) as (_, channel):
        assert await answer(channel, b"1") == b"1"
        await until(lambda: closed_by == ["gateway"])


async def test_no_connection_is_kept_that_the_backend_keeps_for_less_than_a_second() -> None:
    """Node writes whole seconds, rounded down."""
    async with talking(impatient([], 5.0, "Keep-Alive: timeout=0")) as (server, channel):
        for number in range(3):
            assert await answer(channel, b"%d" % number) == b"%d" % number
            assert channel.connections[1] == 0
        assert len(server.peers) == 3


async def test_after_the_loop_was_held_up_no_old_connection_is_used() -> None:
    """Time passed all the same: one look at the clock makes up for those that were missed."""
    async with talking(echo, keep_alive_s=0.4) as (server, channel):
        assert await answer(channel, b"1") == b"1"
        loop = asyncio.get_running_loop()
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            pass
        held_s = loop.time()
        await until(lambda: channel.connections == (0, 0))
        assert loop.time() - held_s < 0.1
        assert await answer(channel, b"2") == b"2"
        assert len(server.peers) == 2


# --- in a busy turn, where a request waits for others


async def test_a_request_that_waits_is_sent_with_the_others_or_at_the_end_of_the_turn() -> None:
    """Whether or not they come; each is answered."""
    async with talking(echo) as (_, channel):
        for expected in (3, 50):
            channel.outbox.expected = expected
            bodies = [b"%d" % number for number in range(3)]
            assert await asyncio.gather(*(answer(channel, body) for body in bodies)) == bodies


async def test_a_request_that_is_cancelled_while_it_waits_costs_its_connection() -> None:
    """As at any other time; the next request goes over another one."""
    async with talking(echo) as (server, channel), asyncio.TaskGroup() as tasks:
        assert await answer(channel, b"first") == b"first"
        channel.outbox.expected = 50
        task = tasks.create_task(channel.send(request(b"cancelled")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await answer(channel, b"next") == b"next"
        assert len(server.peers) == 2


async def test_a_request_whose_connection_is_closed_while_it_waits_is_never_sent() -> None:
    """By this end: a closed transport takes nothing."""
    async with talking(echo) as (server, channel), asyncio.TaskGroup() as tasks:
        assert await answer(channel, b"first") == b"first"
        (connection,) = channel._open
        channel.outbox.expected = 50
        task = tasks.create_task(outcome(channel.send(request(b"waits"))))
        await asyncio.sleep(0)
        connection.close()
        assert isinstance(await task, BackendGarbage)
        assert await answer(channel, b"next") == b"next"
        assert [heard.body for heard in server.heard] == [b"first", b"next"]


async def test_a_request_whose_connection_is_lost_while_it_waits_is_not_carried_out() -> None:
    """Only one that may be sent again is, over a new connection."""
    async with talking(echo) as (_, channel), asyncio.TaskGroup() as tasks:
        for is_safe in (False, True):
            assert await answer(channel, b"first") == b"first"
            (connection,) = channel._open
            channel.outbox.expected = 50
            task = tasks.create_task(outcome(channel.send(request(b"waits"), is_safe)))
            await asyncio.sleep(0)
            connection.connection_lost(None)
            got = await task
            assert got.body == b"waits" if is_safe else isinstance(got, BackendGarbage)
