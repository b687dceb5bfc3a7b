"""Makes the fixture a server of one era only, as most servers in the world are.

A handshake-only server answers a modern request as servers from before 2026-07-28 do (400 and a message about the
version); a modern-only server knows no `initialize`. Both are needed to test a client that must find out which it met.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Era = Literal["both", "handshake", "modern"]

MODERN_ONLY = "This server speaks 2026-07-28 only"


async def refuse_handshake(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Server middleware of a modern-only server: `initialize` names an unsupported version."""
    if ctx.method == "initialize":
        requested = (ctx.params or {}).get("protocolVersion")
        raise MCPError(
            code=types.UNSUPPORTED_PROTOCOL_VERSION,
            message=MODERN_ONLY,
            data={"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": requested},
        )
    return await call_next(ctx)


class OneEra:
    """ASGI wrapper that keeps the requests of the other era away from the application."""

    def __init__(self, app: ASGIApp, era: Literal["handshake", "modern"]) -> None:
        self._app = app
        self._era = era

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests of the other era with 400, everything else by the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        version = Headers(scope=scope).get("mcp-protocol-version")
        is_modern = version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS
        if is_modern == (self._era == "modern"):
            await self._app(scope, receive, send)
            return
        await self._refusal(version)(scope, receive, send)

    def _refusal(self, version: str | None) -> Response:
        if self._era == "modern":
            data = {
                "supported": list(MODERN_PROTOCOL_VERSIONS),
                "requested": version or types.DEFAULT_NEGOTIATED_VERSION,
            }
            error = {"code": types.UNSUPPORTED_PROTOCOL_VERSION, "message": MODERN_ONLY, "data": data}
            body = {"jsonrpc": "2.0", "id": None, "error": error}
        else:
            # The words and the id of the official SDK 1.x, which is what most deployed servers run.
            known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
            message = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {known}"
            error = {"code": types.INVALID_REQUEST, "message": message}
            body = {"jsonrpc": "2.0", "id": "server-error", "error": error}
        return Response(json.dumps(body), status_code=400, media_type="application/json")
