"""Tasks with official programs: SDK and reference server for 2025-11-25, the extension's package for 2026-07-28."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.cells import EVERYTHING_MAIN, HERE
from interop.processes import running
from interop.runs import Node

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]
LISTENING = "gatewright: listening on "
RUN_TIMEOUT_S = 60.0
EXTENDED = (sys.executable, "-m", "conformance.task_server")


@pytest.fixture(scope="module")
def url(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway with the reference server twice behind it, and a server of the extension."""
    file = tmp_path_factory.mktemp("tasks") / "gatewright.yaml"
    server = {"command": str(node.program), "args": [str(node.cache / EVERYTHING_MAIN), "stdio"]}
    with running(EXTENDED, cwd=HERE.parent, name="task server") as extended:
        behind = {"url": extended.wait_line()}
        yield from a_gateway(file, {"left": server, "right": server, "modern": behind})


def a_gateway(file: Path, backends: dict[str, Any]) -> Iterator[str]:
    """Its address."""
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    argv: list[str | Path] = [Path(sys.executable).parent / "gatewright", "serve", file]
    with running(argv, name="gatewright") as process:
        yield process.wait_line(LISTENING).rstrip("/")


def said_by(node: Node, script: str, *arguments: str) -> list[dict[str, Any]]:
    """What a client script printed."""
    argv: list[str | Path] = [node.program, node.cache / "clients" / script, *arguments]
    with running(argv, name=script) as client:
        assert client.wait(timeout_s=RUN_TIMEOUT_S) == 0, client.report()
        return [json.loads(line) for line in client.lines if line.startswith("{")]


@pytest.mark.parametrize(("path", "prefix"), [("/mcp", "right."), ("/mcp/left", "")])
def test_the_official_client_drives_the_reference_servers_task(node: Node, url: str, path: str, prefix: str) -> None:
    """Created, polled, asked on the stream of its result and answered; listed, cancelled; a garbled id refused."""
    said = said_by(node, "tasks_v1.mjs", url + path, prefix)
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


@pytest.mark.parametrize(("path", "prefix"), [("/mcp", "modern."), ("/mcp/modern", "")])
def test_the_official_package_drives_the_extension(node: Node, url: str, path: str, prefix: str) -> None:
    """Questions within a task and before one, results, errors, a task found again by its reference and cancelled."""
    said = said_by(node, "tasks_v2.mjs", url + path, prefix)
    assert "io.modelcontextprotocol/tasks" in said[0]["extensions"]
    ended = {one["tool"]: one for one in said if one["type"] == "ended"}
    asked = [one for one in said if one["type"] == "asked"]
    assert [one["input"] for one in asked if one.get("task") == ended["multi_input"]["task"]] == ["first", "second"]
    assert {tool: one["status"] for tool, one in ended.items()} == {
        "multi_input": "completed",
        "test_tool_with_task": "completed",
        "failing_job": "completed",
        "protocol_error_job": "failed",
        "greet": "completed",
    }
    assert ended["test_tool_with_task"]["text"] == "Hello, yes"
    assert ended["protocol_error_job"]["error"] == "it broke"
    assert ended["greet"]["kind"] == "immediate"
    by_type = {one["type"]: one for one in said}
    assert by_type["cancelled"]["status"] == "cancelled"
    assert by_type["refused"]["code"] == -32602
