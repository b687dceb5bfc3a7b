"""Sessions that other replicas have too: how this one finds them, and what it tells the others.

A session is looked up in the store once, and then served from memory for as long as this replica hears what the others
say of it; who has it in memory is known, and told when it ends or changes: before its client is answered, so that the
client's next request finds it so wherever it goes. What only one replica can do goes to that one: the answer to a
question that it asked, the cancel of a call that it runs, a message for a stream that it holds. A call waits for the
store only when its session is new here, and when the store was silent and is asked again.

The store down: what is in memory serves for as long as it can be trusted, some seconds; then 503. The store emptied:
every session is unknown (404), and its client initializes anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import structlog

from gatewright.backend.heirs import Heirs
from gatewright.backend.relay import RelayHost
from gatewright.backend.sinks import Changes
from gatewright.background import Background
from gatewright.call import Caller, Client
from gatewright.errors import GatewayError, ProtocolError, StoreUnavailable, UnknownSession
from gatewright.inbound.notices import Notices
from gatewright.protocol import handshake, jsonrpc
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.stores.base import Found, Record, Store, reference
from gatewright.stores.post import Errand, Post

if TYPE_CHECKING:
    from gatewright.inbound.session import Session
    from gatewright.inbound.sessions import Sessions

HEARD: Final = "heard"
"""Asked of a replica: that it has heard what it was told before."""
HEARD_S: Final = 1.0
"""How long a client's answer waits for that at the most. A replica that is silent for longer is dead, or about to
distrust what it has in memory."""
ENDED: Final = "ended"
LEVEL: Final = "level"
CHANGED: Final = "changed"
CANCELLED: Final = "cancelled"
ANSWERED: Final = "answered"
PUT: Final = "put"
UNPUT: Final = "unput"
UNKNOWN: Final = "Session not found: initialize a new one"
MAX_REPLICA_CHARS: Final = 64
"""Of a replica's id, which a client may bring back as anything."""
log = structlog.get_logger("gatewright.sessions")


@final
class _Said(msgspec.Struct, frozen=True, array_like=True):
    """What is told of a session."""

    ref: str
    body: bytes = b""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Said).decode


@final
class SessionTape:
    """What is sent on the streams of one session, on its way to the store."""

    __slots__ = ("_ref", "_store", "prefix")

    def __init__(self, store: Store, ref: str) -> None:
        self._store = store
        self._ref = ref
        self.prefix = f"{store.replica}."

    def opened(self, stream: str, opened: bytes) -> None:
        """See Tape.opened."""
        self._store.opened(self._ref, stream, opened)

    def record(self, stream: str, position: int, message: bytes) -> None:
        """See Tape.record."""
        self._store.record(self._ref, stream, position, message)

    def done(self, stream: str, position: int) -> None:
        """See Tape.done."""
        self._store.done(self._ref, stream, position)


