"""Streams that began on another replica and are resumed here.

A standing stream moves: its replica hands over what was missed and lets it go. A request's stream stays with its call:
what comes on it is passed on, event by event, until the answer. When that replica is dead, what the store keeps is
replayed; a standing stream goes on here, and a request without an answer is answered with an error that says that it
may have run. Sources: basic/transports "Resumability and Redelivery" of 2025-11-25; S-23 to S-25.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

import msgspec
import structlog

from gatewright.errors import BackendGarbage, InvalidRequest, StoreUnavailable
from gatewright.inbound.elsewhere import Elsewhere
from gatewright.inbound.events import STANDING_MARK, position_of
from gatewright.inbound.responder import Responder
from gatewright.inbound.session import Session
from gatewright.inbound.sessions import Sessions
from gatewright.protocol import jsonrpc, refusals, sse
from gatewright.protocol.jsonrpc import Id
from gatewright.stores.post import Errand, ReplicaGone, Talk

HAND_OVER: Final = "hand over"
CARRY: Final = "carry stream"
ANSWER_S: Final = 10.0
"""How long another replica may take to begin. It does so at once, but what it says may get lost when the store is not
there for a moment."""
LOST: Final = "the replica that carried this request is gone: it may have run"
log = structlog.get_logger("gatewright.sessions")


@final
class _Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A stream of a session, and the last event that its client has."""

    ref: str
    last_event_id: str


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Wanted).decode
_decode_ids: Final = msgspec.json.Decoder(list[Id]).decode


@final
class Rest(msgspec.Struct, frozen=True):
    """The rest of a stream."""

    missed: bytes
    """Its later events, encoded."""
    is_standing: bool
    talk: Talk | None = None
    """Where the events after those come from; None when there are none, or it goes on here."""


@final
class FarStreams:
    """Resumes streams of other replicas, and lets them resume those of this one."""

    def __init__(self, elsewhere: Elsewhere, sessions: Sessions) -> None:
        self._elsewhere = elsewhere
        self._sessions = sessions
        elsewhere.post.carry(HAND_OVER, self._hand_over)
        elsewhere.post.carry(CARRY, self._carry)

    async def resume(self, session: Session, last_event_id: str) -> Rest:
        """The rest of a stream that is not this replica's. Raises InvalidRequest when it cannot be had,
        StoreUnavailable."""
        name = last_event_id.partition("-")[0]
        replica, _, number = name.rpartition(".")
        is_standing = number.startswith(STANDING_MARK)
        post = self._elsewhere.post
        if not replica or replica == post.replica:
            raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed")
        if not is_standing:
            return await self._rest(session, replica, last_event_id, is_standing=False)
        # Before the other one lets go: between the two of them what comes for the client waits, and is not dropped.
        self._elsewhere.stand(session, is_standing=True)
        try:
            return await self._rest(session, replica, last_event_id, is_standing=True)
        except BaseException:
            session.left()
            raise

    async def _rest(self, session: Session, replica: str, last_event_id: str, *, is_standing: bool) -> Rest:
        """From that replica, or from the store when that is dead."""
        post = self._elsewhere.post
        if await post.lives(replica):
            wanted = _encode(_Wanted(session.ref, last_event_id))
            talk = post.ask(replica, HAND_OVER if is_standing else CARRY, wanted)
            try:
                async with asyncio.timeout(ANSWER_S):
                    missed = await talk.next()
            except ReplicaGone:
                talk.close()
            except TimeoutError:
                talk.close()
                raise StoreUnavailable("the replica that has the stream does not answer") from None
            except BaseException:
                talk.close()
                raise
            else:
                return Rest(missed or b"", is_standing, None if is_standing else talk)
        name = last_event_id.partition("-")[0]
        return await self._replayed(session, name, last_event_id, is_standing=is_standing)

    async def carry(self, rest: Rest, responder: Responder) -> None:
        """Send the rest of a request's stream, to its end. One that breaks off can be resumed again."""
        talk = rest.talk
        try:
            if talk is not None:
                responder.on_gone = talk.leave
            await responder.send(rest.missed)
            while talk is not None and (chunk := await talk.next()) is not None:
                await responder.send(chunk)
        except ReplicaGone:
            log.info("a stream broke off with its replica")
        finally:
            if talk is not None:
                talk.close()
            responder.on_gone = None

    async def _replayed(self, session: Session, name: str, last_event_id: str, *, is_standing: bool) -> Rest:
        """What the store kept of a stream whose replica is dead."""
        store = self._elsewhere.store
        kept = await store.replay(session.ref, name)
        after = position_of(last_event_id.partition("-")[2])
        later = {place: message for place, message in reversed(kept.events) if place > after}
        events = sorted(later.items())
        last = kept.events[-1][0] if kept.events else after
        is_whole = list(later) == list(range(after + len(later), after, -1))  # what was lost on the way leaves a gap
        if after < 0 or not is_whole or (kept.done is not None and last < kept.done):
            raise InvalidRequest("Last-Event-ID is too old: events after it are not kept any more")
        if not is_standing and kept.done is None:
            if kept.opened is None:
                raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed")
            for place, request_id in enumerate(_ids(kept.opened), max(last, after) + 1):
                lost = jsonrpc.error(request_id, refusals.failure(BackendGarbage(LOST)))
                store.record(session.ref, name, place, lost)
                events.append((place, lost))
            store.done(session.ref, name, events[-1][0])
        missed = (sse.encode(message, event_id=f"{name}-{place}") for place, message in events)
        return Rest(b"".join(missed), is_standing)

    # --- for other replicas

    async def _hand_over(self, errand: Errand) -> bytes:
        """Let a standing stream go: it goes on elsewhere."""
        wanted = _decode(errand.body)
        session = self._found(wanted)
        for standing in session.streams:
            stream = standing.events
            if stream is not None and wanted.last_event_id.partition("-")[0] == stream.number:
                for message in standing.taken():
                    stream.record(message)
        stream, missed = session.resume(wanted.last_event_id)
        session.finish(stream)
        errand.say(b"".join(missed))
        return b""

    async def _carry(self, errand: Errand) -> bytes:
        """Pass on what comes on a request's stream, until its answer or until nobody reads it there."""
        wanted = _decode(errand.body)
        session = self._found(wanted)
        stream, missed = session.resume(wanted.last_event_id)
        errand.say(b"".join(missed))
        if stream.is_done:
            return b""
        over = asyncio.Event()

        async def send(chunk: bytes) -> None:
            errand.say(chunk)

        session.attach(stream, send, over.set)
        try:
            await over.wait()
        finally:
            session.detach(stream, send)
        return b""

    def _found(self, wanted: _Wanted) -> Session:
        session = self._sessions.by_ref(wanted.ref)
        if session is None:
            raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed")
        return session


def _ids(opened: bytes) -> list[Id]:
    """The requests that a stream answers, as the store kept them. Raises InvalidRequest when it kept something else."""
    try:
        return _decode_ids(opened)
    except jsonrpc.UNREADABLE as error:
        raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed") from error
