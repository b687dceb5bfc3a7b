"""A gateway with real children behind it ends in good order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from interop.cells import HERE, SERVERS
from interop.processes import RealProcess, running
from interop.runs import Node

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

STDIO = [server for server in SERVERS if server.stdio]
CALL = {"name": "call", "kind": "list_tools", "expect": ["echo"]}


def test_sigterm_ends_the_gateway_and_its_children(node: Node, tmp_path: Path) -> None:
    """After SIGTERM the status is 0 and no child of the gateway is left."""
    backends = {}
    for server in STDIO:
        command, *arguments = [node.fill(part) for part in server.stdio]
        backends[server.name] = {"command": command, "args": arguments}
    file = tmp_path / "gatewright.yaml"
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    gateway = RealProcess([Path(sys.executable).parent / "gatewright", "serve", file], name="gatewright")
    try:
        address = gateway.wait_line("gatewright: listening on ")
        era = {"era": "handshake", "revision": "2025-11-25", "scenarios": [CALL]}
        targets = [{"name": name, "url": f"{address}/mcp/{name}", **era} for name in backends]
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps({"targets": targets}))
        with running([sys.executable, HERE / "clients" / "python_sdk.py", plan]) as client:
            client.wait(timeout_s=30)
            outcomes = [json.loads(line) for line in client.lines]
        assert all(outcome["ok"] for outcome in outcomes), outcomes
        children = psutil.Process(gateway.pid).children(recursive=True)
        assert children, "no stdio child was running"
    finally:
        status = gateway.stop(timeout_s=15)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, [child.cmdline() for child in alive]
    assert status == 0, gateway.report()
