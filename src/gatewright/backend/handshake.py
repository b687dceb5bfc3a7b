"""A backend in the handshake era: sessions opened by `initialize`, one for each client session.

A handshake client's session has a backend session of its own, told exactly what that client can answer, so that its
questions, subscriptions and log level are its own. Modern clients share one per caller and capability set, which can
ask nothing. A backend declared stateless shares one among all. Sources: basic/lifecycle, basic/transports of
2024-11-05 to 2025-11-25.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import structlog
from msgspec import Raw

from gatewright.backend.base import Connector, Link, Request, SessionLost
from gatewright.backend.feed import Heard, Wants
from gatewright.backend.sinks import CallSink, Changes, Outlets, SessionSink, Start
from gatewright.call import Call, Caller, Client, Failure, Json, Outcome, Params, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable, ProtocolError
from gatewright.protocol import bridge, handshake, jsonrpc
from gatewright.protocol.methods import INITIALIZED, RESOURCE_UPDATED
from gatewright.protocol.revisions import Revision

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings

FEED_CALLER: Final = Caller("gatewright feed")
"""Whose backend session carries announcements for all listeners."""
FEED_CLIENT: Final = Client(handshake.OFFERED, b'{"name":"gatewright","version":"1"}', b"{}")
LOOK_S: Final = 2.0
"""How often it is looked whether the feed's session is still there; pipes die without a word."""
OPEN_S: Final = 30.0
"""How long opening a session may take: `npx` may have to fetch a package first."""
log = structlog.get_logger("gatewright.backend")


@final
class NotThisEra(BackendError):
    """The backend refused `initialize`: it does not speak the handshake era."""


@final
class BackendSession:
    """One session with the backend: its link, and what the backend said of itself."""

    __slots__ = ("ids", "link", "result", "revision", "sink")

    def __init__(self, link: Link, sink: SessionSink, revision: Revision, result: handshake.InitializeResult) -> None:
        self.link = link
        self.sink = sink
        self.revision = revision
        self.result = result
        self.ids = itertools.count(2)

    async def exchange(self, call: Call, params: Params, sink: CallSink) -> Result | Failure:
        """One call in this session."""
        token = next(self.ids)
        row = call.row
        carried = bridge.handshake_params(params, call.meta, token)
        request = Request(token, call.method, carried, b"", row is not None and row.is_retry_safe)
        return await self.link.exchange(request, sink)


