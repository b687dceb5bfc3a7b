"""The gateway as a server in its own right: who it is, and what a route offers.

What it offers is what the backends of the route offer, mirrored: no more and no less. Sources: server/discover of
2026-07-28, basic/lifecycle of the handshake revisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, final

import structlog
from msgspec import Raw

from gatewright.backend.backend import McpBackend, Offer
from gatewright.call import Bounds, Call, Caller, Client, Outcome, Result
from gatewright.errors import BackendError, MethodNotFound, ProtocolError
from gatewright.protocol import jsonrpc, tasks
from gatewright.protocol.modern import SERVER_INFO_KEY
from gatewright.protocol.revisions import MODERN
from gatewright.routing.listening import Listening
from gatewright.routing.settings import Routing

LISTED: Final = ("tools", "prompts", "resources")
"""Offered where a backend cannot be reached, which may have them: a client that lists is told what is missing, one that
was not offered lists never asks again, and would not hear of the list that comes late."""
CHANGES: Final = Raw(b'{"listChanged":true}')
log = structlog.get_logger("gatewright.routing")


@final
class Front:
    """Answers for the gateway itself."""

    name = "gatewright"

    def __init__(
        self, backends: Mapping[str, McpBackend], settings: Routing, bounds: Bounds, listening: Listening, version: str
    ) -> None:
        self._backends = backends
        self._list_timeout_s = settings.list_timeout_s
        self._listening = listening
        self.bounds = bounds
        self.info: Final = jsonrpc.raw({"name": "gatewright", "title": "Gatewright", "version": version})

    async def __call__(self, call: Call) -> Outcome:
        """`server/discover`, and the streams that only some backends carry."""
        if call.method == "server/discover":
            return Result(await self._discovered(call))
        if call.method == "subscriptions/listen":
            return await self._listening(call)
        raise MethodNotFound(f"Method not found: {call.method[:100]}")

    async def offer(self, route: str, client: Client, caller: Caller) -> Offer:
        """What a route offers a client: its backend's offer, or that of all which can be reached, merged."""
        if route:
            return await self._backends[route].offer(client, caller)
        offers = await asyncio.gather(*(self._reached(backend, client, caller) for backend in self._backends.values()))
        merged = merge({name: offer for name, offer in zip(self._backends, offers, strict=True) if offer is not None})
        if None in offers:
            for name in LISTED:
                held = merged.capabilities.get(name, jsonrpc.EMPTY)
                merged.capabilities[name] = _united(held, CHANGES)
        return merged

    async def tell(self, route: str, client: Client, message: bytes) -> None:
        """Pass a handshake client's notification on to its backend sessions. One that fails, or takes too long, is
        logged."""
        names = [route] if route else list(self._backends)
        await asyncio.gather(*(self._told(self._backends[name], client, message) for name in names))

    async def _told(self, backend: McpBackend, client: Client, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._list_timeout_s):
                await backend.tell(client, message)
        except (BackendError, TimeoutError) as error:
            log.info("notification not delivered", backend=backend.name, reason=str(error) or "timed out")

    async def _reached(self, backend: McpBackend, client: Client, caller: Caller) -> Offer | None:
        try:
            async with asyncio.timeout(self._list_timeout_s):
                return await backend.offer(client, caller)
        except (BackendError, TimeoutError) as error:
            log.warning("offer missing", backend=backend.name, reason=str(error) or "timed out")
            return None

    async def _discovered(self, call: Call) -> bytes:
        offer = await self.offer(call.route, call.client, call.caller)
        result: dict[str, object] = {
            "resultType": "complete",
            "supportedVersions": list(MODERN),
            "capabilities": offer.capabilities,
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {SERVER_INFO_KEY: self.info if not call.route or bytes(offer.info) == b"{}" else offer.info},
        }
        if offer.instructions:
            result["instructions"] = offer.instructions
        return jsonrpc.encode(result)


def merge(offers: Mapping[str, Offer]) -> Offer:
    """The offers of several backends as one: every capability that any has, with the flags that any sets. Listing
    tasks is offered where every backend that has tasks lists them: what `tasks/get` finds MUST be in the list
    (basic/utilities/tasks of 2025-11-25, "Task Listing")."""
    merged: dict[str, Raw] = {}
    for offer in offers.values():
        for name, value in offer.capabilities.items():
            merged[name] = _united(merged[name], value) if name in merged else value
    having = [offer.capabilities for offer in offers.values() if tasks.CAPABILITY in offer.capabilities]
    if having and not all(tasks.offers(one, "list") for one in having):
        held = {name: value for name, value in _members(merged[tasks.CAPABILITY]).items() if name != "list"}
        merged[tasks.CAPABILITY] = jsonrpc.raw(held)
    told = [f"# {name}\n{offer.instructions}" for name, offer in offers.items() if offer.instructions]
    return Offer(merged, jsonrpc.EMPTY, "\n\n".join(told) or None)


def _united(one: Raw, other: Raw) -> Raw:
    """Two settings objects of a capability as one; a flag is set when either sets it, objects within are united."""
    try:
        held, more = jsonrpc.members(one), jsonrpc.members(other)
    except ProtocolError:
        return one
    for name, value in more.items():
        if name not in held or bytes(held[name]) == b"false":
            held[name] = value
        elif bytes(value).startswith(b"{"):
            held[name] = _united(held[name], value)
    return jsonrpc.raw(held)


def _members(value: Raw) -> dict[str, Raw]:
    """The members of a capability, none when it is no object."""
    try:
        return jsonrpc.members(value)
    except ProtocolError:
        return {}
