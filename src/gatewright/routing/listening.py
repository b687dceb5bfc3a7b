"""One subscription stream of a client, fed by all backends of its route.

The acknowledgment says what the backends really agreed to, and goes first. Announcements of the same thing that wait
for a slow client are one. Source: basic/patterns/subscriptions of 2026-07-28; S-40.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, final

import structlog

from gatewright.backend.backend import McpBackend
from gatewright.backend.feed import Feed, Listener, Wants
from gatewright.call import Call, Outcome, Params
from gatewright.errors import BackendError, GatewayError, InvalidParams
from gatewright.protocol import jsonrpc, subscriptions
from gatewright.protocol.methods import ACKNOWLEDGED, LIST_CHANGED
from gatewright.routing.fanout import Fanout
from gatewright.routing.listings import Listings

MAX_HELD: Final = 2 * subscriptions.MAX_URIS
log = structlog.get_logger("gatewright.routing")


@final
class Listening:
    """Serves `subscriptions/listen`."""

    def __init__(self, backends: Mapping[str, McpBackend], fanout: Fanout, listings: Listings) -> None:
        self._backends = backends
        self._fanout = fanout
        self._listings = listings
        self.open = 0
        """How many of these streams there are."""

    async def __call__(self, call: Call) -> Outcome:
        """Carry announcements until the client leaves or the gateway drains: then the task is cancelled.

        Raises BackendError when the route's only backend cannot be listened to.
        """
        wanted = call.params.get("notifications")
        if wanted is None:
            raise InvalidParams("subscriptions/listen needs params.notifications")
        wants = Wants(*subscriptions.read_filter(wanted))
        waiting = Waiting()
        leave: Callable[[], None] = _nothing
        self.open += 1
        joined: list[tuple[Feed, Listener]] = []  # filled one by one: what joined is left, whenever this ends
        try:
            plan = await self._plan(call, wants)
            await asyncio.gather(*(self._join(call, backend, part, waiting, joined) for backend, part in plan))
            agreed = await self._acknowledge(call, [listener.wants for _, listener in joined])
            leave = self._listings.listen(lambda _, method: waiting.put(method, {}) if method in agreed else None)
            while True:
                for method, params in await waiting.take():
                    await call.reply.emit(method, jsonrpc.encode(params))
        finally:
            self.open -= 1
            leave()
            for feed, listener in joined:
                feed.leave(listener)

    async def _plan(self, call: Call, wants: Wants) -> list[tuple[McpBackend, Wants]]:
        """Which backend is to be asked for what: lists of every one, each resource of the one that has it."""
        if call.route:
            return [(self._backends[call.route], wants)]
        owned: dict[str, set[str]] = {name: set() for name in self._backends}
        for uri in wants.uris:
            try:
                owned[(await self._fanout.owner(call, uri)).name].add(uri)
            except GatewayError as error:
                log.info("resource not subscribed", uri=uri, reason=error.message)
        parts = ((self._backends[name], Wants(wants.lists, frozenset(uris))) for name, uris in owned.items())
        return [(backend, part) for backend, part in parts if part]

    async def _join(
        self,
        call: Call,
        backend: McpBackend,
        wants: Wants,
        waiting: Waiting,
        joined: list[tuple[Feed, Listener]],
    ) -> None:
        def heard(method: str, params: Params) -> None:
            if method in LIST_CHANGED:
                self._listings.changed(backend.name, "", method)  # before the client can ask for the list
            waiting.put(method, params)

        if not wants:
            return
        try:
            joined.append(await backend.join(call.client, call.caller, wants, heard))
        except BackendError as error:
            if call.route:
                raise
            log.warning("not subscribed", backend=backend.name, reason=error.message)

    async def _acknowledge(self, call: Call, agreed: list[Wants]) -> frozenset[str]:
        """Say what the backends agreed to. Returns the change notices among it."""
        lists = frozenset(method for wants in agreed for method in wants.lists)
        uris = frozenset(uri for wants in agreed for uri in wants.uris)
        body = jsonrpc.encode({"notifications": subscriptions.filter_of(lists, uris)})
        await call.reply.emit(ACKNOWLEDGED, body)
        return lists


def _nothing() -> None:
    """There is nothing to leave yet."""


@final
class Waiting:
    """Announcements on their way to one client, each thing once. Bounded by what it asked for, and where a backend
    announces what lies under a resource, by `MAX_HELD`: then the oldest are dropped."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bytes], Params] = {}
        self._arrived = asyncio.Event()

    def put(self, method: str, params: Params) -> None:
        """Add one. The same announcement, still waiting, is replaced by the newer."""
        uri = params.get("uri")
        self._held[method, b"" if uri is None else bytes(uri)] = params
        if len(self._held) > MAX_HELD:
            del self._held[next(iter(self._held))]
        self._arrived.set()

    async def take(self) -> list[tuple[str, Params]]:
        """All that wait, once there is any."""
        await self._arrived.wait()
        self._arrived.clear()
        taken = [(method, params) for (method, _), params in self._held.items()]
        self._held.clear()
        return taken
