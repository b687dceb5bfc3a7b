"""The listener: it says when it is ready, and drains in its order and within its time."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewright.inbound.crowd import Crowd, Places
from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.http import protocol_factory
from gatewright.inbound.listener import Listener
from gatewright.inbound.responder import Responder
from gatewright.inbound.settings import Limits
from gatewright.outbox import Outbox
from journeys.wire import BOUND_S, Wire, soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """uvloop, as `gatewright serve`: what accepts connections is the loop."""
    return "asyncio", {"use_uvloop": True}


class Desk:
    """Answers `/`, holds `/held` until told, and streams `/stream` until the end of streams."""

    def __init__(self, port: int, listener: Listener) -> None:
        self.port = port
        self.listener = listener
        self.is_over = asyncio.Event()

    async def ask(self, wire: Wire, path: str = "/") -> dict[str, str]:
        """The headers of a good answer."""
        answer = await wire.send("GET", path, {})
        assert answer.status == 200
        return answer.headers


@asynccontextmanager
async def attended(
    drain_s: float = BOUND_S, *, delay_s: float = 0.0, idle_s: float = 0.0
) -> AsyncIterator[tuple[Desk, asyncio.Event]]:
    """A listener that runs until it is told to stop, and what `/held` waits for."""
    ready, finish = asyncio.Event(), asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        if request.path == "/stream":
            responder.start_stream()
            ended = asyncio.Event()
            responder.on_drain = ended.set
            await ended.wait()
            return
        if request.path == "/held":
            await finish.wait()
        responder.respond(200, b"{}")

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    crowd = Crowd(Places(6_000, 10), idle_s=idle_s)
    async with asyncio.TaskGroup() as tasks:
        protocol = protocol_factory(serve, Limits(), tasks, Outbox(asyncio.get_running_loop().call_soon), crowd)
        listener = Listener(protocol, crowd, drain_s=drain_s, delay_s=delay_s, on_started=ready.set)
        desk = Desk(sock.getsockname()[1], listener)

        async def run() -> None:
            await listener._serve([sock])  # `serve` would take over the test runner's signals
            desk.is_over.set()

        running = tasks.create_task(run())
        await soon(ready.wait())
        try:
            yield desk, finish
        finally:
            listener.should_exit = True
            finish.set()
            await soon(running, 10)


async def newcomers(port: int) -> AsyncIterator[Wire]:
    """One connection after the other, until none is accepted any more."""
    while True:
        try:
            wire = await Wire.open(port)
        except ConnectionRefusedError:
            return
        yield wire


async def refused(port: int) -> None:
    """Until no connection is accepted any more."""
    async for wire in newcomers(port):
        wire.close()


@pytest.mark.parametrize("drain_s", [0.0, 0.2, 10.0])
async def test_it_serves_from_when_it_says_so_and_ends_in_time(drain_s: float) -> None:
    """Ready when connections are taken; told to stop, it lets a running request go on for `drain_s` at most."""
    async with attended(drain_s) as (desk, finish):
        wire = await Wire.open(desk.port)
        assert "connection" not in await desk.ask(wire)
        answer = wire.begin("GET", "/held", {})
        desk.listener.should_exit = True
        assert desk.listener.is_draining
        if drain_s == 10.0:
            await soon(refused(desk.port))
            finish.set()
            await soon(answer.started)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        await soon(desk.is_over.wait())
        with pytest.raises(ConnectionRefusedError):
            await Wire.open(desk.port)
        wire.close()


async def test_it_accepts_for_a_while_and_each_answer_is_the_last_of_its_connection() -> None:
    """So that a balancer can notice first: streams go on meanwhile, and end once nobody can come back here."""
    async with attended(delay_s=0.5) as (desk, _):
        kept, streaming = await Wire.open(desk.port), await Wire.open(desk.port)
        await desk.ask(kept)
        stream = await streaming.send("GET", "/stream", {})
        desk.listener.should_exit = True
        headers: dict[str, str] = {}
        while "connection" not in headers:
            wire = await Wire.open(desk.port)
            headers = await desk.ask(wire)
            wire.close()
        assert (await desk.ask(kept))["connection"] == "close"
        late = await Wire.open(desk.port)
        assert streaming.is_open
        assert not stream.is_complete
        assert (await desk.ask(late))["connection"] == "close"
        assert await stream.event() is None
        await soon(refused(desk.port))
        await soon(desk.is_over.wait())


def rushed(port: int) -> socket.socket | None:
    """A connection with a request on it, made without a turn of the loop; None when it is not accepted."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
    made = select.poll()
    made.register(sock, select.POLLOUT)
    if not made.poll(0) or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        sock.close()
        return None
    sock.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return sock


async def test_a_connection_that_was_made_is_never_reset() -> None:
    """More come in each turn of the loop than it accepts, until none is: each request that was sent is answered."""
    async with attended(idle_s=BOUND_S) as (desk, _):
        desk.listener.should_exit = True
        made: list[socket.socket] = []
        while (sock := rushed(desk.port)) is not None:
            made.append(sock)
            if len(made) % 3 == 0:
                await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for sock in made:
            assert (await soon(loop.sock_recv(sock, 100))).startswith(b"HTTP/1.1 200 ")
            sock.close()


async def test_idle_connections_are_still_read_while_it_stops() -> None:
    """A request that was on its way is answered; who sends nothing is let go after `idle_s`, and then it is over."""
    async with attended(60.0, idle_s=0.3) as (desk, _):
        kept, silent, fresh = [await Wire.open(desk.port) for _ in range(3)]
        for wire in (kept, silent):
            await desk.ask(wire)
        stream = await Wire.open(desk.port)
        opened = await stream.send("GET", "/stream", {})
        desk.listener.should_exit = True
        await soon(refused(desk.port))
        assert (await desk.ask(kept))["connection"] == "close"
        assert (await desk.ask(fresh))["connection"] == "close"
        assert await opened.event() is None
        assert (await desk.ask(stream))["connection"] == "close", "its head had not said that it would be closed"
        assert silent.is_open
        await soon(desk.is_over.wait())
        assert not silent.is_open


async def test_at_the_keyboard_nothing_is_waited_for_but_calls() -> None:
    """SIGINT: no delay, and idle connections are closed; a running call is still answered."""
    async with attended(60.0, delay_s=60.0, idle_s=60.0) as (desk, finish):
        idle, busy = await Wire.open(desk.port), await Wire.open(desk.port)
        await desk.ask(idle)
        answer = busy.begin("GET", "/held", {})
        desk.listener.handle_exit(signal.SIGTERM, None)
        headers: dict[str, str] = {}
        while "connection" not in headers:
            headers = await desk.ask(await Wire.open(desk.port))
        hurried = asyncio.get_running_loop().time()
        desk.listener.handle_exit(signal.SIGINT, None)
        await soon(refused(desk.port))
        finish.set()
        await soon(answer.started)
        assert answer.status == 200
        await soon(desk.is_over.wait())
        assert not idle.is_open
        assert asyncio.get_running_loop().time() - hurried < BOUND_S
