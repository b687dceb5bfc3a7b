"""What dead replicas carried for sessions of modern backends, taken up by a replica that has the client's stream.

Looked for when other replicas died, among the sessions whose standing stream is here, and when a standing stream opens
here. Of several replicas one is first (`backend.carriers`). A session without a stream hears nothing, so nobody carries
anything for it until it opens one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, final

import structlog

from gatewright.backend.carriers import RELEASE, Records, read_carried, replica_in, split
from gatewright.errors import StoreUnavailable

if TYPE_CHECKING:
    from gatewright.background import Background
    from gatewright.call import Caller, Client
    from gatewright.stores.post import Errand, Post

AT_ONCE: Final = 500
"""Sessions looked at together: one round trip for all of them, and no crowd of them in memory."""
MAX_DEAD: Final = 1_000
"""Replicas of which it is remembered when they died."""
log = structlog.get_logger("gatewright.backend")


class Carrying(Protocol):
    """A backend that sessions listen to."""

    @property
    def is_stood_in(self) -> bool:
        """Whether handshake clients subscribe here and not at the backend."""

    async def inherit(self, client: Client, key: str, since: float) -> None:
        """See Standing.inherit."""

    async def let_go(self, session: str, key: str) -> None:
        """See Standing.let_go."""

    async def recheck(self) -> None:
        """See Standing.recheck."""


class Heard(Records, Protocol):
    """The client sessions that are here."""

    def listening(self) -> list[str]:
        """Those that other replicas may have too, and that have a standing stream here."""

    def client_of(self, session: str) -> Client | None:
        """Whose session that is, if it is here."""

    def member(self, ref: str) -> tuple[Client, Caller] | None:
        """See homes.Registry."""


@final
class Heirs:
    """Takes up what dead replicas carried."""

    def __init__(
        self, backends: Mapping[str, Carrying], sessions: Heard, post: Post, background: Background, dead_after_s: float
    ) -> None:
        self._backends = backends
        self._sessions = sessions
        self._post = post
        self._background = background
        self._dead_after_s = dead_after_s
        self._silent_from: dict[str, float] = {}
        """From when on dead replicas may have said nothing any more: loop time."""
        self._is_behind = False
        """The store could not be reached when there was something to take up."""
        post.carry(RELEASE, self._release)

    def joined(self, session: str) -> None:
        """A standing stream of that session opened here."""
        if any(backend.is_stood_in for backend in self._backends.values()):
            self._background(self._inherit_all([session]))

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died."""
        silent_from = asyncio.get_running_loop().time() - 2 * self._dead_after_s
        for replica in replicas:
            self._silent_from[replica] = silent_from
            if len(self._silent_from) > MAX_DEAD:
                del self._silent_from[next(iter(self._silent_from))]
        if any(backend.is_stood_in for backend in self._backends.values()):
            self._background(self._inherit_all(self._sessions.listening()))

    def catch_up(self) -> None:
        """The store is there again: take up what could not be."""
        if self._is_behind:
            self._is_behind = False
            self._background(self._inherit_all(self._sessions.listening()))

    def recheck(self) -> None:
        """The others took this replica for dead: what it carried may be carried elsewhere by now."""
        for backend in self._backends.values():
            self._background(_tried(backend))

    async def _inherit_all(self, sessions: list[str]) -> None:
        try:
            for start in range(0, len(sessions), AT_ONCE):
                await asyncio.gather(*(self._inherit(session) for session in sessions[start : start + AT_ONCE]))
        except StoreUnavailable:
            self._is_behind = True
            log.info("subscriptions of dead replicas are not taken up yet: the store cannot be reached")

    async def _inherit(self, session: str) -> None:
        for name, claim in (await self._sessions.claims(session)).items():
            what, client = split(name), self._sessions.client_of(session)
            backend = None if what is None else self._backends.get(what[0])
            carrier = replica_in(claim)
            if what is None or backend is None or client is None or carrier == self._post.replica:
                continue
            if not await self._post.lives(carrier):
                since = self._silent_from.get(carrier, float("-inf"))
                self._background(self._inherited(backend, client, what[1], since))

    async def _inherited(self, backend: Carrying, client: Client, key: str, since: float) -> None:
        try:
            await backend.inherit(client, key, since)
        except StoreUnavailable:
            self._is_behind = True
            log.info("a subscription of a dead replica is not taken up yet: the store cannot be reached")

    async def _release(self, errand: Errand) -> bytes:
        """The client unsubscribed through another replica."""
        carried = read_carried(errand.body)
        backend, member = self._backends.get(carried.backend), self._sessions.member(carried.ref)
        if backend is not None and member is not None:
            await backend.let_go(member[0].session, carried.key)
        return b""


async def _tried(backend: Carrying) -> None:
    try:
        await backend.recheck()
    except StoreUnavailable:
        log.info("subscriptions are not rechecked: the store cannot be reached")
