"""Event streams as their reader sees them, and which responses are some."""

from __future__ import annotations

import asyncio

import pytest

from backend.channels import channel_to
from backend.raw_server import Peer, chunk, response, serving, soon, stream_head, until
from gatewright.backend.response import PAUSE_BYTES, HttpResponse, HttpStream, idle_timeout_s, is_event_stream
from gatewright.errors import BackendGarbage

pytestmark = pytest.mark.anyio
ASK = b"POST /mcp HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


class Socket:
    """A source that counts."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def resume_reading(self) -> None:
        self.done.append("resume")

    def rest(self) -> None:
        self.done.append("rest")

    def lend(self) -> None:
        self.done.append("lend")

    def drain_or_close(self) -> None:
        self.done.append("drain")

    def close(self) -> None:
        self.done.append("close")


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"text/event-stream;charset=UTF-8", True),
        (b"  text/event-stream  ", True),
        (b"text/event-streams", False),
        (b"application/json; x=text/event-stream", False),
        (b"", False),
    ],
)
def test_a_content_type_is_read_as_one(value: bytes, is_one: bool) -> None:
    """Its case and its parameters say nothing."""
    assert is_event_stream(value) is is_one


async def test_a_reader_gets_everything_and_then_the_end() -> None:
    """Pieces that came before it are one; the socket is asked for more only when there is none."""
    socket = Socket()
    stream = HttpStream(socket)
    assert not stream.push(b"a")
    assert not stream.push(b"b")
    assert await stream.read() == b"ab"
    assert socket.done == []
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(stream.read())
        await until(lambda: socket.done == ["resume"])
        stream.push(b"c")
        assert await soon(reading) == b"c"
    stream.complete()
    assert await stream.read() == b""
    stream.finish()
    stream.abort()
    assert socket.done == ["resume"]


async def test_a_reader_far_behind_is_noticed() -> None:
    """What waits is counted until it is read."""
    stream = HttpStream(Socket())
    assert not stream.push(b"x" * PAUSE_BYTES)
    assert stream.push(b"x")
    await stream.read()
    assert not stream.push(b"x")


async def test_what_came_before_the_connection_died_is_read_first() -> None:
    """Then the error, every time."""
    stream = HttpStream(Socket())
    stream.push(b"a")
    stream.fail(BackendGarbage("died"))
    assert await stream.read() == b"a"
    for _ in range(2):
        with pytest.raises(BackendGarbage):
            await stream.read()


async def test_a_cancelled_read_loses_nothing() -> None:
    """The next read has it."""
    stream = HttpStream(Socket())
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(stream.read())
        await asyncio.sleep(0)
        reading.cancel()
        stream.push(b"a")
    assert await soon(stream.read()) == b"a"


async def test_who_rests_is_told_once_that_there_is_something() -> None:
    """A piece, the end, or the death of the connection; not at all when it is there already."""
    socket, told = Socket(), list[str]()
    stream = HttpStream(socket)
    assert stream.rest(lambda: told.append("a"))
    assert (socket.done, told) == (["rest"], [])
    stream.push(b"1")
    stream.push(b"2")
    assert told == ["a"]
    assert not stream.rest(lambda: told.append("b"))
    assert await stream.read() == b"12"
    assert stream.rest(lambda: told.append("c"))
    stream.complete()
    assert not stream.rest(lambda: told.append("d"))
    assert await stream.read() == b""
    other = HttpStream(Socket())
    assert other.rest(lambda: told.append("e"))
    other.fail(BackendGarbage("died"))
    assert told == ["a", "c", "e"]


async def test_a_response_without_a_stream_is_at_its_end() -> None:
    """Reading, finishing and aborting it do nothing."""
    whole = HttpResponse(200, {}, b"body")
    whole.finish()
    whole.abort()
    assert not whole.is_stream
    assert await whole.read() == b""


# --- over a socket


async def test_a_slow_reader_stops_its_own_socket() -> None:
    """The peer cannot send more than a few buffers; everything arrives once it is read."""
    total = 8 << 20
    sent = 0

    async def talk(peer: Peer) -> None:
        nonlocal sent
        await peer.hear()
        peer.say(stream_head())
        while sent < total:
            peer.say(chunk(b"x" * 65_536))
            sent += 65_536
            await peer.writer.drain()
        peer.say(chunk(b""))
        await peer.hear()

    async with serving(talk) as server:
        channel = channel_to(server)
        got = await soon(channel.send(ASK))
        assert got.is_stream
        before = -1
        while sent != before:  # until the peer is stuck
            before = sent
            for _ in range(2000):
                await asyncio.sleep(0)
        assert sent < total
        count = 0
        while piece := await soon(got.read()):
            count += len(piece)
        assert count == total
        await until(lambda: channel.connections == (1, 1))
        await channel.aclose()


async def test_a_finished_stream_that_ends_frees_its_connection() -> None:
    """The rest is thrown away and the next question goes over the same connection."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(b"data: 1\n\n"))
        await go.wait()
        peer.say(chunk(b"data: 2\n\n" * 50_000), chunk(b""))
        await peer.hear()
        peer.say(response(b"next"))
        await peer.hear()

    go = asyncio.Event()
    async with serving(talk) as server:
        channel = channel_to(server)
        got = await soon(channel.send(ASK))
        await soon(got.read())
        got.finish()
        assert channel.connections == (1, 0)
        go.set()
        await until(lambda: channel.connections == (1, 1))
        assert (await soon(channel.send(ASK))).body == b"next"
        assert len(server.peers) == 1
        await channel.aclose()


