"""HTTP+SSE streams and several replicas: a POST may come to another replica than the one that holds its stream.

The stream is the session, so it stays where it is; the store says where that is, and the POST's body goes there. It is
answered as soon as it is taken there; everything else comes on the stream. A stream ends with its replica: its session
is unknown then, and the client opens another. Source: 2024-11-05 basic/transports, "HTTP with SSE".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec

from gatewright.call import Caller
from gatewright.errors import StoreUnavailable, UnknownSession
from gatewright.inbound.elsewhere import Elsewhere
from gatewright.stores.base import Record, reference
from gatewright.stores.post import Errand, ReplicaGone

POSTED: Final = "posted"
UNKNOWN: Final = "Session not found: open a new stream"
ANSWER_S: Final = 10.0
"""How long another replica may take to say that it has a body. It does so at once, but what it says may get lost when
the store is not there for a moment."""


@final
class _Posted(msgspec.Struct, frozen=True, array_like=True):
    """A POST for a stream."""

    ref: str
    body: bytes


@final
class Answer(msgspec.Struct, frozen=True, array_like=True):
    """How a POST is answered: HTTP status and body."""

    status: int
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_posted: Final = msgspec.msgpack.Decoder(_Posted).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


@final
class FarResponder:
    """Answers a POST that came to another replica."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self.task: asyncio.Task[object] | None = None

    def respond(self, status: int, body: bytes = b"") -> None:
        """See Responder.respond."""
        self._errand.say(_encode(Answer(status, body)))


Take = Callable[[str, bytes, FarResponder], Awaitable[None]]
"""Takes a body for the stream of that id. Raises GatewayError, ProtocolError before anything of it ran."""


@final
class FarPosts:
    """Finds the streams of other replicas, and lets them find those of this one."""

    def __init__(self, elsewhere: Elsewhere, take: Take) -> None:
        self._elsewhere = elsewhere
        self._take = take
        self._ids: dict[str, str] = {}
        elsewhere.post.carry(POSTED, self._posted, outlives=True)

    async def opened(self, stream_id: str, route: str, caller: Caller) -> str:
        """A stream is open here. Returns the reference that it is known by. Raises StoreUnavailable."""
        ref = reference(stream_id, route, caller)
        record = Record("", b"{}", b"{}", time.time(), home=self._elsewhere.replica)
        await self._elsewhere.store.create(ref, record)
        self._ids[ref] = stream_id
        self._elsewhere.held.add(ref)
        return ref

    async def closed(self, ref: str) -> None:
        """It has ended."""
        del self._ids[ref]
        self._elsewhere.held.discard(ref)
        try:
            await self._elsewhere.store.end(ref)
        except StoreUnavailable:
            return  # it ends there in its time, and until then leads here, where nobody knows it

    async def post(self, stream_id: bytes, route: str, caller: Caller, body: bytes) -> Answer:
        """Have a body taken where its stream is. Raises UnknownSession, StoreUnavailable."""
        ref = reference(stream_id.decode("latin-1"), route, caller)
        found = await self._elsewhere.store.load(ref)
        if found is None or not found.record.home or found.record.home == self._elsewhere.replica:
            raise UnknownSession(UNKNOWN)
        talk = self._elsewhere.post.ask(found.record.home, POSTED, _encode(_Posted(ref, body)))
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await talk.next()
        except ReplicaGone as gone:
            raise UnknownSession(UNKNOWN) from gone
        except TimeoutError:
            raise StoreUnavailable("the replica with the stream does not answer: it may have been posted") from None
        finally:
            talk.forget()
        if answer is None:
            raise UnknownSession(UNKNOWN)
        return _decode_answer(answer)

    async def _posted(self, errand: Errand) -> bytes:
        posted = _decode_posted(errand.body)
        stream_id = self._ids.get(posted.ref)
        if stream_id is None:
            raise UnknownSession(UNKNOWN)
        await self._take(stream_id, posted.body, FarResponder(errand))
        return b""
