"""The listener in a busy turn: answers wait for others, and whatever else is said on a connection keeps its place."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.http import HttpProtocol, protocol_factory
from gatewright.inbound.responder import Responder
from gatewright.inbound.settings import Limits
from gatewright.outbox import Outbox
from inbound.framing_corpus import CANARY, HEAD
from inbound.test_http import LAST, POST, Listener, State, answers, close, echo, listening, soon

pytestmark = pytest.mark.anyio
BUSY = 1_000_000


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def busy() -> AsyncIterator[Listener]:
    """A listener in whose every turn much more is expected: each answer waits. `/stream` is answered with a stream,
    `/long` with more than is copied."""
    outbox = Outbox(asyncio.get_running_loop().call_soon)

    async def serve(request: HttpRequest, responder: Responder) -> None:
        outbox.expected = BUSY
        if request.path == "/stream":
            responder.start_stream()
            await responder.send(b"data: 1\n\n")
        elif request.path == "/long":
            responder.respond(200, bytes(100_000))
        else:
            await echo(request, responder)

    async with listening(serve, outbox=outbox) as listener:
        yield listener


def get(path: str) -> bytes:
    """A request of this path."""
    return b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()


async def test_an_answer_arrives() -> None:
    """Without that anything else comes."""
    async with busy() as listener:
        reader, writer = await listener.open()
        for _ in range(3):
            writer.write(POST)
            assert (await soon(reader.readuntil(b"POST /mcp abc"))).startswith(b"HTTP/1.1 200 OK\r\n")
        await close(writer)


async def test_the_last_answer_arrives_before_the_end() -> None:
    """The connection is closed behind it."""
    async with busy() as listener:
        assert answers(await listener.say(LAST)) == [(200, b"GET /last ")]


async def test_pipelined_answers_keep_their_order() -> None:
    """Those that wait, long ones that do not, and the refusal at the end."""
    async with busy() as listener:
        raw = get("/1") + get("/2") + get("/long") + get("/3") + get("/long") + get("/4") + b"NOT HTTP\r\n\r\n"
        found = answers(await listener.say(raw))
    bodies = [body if len(body) < 1_000 else b"long" for _, body in found[:-1]]
    assert bodies == [b"GET /1 ", b"GET /2 ", b"long", b"GET /3 ", b"long", b"GET /4 "]
    assert found[-1][0] == 400


async def test_a_stream_begins_behind_the_answer_before_it() -> None:
    """And is followed by the next one."""
    async with busy() as listener:
        raw = await listener.say(get("/1") + get("/stream") + LAST)
    assert raw.index(b"GET /1 ") < raw.index(b"data: 1") < raw.index(b"0\r\n\r\n") < raw.index(b"GET /last ")


async def test_a_body_is_asked_for_behind_the_answer_before_it() -> None:
    """`100 Continue` is another request's."""
    async with busy() as listener:
        reader, writer = await listener.open()
        writer.write(CANARY + HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        seen = await soon(reader.readuntil(b"HTTP/1.1 100 Continue\r\n\r\n"))
        assert b"GET /canary " in seen
        writer.write(b"abc")
        await soon(reader.readuntil(b"POST /mcp abc"))
        await close(writer)


async def test_a_client_that_only_stops_sending_gets_what_was_answered() -> None:
    """It has left for what was not."""
    async with busy() as listener:
        reader, writer = await listener.open()
        writer.write(POST)
        await soon(reader.readuntil(b"POST /mcp abc"))
        writer.write_eof()
        assert await soon(reader.read()) == b""
        await close(writer)


class Noted(asyncio.Transport):
    """A transport that notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """The test says when it is closed."""


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[HttpProtocol, Noted]]:
    """A connection whose one request has just been answered: the answer waits."""
    loop = asyncio.get_running_loop()
    outbox, transport, is_answered = Outbox(loop.call_soon), Noted(), asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        outbox.expected = BUSY
        await echo(request, responder)
        is_answered.set()

    async with asyncio.TaskGroup() as tasks:
        create = protocol_factory(serve, Limits(), tasks, outbox)
        connection = create(config=None, server_state=State(), app_state={}, _loop=loop)
        connection.connection_made(transport)
        connection.data_received(POST)
        await asyncio.sleep(0)
        assert is_answered.is_set()
        assert transport.written == b""
        yield connection, transport
        connection.connection_lost(None)


async def test_a_connection_that_is_lost_meanwhile_gets_nothing() -> None:
    """Its transport is closed: to write to it would be a bug."""
    async with answering() as (connection, transport):
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert transport.written == b""


async def test_a_client_that_stops_sending_meanwhile_gets_its_answer() -> None:
    """It was answered before; what it is not answered yet is dropped."""
    async with answering() as (connection, transport):
        assert connection.eof_received() is False
        assert transport.written.endswith(b"POST /mcp abc")


async def test_a_client_that_is_gone_harms_nobody() -> None:
    """Its answer waits when it resets the connection; others get theirs."""
    async with busy() as listener:
        for _ in range(20):
            gone, (reader, writer) = socket.create_connection(("127.0.0.1", listener.port)), await listener.open()
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.sendall(POST * 3)
            writer.write(POST)
            gone.close()
            assert answers(await soon(reader.readuntil(b"POST /mcp abc"))) == [(200, b"POST /mcp abc")]
            await close(writer)
