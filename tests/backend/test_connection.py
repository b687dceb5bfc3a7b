"""One connection to a backend: whose answer it is, and what a broken peer can do."""

from __future__ import annotations

import asyncio
import random

import pytest

from backend.channels import answer, echo, outcome, request, say_once, talking
from backend.raw_server import Peer, chunk, response, soon, stream_head, until
from gatewright.backend.channel import NOT_SENT
from gatewright.backend.connection import MAX_HEAD_BYTES
from gatewright.errors import BackendGarbage

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


# --- whose answer


async def test_an_answer_reaches_its_question() -> None:
    """One after the other over one connection, with and without a head seen before."""
    async with talking(echo) as (server, channel):
        for number in range(50):
            body = b"%d" % number * (1 + number % 7)
            assert await answer(channel, body) == body
        assert len(server.peers) == 1
        assert channel.connections == (1, 1)


async def test_many_at_once_keep_apart() -> None:
    """Five hundred questions over ten connections get their own answers."""
    async with talking(echo, max_connections=10) as (server, channel):
        bodies = [b"%d" % number for number in range(500)]
        assert await asyncio.gather(*(answer(channel, body) for body in bodies)) == bodies
        assert len(server.peers) <= 10


@pytest.mark.parametrize("is_cut", [False, True])
async def test_random_cancellations_cost_no_connection_and_mix_nothing_up(is_cut: bool) -> None:
    """Ten thousand questions, many cancelled anywhere: every answer is the right one and the pool is whole again."""
    chance = random.Random(7)

    async def uneven(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            whole = response(heard.body)
            if is_cut and chance.random() < 0.3:
                at = chance.randrange(len(whole))
                peer.say(whole[:at])
                await asyncio.sleep(0)
                whole = whole[at:]
            peer.say(whole)

    async with talking(uneven, max_connections=8) as (server, channel):

        async def ask(number: int) -> None:
            body = b"<%d>" % number
            got = await channel.send(request(body))
            assert got.body == body

        async def ask_and_cancel(number: int) -> None:
            task = tasks.create_task(ask(number))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if chance.random() < 0.7:
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None

        async def one_caller(first: int) -> None:
            for number in range(first, first + 250):
                await ask_and_cancel(number)

        async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
            for first in range(0, 10_000, 250):
                tasks.create_task(one_caller(first))
        total, idle = channel.connections
        assert total == idle <= 8
        await until(lambda: len(server.open_peers) <= 8)
        bodies = [b"%d" % number for number in range(40)]
        assert await asyncio.gather(*(answer(channel, body) for body in bodies)) == bodies


async def test_cancelling_closes_the_connection_at_once() -> None:
    """The peer sees it closed, and a late answer meets nobody."""

    async def late(peer: Peer) -> None:
        heard = await peer.hear()
        if heard.body == b"late":
            await peer.until_closed()
        else:
            peer.say(response(heard.body))
            await peer.hear()

    async with talking(late) as (server, channel), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(channel.send(request(b"late")))
        await until(lambda: len(server.heard) == 1)
        task.cancel()
        await soon(server.peers[0].closed.wait())
        await asyncio.wait([task])
        assert channel.connections == (0, 0)
        assert await answer(channel, b"next") == b"next"


async def test_cancelling_before_a_connection_stands_says_so() -> None:
    """Then nothing was sent, and whoever has to tell the backend of the cancel need not."""
    async with talking(echo, max_connections=1) as (server, channel), asyncio.TaskGroup() as tasks:
        server.talk = Peer.until_closed
        held = tasks.create_task(channel.send(request(b"held")))
        waiting = tasks.create_task(channel.send(request(b"waiting")))
        await until(lambda: len(server.peers) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as unsent:
            await waiting
        assert unsent.value.args == (NOT_SENT,)
        held.cancel()
        with pytest.raises(asyncio.CancelledError) as sent:
            await held
        assert sent.value.args == ()
        await until(lambda: channel.connections == (0, 0))


async def test_a_stream_that_begins_as_its_asker_is_cancelled_is_closed() -> None:
    """Nobody would read it: its connection must not stay behind."""
    heads = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(b"data: 1\n\n"))
        heads.set()
        await peer.until_closed()

    async with talking(talk) as (server, channel), asyncio.TaskGroup() as tasks:
        for turns in range(12):
            heads.clear()
            task = tasks.create_task(channel.send(request(b"x")))
            await soon(heads.wait())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result().abort()
            await soon(server.peers[-1].closed.wait())
        await until(lambda: channel.connections == (0, 0))


async def test_an_answer_nobody_asked_for_closes_the_connection() -> None:
    """In the same segment as an answer, or later: what follows is never another's answer."""

    async def chatty(peer: Peer) -> None:
        heard = await peer.hear()
        if heard.body == b"same":
            peer.say(response(b"same"), response(b"stray"))
        else:
            peer.say(response(heard.body))
        if heard.body == b"later":
            await server_may_stray.wait()
            peer.say(response(b"stray"))
        await peer.hear()

    server_may_stray = asyncio.Event()
    async with talking(chatty, max_connections=1) as (server, channel):
        assert await asyncio.gather(*(answer(channel, body) for body in (b"same", b"a"))) == [b"same", b"a"]
        await until(lambda: len(server.peers) == 2)
        await server.stop()
        await server.start()
        assert await answer(channel, b"later") == b"later"
        server_may_stray.set()
        await until(lambda: channel.connections == (0, 0))


async def test_bytes_on_an_idle_connection_close_it() -> None:
    """Even a line break: nothing may be said unasked."""

    async def talk(peer: Peer) -> None:
        peer.say(response((await peer.hear()).body))
        await go.wait()
        peer.say(b"\r\n")
        await peer.until_closed()

    go = asyncio.Event()
    async with talking(talk) as (server, channel):
        assert await answer(channel, b"1") == b"1"
        go.set()
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))


