"""`python -m conformance.record`, run in `tests/`: writes the baselines.

Asks the fixture, the SDK client and the plain server directly. Reasons of known failures and gaps are kept from the
files that are there; a scenario that fails without a reason gets an empty one, which the tests refuse.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from conformance.baseline import FLOOR, path_of
from conformance.client_runs import SCENARIOS, run_all
from conformance.processes import FIXTURE, PLAIN, running
from conformance.suite import CLIENT_EXIT, SELECTIONS, Findings, Suite, has_passed, install


def main() -> None:
    """Write every baseline."""
    suite = install()
    for revision in SELECTIONS:
        write(revision, grade(suite, (*FIXTURE, "--http", "0"), revision))
    floor = {revision: grade(suite, PLAIN, revision) for revision in SELECTIONS}
    failing = {
        revision: sorted(scenario for scenario, checks in findings.items() if not has_passed(checks))
        for revision, findings in floor.items()
    }
    FLOOR.write_text(json.dumps(failing, indent=2) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        by_revision: dict[str, Findings] = {}
        for (revision, scenario, _), checks in run_all(suite, Path(scratch), is_direct=True).items():
            # How the adapter itself ended is no finding about a direct run: the SDK refuses what a gateway mends.
            checks.pop(CLIENT_EXIT)
            by_revision.setdefault(revision, {})[scenario] = checks
    for revision in sorted({revision for revision, _, _ in SCENARIOS}):
        write(f"client-{revision}", by_revision[revision])


def grade(suite: Suite, command: tuple[str, ...], revision: str) -> Findings:
    """The findings of one revision for a server started by `command`."""
    with tempfile.TemporaryDirectory() as scratch, running(command, Path(scratch) / "server.log") as url:
        return suite.run_server(url, revision, Path(scratch) / "results")


def write(name: str, findings: Findings) -> None:
    """Write one baseline, keeping its reasons."""
    path = path_of(name)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    reasons = kept.get("known_failures", {})
    failing = [scenario for scenario, checks in sorted(findings.items()) if not has_passed(checks)]
    data = {
        "known_failures": {scenario: reasons.get(scenario, "") for scenario in failing},
        "gaps": kept.get("gaps", {}),
        "scenarios": {
            scenario: {key: finding.status for key, finding in sorted(checks.items())}
            for scenario, checks in sorted(findings.items())
        },
    }
    path.write_text(json.dumps(data, indent=2) + "\n")
    print(f"{name}: {len(findings) - len(failing)} of {len(findings)} scenarios pass directly")


if __name__ == "__main__":
    main()
