"""What is recorded about the suite, and how a run is held against it.

`baselines/<revision>.json` has, per scenario and check, how the fixture ends when the suite asks it directly, with a
reason for every scenario it does not pass. `baselines/client-<revision>.json` has the same for the SDK client that the
adapter drives, asked directly. `baselines/floor.json` names the scenarios that a server without the fixture's features
fails. `gaps` are the checks that fail through the gateway although they pass directly, per kind of backend, each with
its reason; a gap that has closed is an error too, so that the list cannot rot. `python -m conformance.record` writes
all but the reasons and the gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.suite import HERE, Finding, Findings, has_passed

BASELINES = HERE / "baselines"
FLOOR = BASELINES / "floor.json"

# Measured in milliseconds: on a loaded machine the suite warns that the client came late, which is no fault of it.
TIMED_CHECKS = frozenset({"client-sse-retry-timing/ClientRespectsRetryField"})

# {scenario: {check: reason}}
Gaps = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Baseline:
    """The recorded findings of one revision."""

    findings: Findings
    known_failures: Mapping[str, str]
    gaps: Mapping[str, Gaps]

    def passing(self) -> set[str]:
        """The scenarios that pass directly."""
        return {scenario for scenario, checks in self.findings.items() if has_passed(checks)}


def load(name: str) -> Baseline:
    """The baseline `baselines/<name>.json`."""
    data = json.loads(path_of(name).read_text())
    findings = {
        scenario: {check: Finding(status) for check, status in checks.items()}
        for scenario, checks in data["scenarios"].items()
    }
    return Baseline(findings, data["known_failures"], data["gaps"])


def path_of(name: str) -> Path:
    """Where that baseline is kept."""
    return BASELINES / f"{name}.json"


def load_floor() -> dict[str, set[str]]:
    """Per revision, the scenarios that the plain server fails."""
    return {revision: set(scenarios) for revision, scenarios in json.loads(FLOOR.read_text()).items()}


def differences(recorded: Findings, found: Findings, gaps: Gaps) -> list[str]:
    """What is worse in `found` than recorded, one line each, and gaps that no longer exist.

    Worse is a check that succeeded and now does not (or is missing), and a failure that was not there before, also in
    a check that is new. Checks that were skipped or only warned about are free to become anything but a failure.
    """
    lines = []
    for scenario, checks in sorted(recorded.items()):
        now = found.get(scenario, {})
        excused = gaps.get(scenario, {})
        worse = {
            key
            for key, was in checks.items()
            if was.status == "SUCCESS" and _status(now, key) != "SUCCESS" and not _is_merely_late(now, key)
        }
        worse |= {key for key, is_ in now.items() if is_.status == "FAILURE" and _status(checks, key) != "FAILURE"}
        for key in sorted(worse - excused.keys()):
            message = now[key].message if key in now else "the check was not reported"
            lines.append(f"{scenario}: {key}: {_status(checks, key)} -> {_status(now, key)}: {message[:400]}")
        lines += [f"{scenario}: {key}: recorded as a gap, but passes now" for key in sorted(excused.keys() - worse)]
    return lines


def _is_merely_late(checks: Mapping[str, Finding], key: str) -> bool:
    return key in TIMED_CHECKS and _status(checks, key) == "WARNING"


def _status(checks: Mapping[str, Finding], key: str) -> str:
    return checks[key].status if key in checks else "absent"
