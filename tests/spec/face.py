"""How the spec tests put requests to a running gateway: raw where the clause is about the wire."""

from __future__ import annotations

import json
from typing import Any

from journeys.travel import Travel
from journeys.wire import ACCEPT, META, MODERN, Answer, Wire

Json = dict[str, Any]
UNSET: Any = object()


def request(method: str, params: Json | None = None, **meta: Any) -> Json:
    """A whole modern request; `_meta` members of the protocol by short name, left out when UNSET."""
    members = {"protocolVersion": MODERN, "clientInfo": {"name": "c", "version": "1"}, "clientCapabilities": {}} | meta
    carried = {META + key: value for key, value in members.items() if value is not UNSET}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**(params or {}), "_meta": carried}}


def mirrored(message: Json, **changed: str | None) -> dict[str, str]:
    """The headers of a modern POST; those of the protocol changed by name, left out when None."""
    params = message.get("params", {})
    fields: dict[str, str | None] = {
        "content-type": "application/json",
        "accept": ACCEPT,
        "mcp-protocol-version": MODERN,
        "mcp-method": message.get("method"),
        "mcp-name": params.get("name", params.get("uri")) if isinstance(params, dict) else None,
    }
    fields |= {key.replace("_", "-"): value for key, value in changed.items()}
    return {key: value for key, value in fields.items() if value is not None}


async def post(travel: Travel, body: Any, headers: dict[str, str], path: str = "/mcp/box") -> Answer:
    """POST this, on a connection of its own."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await send(travel, "POST", headers, text, path)


async def send(
    travel: Travel, method: str, headers: dict[str, str], body: bytes = b"", path: str = "/mcp/box"
) -> Answer:
    """Any request, on a connection of its own."""
    wire: Wire = await travel.modern().wire()
    return await wire.send(method, path, headers, body)


async def code(answer: Answer) -> tuple[int, int]:
    """HTTP status and JSON-RPC error code, 0 when the body holds no error."""
    body = await answer.body()
    found = json.loads(body) if body else {}
    return answer.status, found.get("error", {}).get("code", 0)
