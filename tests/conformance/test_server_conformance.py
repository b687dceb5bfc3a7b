"""Whatever passes when the suite asks the fixture directly passes through the gateway, in every revision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conformance.baseline import differences, load
from conformance.grading import BACKEND, KINDS, Graded, fixture_behind
from conformance.processes import FIXTURE, gateway, running
from conformance.suite import SELECTIONS, Suite

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", params=["direct", *KINDS])
def graded(request: pytest.FixtureRequest, suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    """The fixture itself, and a gateway with the fixture behind it over HTTP and over stdio."""
    kind: str = request.param
    directory = tmp_path_factory.mktemp(kind)
    with ExitStack() as stack:
        if kind == "direct":
            url = stack.enter_context(running((*FIXTURE, "--http", "0"), directory / "fixture.log"))
        else:
            behind = stack.enter_context(fixture_behind(kind, directory))
            url = f"{stack.enter_context(gateway(behind, directory))}/mcp/{BACKEND}"
        yield Graded(kind, url, suite, directory)


@pytest.mark.parametrize("revision", SELECTIONS)
def test_every_check_that_passes_directly_passes(graded: Graded, revision: str) -> None:
    """No check ends worse than recorded for the fixture alone, and no recorded gap has closed unnoticed."""
    assert graded.worse(revision) == []


@pytest.mark.parametrize("revision", SELECTIONS)
def test_scenarios_that_a_plain_server_fails_pass(graded: Graded, revision: str) -> None:
    """The suite grants any server some scenarios; the ones that need the fixture's features pass as well."""
    assert graded.needed(revision)
    assert graded.needed(revision) <= graded.passing(revision)


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
