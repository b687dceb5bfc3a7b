"""Everything a gateway process measures: its calls as they were counted, and the readings taken when it is asked.

Contract: made once by the composition root. `families` reads and changes nothing. The names are an interface:
docs/operations.md has the table, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import msgspec

from gatewright.telemetry.calls import BOUNDS_S, Calls
from gatewright.telemetry.families import Family, counted, counted_by, measured, measured_by


@final
class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What those know who count anyway, at the moment of asking."""

    sessions: int
    """Handshake sessions that this process holds."""
    streams: Mapping[str, int]
    """Event streams that stand open, by kind: `get`, `sse`, `listen`."""
    connections: int
    """Client connections."""
    refused: int
    """Client connections that were answered 503 or cut, because there were too many."""
    running: int
    """Calls that are with a backend, or on their way."""
    parked: Mapping[str, int]
    """Calls that wait for a modern client's answers, by backend."""
    child_deaths: Mapping[str, int]
    """Children that ended unasked, by backend."""
    store_round_trips: int
    """How often the store was asked; 0 for one in memory."""
    store_lost: int = 0
    """Things that were to be written behind and never were, because the store was not there."""
    is_ready: bool
    """What `/readyz` says."""


@final
class Meters:
    """What is counted for its own sake, and all of it as metrics."""

    def __init__(self, methods: Iterable[str], backends: Iterable[str]) -> None:
        self.calls = Calls(methods, backends)

    def families(self, now: Readings) -> list[Family]:
        """All metrics, with these readings."""
        return [
            measured("mcp_active_sessions", "Handshake sessions held by this gateway.", now.sessions),
            measured_by("mcp_open_streams", "Event streams that stand open, by what they are.", "kind", now.streams),
            measured("mcp_calls_in_flight", "Calls that run now.", now.running),
            measured_by("mcp_parked_calls", "Calls that wait for a client's answers.", "backend", now.parked),
            Family(
                "mcp_call_duration_seconds",
                "histogram",
                "Calls by method, backend and outcome: their number, and how long they took in seconds.",
                ("method", "backend", "outcome"),
                dict(self.calls.series()),
                BOUNDS_S,
            ),
            measured("gatewright_ready", "1 when /readyz says so.", float(now.is_ready)),
            measured("gatewright_client_connections", "Open client connections.", now.connections),
            counted(
                "gatewright_refused_connections_total",
                "Client connections refused because there were too many.",
                now.refused,
            ),
            counted_by(
                "gatewright_child_restarts_total",
                "Children that ended unasked and are started again on demand.",
                "backend",
                now.child_deaths,
            ),
            counted(
                "gatewright_store_round_trips_total",
                "How often the store's server was asked.",
                now.store_round_trips,
            ),
            counted(
                "gatewright_store_lost_total",
                "What was to be written behind and never was, because the store was not there.",
                now.store_lost,
            ),
        ]
