"""Probes on the data plane: `/livez`, `/readyz` and `/health`, on the port that clients are served on.

Contract: answers at once, from memory; asks no backend, no store and no session. Neither `Origin` nor any other header
matters, since a balancer sends what it likes and nothing is told here that is worth stealing. Never called for an MCP
path. What `/readyz` means is `telemetry.readiness`; the admin API answers the same on its own address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import msgspec

from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.responder import Responder
from gatewright.telemetry.readiness import OK, Verdict

LIVE: Final = "/livez"
READY: Final = "/readyz"
HEALTH: Final = "/health"
PATHS: Final = frozenset({LIVE, READY, HEALTH})
ALLOW: Final = b"Allow: GET, HEAD\r\n"
NO_STORE: Final = b"Cache-Control: no-store\r\n"


@final
class Probes:
    """Answers probes. `verdict` is whether to send requests here."""

    def __init__(self, verdict: Callable[[], Verdict]) -> None:
        self._verdict = verdict

    def serve(self, request: HttpRequest, responder: Responder) -> bool:
        """Answer a probe. False when the path is not one."""
        path = request.path
        if path not in PATHS:
            return False
        if request.method not in ("GET", "HEAD"):
            responder.respond(405, headers=ALLOW)
            return True
        verdict = OK if path == LIVE else self._verdict()
        shown = verdict if path == READY else Verdict(verdict.status)
        responder.respond(200 if verdict.is_ready else 503, msgspec.json.encode(shown), headers=NO_STORE)
        return True
