"""Which replica carries what a client session listens to at a modern backend, where several replicas have the session.

Each resource it subscribed to, and its list changes, are carried by one replica and by no other, so that the client
hears of a change once. Who carries is said in the session's record in the store. When that replica is dead another one
takes its place (`backend.heirs`); to end a subscription its carrier is told, whichever replica the client spoke to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
import structlog

from gatewright.errors import GatewayError

if TYPE_CHECKING:
    from gatewright.stores.post import Post

RELEASE: Final = "release subscription"
RELEASE_S: Final = 2.0
"""How long to wait for a carrier to let go; it will all the same."""
log = structlog.get_logger("gatewright.backend")


class Records(Protocol):
    """What the store knows of client sessions, by id. All but `ref_of` raise StoreUnavailable."""

    def ref_of(self, session: str) -> str | None:
        """See homes.Registry."""

    async def claimed(self, session: str, backend: str) -> bytes | None:
        """See SessionStore.claimed."""

    async def claims(self, session: str) -> dict[str, bytes]:
        """See SessionStore.claims."""

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See SessionStore.claim."""

    async def unclaim(self, session: str, backend: str, claim: bytes) -> None:
        """See SessionStore.unclaim."""


@final
class Carried(msgspec.Struct, frozen=True, array_like=True):
    """One thing that a session listens to."""

    ref: str
    backend: str
    key: str
    """The URI of a resource; empty for list changes."""


_encode: Final = msgspec.msgpack.Encoder().encode
read_carried: Final = msgspec.msgpack.Decoder(Carried).decode


def split(name: str) -> tuple[str, str] | None:
    """The backend and the key of a claim by its name, None when it is a claim of another kind. No backend's name has a
    space."""
    backend, space, key = name.partition(" ")
    return (backend, key) if space else None


def replica_in(claim: bytes) -> str:
    """The replica that a claim names. The store may hold anything: what is no name is that of nobody who lives."""
    return claim.decode(errors="replace")


@final
class Carriers:
    """Who carries what at one backend."""

    def __init__(self, backend: str, records: Records, post: Post) -> None:
        self._backend = backend
        self._records = records
        self._post = post
        self._mine = post.replica.encode()

    def is_shared(self, session: str) -> bool:
        """Whether other replicas may have that session."""
        return self._records.ref_of(session) is not None

    async def take(self, session: str, key: str) -> bool:
        """Carry it here from now on. False when another replica does that is alive, or the session has ended. Raises
        StoreUnavailable."""
        dead: bytes | None = None
        while True:
            won = await self._records.claim(session, self._name(key), self._mine, dead)
            if won is None or won == self._mine:
                return won is not None
            if await self._post.lives(replica_in(won)):
                return False
            dead = won

    async def carries(self, session: str, key: str) -> bool:
        """Whether it is this replica that carries it. Raises StoreUnavailable."""
        return await self._records.claimed(session, self._name(key)) == self._mine

    async def carried(self, session: str) -> frozenset[str]:
        """Everything of the session that this replica carries. Raises StoreUnavailable."""
        named = [split(name) for name, claim in (await self._records.claims(session)).items() if claim == self._mine]
        return frozenset(one[1] for one in named if one is not None and one[0] == self._backend)

    async def leave(self, session: str, key: str) -> None:
        """This replica carries it no longer. Raises StoreUnavailable."""
        await self._records.unclaim(session, self._name(key), self._mine)

    async def leave_soon(self, session: str, key: str) -> None:
        """The same, as far as the store is there: else it goes with the session."""
        try:
            await self.leave(session, key)
        except GatewayError as error:
            log.info("a subscription stays in the store", backend=self._backend, reason=error.message)

    async def end(self, session: str, key: str) -> None:
        """Nobody carries it any more. Raises StoreUnavailable."""
        claim = await self._records.claimed(session, self._name(key))
        if claim is None:
            return
        replica = replica_in(claim)
        if claim != self._mine and await self._post.lives(replica):
            await self._release(replica, Carried(self._records.ref_of(session) or "", self._backend, key))
        await self._records.unclaim(session, self._name(key), claim)

    async def _release(self, replica: str, carried: Carried) -> None:
        talk = self._post.ask(replica, RELEASE, _encode(carried))
        try:
            async with asyncio.timeout(RELEASE_S):
                await talk.next()
        except TimeoutError:
            talk.forget()  # not taken back: it has to let go when it wakes up
        except GatewayError as error:
            log.info("a subscription was not let go", backend=self._backend, replica=replica, reason=error.message)
        finally:
            talk.close()

    def _name(self, key: str) -> str:
        return f"{self._backend} {key}"
