"""Everything a gateway process measures: the counts its components keep, and the readings taken when it is asked.

Contract: made once by the composition root, which hands each part to whoever counts there. `families` reads it all and
changes nothing. The names are an interface: docs/operations.md has the table, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import msgspec

from gatewright.telemetry.calls import BOUNDS_S, Calls
from gatewright.telemetry.counts import Count, RoundTrips, Streams
from gatewright.telemetry.families import Family, counted, counted_by, measured, measured_by


@final
class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What is known elsewhere, at the moment of asking."""

    sessions: int
    """Handshake sessions that this process holds."""
    connections: int
    """Client connections."""
    running: int = 0
    """Calls between their resolution and their outcome."""
    parked: Mapping[str, int]
    """Calls that wait for a modern client's answers, by backend."""
    child_restarts: Mapping[str, int]
    """Children that ended unasked, by backend."""
    is_ready: bool
    """What `/readyz` says."""


@final
class Meters:
    """The counts, one attribute for each who counts."""

    def __init__(self, methods: Iterable[str], backends: Iterable[str]) -> None:
        self.calls = Calls(methods, backends)
        self.streams = Streams()
        self.refused = Count()
        """Client connections that were answered 503 or closed at once, because there were too many."""
        self.store = RoundTrips()

    def families(self, now: Readings) -> list[Family]:
        """All of it, with these readings."""
        streams = self.streams
        return [
            measured("mcp_active_sessions", "Handshake sessions held by this gateway.", now.sessions),
            measured_by(
                "mcp_open_streams",
                "Event streams that stand open, by what they are.",
                "kind",
                {"get": streams.get, "sse": streams.sse, "listen": streams.listen},
            ),
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
                self.refused.value,
            ),
            counted_by(
                "gatewright_child_restarts_total",
                "Children that ended unasked and are started again on demand.",
                "backend",
                now.child_restarts,
            ),
            counted_by(
                "gatewright_store_round_trips_total",
                "Journeys to the store's server, by what they were for.",
                "verb",
                self.store.made,
            ),
            counted_by(
                "gatewright_store_failures_total",
                "Journeys to the store's server that failed or took too long.",
                "verb",
                self.store.failed,
            ),
        ]
