"""All metrics of a process, under names that are documented."""

from __future__ import annotations

import re
from pathlib import Path

from gatewright.telemetry.calls import RESULT
from gatewright.telemetry.families import Family
from gatewright.telemetry.meters import Meters, Readings
from gatewright.telemetry.process import process_families

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
NOW = Readings(
    sessions=3,
    streams={"get": 7, "sse": 0, "listen": 8},
    connections=5,
    refused=9,
    running=2,
    parked={"jira": 1},
    child_deaths={"files": 4},
    store_round_trips=6,
    store_lost=1,
    is_ready=True,
)


def meters() -> Meters:
    """For two backends."""
    return Meters(["tools/call"], ["jira", "files"])


def samples(families: list[Family], name: str) -> dict[tuple[str, ...], list[float]]:
    """Those of one family."""
    (family,) = (one for one in families if one.name == name)
    return family.samples


def test_readings_and_counts_are_shown() -> None:
    """Each under its own name and labels."""
    those = meters()
    those.calls.record("tools/call", "jira", RESULT, 0.5)
    found = those.families(NOW)
    assert samples(found, "mcp_active_sessions") == {(): [3]}
    assert samples(found, "mcp_open_streams") == {("get",): [7], ("sse",): [0], ("listen",): [8]}
    assert samples(found, "mcp_calls_in_flight") == {(): [2]}
    assert samples(found, "mcp_parked_calls") == {("jira",): [1]}
    assert samples(found, "gatewright_child_restarts_total") == {("files",): [4]}
    assert samples(found, "gatewright_client_connections") == {(): [5]}
    assert samples(found, "gatewright_refused_connections_total") == {(): [9]}
    assert samples(found, "gatewright_store_round_trips_total") == {(): [6]}
    assert samples(found, "gatewright_store_lost_total") == {(): [1]}
    assert samples(found, "gatewright_ready") == {(): [1]}
    assert list(samples(found, "mcp_call_duration_seconds")) == [("tools/call", "jira", "result")]


def test_counters_are_named_as_counters() -> None:
    """`_total`, and nothing else is."""
    for family in [*meters().families(NOW), *process_families()]:
        assert family.name.endswith("_total") is (family.kind == "counter"), family.name
        assert family.help.endswith("."), family.name


def test_every_metric_is_documented() -> None:
    """In the table of docs/operations.md, with its labels and kind, and none there that is gone."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    shown = {one.name: (one.kind, one.labels) for one in [*meters().families(NOW), *process_families()]}
    of_all = {"gatewright_workers": ("gauge", ()), "gatewright_worker_restarts_total": ("counter", ())}
    assert listed == {**shown, **of_all}