@final
class HandshakeFace:
    """How a backend is spoken to in the handshake era."""

    def __init__(
        self,
        name: str,
        connector: Connector,
        settings: BackendSettings,
        outlets: Outlets,
        start: Start,
        changes: Changes,
    ) -> None:
        self._name = name
        self._connector = connector
        self._is_stateless = settings.stateless
        self._outlets = outlets
        self._start = start
        self._changes = changes
        self._sessions: dict[str, BackendSession] = {}
        self._opening: dict[str, asyncio.Future[BackendSession]] = {}
        self._leases: dict[str, set[int]] = {}
        self._leased: dict[str, int] = {}

    async def call(self, call: Call, params: Params) -> Outcome:
        """Carry a call out in the client's backend session, opening it if need be. A session the backend forgot is
        opened once more: the call had not run."""
        key = self._key(call.client, call.caller)
        if not self._is_exclusive(call):
            return await self._call(key, call, params)
        # Questions on a shared wire do not say which call they belong to: such a call has a session to itself.
        number = self._lease(key)
        try:
            return await self._call(f"{key} #{number}", call, params)
        finally:
            self._leases[key].add(number)

    async def _call(self, key: str, call: Call, params: Params) -> Outcome:
        session = await self._session(key, call.client)
        try:
            return self._outcome(await self._exchange(session, call, params))
        except SessionLost:
            self._drop(session)
            session = await self._session(key, call.client)
            return self._outcome(await self._exchange(session, call, params))

    def _is_exclusive(self, call: Call) -> bool:
        """Whether the call may be asked something, in a session that others use too, over a wire that cannot tell."""
        is_pooled = not call.client.session and not self._is_stateless
        return is_pooled and self._connector.is_shared_wire and bridge.has_asks(bytes(call.client.capabilities))

    def _lease(self, key: str) -> int:
        """The lowest number of a session that no call holds."""
        free = self._leases.setdefault(key, set())
        if free:
            number = min(free)
            free.discard(number)
            return number
        self._leased[key] = number = self._leased.get(key, 0) + 1
        return number

    async def request(self, method: str, params: Params, client: Client, caller: Caller) -> Result | Failure:
        """A request of the gateway's own, in the session this client's calls would use. Raises BackendError."""
        session = await self.session(client, caller)
        token = next(session.ids)
        carried = bridge.handshake_params(params, bridge.meta_of(params), token)
        request = Request(token, method, carried, is_retry_safe=True)
        return await session.link.exchange(request, session.sink)

    async def session(self, client: Client, caller: Caller) -> BackendSession:
        """The backend session for a client: the open one, or a new one, opened once however many calls wait for it."""
        return await self._session(self._key(client, caller), client)

    async def _session(self, key: str, client: Client) -> BackendSession:
        session = self._sessions.get(key)
        if session is not None:
            if session.link.is_open:
                return session
            self._drop(session)
        opening = self._opening.get(key)
        if opening is None:
            opening = asyncio.get_running_loop().create_future()
            self._opening[key] = opening
            self._start(self._open(key, client, opening))
        return await asyncio.shield(opening)

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        """See Upstream.listen: a session of the feed's own, with its standing stream and resource subscriptions."""
        session = await self.session(FEED_CLIENT, FEED_CALLER)

        def heard(method: str, params: Params) -> None:
            if method in wants.lists or (wants.uris and method == RESOURCE_UPDATED):
                announced(method, params)

        agreed = [uri for uri in sorted(wants.uris) if await self._is_subscribed(session, "resources/subscribe", uri)]
        session.sink.hears.add(heard)
        try:
            acknowledged(Wants(wants.lists & announceable(session.result.capabilities), frozenset(agreed)))
            while session.link.is_open:  # noqa: ASYNC110 - a wire that dies tells nobody
                await asyncio.sleep(LOOK_S)
        finally:
            session.sink.hears.discard(heard)
        self._drop(session)

    async def _is_subscribed(self, session: BackendSession, method: str, uri: str) -> bool:
        token = next(session.ids)
        request = Request(token, method, {"uri": uri}, is_retry_safe=True)
        return isinstance(await session.link.exchange(request, session.sink), Result)

    def has_session(self, client: Client, caller: Caller) -> bool:
        """Whether this client's backend session is open already."""
        session = self._sessions.get(self._key(client, caller))
        return session is not None and session.link.is_open

    async def tell(self, client: Client, caller: Caller, message: bytes) -> None:
        """Pass a client's notification on, if it has a session here."""
        session = self._sessions.get(self._key(client, caller))
        if session is not None and session.link.is_open:
            await session.link.tell(message)

    async def release(self, client_session: str) -> None:
        """A client session ended: end its backend session."""
        session = self._sessions.pop(f"session {client_session}", None)
        if session is not None:
            await session.link.aclose()

    async def aclose(self) -> None:
        """End every session."""
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.link.aclose() for session in sessions))

    def _key(self, client: Client, caller: Caller) -> str:
        if self._is_stateless:
            return "all"
        if client.session:
            return f"session {client.session}"
        return f"pool {bridge.fingerprint(bytes(client.capabilities))} {caller.subject}"

    async def _open(self, key: str, client: Client, opened: asyncio.Future[BackendSession]) -> None:
        """Open a session and tell everybody who waits. Runs on its own, so that one waiter's cancel harms no other."""
        try:
            async with asyncio.timeout(OPEN_S):
                session = await self._initialize(client)
        except TimeoutError:
            opened.set_exception(BackendUnavailable(f"{self._name} did not answer initialize within {OPEN_S:g} s"))
        except BackendError as error:
            opened.set_exception(error)
        else:
            self._sessions[key] = session
            opened.set_result(session)
            self._start(session.link.listen())
        finally:
            self._opening.pop(key, None)
            if not opened.done():
                opened.set_exception(BackendUnavailable(f"{self._name} is being closed"))
            opened.exception()  # seen: it is no error of the loop's when nobody waits any more

    async def _initialize(self, client: Client) -> BackendSession:
        has_own = bool(client.session) and not self._is_stateless
        sink = SessionSink(self._name, client.session if has_own else "", self._outlets, self._start, self._changes)
        link = await self._connector.connect(sink)
        sink.link = link
        try:
            offered = client.revision if has_own else handshake.OFFERED
            capabilities: Json = client.capabilities
            if self._is_stateless:
                capabilities = bridge.without_asks(capabilities)
            elif not has_own:
                capabilities = bridge.across(bytes(capabilities))
            params = jsonrpc.members(jsonrpc.encode(handshake.initialize_params(offered, client.info, capabilities)))
            answer = await link.exchange(
                Request(1, "initialize", params, b"mcp-method: initialize\r\n", is_cancellable=False), sink
            )
            if isinstance(answer, Failure):
                raise NotThisEra(f"{self._name} refused initialize: {answer.message[:200]}")
            try:
                revision, result = handshake.read_initialize_result(answer.value)
            except ProtocolError as error:
                raise NotThisEra(f"{self._name}: {error}") from error
            link.agree(b"mcp-protocol-version: %b\r\n" % revision.name.encode())
            await link.tell(jsonrpc.notification(INITIALIZED, b"{}"))
        except ProtocolError as error:
            await link.aclose()
            raise BackendGarbage(f"{self._name}: {error}") from error
        except BaseException:
            await asyncio.shield(link.aclose())
            raise
        return BackendSession(link, sink, revision, result)

    async def _exchange(self, session: BackendSession, call: Call, params: Params) -> Result | Failure:
        sink = CallSink(call, self._name, session.link, self._start, self._changes)
        return await session.exchange(call, params, sink)

    def _outcome(self, answer: Result | Failure) -> Outcome:
        try:
            return bridge.outcome_of(answer)
        except ProtocolError as error:
            raise BackendGarbage(f"{self._name}: {error}") from error

    def _drop(self, session: BackendSession) -> None:
        for key, held in list(self._sessions.items()):
            if held is session:
                del self._sessions[key]
                self._start(session.link.aclose())


def announceable(capabilities: dict[str, Raw]) -> frozenset[str]:
    """The list changes that a server with these capabilities announces."""
    methods = {
        "notifications/tools/list_changed": "tools",
        "notifications/prompts/list_changed": "prompts",
        "notifications/resources/list_changed": "resources",
    }
    return frozenset(
        method
        for method, capability in methods.items()
        if capability in capabilities
        and bytes(jsonrpc.members(capabilities[capability]).get("listChanged", b"false")) == b"true"
    )
