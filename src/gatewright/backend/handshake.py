"""A backend in the handshake era: sessions opened by `initialize`, one for each client session.

A handshake client's session has a backend session of its own, told exactly what that client can answer, so that its
questions, subscriptions and log level are its own. Modern clients share one per caller and capability set, which can
ask nothing. A backend declared stateless shares one among all. Sources: basic/lifecycle, basic/transports of
2024-11-05 to 2025-11-25.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, final

import structlog

from gatewright.backend import chained
from gatewright.backend.base import Connector, Link, Request, SessionLost, Sink
from gatewright.backend.claims import Claims
from gatewright.backend.feed import Heard, Wants, announceable, has_subscriptions
from gatewright.backend.homes import BackendSession, Homes, http_link
from gatewright.backend.leases import Leases
from gatewright.backend.relay import RelayLink
from gatewright.backend.sinks import CallSink, Changes, Ear, Outlets, SessionSink, Start, answer
from gatewright.backend.tasks import Tasks
from gatewright.backend.undecided import settled
from gatewright.call import Call, Caller, Client, Failure, Json, Outcome, Params, Result
from gatewright.errors import (
    BackendError,
    BackendGarbage,
    BackendUnavailable,
    GatewayError,
    ProtocolError,
    StoreUnavailable,
)
from gatewright.protocol import bridge, handshake, jsonrpc, tasks
from gatewright.protocol.methods import INITIALIZED, RESOURCE_UPDATED

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings

FEED_CALLER: Final = Caller("gatewright feed")
"""Whose backend session carries announcements for all listeners."""
LOOK_S: Final = 2.0
"""How often it is looked whether the feed's session is still there; pipes die without a word."""
POOLED: Final = "pool "
"""How the keys of sessions begin that belong to no client session. The key of one that does is the client session's id,
as it is: a new text for each call would have to be hashed each time. No id has a space, or is as short as SHARED."""
SHARED: Final = "all"
"""The key of the one session that all use, where the backend is stateless; behind it, a chain of gateways."""
MAX_POOLED: Final = 1024
"""Of these, how many stay open at one backend; where each is a process, half of those that may run."""
MAX_ENDED: Final = 4096
"""Client sessions remembered after their end: more than end while one call runs."""
UNSUBSCRIBE_S: Final = 2.0
"""How long the courtesy of unsubscribing may take."""
OPEN_S: Final = 30.0
"""How long opening a session may take: `npx` may have to fetch a package first."""
log = structlog.get_logger("gatewright.backend")


@final
class NotThisEra(BackendError):
    """The backend refused `initialize`: it does not speak the handshake era."""


