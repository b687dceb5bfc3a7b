"""The gateway as a client: the suite's mock servers see what it sends to a backend, while an SDK client drives it."""

from __future__ import annotations

import pytest

from conformance.baseline import differences, load
from conformance.client_runs import SCENARIOS, Results, Run, run_all
from conformance.suite import CLIENT_EXIT, Suite

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def results(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every run through a gateway of its own."""
    return run_all(suite, tmp_path_factory.mktemp("client"))


@pytest.mark.parametrize("run", SCENARIOS, ids="-".join)
def test_the_mock_server_finds_what_it_finds_about_the_sdk(results: Results, run: Run) -> None:
    """Every check that the SDK's own client passes passes for the gateway, and the SDK client gets its answers."""
    revision, scenario, era = run
    baseline = load(f"client-{revision}")
    found = dict(results[run])
    ended = found.pop(CLIENT_EXIT)
    assert ended.status == "SUCCESS", ended.message
    gaps = baseline.gaps.get(era, {})
    excused = {scenario: gaps[scenario]} if scenario in gaps else {}
    assert differences({scenario: baseline.findings[scenario]}, {scenario: found}, excused) == []