async def test_a_finished_stream_that_goes_on_loses_its_connection() -> None:
    """After DRAIN_S, however much it says meanwhile."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head())
        while not peer.writer.is_closing():
            peer.say(chunk(b"data: x\n\n"))
            await peer.writer.drain()
            await asyncio.sleep(0)

    async with serving(talk) as server:
        channel = channel_to(server)
        got = await soon(channel.send(ASK))
        await soon(got.read())
        got.finish()
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))
        await channel.aclose()


async def test_an_aborted_stream_closes_its_connection_at_once() -> None:
    """The peer sees it."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(b"data: 1\n\n"))
        await peer.until_closed()

    async with serving(talk) as server:
        channel = channel_to(server)
        got = await soon(channel.send(ASK))
        got.abort()
        await soon(server.peers[0].closed.wait())
        await until(lambda: channel.connections == (0, 0))
        await channel.aclose()


async def test_a_stream_that_breaks_off_is_an_error_after_its_last_piece() -> None:
    """A connection that closes in a chunked stream did not end it."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(stream_head(), chunk(b"data: 1\n\n"))

    async with serving(talk) as server:
        channel = channel_to(server)
        got = await soon(channel.send(ASK))
        assert await soon(got.read()) == b"data: 1\n\n"
        with pytest.raises(BackendGarbage):
            await soon(got.read())
        await channel.aclose()


@pytest.mark.parametrize(
    ("field", "told"),
    [
        *((b"timeout=5", 5), (b"Timeout=5, max=100", 5), (b"max=100, timeout=72", 72), (b"timeout = 15", 15)),
        *((b'timeout="3"', 3), (b"timeout=0", 0), (b"max=1;timeout=2", 2), (b"timeout=0005", 5)),
        *((b"", None), (b"max=100", None), (b"timeout", None), (b"timeout=", None), (b"timeout=-1", None)),
        *((b"timeout=soon", None), (b"xtimeout=5", None), (b"timeout=" + b"9" * 10, None)),
    ],
)
async def test_how_long_a_server_keeps_idle_connections(field: bytes, told: int | None) -> None:
    """As the field says, however it is written; what cannot be read says nothing."""
    assert idle_timeout_s(field) == told