@final
class Elsewhere:
    """The other replicas, as the sessions of this one see them."""

    def __init__(self, store: Store, post: Post, background: Background) -> None:
        self.replica: Final = store.replica
        self.store: Final = store
        self.post: Final = post
        self.on_fresh: Callable[[], Coroutine[Any, Any, None]] | None = None
        """What to do when the store is there again, or was emptied."""
        self.host: RelayHost | None = None
        """Carries out here what others need of backend sessions."""
        self.heirs: Heirs | None = None
        """Takes up here what dead replicas carried."""
        self.held: set[str] = set()
        """References of sessions that only this replica can serve: they live as long as it says so."""
        self._background = background
        self._sessions: Sessions
        self._changes: Changes | None = None
        self._loading: dict[str, asyncio.Future[Session]] = {}
        self._outdated: set[str] = set()
        """Sessions that were said to have ended or changed while they were looked up."""
        self.notices: Notices

    def serve(self, sessions: Sessions) -> None:
        """Hear what the others say of these sessions."""
        self._sessions = sessions
        self.notices = Notices(self.store, self.post, self._background, sessions)
        hearing = {
            ENDED: self._ended,
            LEVEL: self._leveled,
            CHANGED: self._changed,
            CANCELLED: self._cancelled,
            ANSWERED: self._was_answered,
            PUT: self._put,
            UNPUT: self._unput,
        }
        for kind, hear in hearing.items():
            self.post.hear(kind, hear)
        self.post.carry(HEARD, self._has_heard)
        self.post.on_stale = sessions.distrust
        self.post.on_fresh = self._trusted
        self.post.on_unheard = sessions.say_again
        self.post.on_gone = self._gone
        self.post.on_lapsed = self._lapsed

    async def aclose(self) -> None:
        """Take part no longer, with everything said. Never raises."""
        await self.post.aclose()
        await self.store.aclose()

    # --- finding

    async def begin(self, session: Session) -> None:
        """A session begins here. Raises StoreUnavailable."""
        client = session.client
        metadata = {"chain": client.chain} if client.chain else {}
        info, capabilities = bytes(client.info), bytes(client.capabilities)
        record = Record(client.revision.name, info, capabilities, time.time(), metadata=metadata)
        await self.store.create(session.ref, record)

    async def load(self, session_id: str, route: str, caller: Caller) -> Session:
        """The caller's session of that id on that path, asked for once however many wait for it. Raises UnknownSession,
        StoreUnavailable, Overloaded."""
        ref = reference(session_id, route, caller)
        loading = self._loading.get(ref)
        if loading is None:
            loading = self._loading[ref] = asyncio.get_running_loop().create_future()
            if self._background(self._load(session_id, ref, route, caller, loading)) is None:
                del self._loading[ref]
                raise StoreUnavailable("the gateway is stopping")
        return await asyncio.shield(loading)

    async def _load(
        self, session_id: str, ref: str, route: str, caller: Caller, loading: asyncio.Future[Session]
    ) -> None:
        try:
            loading.set_result(await self._loaded(session_id, ref, route, caller))
        except Exception as error:  # noqa: BLE001 - whoever waits answers its client, and logs what is no refusal
            loading.set_exception(error)
            loading.exception()  # seen: whoever asked may be gone
        finally:
            if not loading.done():
                loading.cancel()
            del self._loading[ref]
            self._outdated.discard(ref)

    async def _loaded(self, session_id: str, ref: str, route: str, caller: Caller) -> Session:
        found = await self.store.load(ref)
        while ref in self._outdated:  # the word was faster than the look
            self._outdated.discard(ref)
            found = await self.store.load(ref)
        held = self._sessions.by_ref(ref)
        if found is None or found.record.home:
            if held is not None:
                self._sessions.drop(held)  # it ended while nobody could say so
            raise UnknownSession(UNKNOWN)
        if held is None:
            held = self._sessions.adopt(session_id, route, caller, _client_of(found, session_id))
        elif found.log_level in LOG_LEVELS:
            held.set_log_level(str(found.log_level))
        self._sessions.believe(held)
        return held

    def look_after(self, sessions: list[Session]) -> None:
        """Sessions that nobody used here for long: drop those that have ended."""

        async def looking() -> None:
            try:
                lives = await self.store.lives([session.ref for session in sessions])
            except StoreUnavailable:
                return
            for session, is_alive in zip(sessions, lives, strict=True):
                if is_alive:  # it is used elsewhere: looked at again when it was not used here for as long once more
                    session.last_active_at = session.touched_at = session.now()
                else:
                    log.info("session ended", reason="idle")
                    self._sessions.drop(session)

        self._background(looking())

    def keep(self) -> None:
        """The sessions that only this replica can serve are alive."""
        for ref in self.held:
            self.store.touch(ref)

    # --- backend sessions: see backend.homes.Registry

    def ref_of(self, session: str) -> str | None:
        """See Registry.ref_of."""
        found = self._sessions.by_id(session)
        return None if found is None else found.ref or None

    def client_of(self, session: str) -> Client | None:
        """See heirs.Heard."""
        found = self._sessions.by_id(session)
        return None if found is None else found.client

    def listening(self) -> list[str]:
        """See heirs.Heard."""
        return self._sessions.listening()

    def member(self, ref: str) -> tuple[Client, Caller] | None:
        """See Registry.member."""
        found = self._sessions.by_ref(ref)
        return None if found is None else (found.client, found.caller)

    async def claimed(self, session: str, backend: str) -> bytes | None:
        """See Registry.claimed."""
        ref = self.ref_of(session)
        return None if ref is None else await self.store.claimed(ref, backend)

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See Registry.claim."""
        ref = self.ref_of(session)
        return None if ref is None else await self.store.claim(ref, backend, claim, instead_of)

    async def claims(self, session: str) -> dict[str, bytes]:
        """See SessionStore.claims."""
        ref = self.ref_of(session)
        return {} if ref is None else await self.store.claims(ref)

    async def unclaim(self, session: str, backend: str, claim: bytes) -> None:
        """See SessionStore.unclaim."""
        ref = self.ref_of(session)
        if ref is not None:
            await self.store.unclaim(ref, backend, claim)

    # --- telling

    async def end(self, session: Session) -> None:
        """The session ends, everywhere: it has when this returns. Raises StoreUnavailable."""
        owners = await self.store.end(session.ref)
        await self._make_known(owners or frozenset(), ENDED, _Said(session.ref))

    def end_soon(self, session: Session) -> None:
        """The same, without waiting. When the store is down it ends by itself in its time."""

        async def ending() -> None:
            try:
                await self.end(session)
            except StoreUnavailable:
                log.info("a session could not be ended in the store")

        self._background(ending())

    async def set_log_level(self, session: Session, level: str) -> None:
        """Its client set its log level here; it is known elsewhere when this returns. Raises StoreUnavailable."""
        await self.store.set_log_level(session.ref, level)
        await self._make_known(await self.store.owners(session.ref), LEVEL, _Said(session.ref, level.encode()))

    def cancel(self, session: Session, request_id: Id) -> None:
        """The client cancelled a call that does not run here."""
        said = _Said(session.ref, jsonrpc.encode_id(request_id))
        self._background(self._tell_owners(session, CANCELLED, said))

    def answered(self, session: Session, ask_id: str, message: jsonrpc.Message) -> None:
        """The client answered a question that another replica asked. Raises ProtocolError."""
        replica = ask_id.rpartition(".")[0]
        if len(replica) > MAX_REPLICA_CHARS:
            return  # no question of ours: its id is whatever a client says
        if replica and replica != self.replica and not self.post.is_dead(replica):
            answer = jsonrpc.answer_of(message)
            self.post.tell(replica, ANSWERED, _encode(_Said(session.ref, jsonrpc.response(ask_id, answer))))

    async def _tell_owners(self, session: Session, kind: str, said: _Said) -> None:
        try:
            self._tell(await self.store.owners(session.ref), kind, said)
        except StoreUnavailable:
            log.info("other replicas could not be told", what=kind)

    async def _make_known(self, replicas: frozenset[str], kind: str, said: _Said) -> None:
        """Tell replicas something, and return when those that live have heard it: letters to one keep their order."""
        self._tell(replicas, kind, said)
        living = [one for one in replicas if one != self.replica and not self.post.is_dead(one)]
        talks = [self.post.ask(one, HEARD, b"") for one in living]
        try:
            async with asyncio.timeout(HEARD_S):
                for talk in talks:
                    with contextlib.suppress(GatewayError):  # it is gone
                        await talk.next()
        except TimeoutError:
            log.warning("other replicas have not heard yet", what=kind)
        finally:
            for talk in talks:
                talk.forget()

    def _tell(self, replicas: frozenset[str], kind: str, said: _Said) -> None:
        body = _encode(said)
        for replica in replicas:
            if replica != self.replica and not self.post.is_dead(replica):
                self.post.tell(replica, kind, body)
            elif replica != self.replica and kind != ENDED and self.post.is_long_dead(replica):
                self.store.disown(said.ref, replica)

    def spread(self, changes: Changes) -> Changes:
        """Have list changes that are said in one session heard where else that session is."""
        self._changes = changes
        return self

    def changed(self, backend: str, session: str, method: str) -> None:
        """See Changes.changed."""
        if self._changes is not None:
            self._changes.changed(backend, session, method)
        found = self._sessions.by_id(session) if session else None
        if found is not None and found.ref:
            self._background(self._tell_owners(found, CHANGED, _Said(found.ref, f"{backend} {method}".encode())))

    # --- streams

    def stand(self, session: Session, *, is_standing: bool) -> None:
        """This replica holds a standing stream of the session, or none any more."""
        self.store.stand(session.ref, is_standing=is_standing)

    def joined(self, session: Session) -> None:
        """A standing stream of the session opened here."""
        self.stand(session, is_standing=True)
        self._hear(session)
        if self.heirs is not None:
            self.heirs.joined(session.id)

    def _hear(self, session: Session) -> None:
        if self.host is not None:
            self.host.hear(session.route, session.client, session.caller)

    async def standing(self, session: Session) -> str | None:
        """Another replica that holds a standing stream of the session. Raises StoreUnavailable."""
        return next(iter(await self.post.living(await self.store.standing(session.ref))), None)

    def put(self, session: Session, message: bytes) -> None:
        """Put a message that belongs to no call on the session's standing stream, wherever it is. Where there is none
        there is nobody to tell."""
        self.notices.put(session, message)

    async def ask_on(self, replica: str, session: Session, message: bytes) -> None:
        """Put a question, or the end of one, on the session's standing stream there."""
        self.post.tell(replica, PUT, _encode(_Said(session.ref, message)))

    def unput(self, session: Session, ask_id: str) -> None:
        """Nobody will answer a question of another replica that was put on a stream here."""
        replica = ask_id.rpartition(".")[0]
        self.post.tell(replica, UNPUT, _encode(_Said(session.ref, ask_id.encode())))

    # --- hearing

    async def _has_heard(self, errand: Errand) -> bytes:
        """It has: what was told before this was asked has been taken."""
        return b""

    def _ended(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._held(said.ref)
        if session is not None:
            self._sessions.drop(session)

    def _leveled(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._held(said.ref)
        if session is not None:
            session.set_log_level(said.body.decode())

    def _held(self, ref: str) -> Session | None:
        """The session that something is said of, if it is here; one that is being looked up is looked up again."""
        if ref in self._loading:
            self._outdated.add(ref)
        return self._sessions.by_ref(ref)

    def _changed(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._sessions.by_ref(said.ref)
        if session is not None and self._changes is not None:
            backend, _, method = said.body.decode().partition(" ")
            self._changes.changed(backend, session.id, method)

    def _cancelled(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._sessions.by_ref(said.ref)
        if session is not None:
            session.cancel_here(msgspec.json.decode(said.body, type=Id))

    def _was_answered(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._sessions.by_ref(said.ref)
        if session is not None:
            try:
                session.answered(jsonrpc.decode(said.body))
            except ProtocolError as error:
                log.info("answer dropped", reason=str(error))

    def _put(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._sessions.by_ref(said.ref)
        if session is None or not session.host(said.body):
            ask_id = jsonrpc.decode(said.body).id
            if isinstance(ask_id, str):
                self.post.tell(sender, UNPUT, _encode(_Said(said.ref, ask_id.encode())))

    def _unput(self, sender: str, body: bytes) -> None:
        said = _decode(body)
        session = self._sessions.by_ref(said.ref)
        if session is not None:
            session.unanswered(said.body.decode())

    def _trusted(self) -> None:
        self._sessions.trust()
        if self.heirs is not None:
            self.heirs.catch_up()
        if self.on_fresh is not None:
            self._background(self.on_fresh())

    def _lapsed(self) -> None:
        if self.host is not None:
            self.host.recheck()
        if self.heirs is not None:
            self.heirs.recheck()

    def _gone(self, replicas: frozenset[str]) -> None:
        """Replicas died: what was put on their streams is answered by nobody."""
        for replica in replicas:
            log.warning("replica is gone", replica=replica)
        self._sessions.bereave(replicas)
        if self.host is not None:
            self.host.bereave(replicas)
        for session_id in self._sessions.listening():
            session = self._sessions.by_id(session_id)
            if session is not None:
                self._hear(session)
        if self.heirs is not None:
            self.heirs.bereave(replicas)


def _client_of(found: Found, session_id: str) -> Client:
    """Whose session it is. Raises UnknownSession when that is not to be read: its client initializes anew."""
    record = found.record
    chain = record.metadata.get("chain", "")
    try:
        return handshake.restored(record.revision, record.info, record.capabilities, session_id, found.log_level, chain)
    except ProtocolError as error:
        log.warning("a session in the store cannot be read", reason=str(error)[:200])
        raise UnknownSession(UNKNOWN) from error
