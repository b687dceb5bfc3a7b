"""The route that serves all backends, as one backend: lists are merged, levels spread, resources found.

Backends are asked at the same time and shown in the order of the configuration. One that is down or slow costs its
own part of a list and nothing else: the result says what is missing in `_meta` and is not to be cached. Source:
server/* and server/utilities/{pagination,caching} of 2026-07-28; S-54, S-82, S-83.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, final

import structlog

from gatewright.backend.backend import McpBackend
from gatewright.call import Bounds, Call, Failure, Outcome, Result
from gatewright.errors import BackendError, BackendUnavailable, MethodNotFound, ResourceNotFound
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import METHODS, Method
from gatewright.routing.catalog import Listing, Scope, matches
from gatewright.routing.cursors import Cursors
from gatewright.routing.listings import Listings, sharing
from gatewright.routing.settings import Routing

MISSING_KEY: Final = "dev.gatewright/unavailable"
"""The `_meta` member of a partial list: `[{"backend", "reason"}]`."""
log = structlog.get_logger("gatewright.routing")


@final
class Fanout:
    """All backends of the shared route behind one `Backend`."""

    name = "*"

    def __init__(
        self,
        backends: Mapping[str, McpBackend],
        listings: Listings,
        cursors: Cursors,
        settings: Routing,
        bounds: Bounds,
    ) -> None:
        self._backends = backends
        self._listings = listings
        self._cursors = cursors
        self._settings = settings
        self.bounds = bounds
        self._missed: dict[tuple[str, str], str] = {}
        """Why a list was missing when it was last asked for, by backend and method."""

    async def __call__(self, call: Call) -> Outcome:
        """A call that concerns all backends: a list, or what every one is told."""
        row = call.row
        if row is not None and row.kind == "listed":
            return await self._list(call, row)
        if row is not None and row.kind == "spread":
            return await self._spread(call, row)
        raise MethodNotFound(
            f"{call.method[:100]} cannot be routed among several backends: use the path of one backend, /mcp/<backend>"
        )

    async def owner(self, call: Call, uri: str) -> McpBackend:
        """The backend that has a resource: the one that lists it, whose template fits it best, or whose tools refer
        to it (MCP Apps do to their `ui://` resources, listed or not). `uri` may be a template itself (completion).

        Raises ResourceNotFound when no backend that can be reached knows it.
        """
        resources, missing = await self._read_all(call, METHODS["resources/list"])
        for name, found in resources.items():
            if uri in found.known:
                return self._backends[name]
        templates, without = await self._read_all(call, METHODS["resources/templates/list"])
        fitting = [
            (template == uri, len(template.partition("{")[0]), name)
            for name, found in templates.items()
            for template in found.keys
            if matches(template, uri)
        ]
        if fitting:
            return self._backends[max(fitting, key=lambda fit: fit[:2])[2]]
        tools, _ = await self._read_all(call, METHODS["tools/list"])
        reference = jsonrpc.encode(uri)
        for name, found in tools.items():
            if any(reference in item for item in found.items):
                return self._backends[name]
        missing |= without
        if missing:
            raise BackendUnavailable(
                f"no reachable backend lists this resource; unavailable: {', '.join(missing)}", data=_reasons(missing)
            )
        only = [name for name in self._backends if resources[name].keys or templates[name].keys]
        if len(only) == 1:
            return self._backends[only[0]]  # servers may serve more than they list
        raise ResourceNotFound("Resource not found", data={"uri": uri})

    async def _list(self, call: Call, method: Method) -> Outcome:
        found, missing = await self._read_all(call, method)
        if not found and missing:
            raise BackendUnavailable(f"no backend could list its {method.items}", data=_reasons(missing))
        offset = self._cursors.offset(method.name, call.caller.subject, call.params.get("cursor"))
        items = [item for listing in found.values() for item in listing.items]
        end = offset + self._settings.page_size
        cursor = self._cursors.make(method.name, call.caller.subject, end) if end < len(items) else None
        ttl_ms = 0 if missing else min((listing.ttl_ms for listing in found.values()), default=0)
        is_public = bool(found) and all(listing.scope == "public" for listing in found.values())
        return Result(_merged(method, items[offset:end], cursor, ttl_ms, "public" if is_public else "private", missing))

    async def _read_all(self, call: Call, method: Method) -> tuple[dict[str, Listing], dict[str, str]]:
        """Every backend's list, in the order of the configuration, and why the others' are missing."""
        share = sharing(call.client, call.caller)
        now = asyncio.get_running_loop().time()
        answers: dict[str, Listing | str | None] = {
            name: self._listings.kept(name, method, share, now) for name in self._backends
        }
        absent = [name for name, kept in answers.items() if kept is None]
        if absent:
            read = await asyncio.gather(*(self._read(call, method, self._backends[name]) for name in absent))
            answers.update(zip(absent, read, strict=True))
        found = {name: answer for name, answer in answers.items() if isinstance(answer, Listing)}
        missing = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        return found, missing

    async def _read(self, call: Call, method: Method, backend: McpBackend) -> Listing | str:
        """One backend's list, or why it is missing: logged when that is new, and when it is over."""
        key = (backend.name, method.name)
        try:
            found = await self._listings.read(backend, method, call.client, call.caller)
        except BackendError as error:
            if self._missed.get(key) != error.message:
                self._missed[key] = error.message
                log.warning("list incomplete", backend=backend.name, method=method.name, reason=error.message)
            return error.message
        if self._missed.pop(key, None) is not None:
            log.info("list complete again", backend=backend.name, method=method.name)
        return found

    async def _spread(self, call: Call, method: Method) -> Outcome:
        """Tell every backend that offers it. It is done when all that could be reached have answered."""
        await asyncio.gather(*(self._tell(call, method, backend) for backend in self._backends.values()))
        return Result(b"{}")

    async def _tell(self, call: Call, method: Method, backend: McpBackend) -> None:
        try:
            async with asyncio.timeout(self._settings.list_timeout_s):
                offer = await backend.offer(call.client, call.caller)
                if method.capability not in offer.capabilities:
                    return
                answer = await backend.request(method.name, call.params, call.client, call.caller)
            if isinstance(answer, Failure):
                log.info("refused", backend=backend.name, method=method.name, reason=answer.message[:200])
        except (BackendError, TimeoutError) as error:
            log.warning("not told", backend=backend.name, method=method.name, reason=str(error) or "timed out")


def _merged(
    method: Method, items: list[bytes], cursor: str | None, ttl_ms: int, scope: Scope, missing: Mapping[str, str]
) -> bytes:
    """The list result. Its items are joined, not decoded."""
    tail: dict[str, object] = {"ttlMs": ttl_ms, "cacheScope": scope}
    if cursor is not None:
        tail["nextCursor"] = cursor
    if missing:
        tail["_meta"] = {MISSING_KEY: _reasons(missing)}
    head = b'{"%b":[%b],' % ((method.items or "").encode(), b",".join(items))
    return head + jsonrpc.encode(tail)[1:]


def _reasons(missing: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"backend": name, "reason": reason} for name, reason in missing.items()]
