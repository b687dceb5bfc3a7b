"""One subscription stream of a client, fed by all backends of its route.

The acknowledgment says what the backends really agreed to, and goes first. Announcements of the same thing that wait
for a slow client are one. Source: basic/patterns/subscriptions of 2026-07-28; S-40.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

import structlog

from gatewright.backend.backend import McpBackend
from gatewright.backend.feed import Feed, Listener, Wants
from gatewright.call import Call, Outcome, Params
from gatewright.errors import BackendError, GatewayError, InvalidParams
from gatewright.protocol import jsonrpc, subscriptions, tasks
from gatewright.protocol.methods import ACKNOWLEDGED, LIST_CHANGED
from gatewright.protocol.sealed import Sealer
from gatewright.routing.fanout import Fanout
from gatewright.routing.listings import Listings

Known: TypeAlias = dict[str, dict[str, str]]
"""By backend and its own id of a task: the client's id."""
MAX_HELD: Final = 3 * subscriptions.MAX_URIS
log = structlog.get_logger("gatewright.routing")


@final
class Listening:
    """Serves `subscriptions/listen`."""

    def __init__(self, backends: Mapping[str, McpBackend], fanout: Fanout, listings: Listings, sealer: Sealer) -> None:
        self._sealer = sealer
        self._backends = backends
        self._fanout = fanout
        self._listings = listings
        self.open = 0
        """How many of these streams there are."""

    async def __call__(self, call: Call) -> Outcome:
        """Carry announcements until the client leaves or the gateway drains: then the task is cancelled.

        Raises BackendError when the route's only backend cannot be listened to, MissingCapability when tasks are asked
        for without the extension (SEP-2663, Task Status Notifications).
        """
        wanted = call.params.get("notifications")
        if wanted is None:
            raise InvalidParams("subscriptions/listen needs params.notifications")
        wants = Wants(*subscriptions.read_filter(wanted))
        if wants.tasks:
            tasks.check_client(call.client)
        known = self._known(call, wants.tasks)
        waiting = Waiting()
        leave: Callable[[], None] = _nothing
        self.open += 1
        joined: list[tuple[Feed, Listener]] = []  # filled one by one: what joined is left, whenever this ends
        try:
            plan = await self._plan(call, wants, known)
            await asyncio.gather(*(self._join(call, backend, part, waiting, joined, known) for backend, part in plan))
            agreed = await self._acknowledge(call, joined, known)
            leave = self._listings.listen(lambda _, method: waiting.put(method, {}) if method in agreed else None)
            while True:
                for method, params in await waiting.take():
                    await call.reply.emit(method, jsonrpc.encode(params))
        finally:
            self.open -= 1
            leave()
            for feed, listener in joined:
                feed.leave(listener)

    def _known(self, call: Call, ids: frozenset[str]) -> Known:
        """The client's ids of its tasks on this route, by backend and the backend's own. What is no task of its is not
        among what is agreed to."""
        known: Known = {name: {} for name in self._backends}
        for task_id in ids:
            try:
                task = tasks.found(self._sealer, call.caller, "modern", task_id)
            except InvalidParams as error:
                log.info("task not subscribed", reason=error.message)
                continue
            if task.backend in known and call.route in ("", task.backend):
                own = self._backends[task.backend].tasks.here(task.own)
                if own is not None:
                    known[task.backend][own] = task_id
        return known

    async def _plan(self, call: Call, wants: Wants, known: Known) -> list[tuple[McpBackend, Wants]]:
        """Which backend is to be asked for what: lists of every one, each resource and task of the one that has it."""
        if call.route:
            own = frozenset(known[call.route])
            return [(self._backends[call.route], Wants(wants.lists, wants.uris, own))]
        owned: dict[str, set[str]] = {name: set() for name in self._backends}
        for uri in wants.uris:
            try:
                owned[(await self._fanout.owner(call, uri)).name].add(uri)
            except GatewayError as error:
                log.info("resource not subscribed", uri=uri, reason=error.message)
        parts = (
            (self._backends[name], Wants(wants.lists, frozenset(uris), frozenset(known[name])))
            for name, uris in owned.items()
        )
        return [(backend, part) for backend, part in parts if part]

    async def _join(
        self,
        call: Call,
        backend: McpBackend,
        wants: Wants,
        waiting: Waiting,
        joined: list[tuple[Feed, Listener]],
        known: Known,
    ) -> None:
        shown = known[backend.name]

        def heard(method: str, params: Params) -> None:
            if method == tasks.NOTICE:
                params = tasks.named(params, shown[tasks.id_in(params)])
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

    async def _acknowledge(self, call: Call, joined: list[tuple[Feed, Listener]], known: Known) -> frozenset[str]:
        """Say what the backends agreed to. Returns the change notices among it."""
        agreed = [listener.wants for _, listener in joined]
        lists = frozenset(method for wants in agreed for method in wants.lists)
        uris = frozenset(uri for wants in agreed for uri in wants.uris)
        ids = frozenset(known[feed.backend][own] for feed, listener in joined for own in listener.wants.tasks)
        body = jsonrpc.encode({"notifications": subscriptions.filter_of(lists, uris, ids)})
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
        about = params.get("taskId" if method == tasks.NOTICE else "uri")
        self._held[method, b"" if about is None else bytes(about)] = params
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
