"""One backend, whole: in which era to speak to it for whom, and what it offers.

A backend that speaks both eras is spoken to in the client's own, so that nothing has to be bridged; otherwise in the
one it has. What was found out is remembered until it fails. Sources: basic/versioning "Backward Compatibility",
basic/transports/{streamable-http,stdio} of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final
from weakref import WeakValueDictionary

import msgspec
import structlog
from msgspec import Raw

from gatewright.backend import chained
from gatewright.backend.annotations import Annotations
from gatewright.backend.base import Connector, Refused
from gatewright.backend.eras import NOT_THIS_ERA, PROBE_S, Eras
from gatewright.backend.eras import Offer as Offer
from gatewright.backend.feed import Feed, Heard, Listener, Wants
from gatewright.backend.handshake import FEED_CALLER, HandshakeFace, NotThisEra
from gatewright.backend.homes import Homes
from gatewright.backend.modern import GATEWAY_INFO, MODERN_ERRORS, ModernFace, Restarted, own_client
from gatewright.backend.own_process import OwnProcess
from gatewright.backend.parking import Limits, Parking
from gatewright.backend.relay import Face
from gatewright.backend.standing import Standing
from gatewright.backend.tasks import Tasks
from gatewright.call import ANONYMOUS, Call, Caller, Client, Failure, InputRequired, Outcome, Params, Result
from gatewright.errors import (
    BackendError,
    BackendRefusedChain,
    BackendUnavailable,
    InvalidParams,
    MethodNotFound,
    ProtocolError,
)
from gatewright.protocol import addressing, bridge, jsonrpc, questions, tasks
from gatewright.protocol.revisions import Era

if TYPE_CHECKING:
    from gatewright.backend.carriers import Carriers
    from gatewright.backend.places import ParkingPlaces
    from gatewright.backend.settings import BackendSettings
    from gatewright.backend.sinks import Changes, Outlets
    from gatewright.background import Background
    from gatewright.protocol.sealed import Sealer

ANSWERED_HERE: Final = frozenset({"logging/setLevel"})
"""What a modern backend has no method for, because every request carries it."""
OWN_REFUSALS: Final = MODERN_ERRORS | {-32601, -32602, -32603}
"""Errors that a modern server answers with an HTTP status of 400 or 404."""
log = structlog.get_logger("gatewright.backend")
T = TypeVar("T")


@final
class Company(msgspec.Struct, frozen=True):
    """What a backend shares with those of other replicas."""

    homes: Homes
    places: ParkingPlaces
    carriers: Carriers


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
        *,
        chain: str = "",
        probe_s: float = PROBE_S,
        company: Company | None = None,
    ) -> None:
        self.name = name
        self.bounds = settings
        self.annotations = Annotations(name)
        self._settings = settings
        self._connector = connector
        homes = None if company is None else company.homes
        ids = itertools.count(1 if homes is None else homes.first_id())
        self._own = own_client(GATEWAY_INFO, chain=chain)
        forced = None if settings.era == "auto" else settings.era
        is_tied = connector.is_shared_wire and forced is None
        self._process = None if homes is None or not connector.is_shared_wire else OwnProcess(name, homes.post)
        self.tasks: Final = Tasks(name, sealer, self._process)
        self._modern = ModernFace(self.tasks, connector, background, changes, ids, is_tied=is_tied)
        self._handshake = HandshakeFace(
            self.tasks, connector, settings, outlets, background, changes, ids, chain, homes
        )
        self._eras = Eras(
            name,
            forced,
            self._modern,
            self._handshake,
            background,
            is_tied=is_tied,
            probe_s=probe_s,
        )
        self.speaks: Final = self._eras.speaks
        """Which eras it is known to speak."""
        bounds = Limits(settings.max_parked, settings.max_parked_per_caller, settings.parked_s)
        places = None if company is None else company.places
        self._parking = Parking(name, sealer, bounds, background, None if homes is None else homes.post, places)
        self.feed: Final = Feed(name, self, background)
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()
        self._standing = Standing(outlets, background, None if company is None else company.carriers)
        self._background = background
        self._learning = asyncio.Lock()

    async def __call__(self, call: Call) -> Outcome:
        """Carry a call out. Raises BackendError, or HeaderMismatch for `Mcp-Param-*` headers that lie."""
        era = call.client.revision.era
        if not self.speaks[era]:
            era = await self._eras.of(call.client, call.caller)
        generation = self._eras.generation
        params, lines = call.params, b""
        name = call.name if call.target is None else call.target.name
        if call.method == "tools/call":
            annotations = self.annotations
            if not annotations.is_known:
                await self._learn(call)
            if annotations.by_tool or call.param_headers:
                params, lines = annotations.checked(name or "", params, call.param_headers)
        if name != call.name and name is not None and call.row is not None:
            params = addressing.renamed(call.row, params, name)
        try:
            if era == "modern":
                if call.row is not None and not call.row.is_modern:
                    return await self._stood_in(call, name or "")
                if self._process is not None:
                    replica, params = self._process.opened(params)
                    if replica:
                        return await self._process.carry(replica, call, params)
                answer = await self._modern.exchange(call, name, params, lines)
                outcome = self._modern.outcome(answer, call)
            else:
                carry = self._handshake.call if call.client.session else self._parked
                outcome = await carry(call, params)
        except (Refused, NotThisEra, Restarted) as refused:
            again = partial(self._again, call, name, params, lines)
            outcome = await self._after(refused, era, generation, call.client, call.caller, again)
        if call.method == "tools/list" and isinstance(outcome, Result):
            learnt = self.annotations.learn(outcome.value, is_first_page="cursor" not in params)
            return Result(learnt, outcome.is_typed, outcome.is_hinted)
        return outcome

    async def _again(self, call: Call, name: str | None, params: Params, lines: bytes, era: Era) -> Outcome:
        """A call once more, in the era that it turned out to be."""
        if era != "modern":
            return await (self._handshake.call if call.client.session else self._parked)(call, params)
        outcome = await self._modern.call(call, name, params, lines)
        if isinstance(outcome, InputRequired) and not call.client.revision.has_result_type:
            raise BackendUnavailable(f"{self.name} speaks another era now, and asks in it: call again")
        return outcome

    async def _stood_in(self, call: Call, uri: str) -> Outcome:
        """A method that the modern era lost, done here as that era does it."""
        session = call.client.session
        if call.method == "resources/subscribe":
            return await self._standing.subscribe(session, uri, self._shared_feed(call.client))
        if call.method == "resources/unsubscribe":
            return await self._standing.unsubscribe(session, uri)
        if call.method != "logging/setLevel":
            raise MethodNotFound(
                f"{self.name} speaks the modern era, which has no {call.method} (SEP-2663, Backward Compatibility)"
            )
        return Result(b"{}")  # logging/setLevel: every request carries the session's level

    def _parked(self, call: Call, params: Params) -> Awaitable[Outcome]:
        """A call in the handshake era for a client of the other: what its backend asks parks it."""
        client = call.client
        row = call.row
        if row is None or not row.may_ask:
            return self._handshake.call(call, params)
        if questions.STATE_KEY not in params and not bridge.has_asks(bytes(client.capabilities)):
            return self._handshake.call(call, params)
        carried = questions.fresh(params)
        return self._parking.carry(call, lambda inner: self._handshake.call(inner, carried))

    async def request(self, method: str, params: Params, client: Client, caller: Caller) -> Result | Failure:
        """A request of the gateway's own, as this client would see its answer. Raises BackendError."""

        async def ask(era: Era) -> Result | Failure:
            if era != "modern":
                return await self._handshake.request(method, params, client, caller)
            if method in ANSWERED_HERE:
                return Result(b"{}")
            return await self._modern.request(method, params, client)

        answer = await self._asked(client, caller, ask)
        if method == "tools/list" and isinstance(answer, Result):
            return Result(self.annotations.learn(answer.value, is_first_page="cursor" not in params))
        return answer

    async def offer(self, client: Client, caller: Caller) -> Offer:
        """What it offers this client. Raises BackendError when it cannot be reached."""

        async def ask(era: Era) -> Offer:
            if era != "modern":
                result = (await self._handshake.session(client, caller)).result
                capabilities = tasks.offered(result.capabilities, client.revision.era, era)
                return Offer(capabilities, result.serverInfo, result.instructions)
            offer = await self._eras.discover(client)
            if client.session:
                self._background(self._standing.watch(client.session, self._shared_feed(client)))
            return Offer(tasks.offered(offer.capabilities, client.revision.era, era), offer.info, offer.instructions)

        found = await self._asked(client, caller, ask)
        if isinstance(found, Failure):
            raise BackendUnavailable(f"{self.name}: {found.message[:200]}")
        if self._settings.instructions is not None:
            return Offer(found.capabilities, found.info, self._settings.instructions)
        return found

    async def resume(self, call: Call) -> Outcome:
        """See retries.Waits."""
        if questions.state_in(call.params) is None:
            raise InvalidParams("params.requestState is missing")
        return await self._parking.carry(call, self._forgotten)

    async def _forgotten(self, call: Call) -> Outcome:
        raise InvalidParams("params.requestState: the call it belongs to has ended; make it again without it")

    @property
    def face(self) -> Face:
        """Its sessions, as other replicas use them."""
        return self._handshake

    @property
    def parked(self) -> int:
        """Calls that wait for answers."""
        return len(self._parking)

    @property
    def eras(self) -> list[str]:
        """The eras it is known to speak; none while nobody asked yet."""
        return [era for era, speaks in self.speaks.items() if speaks]

    async def join(self, client: Client, caller: Caller, wants: Wants, heard: Heard) -> tuple[Feed, Listener]:
        """Listen on a modern client's behalf. In the modern era one feed serves all; in the handshake era what changes
        is told in the session it concerns, so that one caller's clients of one kind share a feed. Raises BackendError.
        """
        era = await self._eras.of(client, caller)
        if era == "modern" or self._settings.stateless:
            feed = self._shared_feed(client)
        else:
            key = f"{bridge.fingerprint(bytes(client.capabilities))} {caller.subject} {client.chain}"
            feed = self._feed_of(key, client, caller)
        return feed, await feed.join(wants, heard)

    def _shared_feed(self, client: Client) -> Feed:
        """The feed of all whose requests passed the same gateways: what listens in a circle is refused as calls are."""
        if client.chain == self._own.chain:
            return self.feed
        return self._feed_of(f"chain {client.chain}", own_client(GATEWAY_INFO, chain=client.chain), FEED_CALLER)

    def _feed_of(self, key: str, client: Client, caller: Caller) -> Feed:
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self.name, Own(self, client, caller), self._background)
        return feed

    async def listen(
        self,
        wants: Wants,
        acknowledged: Callable[[Wants], None],
        announced: Heard,
        client: Client | None = None,
        caller: Caller = FEED_CALLER,
    ) -> None:
        """See Upstream.listen. With a client, in that client's own session."""
        whose = client or self._own

        async def ask(era: Era) -> None:
            if era == "modern":
                await self._modern.listen(wants, acknowledged, announced, whose.chain)
            else:
                await self._handshake.listen(wants, acknowledged, announced, whose, caller)

        failure = await self._asked(whose, caller, ask)
        if failure is not None:
            raise BackendUnavailable(f"{self.name} refused to be listened to: {failure.message[:200]}")

    async def tell(self, client: Client, message: bytes) -> None:
        """Pass a handshake client's notification on to its own session, if it has one here."""
        await self._handshake.tell(client, ANONYMOUS, message)

    async def warm_up(self) -> None:
        """Find out the era ahead of the first call, and start what has to be started. A backend that is not there yet
        is asked again by the first call."""
        try:
            await self._eras.of(self._own, ANONYMOUS)
        except BackendError as error:
            log.warning("backend not ready", backend=self.name, reason=error.message)

    async def release(self, client_session: str) -> None:
        """A client session ended."""
        self._standing.release(client_session)
        await self._handshake.release(client_session)

    def leave(self, client_session: str) -> bool:
        """Forget a client session that goes on elsewhere. False when something of it is only here."""
        if self._standing.holds(client_session) or not self._handshake.leave(client_session):
            return False
        self._standing.forget(client_session)
        return True

    @property
    def is_stood_in(self) -> bool:
        """See heirs.Carrying: unless it is known to speak the clients' own era."""
        return not self.speaks["handshake"]

    async def inherit(self, client: Client, key: str, since: float) -> None:
        """See Standing.inherit."""
        await self._standing.inherit(client.session, key, self._shared_feed(client), since)

    async def let_go(self, session: str, key: str) -> None:
        """See Standing.let_go."""
        await self._standing.let_go(session, key)

    async def recheck(self) -> None:
        """See Standing.recheck."""
        await self._standing.recheck()

    async def aclose(self) -> None:
        """Close everything towards the backend."""
        self._parking.close()
        for feed in (self.feed, *self._feeds.values()):
            feed.close()
        await self._modern.aclose()
        await self._handshake.aclose()
        await self._connector.aclose()

    async def _learn(self, call: Call) -> None:
        """Read the tool list once, for its annotations, however many calls wait for it. Without it they go on: the
        backend is the judge."""
        async with self._learning:
            if not self.annotations.is_known:
                self.annotations.is_known = await self._read_tools(call)

    async def _read_tools(self, call: Call) -> bool:
        """Read what there is to read. False when the backend refuses this call's chain: others' it may not."""
        cursor: Raw | None = None
        try:
            for _ in range(100):
                params: Params = {} if cursor is None else {"cursor": cursor}
                answer = await self.request("tools/list", params, call.client, call.caller)
                if isinstance(answer, Failure):
                    return not chained.is_refusal(answer)
                cursor = jsonrpc.members(answer.value).get("nextCursor")
                if cursor is None or bytes(cursor) == b"null":
                    return True
        except BackendRefusedChain:
            return False
        except (BackendError, ProtocolError):
            return True
        return True

    async def _asked(self, client: Client, caller: Caller, ask: Callable[[Era], Awaitable[T]]) -> T | Failure:
        """What `ask` finds in the era to speak for this client, in the other one if the backend has changed."""
        era = await self._eras.of(client, caller)
        generation = self._eras.generation
        try:
            return await ask(era)
        except (Refused, NotThisEra, Restarted) as refused:
            return await self._after(refused, era, generation, client, caller, ask)

    async def _after(
        self,
        refused: Refused | NotThisEra | Restarted,
        era: Era,
        generation: int,
        client: Client,
        caller: Caller,
        again: Callable[[Era], Awaitable[T]],
    ) -> T | Failure:
        """What a refusal means: the backend's own error, or that it speaks another era than it did (it was restarted as
        something else): then, since nothing ran, the call is carried out in that one. Raises BackendError."""
        if await self._is_changed(refused, era, generation, client, caller):
            try:
                return await again(await self._eras.of(client, caller))
            except (Refused, Restarted) as still:
                refused = still
        if isinstance(refused, Refused) and refused.failure is not None and refused.status in (400, 404):
            return refused.failure
        raise refused

    async def _is_changed(
        self, refused: Refused | NotThisEra | Restarted, era: Era, generation: int, client: Client, caller: Caller
    ) -> bool:
        """Whether what was known of its eras does not hold any more; it is forgotten then, by the first who notices."""
        eras = self._eras
        if generation != eras.generation:
            return True
        if isinstance(refused, Restarted):
            eras.restarted()
            return True
        if isinstance(refused, Refused) and refused.status not in NOT_THIS_ERA:
            return False
        code = None if isinstance(refused, NotThisEra) or refused.failure is None else refused.failure.code
        if era == "modern":
            if code in OWN_REFUSALS:
                return False
            is_modern = await eras.recheck(client)
            if generation != eras.generation:
                return True
            if is_modern is not False:
                return False
            self._modern.forget()
        elif not isinstance(refused, NotThisEra) and code not in MODERN_ERRORS:
            if self.speaks["modern"]:
                return False
            is_modern = await eras.recheck(client)
            if generation != eras.generation:
                return True
            if not is_modern:
                return False
        self._handshake.forget(client, caller)
        log.info("backend speaks another era than it did", backend=self.name, was=era)
        return eras.reset()


@final
class Own:
    """A backend as one client's feed hears it."""

    def __init__(self, backend: McpBackend, client: Client, caller: Caller) -> None:
        self._backend = backend
        self._client = client
        self._caller = caller

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        """See Upstream.listen."""
        await self._backend.listen(wants, acknowledged, announced, self._client, self._caller)
