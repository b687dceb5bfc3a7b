"""The suite's scenarios of the tasks extension, through a gateway: no requirement set scores them yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.processes import gateway, running, warm_up
from conformance.suite import Suite, has_passed

TASKS = "tasks"
SERVER = (sys.executable, "-m", "conformance.task_server")
SCENARIOS = [
    "tasks-capability-negotiation",
    "tasks-dispatch-and-envelope",
    "tasks-lifecycle",
    "tasks-mrtr-composition",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-request-state-removal",
    "tasks-required-task-error",
    "tasks-wire-fields",
]
"""All but `tasks-status-notifications`, which checks nothing until it is rewritten for subscriptions/listen."""

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with a server of tasks behind it, and another whose tasks have the same ids of their own."""
    directory = tmp_path_factory.mktemp("tasks")
    with (
        running(SERVER, directory / "server.log") as behind,
        running(SERVER, directory / "other.log") as other,
        gateway({TASKS: {"url": behind}, "other": {"url": other}}, directory) as base,
    ):
        warm_up(f"{base}/mcp/{TASKS}")
        yield f"{base}/mcp/{TASKS}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_of_tasks_passes(suite: Suite, url: str, tmp_path: Path, scenario: str) -> None:
    """Every check of it."""
    found = suite.run_scenario(url, scenario, "2026-07-28", tmp_path)
    assert list(found) == [scenario]
    failed = {check: finding.message for check, finding in found[scenario].items() if finding.status == "FAILURE"}
    assert not failed
    assert has_passed(found[scenario])
