"""Counts start at nothing and are told apart by what they are for."""

from __future__ import annotations

from gatewright.telemetry.counts import Count, RoundTrips, Streams


def test_everything_starts_at_nothing() -> None:
    """A gateway that did nothing says zero."""
    assert Count().value == 0
    streams = Streams()
    assert (streams.get, streams.sse, streams.listen) == (0, 0, 0)
    assert RoundTrips().total() == 0


def test_round_trips_are_counted_by_verb() -> None:
    """One that failed was made as well."""
    trips = RoundTrips()
    for verb in ("load", "touch", "load"):
        trips.add(verb)
    trips.fail("touch")
    assert trips.made == {"load": 2, "touch": 1}
    assert trips.failed == {"touch": 1}
    assert trips.total() == 3
