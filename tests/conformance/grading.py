"""What the suite finds about one server, held against what is recorded: the same for every way to the fixture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.baseline import differences, load, load_floor
from conformance.processes import FIXTURE, running, warm_up
from conformance.suite import TESTS, Findings, Suite, has_passed

BACKEND = "everything"
KINDS = ("http", "stdio")
"""How a gateway reaches the fixture."""


@contextmanager
def fixture_behind(kind: str, directory: Path) -> Iterator[dict[str, Any]]:
    """The `backends` of a gateway with the fixture behind it."""
    if kind == "stdio":
        yield {BACKEND: {"command": sys.executable, "args": [*FIXTURE[1:], "--stdio"], "cwd": str(TESTS)}}
        return
    with running((*FIXTURE, "--http", "0"), directory / "fixture.log") as url:
        yield {BACKEND: {"url": url}}


class Graded:
    """A server under test, graded by each revision's suite once, when it is first asked for."""

    def __init__(self, kind: str, url: str, suite: Suite, directory: Path) -> None:
        """`kind` names the gaps that are recorded."""
        self.kind = kind
        self._url = url
        self._suite = suite
        self._directory = directory
        self._found: dict[str, Findings] = {}
        warm_up(url)

    def findings(self, revision: str) -> Findings:
        """What the suite of that revision finds."""
        if revision not in self._found:
            self._found[revision] = self._suite.run_server(self._url, revision, self._directory / revision)
        return self._found[revision]

    def worse(self, revision: str) -> list[str]:
        """See `differences`: none where all is as recorded."""
        baseline = load(revision)
        return differences(baseline.findings, self.findings(revision), baseline.gaps.get(self.kind, {}))

    def needed(self, revision: str) -> set[str]:
        """The scenarios that say something: they pass directly, and a server without the fixture's features fails."""
        baseline = load(revision)
        return (load_floor()[revision] & baseline.passing()) - baseline.gaps.get(self.kind, {}).keys()

    def passing(self, revision: str) -> set[str]:
        """The scenarios that pass."""
        return {scenario for scenario, checks in self.findings(revision).items() if has_passed(checks)}
