"""Whatever passes when the suite asks the fixture directly passes through the gateway, in every revision."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.baseline import differences, load, load_floor
from conformance.processes import FIXTURE, gateway, running, warm_up
from conformance.suite import SELECTIONS, TESTS, Findings, Suite, has_passed

BACKEND = "everything"

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Graded:
    """A server under test and what the suite has found about it so far."""

    kind: str
    grade: Callable[[str], Findings]


@pytest.fixture(scope="module", params=["direct", "http", "stdio"])
def graded(request: pytest.FixtureRequest, suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    """The fixture itself, and a gateway with the fixture behind it over HTTP and over stdio."""
    kind: str = request.param
    directory = tmp_path_factory.mktemp(kind)
    cache: dict[str, Findings] = {}
    with ExitStack() as stack:
        if kind == "stdio":
            child = {"command": sys.executable, "args": [*FIXTURE[1:], "--stdio"], "cwd": str(TESTS)}
            url = f"{stack.enter_context(gateway({BACKEND: child}, directory))}/mcp/{BACKEND}"
        else:
            url = stack.enter_context(running((*FIXTURE, "--http", "0"), directory / "fixture.log"))
            if kind == "http":
                url = f"{stack.enter_context(gateway({BACKEND: {'url': url}}, directory))}/mcp/{BACKEND}"
        warm_up(url)

        def grade(revision: str) -> Findings:
            if revision not in cache:
                cache[revision] = suite.run_server(url, revision, directory / revision)
            return cache[revision]

        yield Graded(kind, grade)


@pytest.mark.parametrize("revision", SELECTIONS)
def test_every_check_that_passes_directly_passes(graded: Graded, revision: str) -> None:
    """No check ends worse than recorded for the fixture alone, and no recorded gap has closed unnoticed."""
    baseline = load(revision)
    found = graded.grade(revision)
    assert differences(baseline.findings, found, baseline.gaps.get(graded.kind, {})) == []


@pytest.mark.parametrize("revision", SELECTIONS)
def test_scenarios_that_a_plain_server_fails_pass(graded: Graded, revision: str) -> None:
    """The suite grants any server some scenarios; the ones that need the fixture's features pass as well."""
    baseline = load(revision)
    needed = (load_floor()[revision] & baseline.passing()) - baseline.gaps.get(graded.kind, {}).keys()
    passing = {scenario for scenario, checks in graded.grade(revision).items() if has_passed(checks)}
    assert needed
    assert needed <= passing


@pytest.mark.parametrize("name", [*SELECTIONS, *(f"client-{revision}" for revision in SELECTIONS)])
def test_every_recorded_failure_has_a_reason(name: str) -> None:
    """A scenario that fails directly, and a gap of the gateway, says why."""
    baseline = load(name)
    reasons = dict(baseline.known_failures)
    for kind, gaps in baseline.gaps.items():
        reasons |= {f"{kind} {scenario} {key}": why for scenario, checks in gaps.items() for key, why in checks.items()}
    assert [what for what, why in reasons.items() if not why] == []
    assert baseline.findings.keys() - baseline.passing() == baseline.known_failures.keys()


def test_a_failed_or_missing_check_is_seen(tmp_path: Path) -> None:
    """The comparison reports a lost check, a new failure and a closed gap, and nothing when all is as recorded."""
    recorded = load("2025-06-18").findings
    assert differences(recorded, recorded, {}) == []
    scenario = next(iter(sorted(recorded)))
    check = next(key for key, finding in recorded[scenario].items() if finding.status == "SUCCESS")
    without = {name: checks for name, checks in recorded.items() if name != scenario}
    assert any(check in line for line in differences(recorded, without, {}))
    gap = {scenario: {check: "because"}}
    assert differences(recorded, recorded, gap) == [f"{scenario}: {check}: recorded as a gap, but passes now"]
