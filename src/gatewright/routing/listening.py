"""One subscription stream of a client, fed by all backends of its route.

The acknowledgment says what the backends really agreed to, and goes first. Announcements of the same thing that wait
for a slow client are one. Source: basic/patterns/subscriptions of 2026-07-28; S-40.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import final

import structlog

from gatewright.backend.backend import McpBackend
from gatewright.backend.feed import Listener, Wants
from gatewright.call import Call, Outcome, Params
from gatewright.errors import BackendError, GatewayError, InvalidParams
from gatewright.protocol import jsonrpc, subscriptions
from gatewright.protocol.methods import ACKNOWLEDGED
from gatewright.routing.fanout import Fanout

log = structlog.get_logger("gatewright.routing")


@final
class Listening:
    """Serves `subscriptions/listen`."""

    def __init__(self, backends: Mapping[str, McpBackend], fanout: Fanout) -> None:
        self._backends = backends
        self._fanout = fanout

    async def __call__(self, call: Call) -> Outcome:
        """Carry announcements until the client leaves or the gateway drains: then the task is cancelled.

        Raises BackendError when the route's only backend cannot be listened to.
        """
        wanted = call.params.get("notifications")
        if wanted is None:
            raise InvalidParams("subscriptions/listen needs params.notifications")
        wants = Wants(*subscriptions.read_filter(wanted))
        waiting = Waiting()
        joined: list[tuple[McpBackend, Listener]] = []
        try:
            plan = await self._plan(call, wants)
            found = await asyncio.gather(*(self._join(call, backend, part, waiting) for backend, part in plan))
            joined = [one for one in found if one is not None]
            await self._acknowledge(call, [listener.wants for _, listener in joined])
            while True:
                for method, params in await waiting.take():
                    await call.reply.emit(method, jsonrpc.encode(params))
        finally:
            for backend, listener in joined:
                backend.feed.leave(listener)

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
        self, call: Call, backend: McpBackend, wants: Wants, waiting: Waiting
    ) -> tuple[McpBackend, Listener] | None:
        if not wants:
            return None
        try:
            return backend, await backend.feed.join(wants, waiting.put)
        except BackendError as error:
            if call.route:
                raise
            log.warning("not subscribed", backend=backend.name, reason=error.message)
            return None

    async def _acknowledge(self, call: Call, agreed: list[Wants]) -> None:
        lists = frozenset(method for wants in agreed for method in wants.lists)
        uris = frozenset(uri for wants in agreed for uri in wants.uris)
        body = jsonrpc.encode({"notifications": subscriptions.filter_of(lists, uris)})
        await call.reply.emit(ACKNOWLEDGED, body)


@final
class Waiting:
    """Announcements on their way to one client, each thing once: bounded by what can be announced."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bytes], Params] = {}
        self._arrived = asyncio.Event()

    def put(self, method: str, params: Params) -> None:
        """Add one. The same announcement, still waiting, is replaced by the newer."""
        uri = params.get("uri")
        self._held[method, b"" if uri is None else bytes(uri)] = params
        self._arrived.set()

    async def take(self) -> list[tuple[str, Params]]:
        """All that wait, once there is any."""
        await self._arrived.wait()
        self._arrived.clear()
        taken = [(method, params) for (method, _), params in self._held.items()]
        self._held.clear()
        return taken
