"""The admin API: is the gateway alive and ready, and how do its backends stand.

Serves reads only and shows no secrets: addresses come masked from the settings. It never calls a backend, so that a
sick one cannot hold it up, and no backend's state drives readiness (DESIGN section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from gatewright.backend.backend import McpBackend
    from gatewright.backend.settings import BackendSettings


def admin_app(
    backends: Mapping[str, McpBackend],
    settings: Mapping[str, BackendSettings],
    sessions: Callable[[], int],
    is_draining: Callable[[], bool],
    version: str,
) -> Starlette:
    """The ASGI application of the control plane. `sessions` counts the open handshake sessions."""

    async def index(request: Request) -> JSONResponse:
        paths = [route.path for route in request.app.routes]
        return JSONResponse({"name": "gatewright", "version": version, "paths": paths})

    async def livez(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> JSONResponse:
        if is_draining():
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ok"})

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
            Route("/health", readyz),
            Route("/api/backends", overview),
        ]
    )