# --- broken peers

WHOLE = response(b'{"jsonrpc":"2.0","id":1,"result":{}}', "200 OK", "x-a: b")
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunk(b"12345")
    + chunk(b"678")
    + chunk(b"")
)


@pytest.mark.parametrize("whole", [WHOLE, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("is_known", [False, True])
async def test_a_close_at_any_byte_is_an_error_and_leaves_nothing(whole: bytes, is_known: bool) -> None:
    """However much of the answer came, and whether its head was seen before."""
    cuts = iter(range(len(whole)))

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        if heard.body == b"teach":
            peer.say(whole)
            await peer.hear()
        peer.say(whole[: next(cuts)])
        peer.close()

    async with talking(talk) as (_, channel):
        for _ in range(len(whole)):
            if is_known:
                await answer(channel, b"teach")
            assert isinstance(await outcome(channel.send(request(b"x"))), BackendGarbage)
            await until(lambda: channel.connections == (0, 0))


@pytest.mark.parametrize("whole", [WHOLE, CHUNKED], ids=["length", "chunked"])
async def test_any_cut_into_two_pieces_gives_the_same_answer(whole: bytes) -> None:
    """The network may cut anywhere, under a head that was seen before or not."""
    cuts = iter(range(1, len(whole)))

    async def talk(peer: Peer) -> None:
        while True:
            await peer.hear()
            at = next(cuts)
            peer.say(whole[:at])
            await peer.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)
            peer.say(whole[at:])

    async with talking(talk) as (server, channel):
        found = {await answer(channel, b"x") for _ in range(1, len(whole))}
        assert len(found) == 1
        assert len(server.peers) == 1


async def test_pieces_teach_a_head_and_are_gathered_under_it() -> None:
    """Answers that never come in one read are right, from the first on, with bodies of any length."""

    async def talk(peer: Peer) -> None:
        while True:
            whole = response((await peer.hear()).body)
            head = whole.index(b"\r\n\r\n") + 4
            for piece in (whole[: head + 1], whole[head + 1 : head + 5], whole[head + 5 :]):
                peer.say(piece)
                await peer.writer.drain()
                for _ in range(3):
                    await asyncio.sleep(0)

    async with talking(talk) as (server, channel):
        for number in range(20):
            body = b"%d" % number * (9 + number % 7)
            assert await answer(channel, body) == body
        assert len(server.peers) == 1
        assert channel.known.body_in(response(b"abc"), 3)[0] > 0


async def test_more_than_a_known_head_announced_ends_the_connection() -> None:
    """The answer is what was announced; what follows it was not asked for, and belongs to nobody."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(response(b"teach"))
        await peer.hear()
        whole = response(b"0123456789")
        peer.say(whole[:-3])
        await peer.writer.drain()
        for _ in range(3):
            await asyncio.sleep(0)
        peer.say(whole[-3:] + response(b"unasked"))
        await peer.until_closed()

    async with talking(talk) as (server, channel):
        assert await answer(channel, b"x") == b"teach"
        assert await answer(channel, b"x") == b"0123456789"
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))


async def test_an_answer_keeps_the_headers_that_it_began_with() -> None:
    """Another connection teaches another head meanwhile: whose session is whose is not mixed up."""
    is_half, is_taught = asyncio.Event(), asyncio.Event()

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        if heard.body == b"teach":
            peer.say(response(b"1"))
            heard = await peer.hear()
        if heard.body == b"slow":
            whole = response(b"slow answer")
            peer.say(whole[:-4])
            is_half.set()
            await is_taught.wait()
            peer.say(whole[-4:])
        else:
            peer.say(response(b"other", "200 OK", "mcp-session-id: other"))
        await peer.until_closed()

    async with talking(talk) as (_, channel), asyncio.TaskGroup() as tasks:
        await answer(channel, b"teach")
        slow = tasks.create_task(channel.send(request(b"slow")))
        await soon(is_half.wait())
        for _ in range(10):
            await asyncio.sleep(0)
        other = await soon(channel.send(request(b"other")))
        is_taught.set()
        told = await soon(slow)
    assert other.headers[b"mcp-session-id"] == b"other"
    assert (told.body, b"mcp-session-id" in told.headers) == (b"slow answer", False)


@pytest.mark.parametrize("end", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_behind_a_gathered_answer_mean_nothing(end: bytes) -> None:
    """Its connection goes on, as the parser would have it."""

    async def talk(peer: Peer) -> None:
        while True:
            whole = response((await peer.hear()).body) + end
            peer.say(whole[: -len(end) - 2])
            await peer.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)
            peer.say(whole[-len(end) - 2 :])

    async with talking(talk) as (server, channel):
        for number in range(5):
            assert await answer(channel, b"%d" % number * 5) == b"%d" % number * 5
        assert len(server.peers) == 1


async def test_cancelling_half_an_answer_under_a_known_head_closes_the_connection() -> None:
    """What is left of it never meets another question."""
    is_half = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(response(b"teach"))
        await peer.hear()
        peer.say(response(b"0123456789")[:-3])
        await peer.writer.drain()
        is_half.set()
        await peer.until_closed()

    async with talking(talk) as (server, channel):
        assert await answer(channel, b"x") == b"teach"
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(channel.send(request(b"x")))
            await soon(is_half.wait())
            asking.cancel()
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))


@pytest.mark.parametrize(
    "said",
    [
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + b"x" * 100_000,
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\nx",
        b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: br\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(200)),
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 70_000),
        b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000,
    ],
    ids=lambda said: repr(said[:60]),
)
async def test_what_is_not_an_answer_is_garbage_at_once(said: bytes) -> None:
    """A typed error without waiting for a deadline, and the connection is gone."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(said)
        await peer.until_closed()

    async with talking(talk, max_response_bytes=65_536) as (server, channel):
        assert isinstance(await outcome(channel.send(request(b"x"))), BackendGarbage)
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))


