"""Which protocol eras a backend speaks: found out by asking it, once for all who want to know, and kept until it fails.

`server/discover` is asked in the modern era, `initialize` in the other. Only what a backend really answered is kept: a
probe that found nobody, or nothing sure, leaves nothing behind but the doubt. On pipes what is known is known of one
process and goes with it. Sources: basic/versioning "Backward Compatibility", basic/transports/{streamable-http,stdio}
of 2026-07-28.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
from msgspec import Raw

from gatewright.backend import chained
from gatewright.backend.base import Refused
from gatewright.backend.handshake import HandshakeFace, NotThisEra
from gatewright.backend.modern import MODERN_ERRORS, PROBE, ModernFace
from gatewright.call import Caller, Client, Failure, Result
from gatewright.errors import BackendError, BackendGarbage, BackendTimeout, BackendUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.modern import SERVER_INFO_KEY
from gatewright.protocol.revisions import MODERN, Era

if TYPE_CHECKING:
    from gatewright.backend.sinks import Start

PROBE_S: Final = 5.0
"""A backend that says nothing to `server/discover` for this long speaks the handshake era (basic/transports/stdio)."""
PATIENT_S: Final = 30.0
"""How long it is given when `initialize` was refused as well: a program may have to be fetched before it starts."""
DOUBT_S: Final = 30.0
"""How long "not modern" holds when the backend did not say so but failed to answer."""
RECHECK_S: Final = 5.0
"""A backend whose refusals look like the other era's is asked again at most this often."""
MAX_OFFERS: Final = 64
"""Chains of gateways are few; a client that makes them up costs a question each."""
RESTART_S: Final = 2.0
"""The longest wait for a child that `server/discover` killed to be started again for `initialize`."""
NOT_THIS_ERA: Final = frozenset({400, 404, 405, 406, 415})
"""HTTP statuses that a server of one era may answer to a message of the other."""
OTHER: Final[dict[Era, Era]] = {"modern": "handshake", "handshake": "modern"}


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
class Eras:
    """What is known of one backend."""

    def __init__(
        self,
        name: str,
        forced: Era | None,
        modern: ModernFace,
        handshake: HandshakeFace,
        start: Start,
        *,
        is_tied: bool,
        probe_s: float = PROBE_S,
    ) -> None:
        self._name = name
        self._is_forced = forced is not None
        self._modern = modern
        self._handshake = handshake
        self._start = start
        self._is_tied = is_tied
        self._probe_s = probe_s
        self._patient_s = probe_s * PATIENT_S / PROBE_S
        self._probes: dict[Era, Callable[[Client, Caller], Awaitable[bool | None]]] = {
            "modern": self._probe_modern,
            "handshake": self._probe_handshake,
        }
        self._flights: dict[tuple[Era, str], asyncio.Future[None]] = {}
        """By chain too: gateways in a circle that waited for each other's would wait for ever."""
        self._doubted_until: dict[Era, float] = {}
        self._recheck: asyncio.Future[bool | None] | None = None
        self._recheck_from = 0.0
        self._verdict: bool | None = None
        """What the last recheck found, until what was known is forgotten."""
        self.speaks: Final[dict[Era, bool | None]] = {"modern": None, "handshake": None}
        """None: not known."""
        if forced is not None:
            self.speaks.update({forced: True, OTHER[forced]: False})
        self.generation = 0
        """Grows whenever what was known is forgotten."""
        self._offers: dict[str, Offer] = {}
        """What the backend said of itself in the modern era, by the gateways that the question had passed: one that is
        a gateway offers less to those for whom it would close a circle."""

    async def of(self, client: Client, caller: Caller) -> Era:
        """The era to speak for this client: its own if the backend has it. Raises BackendError when that cannot be
        found out now."""
        era = client.revision.era
        if self.speaks[era] is False and self._doubted_until.get(era, float("inf")) < asyncio.get_running_loop().time():
            self.speaks[era] = None
        for one in (era, OTHER[era]):
            if self.speaks[one] is None:
                await self._found(one, client, caller)
            if self.speaks[one]:
                return one
        return era if self.speaks[era] else OTHER[era]

    def restarted(self) -> None:
        """The process that spoke the modern era is gone."""
        self.speaks["modern"] = None
        self._offers.clear()

    def reset(self) -> bool:
        """What was known turned out wrong. Returns whether it may be found out anew: not what the settings say."""
        if not self._is_forced:
            self.speaks.update({"modern": None, "handshake": None})
            self._doubted_until.clear()
            self._offers.clear()
            self._verdict = None
            self.generation += 1
        return not self._is_forced

    async def recheck(self, client: Client) -> bool | None:
        """Whether it is modern now, after a refusal that looks like the other era's. None when it is not sure. Asked
        seldom: in between, what was found last counts."""
        if self._is_forced:
            return None
        loop = asyncio.get_running_loop()
        if self._recheck is None:
            if loop.time() < self._recheck_from:
                return self._verdict
            self._recheck = asked = loop.create_future()
            if self._start(self._rechecked(client, asked)) is None:
                self._recheck = None
                return None
        return await asyncio.shield(self._recheck)

    async def discover(self, client: Client) -> Offer:
        """What it says of itself in the modern era. Raises BackendError."""
        offer = self._offers.get(client.chain)
        if offer is None:
            try:  # whoever asks may be `initialize`, which no deadline of a call bounds
                async with asyncio.timeout(self._patient_s):
                    answer = await self._modern.request(PROBE, {}, client)
            except TimeoutError:
                raise BackendTimeout(f"{self._name} did not answer server/discover in time") from None
            if isinstance(answer, Failure) and chained.is_refusal(answer):
                raise chained.refusal(self._name, answer)
            offer = self._kept(answer, client) if isinstance(answer, Result) else None
        if offer is None:
            raise BackendUnavailable(f"{self._name} does not answer server/discover")
        return offer

    def _kept(self, answer: Result, client: Client) -> Offer | None:
        """What it says of itself, remembered for who came over the same gateways."""
        offer = _read_offer(answer)
        if offer is not None:
            if len(self._offers) >= MAX_OFFERS:
                del self._offers[next(iter(self._offers))]
            self._offers[client.chain] = offer
        return offer

    async def _rechecked(self, client: Client, asked: asyncio.Future[bool | None]) -> None:
        verdict: bool | None = None
        try:
            verdict = await self._ask_modern(client, self._probe_s)
        except BackendError:
            return
        finally:
            self._recheck = None
            self._verdict = verdict
            self._recheck_from = asyncio.get_running_loop().time() + RECHECK_S
            asked.set_result(verdict)

    async def _found(self, era: Era, client: Client, caller: Caller) -> None:
        """Wait until it is known whether the backend speaks `era`, asked once however many want to know."""
        key = (era, client.chain)
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = flight = asyncio.get_running_loop().create_future()
            if self._start(self._fly(era, client, caller, flight)) is None:
                del self._flights[key]
                raise BackendUnavailable(f"{self._name} is being closed")
        await asyncio.shield(flight)

    async def _fly(self, era: Era, client: Client, caller: Caller, flight: asyncio.Future[None]) -> None:
        error: BackendError = BackendUnavailable(f"{self._name} is being closed")
        is_found = False
        try:
            await self._find(era, client, caller)
            is_found = True
        except BackendError as raised:
            error = raised
            is_found = self.speaks[era] is not None  # by somebody else, meanwhile
        finally:
            del self._flights[era, client.chain]
            if is_found:
                flight.set_result(None)
            else:
                flight.set_exception(error)
                flight.exception()  # seen, whether somebody still waits or not

    async def _find(self, era: Era, client: Client, caller: Caller) -> None:
        """Ask in one era and, if it does not speak that, in the other: a "no" counts only beside a "yes"."""
        verdict = await self._probes[era](client, caller)
        if verdict:
            self.speaks[era] = True
            return
        other = OTHER[era]
        if not self.speaks[other] and not await self._probes[other](client, caller):
            # A program that was silent because it was still starting gets a second chance.
            is_late = verdict is None and await self._ask_modern(client, self._patient_s)
            if not is_late:
                self.reset()
                raise BackendUnavailable(f"{self._name} speaks neither protocol era: is its address an MCP endpoint?")
            self.speaks.update({"modern": True, "handshake": False})
            return
        self.speaks.update({era: False, other: True})
        if verdict is None and not self._is_tied:
            self._doubted_until[era] = asyncio.get_running_loop().time() + DOUBT_S

    async def _probe_modern(self, client: Client, caller: Caller) -> bool | None:
        del caller
        verdict = await self._ask_modern(client, self._probe_s)
        if not verdict:
            self._modern.forget()
        return verdict

    async def _ask_modern(self, client: Client, timeout_s: float) -> bool | None:
        """Whether it is modern; None when it said nothing, or nothing that tells. Raises BackendUnavailable."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._modern.request(PROBE, {}, client)
        except Refused as refused:
            if refused.status not in NOT_THIS_ERA:
                raise
            return refused.failure is not None and refused.failure.code in MODERN_ERRORS
        except (TimeoutError, BackendGarbage):
            return None
        if isinstance(answer, Failure):
            if chained.is_refusal(answer):
                raise chained.refusal(self._name, answer)
            return answer.code in MODERN_ERRORS
        return self._kept(answer, client) is not None

    async def _probe_handshake(self, client: Client, caller: Caller) -> bool:
        """Whether it opens a session, which the client's calls then use. Raises BackendError."""
        for is_last in (False, True):
            try:
                await self._handshake.session(client, caller)
            except NotThisEra:
                return False
            except Refused as refused:
                if refused.status in NOT_THIS_ERA:
                    return False
                raise
            except BackendUnavailable as error:
                wait_s = error.data.get("retryAfterSeconds") if isinstance(error.data, dict) else None
                if is_last or not isinstance(wait_s, float) or wait_s > RESTART_S:
                    raise
                await asyncio.sleep(wait_s)  # the child did not survive `server/discover`
            else:
                return True
        return False


def _read_offer(answer: Result) -> Offer | None:
    """What a DiscoverResult says; None when it is none, or names no revision that is served here."""
    try:
        read = _decode_discovered(answer.value)
    except jsonrpc.UNREADABLE:
        return None
    if MODERN.keys().isdisjoint(read.supportedVersions):
        return None
    return Offer(read.capabilities, read.meta.get(SERVER_INFO_KEY, jsonrpc.EMPTY), read.instructions)
