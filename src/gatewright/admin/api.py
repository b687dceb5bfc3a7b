"""The admin API: is the gateway alive and ready, what does it measure, and how do its backends stand.

Serves reads only and shows no secrets: addresses come masked from the settings. It never calls a backend, so that a
sick one cannot hold it up, and no backend's state drives readiness (DESIGN section 6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatewright.telemetry.exposition import CONTENT_TYPE
from gatewright.telemetry.readiness import Verdict

if TYPE_CHECKING:
    from gatewright.backend.backend import McpBackend
    from gatewright.backend.settings import BackendSettings

Scraped: TypeAlias = Callable[[str | None], Awaitable[bytes | None]]
"""The metrics of all workers together, or of the one that is named: None when there is none of that name."""


def admin_app(
    backends: Mapping[str, McpBackend],
    settings: Mapping[str, BackendSettings],
    sessions: Callable[[], int],
    verdict: Callable[[], Verdict],
    scraped: Scraped,
    version: str,
) -> Starlette:
    """The ASGI application of the control plane. `sessions` counts the open handshake sessions."""

    async def index(request: Request) -> JSONResponse:
        paths = [route.path for route in request.app.routes]
        return JSONResponse({"name": "gatewright", "version": version, "paths": paths})

    async def livez(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> JSONResponse:
        found = verdict()
        return JSONResponse(msgspec.to_builtins(found), status_code=200 if found.is_ready else 503)

    async def health(request: Request) -> JSONResponse:
        found = verdict()
        return JSONResponse({"status": found.status}, status_code=200 if found.is_ready else 503)

    async def metrics(request: Request) -> Response:
        text = await scraped(request.query_params.get("worker"))
        if text is None:
            return JSONResponse({"error": "there is no worker of that name"}, status_code=404)
        return Response(text, media_type=CONTENT_TYPE)

    async def overview(request: Request) -> JSONResponse:
        rows = [
            {
                "name": name,
                "transport": settings[name].transport,
                "address": settings[name].shown,
                "description": settings[name].description,
                "eras": backend.eras,
                "parked": backend.parked,
            }
            for name, backend in backends.items()
        ]
        return JSONResponse({"backends": rows, "sessions": sessions()})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/api/backends", overview),
        ]
    )