@pytest.mark.parametrize(
    ("status", "is_kept"), [("204 No Content", True), ("304 Not Modified", True), ("202 Accepted", True)]
)
async def test_an_answer_without_a_body_is_whole(status: str, is_kept: bool) -> None:
    """The connection goes on."""
    length = b"content-length: 0\r\n" if status.startswith("202") else b""
    talk = say_once(f"HTTP/1.1 {status}\r\n".encode() + length + b"\r\n")
    async with talking(talk) as (server, channel):
        for _ in range(2):
            got = await soon(channel.send(request(b"x")))
            assert (got.status, got.body) == (int(status[:3]), b"")
        assert len(server.peers) == (1 if is_kept else 2)


async def test_informational_answers_come_before_the_answer() -> None:
    """100 and 103 are skipped, in one piece or in several."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with talking(say_once(early + response(b"1"))) as (server, channel):
        assert [await answer(channel, b"x") for _ in range(3)] == [b"1"] * 3
        assert len(server.peers) == 1


async def test_only_a_hundred_and_then_the_end_is_an_error() -> None:
    """An informational answer is none."""
    async with talking(say_once(b"HTTP/1.1 100 Continue\r\n\r\n", is_closing=True)) as (_, channel):
        assert isinstance(await outcome(channel.send(request(b"x"))), BackendGarbage)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_without_a_length_the_body_ends_where_the_peer_closes(version: str) -> None:
    """As RFC 9112 has it; a reset is no end."""
    head = f"HTTP/{version} 200 OK\r\ncontent-type: application/json\r\n\r\n".encode()
    async with talking(say_once(head, b"1234", is_closing=False)) as (server, channel):

        async def ending(peer: Peer) -> None:
            await peer.hear()
            peer.say(head, b"1234")
            peer.writer.write_eof()
            await peer.until_closed()

        server.talk = ending
        assert await answer(channel, b"x") == b"1234"
        await until(lambda: channel.connections == (0, 0))


async def test_a_body_without_length_that_the_gateway_breaks_off_is_no_answer() -> None:
    """Closing the channel half-way must not make half a body whole."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await peer.until_closed()

    async with talking(talk) as (server, channel), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(outcome(channel.send(request(b"x"))))
        await until(lambda: len(server.heard) == 1)
        for _ in range(5):
            await asyncio.sleep(0)
        await channel.aclose()
        assert isinstance(await asking, BackendGarbage)


