"""The admin listener leaves signals to the data plane's, and its connections are few and short."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewright.admin.listener import MAX_CONNECTIONS, AdminListener

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = 100_000_000


def test_signals_are_not_taken() -> None:
    """Whoever handled SIGTERM before still does while it serves."""
    before = signal.getsignal(signal.SIGTERM)
    with AdminListener(lambda scope, receive, send: None).capture_signals():  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGTERM) is before


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers a little, or on `/large` more than any buffer holds."""
    size = MANY if scope["path"] == "/large" else 1
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})


@asynccontextmanager
async def serving(max_age_s: float = 60.0) -> AsyncIterator[tuple[AdminListener, int]]:
    """A listener, and its port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = AdminListener(app, max_age_s=max_age_s)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.serve(sockets=[sock]))
        async with asyncio.timeout(10):
            while not listener.started:
                await asyncio.sleep(0.005)
        try:
            yield listener, sock.getsockname()[1]
        finally:
            listener.should_exit = True


@pytest.mark.anyio
async def test_one_connection_too_many_ends_the_oldest() -> None:
    """Who comes and speaks is served, however many others hold theirs open and say nothing."""
    async with serving() as (listener, port), asyncio.timeout(20):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 40)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert len(listener.server_state.connections) <= MAX_CONNECTIONS
        for gone, _ in held[:40]:
            assert await gone.read() == b""
        for _, one in (*held, (reader, writer)):
            one.close()


@pytest.mark.anyio
@pytest.mark.parametrize("said", [b"", b"GET / HT", REQUEST, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_no_connection_grows_old(said: bytes) -> None:
    """Not one that says nothing, says it slowly, says nothing more, or does not read what it asked for."""
    async with serving(0.3) as (listener, port), asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        while not listener.server_state.connections:
            await asyncio.sleep(0.005)
        while listener.server_state.connections:
            await asyncio.sleep(0.01)
        writer.close()