@final
class HandshakeFace:
    """How a backend is spoken to in the handshake era."""

    def __init__(
        self,
        of_tasks: Tasks,
        connector: Connector,
        settings: BackendSettings,
        outlets: Outlets,
        start: Start,
        changes: Changes,
        ids: Iterator[int] | None = None,
        chain: str = "",
        homes: Homes | None = None,
    ) -> None:
        self._homes = homes
        """Where sessions live that other replicas have too; None where there are none."""
        self._tasks = of_tasks
        self._name = of_tasks.backend
        self._ids = itertools.count(1) if ids is None else ids
        """Unique among all that shares the connector's connections: an answer that a broken backend puts on the wrong
        connection has an id that nobody waits for there."""
        self._chain = chain
        """What the gateway's own requests carry: they share sessions with those of clients that came straight here."""
        self._connector = connector
        self._max_pooled = max(1, settings.max_children // 2) if connector.is_shared_wire else MAX_POOLED
        self._uses = itertools.count(1)
        self._is_stateless = settings.stateless
        self._outlets = outlets
        self._start = start
        self._changes = changes
        self._sessions: dict[str, BackendSession] = {}
        self._opening: dict[str, asyncio.Future[BackendSession]] = {}
        self._leases = Leases()
        self._has_asked = False
        """The backend was seen to ask on a wire that several calls shared: from then on a call that can be asked gets
        a session to itself, which for most backends, that never ask, would be a child too many."""
        self._ended: dict[str, None] = {}
        """Client sessions that ended of late: a call of theirs that is still about opens nothing."""
        self._is_closed = False

    def call(self, call: Call, params: Params) -> Awaitable[Outcome]:
        """Carry a call out in the client's backend session, opening it if need be. A session the backend forgot is
        opened once more: the call had not run."""
        key = self._key(call.client, call.caller)
        if self._has_asked and self._is_exclusive(call):
            return self._exclusive(key, call, params)
        return self._call(key, call, params)

    async def _exclusive(self, key: str, call: Call, params: Params) -> Outcome:
        # Questions on a shared wire do not say whose they are. The first session is that of this client's other calls.
        number = self._leases.take(key)
        try:
            return await self._call(key if number == 1 else f"{POOLED}#{number} {key}", call, params)
        finally:
            self._leases.give_back(key, number)

    async def _call(self, key: str, call: Call, params: Params) -> Outcome:
        is_second = False
        while True:
            session = self._sessions.get(key)
            if session is None or not session.link.is_open:
                session = await self._session(key, call.client, call.caller)
            session.calls += 1
            try:
                return bridge.handshake_outcome(await self._exchange(session, call, params))
            except SessionLost:
                self._drop(session)
                if is_second:
                    raise
                is_second = True
            except ProtocolError as error:
                raise BackendGarbage(f"{self._name}: {error}") from error
            finally:
                session.calls -= 1
                session.used = next(self._uses)

    def _is_exclusive(self, call: Call) -> bool:
        """Whether the call may be asked something, in a session that others use too, over a wire that cannot tell."""
        if call.client.session or self._is_stateless or (call.row is not None and not call.row.may_ask):
            return False
        return bridge.has_asks(bytes(call.client.capabilities))

    async def request(self, method: str, params: Params, client: Client, caller: Caller) -> Result | Failure:
        """A request of the gateway's own, in the session this client's calls would use. Raises BackendError."""
        session = await self.session(client, caller)
        try:
            return await self._requested(session, method, params)
        except SessionLost:
            self._drop(session)
            return await self._requested(await self.session(client, caller), method, params)

    async def _requested(self, session: BackendSession, method: str, params: Params) -> Result | Failure:
        token = next(self._ids)
        carried = bridge.handshake_params(params, bridge.meta_of(params), token)
        session.calls += 1
        try:
            return await session.link.exchange(Request(token, method, carried, is_retry_safe=True), session.sink)
        finally:
            session.calls -= 1
            session.used = next(self._uses)

    async def session(self, client: Client, caller: Caller) -> BackendSession:
        """The backend session for a client: the open one, or a new one, opened once however many calls wait for it."""
        return await self._session(self._key(client, caller), client, caller)

    async def _session(self, key: str, client: Client, caller: Caller) -> BackendSession:
        session = self._sessions.get(key)
        if session is not None:
            if session.link.is_open:
                return session
            self._drop(session)
        opening = self._opening.get(key)
        if opening is None:
            opening = asyncio.get_running_loop().create_future()
            self._opening[key] = opening
            if self._is_closed or key in self._ended or self._start(self._open(key, client, caller, opening)) is None:
                del self._opening[key]
                raise BackendUnavailable(f"{self._name} is being closed")
        return await asyncio.shield(opening)

    async def listen(
        self,
        wants: Wants,
        acknowledged: Callable[[Wants], None],
        announced: Heard,
        client: Client,
        caller: Caller = FEED_CALLER,
    ) -> None:
        """See Upstream.listen: the session of this client, with its standing stream and resource subscriptions. Many
        servers tell what a session changed in that session only, and a child process knows nothing of its siblings.
        That of the feed's own caller ends with it."""
        session = await self.session(client, caller)

        def heard(method: str, params: Params) -> None:
            if method in wants.lists or (wants.uris and method == RESOURCE_UPDATED):
                announced(method, params)

        session.listeners += 1
        session.subscribed.update(wants.uris)
        ear: Ear | None = None
        try:
            agreed = Wants(
                wants.lists & announceable(session.result.capabilities), await self._subscribe(session, wants.uris)
            )
            ear = Ear(heard, lambda: acknowledged(agreed))
            session.sink.ears.append(ear)
            acknowledged(agreed)
            while session.link.is_open:
                with contextlib.suppress(TimeoutError):  # a pipe that dies tells nobody: look from time to time
                    async with asyncio.timeout(LOOK_S):
                        await session.ended.wait()
                        return
        except SessionLost:
            self._drop(session)
            raise
        finally:
            if ear is not None:
                session.sink.ears.remove(ear)
            session.listeners -= 1
            session.subscribed.subtract(wants.uris)
            self._start(self._left(session, wants.uris, is_own=caller is FEED_CALLER))

    async def _subscribe(self, session: BackendSession, uris: frozenset[str]) -> frozenset[str]:
        """Subscribe to resources. Returns those that the backend agreed to."""
        if not uris or not has_subscriptions(session.result.capabilities):
            return frozenset()
        async with session.subscribing:
            return frozenset([uri for uri in sorted(uris) if await self._is_done(session, "resources/subscribe", uri)])

    async def _left(self, session: BackendSession, uris: frozenset[str], *, is_own: bool) -> None:
        """A stream of the feed has gone: unsubscribe from what nobody wants, and end its own session."""
        for uri in uris:
            if session.subscribed[uri] <= 0:
                del session.subscribed[uri]  # whatever follows: strangers choose them, and a session lives long
        if has_subscriptions(session.result.capabilities):
            with contextlib.suppress(BackendError, TimeoutError):
                async with asyncio.timeout(UNSUBSCRIBE_S), session.subscribing:
                    for uri in uris:
                        if session.subscribed[uri] <= 0 and session.link.is_open:
                            await self._is_done(session, "resources/unsubscribe", uri)
        if is_own and session.listeners == 0 and not self._is_stateless:
            self._drop(session)

    async def _is_done(self, session: BackendSession, method: str, uri: str) -> bool:
        request = Request(next(self._ids), method, {"uri": uri}, is_retry_safe=True)
        return isinstance(await session.link.exchange(request, session.sink), Result)

    async def relay(self, request: Request, client: Client, caller: Caller, sink: Sink) -> Result | Failure:
        """See relay.Face. What another replica asks for is not asked of a third."""
        session = await self.session(client, caller)
        if isinstance(session.link, RelayLink):
            raise SessionLost(f"{self._name}: the session is on another replica")
        session.calls += 1
        try:
            return await session.link.exchange(request, sink)
        except SessionLost:
            self._drop(session)
            raise
        finally:
            session.calls -= 1
            session.used = next(self._uses)

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died: what backends say outside calls, and they carried, is carried here from now on."""
        if self._homes is not None:
            for session in self._sessions.values():
                if session.claim and not session.hears:
                    self._start(self._homes.bereaved(session, replicas, self._carried))

    async def hear(self, client: Client, caller: Caller) -> None:
        """See relay.Face. A session that is open here already is seen to when its replica dies."""
        if self._homes is not None and self._key(client, caller) not in self._sessions:
            await self._homes.hear(client.session, lambda: self.session(client, caller))

    def recheck(self) -> None:
        """See relay.Face."""
        if self._homes is not None:
            for session in self._sessions.values():
                if session.claim:
                    self._start(self._homes.rechecked(session, self._drop))

    def leave(self, client_session: str) -> bool:
        """Forget a session that goes on elsewhere. False when something of it is only here."""
        session = self._sessions.get(client_session)
        if session is None:
            return client_session not in self._opening
        if session.hears or not session.claim or session.calls:
            return False
        del self._sessions[client_session]
        self._start(session.leave())
        return True

    def has_session(self, client: Client, caller: Caller) -> bool:
        """Whether this client's backend session is open already."""
        session = self._sessions.get(self._key(client, caller))
        return session is not None and session.link.is_open

    async def tell(self, client: Client, caller: Caller, message: bytes) -> None:
        """Pass a client's notification on, if it has a session of its own here."""
        session = self._sessions.get(self._key(client, caller))
        if session is None and self._homes is not None and await self._homes.has(client.session):
            session = await self.session(client, caller)  # another replica has opened it
        if session is None or self._is_stateless or not session.link.is_open:
            return
        try:
            await session.link.tell(message)
        except SessionLost:
            self._drop(session)

    async def release(self, client_session: str) -> None:
        """A client session ended: end its backend session, also one that is being opened."""
        self._ended[client_session] = None
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._give_up(client_session)
        session = self._sessions.pop(client_session, None)
        if session is not None:
            session.ended.set()
            await session.link.aclose()

    def forget(self, client: Client, caller: Caller) -> None:
        """Let the next call of this client open a session anew."""
        session = self._sessions.get(self._key(client, caller))
        if session is not None:
            self._drop(session)

    async def aclose(self) -> None:
        """End every session."""
        self._is_closed = True
        for key in list(self._opening):
            self._give_up(key)
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.leave() for session in sessions))

    def _give_up(self, key: str) -> None:
        """Nobody wants the session that is being opened any more: `_open` closes it when it stands."""
        opening = self._opening.pop(key, None)
        if opening is not None and not opening.done():
            opening.set_exception(BackendUnavailable(f"{self._name}: the session ended before it was open"))
            opening.exception()  # seen

    def _key(self, client: Client, caller: Caller) -> str:
        if client.session and not self._is_stateless:
            return client.session
        # A session is told of one chain: in another's it would hide a circle, or be refused for it.
        if self._is_stateless:
            return SHARED if client.chain == self._chain else f"{SHARED} {client.chain}"
        # Whatever a subject is, it stands last, behind what has no space in it: no two callers have one key.
        return f"{POOLED}{bridge.fingerprint(bytes(client.capabilities))} {client.chain} {caller.subject}"

    async def _open(self, key: str, client: Client, caller: Caller, opened: asyncio.Future[BackendSession]) -> None:
        """Open a session and tell everybody who waits. Runs on its own, so that one waiter's cancel harms no other."""
        session: BackendSession | None = None
        error: GatewayError = BackendUnavailable(f"{self._name} is being closed")
        self._make_room(key)
        try:
            async with asyncio.timeout(OPEN_S):
                session = await self._initialize(client, caller)
        except TimeoutError:
            error = BackendUnavailable(f"{self._name} did not answer initialize within {OPEN_S:g} s")
        except (BackendError, StoreUnavailable) as raised:
            error = raised
        finally:
            is_wanted = self._opening.get(key) is opened
            if is_wanted:
                del self._opening[key]
            if session is None:
                if not opened.done():
                    opened.set_exception(error)
                    opened.exception()  # seen: it is no error of the loop's when nobody waits any more
            elif is_wanted:
                self._sessions[key] = session
                opened.set_result(session)
                if session.hears:
                    self._start(self._carried(session))
            else:
                self._start(session.link.aclose())

    def _make_room(self, key: str) -> None:
        """Sessions that callers share are many when callers and their capabilities are: the one that nobody used for
        longest makes room for the next. One that is in use never does."""
        if not key.startswith(POOLED):
            return
        pooled = [session for held, session in self._sessions.items() if held.startswith(POOLED)]
        idle = [session for session in pooled if not session.calls and not session.listeners]
        if idle and len(pooled) >= self._max_pooled:
            self._drop(min(idle, key=lambda session: session.used))

    async def _carried(self, session: BackendSession) -> None:
        """Carry what the backend says in a session outside calls, and notice when that shows that it is gone."""
        http = http_link(session.link)
        if http is not None:
            http.overhear(partial(self._unheard, session))  # without a task while it says nothing
            return
        await session.link.listen()
        self._unheard(session)

    def _unheard(self, session: BackendSession) -> None:
        """Nothing is carried outside calls any more."""
        if not (session.link.is_open or session.has_ended):
            self._drop(session)

    async def _initialize(self, client: Client, caller: Caller) -> BackendSession:
        has_own = bool(client.session) and not self._is_stateless
        session_id = client.session if has_own else ""
        sink = SessionSink(self._tasks, session_id, caller, self._outlets, self._start, self._changes)
        if has_own and self._homes is not None:
            return await self._homes.settle(session_id, sink, lambda: self._introduce(client, sink, has_own=True))
        return await self._introduce(client, sink, has_own=has_own)

    async def _introduce(self, client: Client, sink: SessionSink, *, has_own: bool) -> BackendSession:
        """Open a session by `initialize`."""
        link = await self._connector.connect(sink)
        sink.link = link
        try:
            offered = client.revision if has_own else handshake.OFFERED
            told = bytes(client.capabilities)
            capabilities: Json = bridge.without_asks(told) if self._is_stateless else bridge.across(told)
            said = handshake.initialize_params(offered, client.info, capabilities, client.chain)
            params = jsonrpc.members(jsonrpc.encode(said))
            answer = await link.exchange(
                Request(next(self._ids), "initialize", params, b"mcp-method: initialize\r\n", is_cancellable=False),
                sink,
            )
            if isinstance(answer, Failure):
                if chained.is_refusal(answer):
                    raise chained.refusal(self._name, answer)
                raise NotThisEra(f"{self._name} refused initialize: {answer.message[:200]}")
            try:
                revision, result = handshake.read_initialize_result(answer.value)
            except ProtocolError as error:
                raise NotThisEra(f"{self._name}: {error}") from error
            link.agree(b"mcp-protocol-version: %b\r\n" % revision.name.encode())
            await link.tell(jsonrpc.notification(INITIALIZED, b"{}"))
        except ProtocolError as error:
            self._start(link.aclose())
            raise BackendGarbage(f"{self._name}: {error}") from error
        except BaseException:
            self._start(link.aclose())
            raise
        link = sink.link = settled(link)
        session = BackendSession(link, sink, revision, result)
        if self._connector.is_shared_wire and not has_own:
            claims = session.claims = Claims()
            sink.unclaimed = lambda *asked: self._claim(claims, link, *asked)
        return session

    def _claim(self, claims: Claims, link: Link, request_id: jsonrpc.Id, method: str, params: Params) -> None:
        """Find the call that a question belongs to, and put it to that one's client."""
        self._has_asked = True

        async def put() -> None:
            asker = await claims.asker()
            if asker is not None:
                asker.asked(request_id, method, params)
            else:
                await answer(link, None, request_id, method, params)

        self._start(put())

    def _exchange(self, session: BackendSession, call: Call, params: Params) -> Awaitable[Result | Failure]:
        token = next(self._ids)
        sink = CallSink(call, self._tasks, session.link, self._start, self._changes, token, True)
        if "task" in params:
            if call.client.revision.has_tasks:
                return self._tasks.carry(session.exchange, call, params, sink, token)
            params = tasks.plain(params)
        if session.claims is not None:
            return self._claimable(session, session.claims, call, params, sink, token)
        return session.exchange(call, params, sink, token)

    async def _claimable(
        self, session: BackendSession, claims: Claims, call: Call, params: Params, sink: CallSink, token: int
    ) -> Result | Failure:
        claims.enter(sink)
        try:
            return await session.exchange(call, params, sink, token)
        finally:
            claims.leave(sink)

    def _drop(self, session: BackendSession) -> None:
        session.ended.set()
        for key, held in list(self._sessions.items()):
            if held is session:
                del self._sessions[key]
                if self._homes is not None:
                    self._homes.lost(key, session.claim)
                self._start(session.link.aclose())
