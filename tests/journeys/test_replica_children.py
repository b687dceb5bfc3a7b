"""What a server in a child process gives modern clients to bring back comes to that child through any replica.

Each replica has a child of its own, which knows nothing of the others. Real processes, a real Redis.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from journeys.replicas import Replicas, replicas
from journeys.task_box import EXTENSION
from journeys.wire import Json

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
TESTS = Path(__file__).parents[1]
DECLARED: Json = {"elicitation": {}, "extensions": {EXTENSION: {}}}
NOT_FOUND = "Failed to retrieve task: Task not found"


@asynccontextmanager
async def beside(folder: Path) -> AsyncIterator[Replicas]:
    """Two replicas with two children each: one that keeps tasks, and one that asks."""
    child = {"command": sys.executable, "env": {"PYTHONPATH": str(TESTS)}, "stop_grace_s": 0.5}
    tasks = {**child, "args": ["-m", "journeys.task_box", "box", "modern"]}
    asking = {**child, "args": ["-m", "journeys.toolbox", "asking", "modern"]}
    async with replicas(folder, {"box": tasks, "asking": asking}) as there:
        yield there


def heard(result: Json) -> Json:
    """What a tool said, as the object in its first text."""
    found = json.loads(result["content"][0]["text"])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
async def test_a_task_is_known_to_every_replica(tmp_path: Path, path: str) -> None:
    """Polled, answered and cancelled through the other one; the tasks of two children do not get mixed up."""
    async with beside(tmp_path) as there:
        client = there.modern(0, DECLARED, path)
        own = "" if path == "/mcp/box" else "box."
        tasks = []
        for number in (0, 1):
            there.at(client, number)
            task = await client.result("tools/call", {"name": f"{own}multi_input", "arguments": {"n": number}})
            tasks.append(task["taskId"])
        assert tasks[0] != tasks[1]
        for turn in range(4):
            there.at(client, turn % 2)
            found = await client.result("tasks/get", {"taskId": tasks[0]})
            assert (found["taskId"], found["status"]) == (tasks[0], "input_required")
        there.at(client, 1)
        answers = {"first": {"action": "accept", "content": {"first": "a"}}}
        await client.result("tasks/update", {"taskId": tasks[0], "inputResponses": answers})
        await client.result("tasks/cancel", {"taskId": tasks[0]})
        for number in (0, 1):
            there.at(client, number)
            statuses = [(await client.result("tasks/get", {"taskId": task}))["status"] for task in tasks]
            assert statuses == ["cancelled", "input_required"]


async def test_a_state_comes_back_to_the_child_that_gave_it(tmp_path: Path) -> None:
    """As the child gave it, through either replica; one that nobody gave comes to the child as it is."""
    async with beside(tmp_path) as there:
        client = there.modern(0, DECLARED, "/mcp/asking")
        call: Json = {"name": "need_input", "arguments": {}}
        asked = await client.result("tools/call", call)
        retry = {**call, "inputResponses": {"who": {"action": "decline"}}, "requestState": asked["requestState"]}
        for number in (1, 0):
            there.at(client, number)
            said = heard(await client.result("tools/call", retry))
            assert said == {"state": "sealed", "responses": {"who": {"action": "decline"}}}
        assert heard(await client.result("tools/call", {**retry, "requestState": "of mine"}))["state"] == "of mine"


async def test_what_a_dead_replica_gave_is_gone(tmp_path: Path) -> None:
    """The client is told that there is no such task, and to make the call again."""
    async with beside(tmp_path) as there:
        client = there.modern(0, DECLARED, "/mcp")
        task = (await client.result("tools/call", {"name": "box.slow_compute", "arguments": {}}))["taskId"]
        call: Json = {"name": "asking.need_input", "arguments": {}}
        asked = await client.result("tools/call", call)
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        there.at(client, 1)
        lost = await client.ask("tasks/get", {"taskId": task})
        assert (lost["error"]["code"], lost["error"]["message"]) == (-32602, NOT_FOUND)
        retry = {**call, "inputResponses": {}, "requestState": asked["requestState"]}
        error = (await client.ask("tools/call", retry))["error"]
        assert error["code"] == -32602
        assert "make it again" in json.dumps(error)
