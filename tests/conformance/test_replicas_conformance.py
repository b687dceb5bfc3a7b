"""Whatever passes through one gateway passes through three behind a real nginx, whichever of them a request comes to.

A real Redis, the recipe of `deploy/nginx.conf`: plain round robin, kept connections, no stickiness. Held against the
same records as one gateway, check by check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from balanced.replicas import NUMBER, Served, balanced, by_session
from conformance.baseline import differences, load
from conformance.cross_era import load_crossings
from conformance.grading import BACKEND, Graded, fixture_behind
from conformance.processes import FIXTURE, running, warm_up
from conformance.suite import SELECTIONS, Findings, Suite

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(400)]
Behind = tuple[Graded, Callable[[], list[Served]]]

IN_A_CHILD = (
    "elicitation-sep1034-defaults",
    "logging-set-level",
    "resources-subscribe",
    "server-sse-polling",
    "tools-call-elicitation",
    "tools-call-sampling",
    "tools-call-with-logging",
    "tools-call-with-progress",
)
"""Over stdio each session has a server of its own, on one of the replicas, and takes a core a second to start: so only
what is said in both directions."""
ACROSS = ("2025-11-25", "2026-07-28")
SAME_SHARE = 0.05
"""Requests under way at once may come in another order than they are logged in."""


@pytest.fixture(scope="module")
def behind(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """Three gateways with the fixture behind them, graded through nginx; and what nginx has served."""
    directory = tmp_path_factory.mktemp("replicas")
    with ExitStack() as stack:
        backends = stack.enter_context(fixture_behind("http", directory))
        base, served = stack.enter_context(balanced(backends, directory))
        yield Graded("http", warmed(base), suite, directory), served


def warmed(base: str) -> str:
    """The URL to grade, with each replica warm: in turn they are asked once."""
    url = f"{base}/mcp/{BACKEND}"
    for _ in range(NUMBER):
        warm_up(url)
    return url


@pytest.mark.parametrize("revision", SELECTIONS)
def test_every_check_passes_as_through_one_gateway(behind: Behind, revision: str) -> None:
    """No check ends otherwise than through one gateway, and what a server without features fails passes."""
    graded, _ = behind
    assert graded.worse(revision) == []
    assert graded.needed(revision)
    assert graded.needed(revision) <= graded.passing(revision)


def test_the_suites_were_spread_over_all_replicas(behind: Behind) -> None:
    """Each replica served its third, each request was sent once, and no session had a home."""
    graded, served = behind
    for revision in SELECTIONS:
        graded.findings(revision)
    requests = served()
    shares = Counter(one.replica for one in requests)
    assert len(shares) == NUMBER, shares
    assert max(shares.values()) - min(shares.values()) <= NUMBER, shares
    sessions = [places for places in by_session(requests).values() if len(places) >= NUMBER]
    assert sessions
    assert all(len(set(places)) > 1 for places in sessions)
    turns = Counter(one != other for places in sessions for one, other in pairwise(places))
    assert turns[False] <= turns[True] * SAME_SHARE, turns


@pytest.mark.parametrize("revision", ACROSS)
def test_every_check_crosses_as_through_one_gateway(suite: Suite, tmp_path: Path, revision: str) -> None:
    """Before a server of the other era: questions become parked calls and their retries, or the other way round."""
    crossing = load_crossings()[revision]
    with ExitStack() as stack:
        command = (*FIXTURE, "--http", "0", "--era", crossing.backend)
        backend = stack.enter_context(running(command, tmp_path / "fixture.log"))
        base, _ = stack.enter_context(balanced({BACKEND: {"url": backend}}, tmp_path))
        found = suite.run_server(warmed(base), revision, tmp_path / "results")
    assert differences(load(revision).findings, found, crossing.gaps()) == []


def test_sessions_whose_server_is_a_child_of_one_replica_pass(suite: Suite, tmp_path: Path) -> None:
    """Two of three requests come to a replica that has no part of it."""
    revision = "2025-11-25"
    baseline = load(revision)
    with ExitStack() as stack:
        backends = stack.enter_context(fixture_behind("stdio", tmp_path))
        base, _ = stack.enter_context(balanced(backends, tmp_path))
        url = warmed(base)
        found: Findings = {}
        for scenario in IN_A_CHILD:
            found |= suite.run_scenario(url, scenario, revision, tmp_path / scenario)
    recorded = {scenario: baseline.findings[scenario] for scenario in IN_A_CHILD}
    gaps = {name: checks for name, checks in baseline.gaps["stdio"].items() if name in IN_A_CHILD}
    assert differences(recorded, found, gaps) == []
