"""The suite of each era passes through a gateway whose only backend speaks the other era.

The suite itself never does this. The backend is the fixture with `--era`, which refuses the other era as servers in
the world do, so that everything the suite sees went over the bridge. What the two revisions forbid is recorded with the
clause; a check that fails without a record, and a record whose check passes, fail the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from conformance.baseline import differences, load, load_floor
from conformance.cross_era import Crossing, load_crossings
from conformance.processes import FIXTURE, gateway, running, warm_up
from conformance.suite import Findings, Suite, has_passed

BACKEND = "everything"
CROSSINGS = load_crossings()

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(400)]
Grade = Callable[[str], Findings]


@pytest.fixture(scope="module")
def grade(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grade]:
    """A function that runs the suite of a revision against a gateway before the fixture of the other era, once."""
    found: dict[str, Findings] = {}
    with ExitStack() as stack:

        def run(revision: str) -> Findings:
            if revision not in found:
                directory = tmp_path_factory.mktemp(revision)
                command = (*FIXTURE, "--http", "0", "--era", CROSSINGS[revision].backend)
                backend = stack.enter_context(running(command, directory / "fixture.log"))
                base = stack.enter_context(gateway({BACKEND: {"url": backend}}, directory))
                url = f"{base}/mcp/{BACKEND}"
                warm_up(url)
                found[revision] = suite.run_server(url, revision, directory / "results")
            return found[revision]

        yield run


@pytest.mark.parametrize("crossing", CROSSINGS.values(), ids=CROSSINGS)
def test_every_check_crosses_that_the_revisions_allow(grade: Grade, crossing: Crossing) -> None:
    """No check ends worse than for the fixture alone in the suite's own era, apart from what is recorded."""
    baseline = load(crossing.revision)
    assert differences(baseline.findings, grade(crossing.revision), crossing.gaps()) == []


@pytest.mark.parametrize("crossing", CROSSINGS.values(), ids=CROSSINGS)
def test_every_scenario_crosses_that_the_revisions_allow(grade: Grade, crossing: Crossing) -> None:
    """Scenarios that pass directly pass across, also those that a server without the fixture's features fails."""
    passing = {scenario for scenario, checks in grade(crossing.revision).items() if has_passed(checks)}
    excused = {one.scenario for one in (*crossing.forbidden, *crossing.open) if one.fails}
    wanted = load(crossing.revision).passing()
    assert load_floor()[crossing.revision] & (wanted - excused)
    assert wanted - passing == excused


@pytest.mark.parametrize("crossing", CROSSINGS.values(), ids=CROSSINGS)
def test_what_is_recorded_says_why(crossing: Crossing) -> None:
    """A forbidden check names the clause; the gateway's own gaps name none and say what is missing."""
    scenarios = load(crossing.revision).findings
    for one in crossing.forbidden:
        assert one.clause, one
        assert one.reason, one
    for one in crossing.open:
        assert one.reason, one
        assert not one.clause, one
    recorded = {(one.scenario, check) for one in (*crossing.forbidden, *crossing.open) for check in one.checks}
    assert recorded <= {(scenario, check) for scenario, checks in scenarios.items() for check in checks}


def test_every_crossing_crosses() -> None:
    """The suite's revision is never of the era of the backend behind."""
    assert {revision: crossing.backend for revision, crossing in CROSSINGS.items()} == {
        "2025-06-18": "modern",
        "2025-11-25": "modern",
        "2026-07-28": "handshake",
    }