@pytest.mark.parametrize("line", ["connection: close", "connection: Close, x"])
async def test_a_peer_that_means_to_close_is_believed(line: str) -> None:
    """Its connection is not used again."""
    async with talking(say_once(response(b"1", "200 OK", line))) as (server, channel):
        assert [await answer(channel, b"x") for _ in range(3)] == [b"1"] * 3
        assert len(server.peers) == 3


async def test_redirects_are_answers() -> None:
    """They are handed over, not followed."""
    talk = say_once(response(b"", "302 Found", "location: http://127.0.0.1:1/"))
    async with talking(talk) as (server, channel):
        assert (await soon(channel.send(request(b"x")))).status == 302
        assert len(server.heard) == 1


async def test_an_early_answer_to_a_large_request_ends_its_connection() -> None:
    """What is left of the request must not run into the next one."""

    async def early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.say(response(b"", "413 Content Too Large"))
        await peer.writer.drain()
        await peer.until_closed()

    async with talking(early) as (server, channel):
        got = await soon(channel.send(request(b"x" * 40_000_000)))
        assert got.status == 413
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))


async def test_an_answer_may_be_as_long_as_allowed() -> None:
    """And not one byte longer, with a length or in chunks."""
    async with talking(echo, max_response_bytes=100_000) as (_, channel):
        assert len(await answer(channel, b"x" * 100_000)) == 100_000
        assert isinstance(await outcome(channel.send(request(b"x" * 100_001))), BackendGarbage)
        assert await answer(channel, b"y") == b"y"


async def test_damaged_answers_end_in_an_answer_or_an_error() -> None:
    """Fifteen hundred answers with bytes changed, lost, doubled or put in, after a good one: nothing hangs, nothing
    else is raised, and the next question gets its own answer."""
    chance = random.Random(11)
    good = [WHOLE, CHUNKED, stream_head() + chunk(b"data: 1\n\n") + chunk(b"")]

    def damaged(data: bytes) -> bytes:
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            put = chance.choice([b"", bytes([chance.randrange(256)]), data[at : at + 9] * 2, b"\r\n", b"0", b": "])
            data = data[:at] + put + data[at + chance.choice([0, 1, 1, 9]) :]
        return data

    async def talk(peer: Peer) -> None:
        while (heard := await peer.hear()).body != b"damage":
            peer.say(chance.choice(good) if heard.body == b"teach" else response(heard.body))
        peer.say(damaged(chance.choice(good)))
        await peer.writer.drain()

    async with talking(talk, max_connections=2) as (_, channel):
        for number in range(1500):
            taught = await soon(channel.send(request(b"teach"), is_retry_safe=True))
            taught.finish()
            got = await outcome(channel.send(request(b"damage")))
            if not isinstance(got, BackendGarbage):
                got.abort()
            body = b"%d" % number
            assert (await soon(channel.send(request(body), is_retry_safe=True))).body == body
