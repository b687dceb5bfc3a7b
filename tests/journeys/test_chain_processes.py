"""Rows and circles of real processes: `gatewright stdio`, `connect` and `serve` behind each other."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cli.commands import COMMAND, WAIT_S, line_of, running
from cli.speaking import Json, Spoken, gone, spoken

TOOLBOX = Path(__file__).with_name("toolbox.py")
CHAIN = "dev.gatewright/chain"
META = "io.modelcontextprotocol/"
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=a"}
REFUSED = -31005
FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


def configured(folder: Path, name: str, **config: Any) -> str:
    """A configuration file; JSON is YAML."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"gateway_id": name, "admin": None, **config}))
    return str(file)


def gatewright(*arguments: str) -> Json:
    """A gateway as a backend on standard input and output."""
    return {"command": COMMAND[0], "args": [*COMMAND[1:], *arguments]}


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that these did."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


@contextmanager
def row(folder: Path, era: str) -> Iterator[Spoken]:
    """A host before `stdio` (front), before `connect`, before `serve` (far), before a toolbox of that era."""
    box = {"command": sys.executable, "args": ["-I", "-S", str(TOOLBOX), "box", era]}
    with running("serve", configured(folder, "far", listen="127.0.0.1:0", backends={"box": box})) as far:
        url = line_of(far).rpartition(" ")[2]
        near = configured(folder, "front", backends={"far": gatewright("connect", f"{url}/mcp/box")})
        with spoken("stdio", near) as host:
            yield host


def told(answer: Json) -> Json:
    """What a tool said, as the object in its first text."""
    found = json.loads(answer["result"]["content"][0]["text"])
    assert isinstance(found, dict)
    return found


def box_has_seen(host: Spoken, what: str) -> None:
    """Return when the toolbox has, which is in another process: it is asked until it has."""
    ends_at = time.monotonic() + WAIT_S
    for own in count(10_000):
        if told(host.ask("tools/call", {"name": "far.seen", "arguments": {"what": what}}, own=own))["seen"]:
            return
        assert time.monotonic() < ends_at, what


def notices(host: Spoken, method: str) -> list[Json]:
    """Of those that came so far."""
    return [one["params"] for one in host.said if one.get("method") == method]


@pytest.mark.parametrize("behind", ["modern", "handshake"])
def test_a_handshake_host_reaches_a_server_behind_three_gateways(tmp_path: Path, behind: str) -> None:
    """With calls, progress, trace context, a question, a cancel; and nothing of it is left in the end."""
    with row(tmp_path, behind) as host:
        opening = {"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}}}
        assert "result" in host.ask("initialize", opening, own=1)
        host.send("notifications/initialized")
        progress = {"name": "far.progress", "arguments": {"steps": 3}, "_meta": {"progressToken": "mine"}}
        assert told(host.ask("tools/call", progress, own=2)) == {"steps": 3}
        said = [(one["progressToken"], one["progress"]) for one in notices(host, "notifications/progress")]
        assert said == [("mine", 1), ("mine", 2), ("mine", 3)]
        seen = told(host.ask("tools/call", {"name": "far.client", "arguments": {}, "_meta": TRACE}, own=3))
        assert {key: seen["meta"].get(key) for key in TRACE} == TRACE
        passed = (seen["meta"] if behind == "modern" else seen["introduction"]["_meta"])[CHAIN]
        assert (passed[0], len(passed), passed[2]) == ("front", 3, "far")
        asking: Json = {"name": "far.need_input", "arguments": {}}
        if behind == "handshake":
            asking = {"name": "far.ask", "arguments": {"method": "elicitation/create", "params": FORM}}
        host.send("tools/call", asking, id=4)
        host.reply(host.asked("elicitation/create"), {"action": "decline"})
        assert '"decline"' in json.dumps(told(host.answer(4)))
        host.send("tools/call", {"name": "far.park", "arguments": {"key": "x"}, "_meta": {"progressToken": 5}}, id=5)
        box_has_seen(host, "parked")
        host.send("notifications/cancelled", {"requestId": 5})
        box_has_seen(host, "cancelled")
        assert not any(one.get("id") == 5 for one in host.said)
        below = children(host.child.pid)
        assert len(below) >= 2  # the gateway's guard, and `connect`
        host.close_input()
        assert host.end() == 0
        assert all(gone(pid) for pid in below)


def test_a_modern_host_reaches_a_server_behind_three_gateways(tmp_path: Path) -> None:
    """Of the other era: calls, progress, trace context."""
    with row(tmp_path, "handshake") as host:
        listed = host.ask_modern("tools/list", own=1)["result"]["tools"]
        assert "far.echo" in [tool["name"] for tool in listed]
        meta = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}, **TRACE, "progressToken": "p"}
        params = {"name": "far.progress", "arguments": {"steps": 2}, "_meta": meta}
        assert told(host.ask("tools/call", params, own=2)) == {"steps": 2}
        assert [one["progress"] for one in notices(host, "notifications/progress")] == [1, 2]
        seen = told(host.ask("tools/call", {"name": "far.client", "arguments": {}, "_meta": meta}, own=3))
        assert {key: seen["meta"].get(key) for key in TRACE} == TRACE


@pytest.mark.parametrize("is_named", [True, False])
def test_a_gateway_that_starts_itself_as_a_child_is_stopped(tmp_path: Path, is_named: bool) -> None:
    """At the first child where it has an id, else where the row is too long: not when the machine is full."""
    file = tmp_path / "self.json"
    box = {"command": sys.executable, "args": ["-I", "-S", str(TOOLBOX), "box", "both"]}
    named = {"gateway_id": "me"} if is_named else {}
    backends = {"box": box, "self": gatewright("stdio", str(file))}
    file.write_text(json.dumps({**named, "admin": None, "limits": {"max_hops": 2}, "backends": backends}))
    with spoken("stdio", str(file)) as host:
        tool = "self.box.echo" if is_named else "self.self.box.echo"
        error = host.ask_modern("tools/call", {"name": tool, "arguments": {}}, own=1)["error"]
        assert error["code"] == REFUSED, error
        assert ("Gateway me is a backend of its own" if is_named else "More than 2 gateways in a row") in error[
            "message"
        ]
        assert told(host.ask_modern("tools/call", {"name": "box.echo", "arguments": {"n": 1}}, own=2))["n"] == 1
        below = children(host.child.pid)
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below]
        assert sum(b"gatewright.cli" in one and b"stdio" in one for one in commands) == (1 if is_named else 2)
        host.close_input()
        assert host.end() == 0
        assert all(gone(pid) for pid in below)
