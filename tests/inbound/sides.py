"""A listener on a free loopback port before the two eras' sides, with a handler of the test's own behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gatewright.background import Background
from gatewright.call import Call, Handler, Outcome, Result
from gatewright.inbound.dialogue import Dialogue
from gatewright.inbound.handshake import HandshakeSide
from gatewright.inbound.http import HttpRequest, protocol_factory
from gatewright.inbound.known_heads import judge
from gatewright.inbound.modern import ModernSide
from gatewright.inbound.reply import Keepalive
from gatewright.inbound.responder import Responder
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Limits
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.outbox import Outbox
from gatewright.protocol import jsonrpc, modern
from gatewright.protocol.chain import Chain
from gatewright.protocol.sealed import Sealer
from gatewright.routing.cursors import Cursors
from gatewright.routing.fanout import Fanout
from gatewright.routing.front import Front
from gatewright.routing.listening import Listening
from gatewright.routing.listings import Listings
from gatewright.routing.settings import Routing
from journeys.wire import HandshakeClient, ModernClient


class Bounds(msgspec.Struct, frozen=True):
    """Bounds of calls that nothing bounds here."""

    timeout_s: float = 60.0
    max_total_s: float = 600.0


@dataclass
class State:
    """What uvicorn's ServerState offers."""

    connections: set[Any] = field(default_factory=set)


@dataclass
class Sides:
    """What a test talks to and looks at."""

    port: int
    sessions: Sessions
    keepalive: Keepalive
    ended: list[str]
    state: State

    def modern(self, **more: Any) -> ModernClient:
        """A modern client."""
        return ModernClient(self.port, "/mcp", **more)

    async def handshake(self, **more: Any) -> HandshakeClient:
        """A client with an open session."""
        return await HandshakeClient(self.port, "/mcp", **more).open()

    def drain(self) -> None:
        """As uvicorn does when it is told to stop."""
        for connection in list(self.state.connections):
            connection.shutdown()


def front_of_nothing(background: Background) -> Front:
    """The gateway's own answers, without a backend."""
    bounds, settings = Bounds(), Routing()
    listings = Listings(settings, background)
    fanout = Fanout({}, listings, Cursors(b"k" * 32), settings, bounds)
    return Front({}, settings, bounds, Listening({}, fanout, listings, Sealer([b"k" * 32])), "0")


@asynccontextmanager
async def listening(
    handle: Handler,
    *,
    settings: SessionSettings | None = None,
    keepalive_s: float = 15.0,
    max_queued_messages: int = 256,
    max_calls: int = 1_000,
) -> AsyncIterator[Sides]:
    """Serve until the end."""
    loop = asyncio.get_running_loop()
    ended: list[str] = []
    sessions = Sessions(settings or SessionSettings(), ended.append)
    keepalive = Keepalive(keepalive_s)
    state = State()
    async with asyncio.TaskGroup() as tasks:
        front = front_of_nothing(Background(tasks))
        chain = Chain("here", 8)
        modern_side = ModernSide(handle, keepalive, chain)
        handshake_side = HandshakeSide(
            Dialogue(handle, front, chain, max_calls), sessions, keepalive, max_queued_messages
        )

        async def serve(request: HttpRequest, responder: Responder) -> None:
            if request.method == "GET":
                await handshake_side.stream(request, responder, "")
            elif request.method == "DELETE":
                await handshake_side.end(request, responder, "")
            else:
                message = jsonrpc.decode_request(request.body)
                is_modern = modern.is_claimed(message, request.headers.get(b"mcp-protocol-version"))
                judged = judge("", request.headers)
                if is_modern:
                    await modern_side.serve(message, request, responder, judged)
                else:
                    await handshake_side.serve(message, responder, judged)

        create = protocol_factory(serve, Limits(), tasks, Outbox(loop.call_soon))
        server = await loop.create_server(
            lambda: create(config=None, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
        )
        sides = Sides(server.sockets[0].getsockname()[1], sessions, keepalive, ended, state)
        try:
            yield sides
        finally:
            server.close()
            sessions.close()
            sides.drain()
            for connection in list(state.connections):
                connection._transport.abort()


async def content(call: Call) -> Outcome:
    """A handler that is content with every call."""
    return Result(b'{"content":[]}')


async def quiet(sides: Sides) -> None:
    """Return when no reply is kept alive any more, within 5 s."""
    async with asyncio.timeout(5):
        while sides.keepalive._replies:
            await asyncio.sleep(0)
