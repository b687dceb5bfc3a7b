"""What cannot pass when the suite of one era grades a gateway whose only backend is of the other.

`baselines/cross-era.json` has, per revision of the suite, the era of the backend, the scenarios that the two revisions
forbid, each with the clause, and those that are open: the gateway's own gaps, which are to be closed. Data only, read
by the test and by whoever writes the documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.baseline import BASELINES

PATH = BASELINES / "cross-era.json"


@dataclass(frozen=True)
class Exempt:
    """Checks of one scenario that do not pass, and why; `clause` is empty for a gap of the gateway's own."""

    scenario: str
    checks: tuple[str, ...]
    clause: str
    reason: str
    fails: bool
    """The scenario as a whole does not pass, not only these checks."""


@dataclass(frozen=True)
class Crossing:
    """The suite of one revision against a backend of the other era."""

    revision: str
    backend: str
    forbidden: tuple[Exempt, ...]
    open: tuple[Exempt, ...]

    def gaps(self) -> dict[str, dict[str, str]]:
        """Every excused check, in the shape of `baseline.Gaps`."""
        found: dict[str, dict[str, str]] = {}
        for one in (*self.forbidden, *self.open):
            found.setdefault(one.scenario, {}).update(dict.fromkeys(one.checks, one.reason))
        return found


def load_crossings() -> dict[str, Crossing]:
    """All of them, by revision of the suite."""
    data: Mapping[str, Mapping[str, Any]] = json.loads(PATH.read_text())
    return {
        revision: Crossing(revision, entry["backend"], _exceptions(entry["forbidden"]), _exceptions(entry["open"]))
        for revision, entry in data.items()
    }


def _exceptions(entries: Mapping[str, Any]) -> tuple[Exempt, ...]:
    return tuple(
        Exempt(scenario, tuple(one["checks"]), one["clause"], one["reason"], one["fails"])
        for scenario, one in entries.items()
    )
