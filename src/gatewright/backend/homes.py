"""Backend sessions, and where they live when several replicas serve the same client.

A client session has one session with a backend, whichever replica a call comes to. The first replica that needs it
opens it and says so in the client session's record; of two that do so at once one wins. Over HTTP the others go on with
the same session id, without a new `initialize`. What runs in a process of its own (stdio, python, HTTP+SSE) stays
there, and calls go through its replica (`backend.relay`). When that replica is dead, the next one that needs the
session opens it anew: what it held is lost, as with a server that was restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
import structlog

from gatewright.backend.base import Connector, Link, Request
from gatewright.backend.http import HttpConnector, HttpLink, is_visible
from gatewright.backend.relay import RelayLink
from gatewright.backend.undecided import UndecidedConnector, UndecidedLink
from gatewright.call import Call, Caller, Client, Failure, Params, Result
from gatewright.errors import BackendError, BackendUnavailable, ProtocolError, StoreUnavailable
from gatewright.protocol import bridge, handshake
from gatewright.protocol.revisions import Revision
from gatewright.stores.post import Post

if TYPE_CHECKING:
    from gatewright.backend.claims import Claims
    from gatewright.backend.sinks import CallSink, SessionSink

MAX_LOST: Final = 4_096
"""Lost backend sessions remembered until the next one is opened."""
FIRST_ID_BITS: Final = 20
"""Request ids of a replica begin with this many random bits, so that those of two are never the same on one link."""
log = structlog.get_logger("gatewright.backend")


@final
class BackendSession:
    """One session with the backend: its link, and what the backend said of itself."""

    __slots__ = ("_ended", "_subscribed", "_subscribing", "calls", "claim", "claims", "hears", "link", "listeners",
                 "result", "revision", "sink", "used")  # fmt: skip

    def __init__(self, link: Link, sink: SessionSink, revision: Revision, result: handshake.InitializeResult) -> None:
        self.link = link
        self.sink = sink
        self.revision = revision
        self.result = result
        self.claim = b""
        """What other replicas find it by; empty where there are none, or it is none of theirs."""
        self.hears = True
        """It is this replica that carries what the backend says outside calls."""
        self.claims: Claims | None = None
        """Its calls, where questions do not say which they belong to."""
        self.calls = 0
        """Calls and requests that run in it."""
        self.used = 0
        """When the last of them ended: a number that grows with every use of any session."""
        self.listeners = 0
        """Streams of the feed that listen in it."""
        # Made when they are first needed: in most sessions they never are, and they take a kilobyte.
        self._ended: asyncio.Event | None = None
        self._subscribed: Counter[str] | None = None
        self._subscribing: asyncio.Lock | None = None

    @property
    def ended(self) -> asyncio.Event:
        """It is known to be over."""
        if self._ended is None:
            self._ended = asyncio.Event()
        return self._ended

    @property
    def has_ended(self) -> bool:
        """Whether that is so now."""
        return self._ended is not None and self._ended.is_set()

    @property
    def subscribed(self) -> Counter[str]:
        """How many listeners want each resource."""
        if self._subscribed is None:
            self._subscribed = Counter()
        return self._subscribed

    @property
    def subscribing(self) -> asyncio.Lock:
        """Subscribing and unsubscribing keep their order: they may travel over different connections."""
        if self._subscribing is None:
            self._subscribing = asyncio.Lock()
        return self._subscribing

    def exchange(
        self, call: Call, params: Params, sink: CallSink, token: int, progress: msgspec.Raw | None = None
    ) -> Awaitable[Result | Failure]:
        """One call in this session, under that id, which is its progress token unless there is another one."""
        row = call.row
        carried = bridge.handshake_params(params, call.meta, token if progress is None else progress)
        request = Request(token, call.method, carried, b"", row is not None and row.is_retry_safe)
        return self.link.exchange(request, sink)

    async def leave(self) -> None:
        """This replica ends. What other replicas go on with does not end with it."""
        self.ended.set()
        link = http_link(self.link)
        if self.claim and link is not None:
            link.leave()
        else:
            await self.link.aclose()


class Registry(Protocol):
    """What is known of client sessions, by id. All but `alive` and `member` raise StoreUnavailable."""

    def ref_of(self, session: str) -> str | None:
        """The reference that other replicas know the session by; None when it is not here, or nobody else's."""

    def member(self, ref: str) -> tuple[Client, Caller] | None:
        """Whose session that is, if it is here."""

    async def claimed(self, session: str, backend: str) -> bytes | None:
        """See SessionStore.claimed."""

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See SessionStore.claim."""


@final
class Claim(msgspec.Struct, frozen=True, array_like=True):
    """A backend session, as other replicas find it."""

    replica: str
    """Who opened it: where its process is, and who carries what it says outside calls."""
    handle: bytes | None
    """Its Mcp-Session-Id (empty when the backend gave none); None when only that replica can speak to it."""
    result: bytes
    """What the backend answered to `initialize`."""
    nonce: str
    """No two sessions have the same claim."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_claim: Final = msgspec.msgpack.Decoder(Claim).decode
