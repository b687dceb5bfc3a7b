"""The lists of all backends, read when they are needed and kept as long as their hints allow.

One read at a time for each list, however many callers wait for it. What a backend marks private, or does not mark, is
kept per caller and capability set (or per client session where that has a backend session of its own); a `public`
mark of a backend is believed only across callers with equal capabilities. A change notice makes a list stale at once.
Source: server/utilities/caching of 2026-07-28; S-50 to S-54.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, TypeAlias, final

import structlog

from gatewright.backend.backend import McpBackend
from gatewright.call import Caller, Client, Failure, Params
from gatewright.errors import BackendGarbage, BackendTimeout, ProtocolError
from gatewright.protocol.methods import LIST_CHANGED, Method
from gatewright.routing.catalog import Listing, Page, listing, read_page
from gatewright.routing.settings import Routing

UNHINTED_TTL_MS: Final = 5_000
"""A list without `ttlMs` (every handshake backend's) is read again after this, if no change notice came before."""
log = structlog.get_logger("gatewright.routing")

Key: TypeAlias = tuple[str, str, str]
"""Backend, method, and who may share the list."""
Heard: TypeAlias = Callable[[str, str, str], None]
"""Told of a change: backend, client session or empty, notification method."""


@final
class Listings:
    """What every backend lists, cached. Also where changes are announced (`backend.sinks.Changes`)."""

    def __init__(self, settings: Routing) -> None:
        self._settings = settings
        self._kept: OrderedDict[Key, tuple[float, Listing]] = OrderedDict()
        self._reading: dict[Key, asyncio.Lock] = {}
        self._heard: set[Heard] = set()

    def changed(self, backend: str, session: str, method: str) -> None:
        """A backend said that lists changed: forget them, and tell whoever listens."""
        stale = LIST_CHANGED[method]
        for key in [key for key in self._kept if key[0] == backend and key[1] in stale]:
            del self._kept[key]
        for heard in list(self._heard):
            heard(backend, session, method)

    def subscribe(self, heard: Heard) -> Callable[[], None]:
        """Hear of changes until the returned function is called."""
        self._heard.add(heard)
        return lambda: self._heard.discard(heard)

    async def read(self, backend: McpBackend, method: Method, client: Client, caller: Caller) -> Listing:
        """One backend's list. Raises BackendError when it cannot be had in time."""
        key = (backend.name, method.name, _sharing(client, caller))
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > now:
            self._kept.move_to_end(key)
            return kept[1]
        lock = self._reading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is not None and kept[0] > now:
                    return kept[1]
                found = await self._fetch(backend, method, client, caller)
                self._keep(key, found)
                return found
        finally:
            if not lock.locked():
                self._reading.pop(key, None)

    def _keep(self, key: Key, found: Listing) -> None:
        if not found.ttl_ms or not self._settings.max_cache_entries:
            return
        self._kept[key] = (asyncio.get_running_loop().time() + found.ttl_ms / 1000, found)
        while len(self._kept) > self._settings.max_cache_entries:
            self._kept.popitem(last=False)

    async def _fetch(self, backend: McpBackend, method: Method, client: Client, caller: Caller) -> Listing:
        limit_s = self._settings.list_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                pages = await self._pages(backend, method, client, caller)
        except TimeoutError:
            raise BackendTimeout(f"{backend.name} did not list its {method.items} within {limit_s:g} s") from None
        except ProtocolError as error:
            raise BackendGarbage(f"{backend.name}: {error}") from error
        prefix = f"{backend.name}{self._settings.separator}" if method.item_key == "name" else ""
        return listing(method, pages, prefix, UNHINTED_TTL_MS)

    async def _pages(self, backend: McpBackend, method: Method, client: Client, caller: Caller) -> list[Page]:
        offer = await backend.offer(client, caller)
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


def _sharing(client: Client, caller: Caller) -> str:
    """Who may share a cached list: the same session, or the same caller with the same capabilities."""
    if client.session:
        return f"session {client.session}"
    return f"{client.revision.era} {caller.subject} {sha256(bytes(client.capabilities)).hexdigest()}"
