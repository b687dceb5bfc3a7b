"""What belongs to no call, on its way to a standing stream that another replica holds.

Where the stream is is asked of the store, and whoever holds it says whether it took the messages. While the client
changes from one replica to another, because its own died or the connection broke, there is no stream for a moment: then
what is for it waits here, bounded in number, bytes and time, and goes to where the client turns up. Nothing is put on
two streams: a message that a replica may have taken before it died is not sent again. Sources: basic/transports
"Listening for Messages from the Server" of 2025-03-26 to 2025-11-25; S-23.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog

from gatewright.background import Background
from gatewright.errors import GatewayError, StoreUnavailable
from gatewright.inbound.standing import Standing
from gatewright.stores.base import Store
from gatewright.stores.post import Errand, Post, ReplicaGone

if TYPE_CHECKING:
    from gatewright.inbound.session import Session
    from gatewright.inbound.sessions import Sessions

NOTICES: Final = "notices"
MAX_OUTGOING: Final = 256
"""Notifications of one session that wait to be put on a stream elsewhere; of more the oldest are dropped."""
AGAIN_S: Final = 0.25
"""How long to wait before it is looked again where the stream is."""
PATIENCE_S: Final = 15.0
"""How long a client has to turn up again whose stream is gone. As the death of its replica is noticed first, this comes
on top of `dead_after_s`."""
HERE: Final = b"1"
NOT_HERE: Final = b"0"
log = structlog.get_logger("gatewright.sessions")


@final
class _Notices(msgspec.Struct, frozen=True, array_like=True):
    """Messages for a standing stream of a session, in order."""

    ref: str
    messages: list[bytes]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Notices).decode


@final
class Notices:
    """Those of all sessions."""

    def __init__(self, store: Store, post: Post, background: Background, sessions: Sessions) -> None:
        self._store = store
        self._post = post
        self._background = background
        self._sessions = sessions
        self._outgoing: dict[str, Standing] = {}
        post.carry(NOTICES, self._taken)

    def __len__(self) -> int:
        """How many sessions have some on their way."""
        return len(self._outgoing)

    def put(self, session: Session, message: bytes) -> None:
        """Put a message on the session's standing stream, wherever it is. Where there is none there is nobody to
        tell."""
        outgoing = self._outgoing.get(session.ref)
        if outgoing is None:
            outgoing = self._outgoing[session.ref] = Standing(MAX_OUTGOING)
            if self._background(self._put_all(session, outgoing)) is None:
                del self._outgoing[session.ref]
        outgoing.put(message)

    async def _put_all(self, session: Session, outgoing: Standing) -> None:
        """Put what there is, in order. Looks again where the stream is as long as the client may turn up."""
        loop = asyncio.get_running_loop()
        batch: list[bytes] = []
        asked: set[str] = set()
        until = float("inf")
        try:
            while batch or outgoing.has_waiting:
                batch = batch or outgoing.taken()
                if await self._is_put(session, batch, asked, is_first=until == float("inf")):
                    batch, until = [], float("inf")
                    asked.clear()
                    continue
                until = min(until, loop.time() + PATIENCE_S)
                if loop.time() >= until or self._sessions.by_ref(session.ref) is not session:
                    break
                await asyncio.sleep(AGAIN_S)
            if batch:
                log.info("notifications not delivered", count=len(batch))
        finally:
            del self._outgoing[session.ref]

    async def _is_put(self, session: Session, batch: list[bytes], asked: set[str], *, is_first: bool) -> bool:
        """Whether nothing is left to be done about these: they were put on a stream, may have been, or there is
        nobody to tell, which is known at the first look only. `asked`: who had no stream of late, and is asked again
        when all have been."""
        if all(session.host(message) for message in batch):  # it turned up here
            return True
        try:
            found = await self._store.standing(session.ref)
            others = set(await self._post.living(found))
        except StoreUnavailable:
            return False
        for one in found:
            if self._post.is_long_dead(one):
                self._store.disown(session.ref, one)
        if not others:
            return is_first and not found
        if others <= asked:
            asked.clear()
        replica = min(others - asked)
        asked.add(replica)
        talk = self._post.ask(replica, NOTICES, _encode(_Notices(session.ref, batch)))
        try:
            await talk.next()
        except ReplicaGone as gone:
            return gone.may_have_run
        except StoreUnavailable:  # over there: it was not begun
            return False
        except GatewayError as error:
            log.info("notifications not delivered", count=len(batch), reason=error.message)
            return True
        finally:
            talk.close()
        return talk.outcome == HERE

    async def _taken(self, errand: Errand) -> bytes:
        """Put the messages of another replica on a stream here."""
        wanted = _decode(errand.body)
        session = self._sessions.by_ref(wanted.ref)
        if session is not None and all(session.host(message) for message in wanted.messages):
            return HERE
        self._store.stand(wanted.ref, is_standing=False)
        return NOT_HERE