_NOBODYS: Final = Claim("", None, b"", "")


@final
class Homes:
    """Where the sessions of one backend live."""

    def __init__(self, backend: str, connector: Connector, registry: Registry, post: Post) -> None:
        self.post: Final = post
        self._backend = backend
        self._connector = connector
        self._registry = registry
        self._lost: dict[str, bytes] = {}

    @staticmethod
    def first_id() -> int:
        """What the ids of this replica's requests begin at."""
        return (secrets.randbits(FIRST_ID_BITS) << 32) + 1

    async def has(self, session: str) -> bool:
        """Whether any replica has opened a backend session for that client session. Raises StoreUnavailable."""
        is_shared = bool(session) and self._registry.ref_of(session) is not None
        return is_shared and await self._registry.claimed(session, self._backend) is not None

    async def hear(self, session: str, adopt: Callable[[], Awaitable[BackendSession]]) -> None:
        """If the replica is dead that carried what the backend says outside calls of that client session, and another
        one can go on, `adopt` it here."""
        if self._registry.ref_of(session) is None:
            return
        with contextlib.suppress(BackendError, StoreUnavailable):
            known = await self._registry.claimed(session, self._backend)
            if known is None:
                return
            claim = _read(known)
            if claim.handle is not None and not await self.post.lives(claim.replica):
                await adopt()

    def lost(self, session: str, claim: bytes) -> None:
        """The backend session of that claim is no more: the next one takes its place."""
        if claim:
            self._lost[session] = claim
            if len(self._lost) > MAX_LOST:
                del self._lost[next(iter(self._lost))]

    async def settle(
        self, session: str, sink: SessionSink, fresh: Callable[[], Awaitable[BackendSession]]
    ) -> BackendSession:
        """The backend session of a client session: the one there is, or a `fresh` one. Raises BackendError,
        StoreUnavailable."""
        if self._registry.ref_of(session) is None:
            return await fresh()
        lost = self._lost.pop(session, None)
        known = await self._registry.claimed(session, self._backend)
        while True:
            if known is not None and known != lost:
                found = await self._adopted(known, session, sink)
                if found is not None:
                    return found
            own = await fresh()
            claim = _encode(Claim(self.post.replica, handle_of(own.link), _said(own), secrets.token_hex(8)))
            try:
                won = await self._registry.claim(session, self._backend, claim, known)
            except BaseException:
                await own.link.aclose()
                raise
            if won == claim:
                own.claim = claim
                return own
            await own.link.aclose()
            if won is None:
                raise BackendUnavailable(f"{self._backend}: the session ended before it was open")
            known = won

    async def bereaved(
        self,
        session: BackendSession,
        replicas: frozenset[str],
        carry: Callable[[BackendSession], Awaitable[None]],
    ) -> None:
        """Replicas died: `carry` what the backend says outside calls, if one of them did until now."""
        with contextlib.suppress(StoreUnavailable):
            if await self.take_over(session, replicas):
                session.sink.missed()
                await carry(session)

    async def rechecked(self, session: BackendSession, drop: Callable[[BackendSession], None]) -> None:
        """The others took this replica for dead: `drop` a session that was opened elsewhere since."""
        with contextlib.suppress(StoreUnavailable):
            if not await self.still_holds(session):
                log.warning("backend session is elsewhere by now", backend=self._backend)
                drop(session)

    async def still_holds(self, session: BackendSession) -> bool:
        """Whether a session that was opened here is still the one there is, after the others took this replica for
        dead. Raises StoreUnavailable."""
        standing = await self._registry.claimed(session.sink.session, self._backend)
        if standing is None or standing == session.claim:
            return True
        claim = _read(standing)
        if claim.handle is None or claim.handle != handle_of(session.link):
            return False
        session.claim, session.hears = standing, claim.replica == self.post.replica
        return True

    async def take_over(self, session: BackendSession, replicas: frozenset[str]) -> bool:
        """Carry from now on what the backend says outside calls, if one of these replicas did and no other one was
        faster. Raises StoreUnavailable."""
        claim, client_session = _read(session.claim), session.sink.session
        if claim.replica not in replicas or claim.handle is None:
            return False
        session.hears, session.claim = await self._taken(client_session, claim, session.claim)
        return session.hears

    async def _taken(self, session: str, claim: Claim, known: bytes) -> tuple[bool, bytes]:
        """Put this replica in the place of another one. Returns whether it did, and the claim that stands."""
        mine = _encode(msgspec.structs.replace(claim, replica=self.post.replica, nonce=secrets.token_hex(8)))
        won = await self._registry.claim(session, self._backend, mine, known)
        return won == mine, won or known

    async def _adopted(self, known: bytes, session: str, sink: SessionSink) -> BackendSession | None:
        """The backend session of that claim, None when it must be opened anew."""
        claim = _read(known)
        try:
            revision, result = handshake.read_initialize_result(claim.result)
        except ProtocolError:
            return None
        is_alive = await self.post.lives(claim.replica)
        if claim.handle is None:
            if not is_alive or claim.replica == self.post.replica:
                return None
            link: Link = RelayLink(self.post, claim.replica, self._backend, self._registry.ref_of(session) or "")
            hears = False
        else:
            connector = _http_connector(self._connector)
            if connector is None:
                return None
            hears = not is_alive or claim.replica == self.post.replica
            if hears:
                hears, known = await self._taken(session, claim, known)
            link = HttpLink(connector, sink, claim.handle)
            link.agree(b"mcp-protocol-version: %b\r\n" % revision.name.encode())
        sink.link = link
        found = BackendSession(link, sink, revision, result)
        found.claim, found.hears = known, hears
        return found


def _read(text: bytes) -> Claim:
    """A claim as the store gives it back: nobody's when it is none, since the store may hold anything, and the session
    id in it goes into a header."""
    try:
        claim = _decode_claim(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        claim = _NOBODYS
    return claim if claim.handle is None or is_visible(claim.handle) else _NOBODYS


def handle_of(link: Link) -> bytes | None:
    """What another replica needs to go on with a link's session; None when only this process can."""
    found = http_link(link)
    return None if found is None else found.session_id


def http_link(link: Link) -> HttpLink | None:
    """The HTTP link that a link is, if it is one."""
    inner = link.link if isinstance(link, UndecidedLink) else link
    return inner if isinstance(inner, HttpLink) else None


def _http_connector(connector: Connector) -> HttpConnector | None:
    inner = connector.http if isinstance(connector, UndecidedConnector) else connector
    return inner if isinstance(inner, HttpConnector) else None


def _said(session: BackendSession) -> bytes:
    return msgspec.json.encode(session.result)
