"""A pooled channel to a backend that says what it is told to, and what is asked over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from backend.raw_server import Peer, RawServer, Talk, response, serving, soon
from gatewright.backend.channel import HttpChannel
from gatewright.backend.origin import Origin
from gatewright.backend.settings import BackendSettings
from gatewright.errors import BackendError
from gatewright.outbox import Outbox


def request(body: bytes = b"", method: str = "POST") -> bytes:
    """A whole request."""
    return b"%b /mcp HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n%b" % (method.encode(), len(body), body)


def channel_to(server: RawServer, **changes: Any) -> HttpChannel:
    """A channel to that server."""
    outbox = Outbox(asyncio.get_running_loop().call_soon)
    return HttpChannel("b", Origin("127.0.0.1", server.port), BackendSettings(url=server.url, **changes), outbox)


@asynccontextmanager
async def pooled(server: RawServer, **changes: Any) -> AsyncIterator[HttpChannel]:
    """A channel to that server, closed at the end; nothing of it is left then."""
    channel = channel_to(server, **changes)
    try:
        yield channel
    finally:
        await soon(channel.aclose())
        assert channel.connections == (0, 0)


@asynccontextmanager
async def talking(talk: Talk, **changes: Any) -> AsyncIterator[tuple[RawServer, HttpChannel]]:
    """A server and a channel to it."""
    async with serving(talk) as server, pooled(server, **changes) as channel:
        yield server, channel


async def echo(peer: Peer) -> None:
    """Answers every request with its own body."""
    while True:
        peer.say(response((await peer.hear()).body))


async def answer(channel: HttpChannel, body: bytes) -> bytes:
    """What comes back."""
    return (await soon(channel.send(request(body)))).body


def say_once(*pieces: bytes, is_closing: bool = False) -> Talk:
    """Answers each request with these bytes."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.hear()
            for piece in pieces:
                peer.say(piece)
                await peer.writer.drain()
            if is_closing:
                return

    return talk


async def outcome(awaiting: Awaitable[Any]) -> Any:
    """What it returns or raises."""
    try:
        return await soon(awaiting)
    except BackendError as error:
        return error
