"""Real clients that start `gatewright stdio` and `gatewright connect`, as hosts do, with real servers behind.

The same scenarios as over HTTP: lists, calls, progress, logging, questions, cancellation, subscriptions. Each client
runs once over all targets: a file with one server per kind of backend, one backend of it with its names as they are,
a bridge to a running gateway, and bridges to servers without one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.cells import CLIENTS, SERVERS, SERVERS_DIR, ClientCell
from interop.runs import Node, Outcomes, Run, backend, describe, of_era

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

BEHIND = ("modern", "handshake", "sse", "stdio", "stdio-modern", "inproc")
"""Servers of each era over each transport: HTTP, HTTP+SSE, a child's pipes, in process."""
TARGETS = ("file", "one", "connect-gateway", "connect-server", "connect-sse")
COMMAND = str(Path(sys.executable).parent / "gatewright")


@pytest.fixture(scope="session")
def file(node: Node, urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hosts' configuration names."""
    path = tmp_path_factory.mktemp("stdio") / "gatewright.yaml"
    backends = {server.name: backend(server, node, urls) for server in SERVERS if server.name in BEHIND}
    path.write_text(yaml.safe_dump({"backends": backends}))
    return path


@pytest.fixture(scope="session")
def outcomes() -> dict[str, Outcomes]:
    """What each client saw, once it was asked for."""
    return {}


def targets(client: ClientCell, file: Path, urls: dict[str, str], gateway: str) -> list[dict[str, Any]]:
    """The targets of one client."""
    servers = {server.name: server for server in SERVERS}

    def started(name: str, arguments: list[str], scenarios: list[dict[str, Any]]) -> dict[str, Any]:
        place: dict[str, Any] = {"command": COMMAND, "args": [*arguments, "--log-level", "error"]}
        place["env"] = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVERS_DIR)}
        if client.script == "fastmcp_client.py":
            place["keep_alive"] = False
        return {"name": name, "stdio": place, **of_era(client), "scenarios": scenarios}

    def keyed(name: str, server: str, prefix: str = "") -> list[dict[str, Any]]:
        return servers[server].through(client.era, f"{client.name}_{name}".replace("-", "_"), prefix)

    merged = [
        {**scenario, "name": f"{name}/{scenario['name']}"}
        for name in BEHIND
        for scenario in keyed("file", name, f"{name}.")
    ]
    return [
        started("file", ["stdio", str(file)], merged),
        started("one", ["stdio", str(file), "--backend", "stdio"], keyed("one", "stdio")),
        started("connect-gateway", ["connect", f"{gateway}/mcp/both"], keyed("gateway", "both")),
        started("connect-server", ["connect", urls["both"]], keyed("server", "both")),
        started("connect-sse", ["connect", urls["sse"], "--sse"], keyed("sse", "sse")),
    ]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("client", [client for client in CLIENTS if not client.is_sse], ids=lambda client: client.name)
def test_a_host_that_starts_it_gets_all_that_works_directly(
    client: ClientCell,
    target: str,
    run_client: Run,
    outcomes: dict[str, Outcomes],
    file: Path,
    urls: dict[str, str],
    gateway: str,
) -> None:
    """Every scenario, whatever the client and its era."""
    if client.name not in outcomes:
        outcomes[client.name] = run_client(client, targets(client, file, urls, gateway))
    found = outcomes[client.name][target]
    assert found, "no scenario ran"
    failed = [one for one in found if not one.ok]
    assert not failed, describe(failed)
