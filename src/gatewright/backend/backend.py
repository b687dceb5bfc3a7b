"""One backend, whole: in which era to speak to it for whom, and what it offers.

A backend that speaks both eras is spoken to in the client's own, so that nothing has to be bridged; otherwise in the
one it has. What was found out is remembered until it fails. Sources: basic/versioning "Backward Compatibility",
basic/transports/{streamable-http,stdio} of 2026-07-28.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import Raw

from gatewright.backend.annotations import Annotations
from gatewright.backend.base import Connector, Refused
from gatewright.backend.feed import Feed, Heard, Wants
from gatewright.backend.handshake import HandshakeFace, NotThisEra
from gatewright.backend.modern import GATEWAY_INFO, MODERN_ERRORS, ModernFace, own_client
from gatewright.backend.parking import Limits, Parking
from gatewright.backend.standing import Standing
from gatewright.call import ANONYMOUS, Call, Caller, Client, Failure, Outcome, Params, Result
from gatewright.errors import BackendError, BackendUnavailable, ProtocolError
from gatewright.protocol import addressing, bridge, jsonrpc, questions
from gatewright.protocol.modern import SERVER_INFO_KEY
from gatewright.protocol.revisions import Era

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings
    from gatewright.backend.sinks import Changes, Outlets
    from gatewright.background import Background
    from gatewright.protocol.sealed import Sealer

ANSWERED_HERE: Final = frozenset({"logging/setLevel"})
"""What a modern backend has no method for, because every request carries it."""
log = structlog.get_logger("gatewright.backend")
PROBE_S: Final = 5.0
"""A backend that says nothing to `server/discover` for this long speaks the handshake era (basic/transports/stdio)."""


@final
class Offer(msgspec.Struct, frozen=True):
    """What a backend says of itself: capabilities by name, its Implementation object, instructions."""

    capabilities: dict[str, Raw]
    info: Raw
    instructions: str | None


@final
class _Discovered(msgspec.Struct, gc=False):
    """The part of a DiscoverResult that is read."""

    capabilities: dict[str, Raw]
    supportedVersions: list[str]
    instructions: str | None = None
    meta: dict[str, Raw] = msgspec.field(default_factory=dict, name="_meta")


_decode_discovered: Final = msgspec.json.Decoder(_Discovered).decode


@final
class McpBackend:
    """One backend behind the gateway."""

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        connector: Connector,
        outlets: Outlets,
        background: Background,
        changes: Changes,
        sealer: Sealer,
    ) -> None:
        self.name = name
        self.bounds = settings
        self.annotations = Annotations(name)
        self._settings = settings
        self._connector = connector
        self._modern = ModernFace(name, connector, background, changes)
        self._handshake = HandshakeFace(name, connector, settings, outlets, background, changes)
        forced: Era | None = None if settings.era == "auto" else settings.era
        self._speaks: dict[Era, bool | None] = {
            "modern": None if forced is None else forced == "modern",
            "handshake": None if forced is None else forced == "handshake",
        }
        self._offer: Offer | None = None
        bounds = Limits(settings.max_parked, settings.max_parked_per_caller, settings.parked_s)
        self._parking = Parking(name, sealer, bounds, background)
        self.feed: Final = Feed(name, self, background)
        self._standing = Standing(self.feed, outlets, background)
        self._background = background
        self._probing = asyncio.Lock()

    async def __call__(self, call: Call) -> Outcome:
        """Carry a call out. Raises BackendError, or HeaderMismatch for `Mcp-Param-*` headers that lie."""
        era = call.client.revision.era
        if not self._speaks[era]:
            era = await self._era_for(call.client, call.caller)
        params, lines = call.params, b""
        if call.method == "tools/call":
            if not self.annotations.is_known:
                await self._learn(call)
            params, lines = self._judged(call)
        name = call.name if call.target is None else call.target.name
        if name != call.name and name is not None and call.row is not None:
            params = addressing.renamed(call.row, params, name)
        if era == "modern":
            if call.row is not None and "modern" not in call.row.eras:
                return await self._stood_in(call, name or "")
            outcome = await self._modern.call(call, name, params, lines)
        else:
            outcome = await self._handshaken(call, params)
        if call.method == "tools/list" and isinstance(outcome, Result):
            return Result(self.annotations.learn(outcome.value, is_first_page="cursor" not in params))
        return outcome

    async def _stood_in(self, call: Call, uri: str) -> Outcome:
        """A method that the modern era lost, done here as that era does it."""
        session = call.client.session
        if call.method == "resources/subscribe":
            return await self._standing.subscribe(session, uri)
        if call.method == "resources/unsubscribe":
            return self._standing.unsubscribe(session, uri)
        return Result(b"{}")  # logging/setLevel: every request carries the session's level

    async def _handshaken(self, call: Call, params: Params) -> Outcome:
        """A call in the handshake era. What its backend may ask of a client of the other era parks the call."""
        client = call.client
        row = call.row
        if client.session or row is None or not row.may_ask:
            return await self._handshake.call(call, params)
        if questions.STATE_KEY not in params and not bridge.has_asks(bytes(client.capabilities)):
            return await self._handshake.call(call, params)
        carried = questions.fresh(params)
        return await self._parking.carry(call, lambda inner: self._handshake.call(inner, carried))

    async def request(self, method: str, params: Params, client: Client, caller: Caller) -> Result | Failure:
        """A request of the gateway's own, as this client would see its answer. Raises BackendError."""
        if await self._era_for(client, caller) == "modern":
            if method in ANSWERED_HERE:
                return Result(b"{}")
            answer = await self._modern.request(method, params, client)
        else:
            answer = await self._handshake.request(method, params, client, caller)
        if method == "tools/list" and isinstance(answer, Result):
            return Result(self.annotations.learn(answer.value, is_first_page="cursor" not in params))
        return answer

    async def offer(self, client: Client, caller: Caller) -> Offer:
        """What it offers this client. Raises BackendError when it cannot be reached."""
        if await self._era_for(client, caller) == "modern":
            if self._offer is None:
                self._offer = await self._discover(client)
            found = self._offer
            if client.session:
                self._background(self._standing.watch(client.session))
        else:
            result = (await self._handshake.session(client, caller)).result
            found = Offer(result.capabilities, result.serverInfo, result.instructions)
        if self._settings.instructions is not None:
            return Offer(found.capabilities, found.info, self._settings.instructions)
        return found

    @property
    def parked(self) -> int:
        """Calls that wait for answers."""
        return len(self._parking)

    @property
    def eras(self) -> list[str]:
        """The eras it is known to speak; none while nobody asked yet."""
        return [era for era, speaks in self._speaks.items() if speaks]

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        """See Upstream.listen."""
        if await self._era_for(own_client(GATEWAY_INFO), ANONYMOUS) == "modern":
            await self._modern.listen(wants, acknowledged, announced)
        else:
            await self._handshake.listen(wants, acknowledged, announced)

    async def tell(self, client: Client, message: bytes) -> None:
        """Pass a handshake client's notification on to its own session, if it has one here."""
        await self._handshake.tell(client, ANONYMOUS, message)

    async def warm_up(self) -> None:
        """Find out the era ahead of the first call, and start what has to be started. A backend that is not there yet
        is asked again by the first call."""
        client = own_client(GATEWAY_INFO)
        try:
            await self._era_for(client, ANONYMOUS)
        except BackendError as error:
            log.warning("backend not ready", backend=self.name, reason=error.message)

    async def release(self, client_session: str) -> None:
        """A client session ended."""
        self._standing.release(client_session)
        await self._handshake.release(client_session)

    async def aclose(self) -> None:
        """Close everything towards the backend."""
        self._parking.close()
        await self._modern.aclose()
        await self._handshake.aclose()
        await self._connector.aclose()

    def _judged(self, call: Call) -> tuple[Params, bytes]:
        """The call's parameters and mirrored header lines, after the client's own headers were held against them."""
        target = call.target
        name = call.name if target is None else target.name
        return self.annotations.checked(name or "", call.params, call.param_headers)

    async def _learn(self, call: Call) -> None:
        """Read the tool list once, for its annotations. Without it the call goes on: the backend is the judge."""
        self.annotations.is_known = True
        cursor: Raw | None = None
        try:
            for _ in range(100):
                params: Params = {} if cursor is None else {"cursor": cursor}
                answer = await self.request("tools/list", params, call.client, call.caller)
                if isinstance(answer, Failure):
                    return
                cursor = jsonrpc.members(answer.value).get("nextCursor")
                if cursor is None or bytes(cursor) == b"null":
                    return
        except (BackendError, ProtocolError):
            return

    async def _era_for(self, client: Client, caller: Caller) -> Era:
        """The era to speak for this client: its own if the backend has it."""
        era = client.revision.era
        if self._speaks[era]:
            return era
        if self._speaks[era] is None:
            async with self._probing:
                if self._speaks[era] is None:
                    self._speaks[era] = await self._probe(era, client, caller)
        if self._speaks[era]:
            return era
        other: Era = "modern" if era == "handshake" else "handshake"
        if self._speaks[other] is None:
            async with self._probing:
                if self._speaks[other] is None:
                    self._speaks[other] = await self._probe(other, client, caller)
        if not self._speaks[other]:
            self._speaks = {"modern": None, "handshake": None}
            raise BackendUnavailable(f"{self.name} speaks neither protocol era: is its address an MCP endpoint?")
        return other

    async def _probe(self, era: Era, client: Client, caller: Caller) -> bool:
        """Whether the backend speaks an era. Raises BackendUnavailable when it cannot be asked now."""
        if era == "modern":
            return await self._is_modern(client)
        try:
            await self._handshake.session(client, caller)
        except NotThisEra:
            return False
        except Refused as refused:
            if refused.status in (400, 404, 405, 406, 415):
                return False
            raise
        return True

    async def _is_modern(self, client: Client) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                answer = await self._modern.request("server/discover", {}, client)
        except Refused as refused:
            if refused.status in (400, 404, 405, 406, 415):
                return False
            raise
        except TimeoutError:
            return False
        if isinstance(answer, Failure):
            return answer.code in MODERN_ERRORS
        self._offer = _read_offer(answer)
        return self._offer is not None

    async def _discover(self, client: Client) -> Offer:
        answer = await self._modern.request("server/discover", {}, client)
        offer = _read_offer(answer) if isinstance(answer, Result) else None
        if offer is None:
            raise BackendUnavailable(f"{self.name} does not answer server/discover")
        return offer


def _read_offer(answer: Result) -> Offer | None:
    try:
        read = _decode_discovered(answer.value)
    except msgspec.DecodeError:
        return None
    return Offer(read.capabilities, read.meta.get(SERVER_INFO_KEY, jsonrpc.EMPTY), read.instructions)
