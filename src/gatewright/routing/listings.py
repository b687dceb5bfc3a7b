"""The lists of all backends, read when they are needed and kept as long as their hints allow.

One read at a time for each list, however many callers wait for it, in a task of its own: who asked first may leave,
and a list that comes too late for them is there for the next. Nobody waits for a backend longer than `list_timeout_s`
after its read began. What a backend marks private, or does not mark, is kept per caller and capability set (or per
client session where that has a backend session of its own); a `public` mark of a backend is believed only across
callers with equal capabilities. A change notice makes a list stale at once, also one that is being read. Whoever was
answered without a list hears of a change when it is there: most hosts list once, and would never see it.
Source: server/utilities/caching of 2026-07-28; S-50 to S-54.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, TypeAlias, final

import msgspec
import structlog

from gatewright.backend.backend import McpBackend, Offer
from gatewright.background import Background
from gatewright.call import Caller, Client, Failure, Params
from gatewright.errors import BackendError, BackendGarbage, BackendTimeout, BackendUnavailable, ProtocolError
from gatewright.protocol import tasks
from gatewright.protocol.methods import LIST_CHANGED, Method
from gatewright.routing.catalog import Listing, Page, listing, read_page
from gatewright.routing.settings import Routing

UNHINTED_TTL_MS: Final = 5_000
"""A list without `ttlMs` (every handshake backend's) is read again after this, if no change notice came before."""
WORTH_TELLING_MS: Final = 1_000
"""A late list that does not hold this long is not announced: whoever asked anew would find it late again, for ever."""
MAX_KEPT_BYTES: Final = 64 << 20
"""All cached lists together: a few hundred of the longest that hosts bear, and no burden to a process."""
log = structlog.get_logger("gatewright.routing")

NOTICE_OF: Final = {name: notice for notice, names in LIST_CHANGED.items() for name in names}
"""The change notice that makes a list stale."""

Key: TypeAlias = tuple[str, str, str]
"""Backend, method, and who may share the list."""
Arrived: TypeAlias = Callable[[str, str], None]
"""Told of a list that came after it was given up: the client session it is for, or empty, and the change notice."""


@final
class Reading:
    """A list that is being read, for everybody who asks meanwhile."""

    __slots__ = ("found", "is_missed", "late_at")

    def __init__(self, found: asyncio.Future[Listing], late_at: float) -> None:
        self.found = found
        self.late_at = late_at
        """Loop time after which nobody waits for it."""
        self.is_missed = False
        """Somebody was answered without it."""


@final
class Listings:
    """What every backend lists, cached. Also where changes are announced (`backend.sinks.Changes`)."""

    def __init__(self, settings: Routing, background: Background) -> None:
        self._settings = settings
        self._background = background
        self._kept: OrderedDict[Key, tuple[float, Listing]] = OrderedDict()
        self._bytes = 0
        self._reading: dict[Key, Reading] = {}
        self._arrived: set[Arrived] = set()

    def listen(self, arrived: Arrived) -> Callable[[], None]:
        """Hear of lists that come late, until the returned function is called."""
        self._arrived.add(arrived)
        return lambda: self._arrived.discard(arrived)

    def changed(self, backend: str, session: str, method: str) -> None:
        """A backend said that lists changed: forget them, and what is being read of them."""
        stale = LIST_CHANGED[method]
        for key in [key for key in self._kept if key[0] == backend and key[1] in stale]:
            self._drop(key)
        for key in [key for key in self._reading if key[0] == backend and key[1] in stale]:
            del self._reading[key]

    def kept(self, backend: str, method: Method, share: str, now: float) -> Listing | None:
        """The list that is kept for those who share it (see `sharing`), its lifetime what is left of it."""
        key = (backend, method.name, share)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return msgspec.structs.replace(kept[1], ttl_ms=int((kept[0] - now) * 1000))

    async def read(self, backend: McpBackend, method: Method, client: Client, caller: Caller) -> Listing:
        """One backend's list, kept or not. Raises BackendError when it cannot be had in time."""
        share = sharing(client, caller)
        loop = asyncio.get_running_loop()
        now = loop.time()
        kept = self.kept(backend.name, method, share, now)
        if kept is not None:
            return kept
        key = (backend.name, method.name, share)
        limit_s = self._settings.list_timeout_s
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = Reading(loop.create_future(), now + limit_s)
            if self._background(self._read(key, reading, backend, method, client, caller)) is None:
                del self._reading[key]
                raise BackendUnavailable("the gateway is stopping")
        try:
            async with asyncio.timeout_at(max(reading.late_at, now)):
                return await asyncio.shield(reading.found)
        except TimeoutError:
            reading.is_missed = True
            raise BackendTimeout(f"{backend.name} did not list its {method.items} within {limit_s:g} s") from None

    async def _read(
        self, key: Key, reading: Reading, backend: McpBackend, method: Method, client: Client, caller: Caller
    ) -> None:
        """Read a list to its end, keep it, and tell everybody who waits. Runs on its own."""
        found = reading.found
        try:
            found.set_result(await self._fetch(backend, method, client, caller))
        except BackendError as error:
            found.set_exception(error)
        finally:
            if not found.done():
                found.set_exception(BackendUnavailable(f"{backend.name} could not be listed: the log says why"))
            is_current = self._reading.get(key) is reading
            if is_current:
                del self._reading[key]
            if found.exception() is None and is_current:
                self._keep(key, found.result())
                if reading.is_missed and key in self._kept and found.result().ttl_ms >= WORTH_TELLING_MS:
                    for arrived in list(self._arrived):
                        arrived(client.session, NOTICE_OF[method.name])

    def _keep(self, key: Key, found: Listing) -> None:
        """Keep a list as long as it says, and let go what there is no room for: what was not used longest."""
        if not found.ttl_ms or not self._settings.max_cache_entries:
            return
        self._drop(key)
        self._kept[key] = (asyncio.get_running_loop().time() + found.ttl_ms / 1000, found)
        self._bytes += found.size_bytes
        while len(self._kept) > self._settings.max_cache_entries or self._bytes > MAX_KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept[1].size_bytes

    async def _fetch(self, backend: McpBackend, method: Method, client: Client, caller: Caller) -> Listing:
        limit_s = max(backend.bounds.timeout_s, self._settings.list_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                offer = await backend.offer(client, caller)
                pages = await self._pages(backend, method, client, caller, offer)
        except TimeoutError:
            raise BackendTimeout(f"{backend.name} did not list its {method.items} within {limit_s:g} s") from None
        except ProtocolError as error:
            raise BackendGarbage(f"{backend.name}: {error}") from error
        prefix = f"{backend.name}{self._settings.separator}" if method.item_key == "name" else ""
        hidden = tasks.undeclared(client, offer.capabilities) if method.capability == "tools" else frozenset()
        return listing(method, pages, prefix, UNHINTED_TTL_MS, hidden)

    async def _pages(
        self, backend: McpBackend, method: Method, client: Client, caller: Caller, offer: Offer
    ) -> list[Page]:
        if method.capability not in offer.capabilities:
            return []
        pages: list[Page] = []
        params: Params = {}
        count = 0
        while True:
            answer = await backend.request(method.name, params, client, caller)
            if isinstance(answer, Failure):
                if answer.code == -32601:
                    return pages
                raise BackendGarbage(f"{backend.name} failed {method.name}: {answer.message[:200]}")
            page = read_page(method, answer.value)
            pages.append(page)
            count += len(page.items)
            if page.next_cursor is None or count >= self._settings.max_items_per_backend:
                if page.next_cursor is not None:
                    log.warning("list cut", backend=backend.name, method=method.name, items=count)
                return pages
            if not page.items and len(pages) > 1:
                raise BackendGarbage(f"{backend.name} pages {method.name} without end")
            params = {"cursor": page.next_cursor}


def sharing(client: Client, caller: Caller) -> str:
    """Who may share a cached list: the same session, or the same caller with the same capabilities, come over the same
    gateways. (Reads that were shared beyond that would wait for each other where gateways lead in a circle.)"""
    if client.session:
        return f"session {client.session}"
    return f"{client.revision.era} {caller.subject} {sha256(bytes(client.capabilities)).hexdigest()} {client.chain}"
