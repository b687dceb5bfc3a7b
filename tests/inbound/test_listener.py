"""The listener: it says when it is ready, and drains within its time."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.http import protocol_factory
from gatewright.inbound.listener import Listener
from gatewright.inbound.responder import Responder
from gatewright.inbound.settings import Limits
from journeys.wire import Wire, soon

pytestmark = pytest.mark.anyio


def bound() -> socket.socket:
    """A socket on a free loopback port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize("drain_s", [0.0, 0.2, 10.0])
async def test_it_serves_from_when_it_says_so_and_ends_in_time(drain_s: float) -> None:
    """Ready when connections are taken; told to stop, it lets a running request go on for `drain_s` at most."""
    ready, begun, finish = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        begun.set()
        await finish.wait()
        responder.respond(200, b"{}")

    sock = bound()
    port = sock.getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        listener = Listener(protocol_factory(serve, Limits(), tasks), drain_s=drain_s, on_started=ready.set)
        running = tasks.create_task(listener.serve(sockets=[sock]))
        await soon(ready.wait())
        wire = await Wire.open(port)
        answer = wire.begin("GET", "/", {})
        await soon(begun.wait())
        listener.should_exit = True
        if drain_s == 10.0:
            finish.set()
            await soon(answer.started)
            assert answer.status == 200
        await soon(running)
        with pytest.raises(ConnectionRefusedError):
            await Wire.open(port)
        finish.set()
        wire.close()
