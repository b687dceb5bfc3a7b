"""Tasks of 2025-11-25: the official SDK's client, and the reference server twice behind one gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.cells import EVERYTHING_MAIN
from interop.processes import running
from interop.runs import Node

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]
LISTENING = "gatewright: listening on "
RUN_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def url(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway's address."""
    file = tmp_path_factory.mktemp("tasks") / "gatewright.yaml"
    server = {"command": str(node.program), "args": [str(node.cache / EVERYTHING_MAIN), "stdio"]}
    backends = {"left": server, "right": server}
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    argv: list[str | Path] = [Path(sys.executable).parent / "gatewright", "serve", file]
    with running(argv, name="gatewright") as process:
        yield process.wait_line(LISTENING)


@pytest.mark.parametrize(("path", "prefix"), [("/mcp", "right."), ("/mcp/left", "")])
def test_the_official_client_drives_the_reference_servers_task(node: Node, url: str, path: str, prefix: str) -> None:
    """Created, polled, asked on the stream of its result and answered; listed, cancelled; a garbled id refused."""
    argv: list[str | Path] = [node.program, node.cache / "clients" / "tasks_v1.mjs", url.rstrip("/") + path, prefix]
    with running(argv, name="tasks_v1.mjs") as client:
        assert client.wait(timeout_s=RUN_TIMEOUT_S) == 0, client.report()
        said: list[dict[str, Any]] = [json.loads(line) for line in client.lines if line.startswith("{")]
    by_type = {one["type"]: one for one in said}
    assert by_type["offered"]["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
    task_id = by_type["taskCreated"]["task"]
    statuses = [one["status"] for one in said if one["type"] == "taskStatus"]
    assert {"working", "input_required"} <= set(statuses)
    assert {one["task"] for one in said if one["type"] in ("taskStatus", "asked")} == {task_id}
    assert "Research Report: python (" in by_type["result"]["text"]
    assert by_type["listed"]["tasks"] == [task_id, by_type["listed"]["second"]]
    assert by_type["cancelled"]["status"] == "cancelled"
    assert by_type["refused"]["code"] == -32602
