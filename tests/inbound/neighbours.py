"""Several replicas in one process: the sessions of each, on one shelf, with their letters delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gatewright.background import Background
from gatewright.call import ANONYMOUS, Client
from gatewright.inbound.elsewhere import Elsewhere
from gatewright.inbound.far import FarStreams
from gatewright.inbound.session import Session
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.protocol import handshake
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

BOUND_S = 5.0
CAPABILITIES = b'{"elicitation":{},"roots":{}}'


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, within the bound."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.005)


class Neighbour:
    """One replica."""

    def __init__(self, shelf: Shelf, name: str, settings: SessionSettings, background: Background) -> None:
        self.store = MemoryStore(shelf, name)
        self.post = Post(self.store, background, beat_s=0.02, settle_s=0.5)
        self.background = background
        self.elsewhere = Elsewhere(self.store, self.post, background)
        self.ended: list[str] = []
        self.may_leave = True
        self.sessions = Sessions(settings, self.ended.append, self.elsewhere, lambda session: self.may_leave)
        self.far = FarStreams(self.elsewhere, self.sessions)
        self.running: asyncio.Task[None] | None = None

    async def begin(self, session_id: str = "id", route: str = "") -> Session:
        """A session that opens here."""
        client = Client(handshake.OFFERED, b"{}", CAPABILITIES, session_id)
        session = self.sessions.add(session_id, route, ANONYMOUS, client)
        session.advance("initialize")
        await self.elsewhere.begin(session)
        return session

    async def found(self, session_id: str = "id", route: str = "") -> Session:
        """That session here, wherever it opened."""
        here = self.sessions.find(session_id, route, ANONYMOUS)
        return here or await self.sessions.load(session_id, route, ANONYMOUS)

    def die(self) -> None:
        """Say nothing any more, without a word."""
        assert self.running is not None
        self.running.cancel()


@asynccontextmanager
async def neighbours(
    *names: str, settings: SessionSettings | None = None, dead_s: float = 0.2
) -> AsyncIterator[list[Neighbour]]:
    """Replicas of these names, until the end."""
    given = settings or SessionSettings()
    shelf = Shelf(
        idle_s=given.idle_s, max_events=given.max_events, max_event_bytes=given.max_event_bytes, dead_s=dead_s
    )
    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        them = [Neighbour(shelf, name, given, background) for name in names]
        for one in them:
            one.running = background(one.post.run())
        await until(lambda: all(len(one.post.alive) == len(names) and one.post.is_fresh for one in them))
        try:
            yield them
        finally:
            for one in them:
                one.sessions.close()
                await one.elsewhere.aclose()
                one.die()


class Reader:
    """Somebody who reads a standing stream."""

    def __init__(self) -> None:
        self.got = b""

    async def send(self, chunk: bytes) -> None:
        """Take it."""
        self.got += chunk
