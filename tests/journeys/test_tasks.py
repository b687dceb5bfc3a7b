"""Tasks of both eras through a gateway: sealed ids find their way back, on `/mcp` and on a backend's own path."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from journeys.host import hosting
from journeys.task_box import EXTENSION, RELATED, TaskBox
from journeys.toolbox import META, Toolbox
from journeys.travel import Travel, over_http, travelling
from journeys.wire import Client, HandshakeClient, Json, ModernClient, soon

pytestmark = pytest.mark.anyio
DECLARED: Json = {"extensions": {EXTENSION: {}}, "elicitation": {}}
ERAS = ["handshake", "modern"]
UNKNOWN = "Failed to retrieve task: Task not found"


@asynccontextmanager
async def two(era: str = "both", **more: bool) -> AsyncIterator[tuple[Travel, dict[str, TaskBox]]]:
    """A gateway before two boxes with tasks, over HTTP."""
    boxes = {name: TaskBox(name, era, **more) for name in ("ant", "bee")}
    async with AsyncExitStack() as stack:
        behind = {name: over_http(await stack.enter_async_context(hosting(box))) for name, box in boxes.items()}
        yield await stack.enter_async_context(travelling(behind)), boxes


async def client_of(travel: Travel, era: str, path: str = "/mcp") -> Client:
    """A client that takes tasks."""
    return await travel.client(era, path, DECLARED if era == "modern" else {"elicitation": {}})


async def begin(client: Client, tool: str, *, meta: Json | None = None, **given: object) -> Json:
    """The task that a call becomes, as the client is shown it."""
    params: Json = {"name": tool, "arguments": given, **({} if meta is None else {"_meta": meta})}
    if isinstance(client, HandshakeClient):
        created = await client.result("tools/call", {**params, "task": {"ttl": 60_000}})
        found = created["task"]
    else:
        found = await client.result("tools/call", params)
        assert found["resultType"] == "task"
    assert isinstance(found, dict)
    return found


async def refused(client: Client, method: str, task_id: str) -> Json:
    """The error of a request about a task."""
    params: Json = {"taskId": task_id, **({"inputResponses": {}} if method == "tasks/update" else {})}
    found = (await client.ask(method, params))["error"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
async def test_a_modern_task_from_its_call_to_its_end(path: str) -> None:
    """Created, polled and inlined at the end, under one id that is not the backend's."""
    async with two() as (travel, boxes):
        client = await client_of(travel, "modern", path)
        task = await begin(client, "slow_compute" if path != "/mcp" else "ant.slow_compute", label="x")
        task_id = task["taskId"]
        assert task["status"] == "working"
        assert "task-1" not in task_id
        working = await client.result("tasks/get", {"taskId": task_id})
        assert (working["taskId"], working["status"], working["resultType"]) == (task_id, "working", "complete")
        boxes["ant"].finish()
        done = await client.result("tasks/get", {"taskId": task_id})
        assert (done["taskId"], done["status"]) == (task_id, "completed")
        assert done["result"]["content"][0]["text"] == "ant finished task-1: x"


@pytest.mark.parametrize("path", ["/mcp", "/mcp/bee"])
async def test_a_task_of_2025_from_its_call_to_its_end(path: str) -> None:
    """Created, polled, waited for, and listed, under one id that is not the backend's."""
    async with two("handshake") as (travel, boxes):
        client = await client_of(travel, "handshake", path)
        task = await begin(client, "slow_compute" if path != "/mcp" else "bee.slow_compute", label="x")
        task_id = task["taskId"]
        assert task["status"] == "working"
        assert "task-1" not in task_id
        assert (await client.result("tasks/get", {"taskId": task_id})) == task
        waiting = await client.begin(client.request("tasks/result", {"taskId": task_id}))
        await boxes["bee"].until(lambda box: box.noted("waiting") == ["task-1"])
        boxes["bee"].finish()
        done = (await waiting.last())["result"]
        assert done["content"][0]["text"] == "bee finished task-1: x"
        assert done["_meta"] == {RELATED: {"taskId": task_id}, "x": 1}
        assert [one["taskId"] for one in (await client.result("tasks/list"))["tasks"]] == [task_id]
        assert "terminal status" in (await refused(client, "tasks/cancel", task_id))["message"]


@pytest.mark.parametrize("era", ERAS)
async def test_equal_ids_of_two_backends_are_two_tasks(era: str) -> None:
    """Each request reaches the backend whose task it is about, and no other."""
    async with two() as (travel, boxes):
        client = await client_of(travel, era)
        ids = {name: (await begin(client, f"{name}.slow_compute"))["taskId"] for name in boxes}
        assert len(set(ids.values())) == 2
        await client.result("tasks/cancel", {"taskId": ids["bee"]})
        assert boxes["bee"].kept["task-1"].status == "cancelled"
        assert boxes["ant"].kept["task-1"].status == "working"
        assert (await client.result("tasks/get", {"taskId": ids["ant"]}))["status"] == "working"


@pytest.mark.parametrize("era", ERAS)
async def test_a_task_is_the_same_on_both_paths_of_its_backend(era: str) -> None:
    """And no task at all on another backend's."""
    async with two() as (travel, _):
        shared, own, other = [await client_of(travel, era, path) for path in ("/mcp", "/mcp/ant", "/mcp/bee")]
        task_id = (await begin(shared, "ant.slow_compute"))["taskId"]
        assert (await own.result("tasks/get", {"taskId": task_id}))["taskId"] == task_id
        assert await refused(other, "tasks/get", task_id) == {"code": -32602, "message": UNKNOWN}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
@pytest.mark.parametrize("era", ERAS)
async def test_ids_that_are_nobodys_reach_nothing(era: str, path: str) -> None:
    """The backend's own id, garbage, and every altered byte: -32602, as for a task that never was."""
    methods = ["tasks/get", "tasks/cancel", "tasks/update" if era == "modern" else "tasks/result"]
    async with two() as (travel, boxes):
        client = await client_of(travel, era, path)
        task = await begin(client, "slow_compute" if path != "/mcp" else "ant.slow_compute")
        sealed = base64.urlsafe_b64decode(task["taskId"] + "==")
        altered = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(0, len(sealed), 7)]
        forged = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in altered]
        for task_id in ["task-1", "", "x" * 2000, task["taskId"][:-1], *forged]:
            for method in methods:
                assert await refused(client, method, task_id) == {"code": -32602, "message": UNKNOWN}
        assert not {"tasks/get", "tasks/cancel", "tasks/update", "tasks/result"} & set(boxes["ant"].noted("asked"))
        assert boxes["ant"].kept["task-1"].status == "working"


async def test_a_modern_task_asks_and_is_answered() -> None:
    """`input_required` with its questions, answered one by one by `tasks/update`."""
    async with two() as (travel, boxes):
        client = await client_of(travel, "modern")
        task_id = (await begin(client, "bee.multi_input"))["taskId"]
        asking = await client.result("tasks/get", {"taskId": task_id})
        assert (asking["status"], list(asking["inputRequests"])) == ("input_required", ["first", "second"])
        answer = {"action": "accept", "content": {"first": "1"}}
        for key in ("first", "second"):
            ack = await client.result("tasks/update", {"taskId": task_id, "inputResponses": {key: answer}})
            assert ack == {"resultType": "complete"}
        assert (await client.result("tasks/get", {"taskId": task_id}))["status"] == "completed"
        assert boxes["bee"].kept["task-1"].answers == {"first": answer, "second": answer}


async def test_questions_come_before_a_modern_task() -> None:
    """MRTR first, then the task (SEP-2663, Task Creation)."""
    async with two() as (travel, _):
        client = await client_of(travel, "modern")
        call: Json = {"name": "ant.test_tool_with_task", "arguments": {}}
        first = await client.result("tools/call", call)
        assert first["resultType"] == "input_required"
        answers = {"name": {"action": "accept", "content": {"name": "Alice"}}}
        task = await client.result("tools/call", {**call, "inputResponses": answers})
        done = await client.result("tasks/get", {"taskId": task["taskId"]})
        assert done["result"]["content"][0]["text"] == "Hello, Alice"


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
async def test_a_task_of_2025_asks_on_the_stream_of_its_result(path: str) -> None:
    """The question and its answer name the task by the id that each side knows."""
    async with two("handshake") as (travel, boxes):
        client = await travel.handshake(path, {"elicitation": {}})
        task_id = (await begin(client, "confirm_delete" if path != "/mcp" else "ant.confirm_delete"))["taskId"]
        assert (await client.result("tasks/get", {"taskId": task_id}))["status"] == "input_required"
        stream = await client.begin(client.request("tasks/result", {"taskId": task_id}))
        ask = await stream.event()
        while ask is not None and ask.get("method") != "elicitation/create":
            ask = await stream.event()
        assert ask is not None
        assert ask["params"]["_meta"][RELATED] == {"taskId": task_id}
        answer = {"action": "accept", "content": {"confirm": "yes"}, "_meta": {RELATED: {"taskId": task_id}}}
        await client.reply(ask, answer)
        done = (await stream.last())["result"]
        assert done["_meta"][RELATED] == {"taskId": task_id}
        assert boxes["ant"].kept["task-1"].answers["confirm"]["_meta"] == {RELATED: {"taskId": "task-1"}}


async def test_what_is_told_of_a_task_of_2025_names_the_clients_id_and_token() -> None:
    """Its status, and progress long after the call has ended; another session hears neither."""
    async with two("handshake") as (travel, boxes):
        client, other = await travel.handshake(), await travel.handshake()
        task = await begin(client, "ant.slow_compute", meta={"progressToken": "mine"})
        await begin(other, "ant.slow_compute", meta={"progressToken": "mine"})
        standing, elsewhere = await client.listen(), await other.listen()
        open_sessions = [one for one in boxes["ant"].conversations if one.introduction]
        await boxes["ant"].until(lambda box: len(box.noted("standing")) >= len(open_sessions))
        kept, theirs = boxes["ant"].kept["task-1"], boxes["ant"].kept["task-2"]
        kept.owner.report(kept, 7)
        progress = await standing.event()
        assert progress is not None
        related = {"_meta": {RELATED: {"taskId": task["taskId"]}}}
        assert progress["params"] == {"progressToken": "mine", "progress": 7, **related}
        boxes["ant"].finish("task-1")
        status = await standing.event()
        assert status is not None
        assert (status["method"], status["params"]["taskId"]) == ("notifications/tasks/status", task["taskId"])
        assert status["params"]["status"] == "completed"
        theirs.token = kept.token  # a backend that mixes its sessions up
        theirs.owner.report(theirs, 8)
        boxes["ant"].finish("task-2")
        told = await elsewhere.event()
        assert told is not None
        assert told["method"] == "notifications/tasks/status"
        assert told["params"]["taskId"] != task["taskId"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/bee"])
async def test_a_subscription_carries_the_tasks_it_asked_for(path: str) -> None:
    """Acknowledged and told under the client's ids; ids that are nobody's are not agreed to."""
    async with two("modern") as (travel, boxes):
        client = await client_of(travel, "modern", path)
        prefix = "" if path != "/mcp" else "bee."
        ids = [(await begin(client, f"{prefix}slow_compute"))["taskId"] for _ in range(2)]
        wanted = {"taskIds": [ids[1], "task-1", "garbage"]}
        stream = await client.post(client.request("subscriptions/listen", {"notifications": wanted}))
        acknowledged = await stream.event()
        assert acknowledged is not None
        assert acknowledged["params"]["notifications"] == {"taskIds": [ids[1]]}
        boxes["bee"].finish("task-1")
        boxes["bee"].finish("task-2")
        told = await stream.event()
        assert told is not None
        assert (told["method"], told["params"]["taskId"]) == ("notifications/tasks", ids[1])
        assert told["params"]["result"]["content"][0]["text"] == "bee finished task-2: None"


async def test_two_clients_hear_of_their_own_tasks_over_one_stream() -> None:
    """One subscription at the backend serves both."""
    async with two("modern") as (travel, boxes):
        clients = [await client_of(travel, "modern", path) for path in ("/mcp", "/mcp/ant")]
        ids, streams = [], []
        for client, tool in zip(clients, ("ant.slow_compute", "slow_compute"), strict=True):
            ids.append((await begin(client, tool))["taskId"])
            listening = client.request("subscriptions/listen", {"notifications": {"taskIds": ids[-1:]}})
            streams.append(await client.post(listening))
            assert await streams[-1].event() is not None
        for own in ("task-2", "task-1"):
            boxes["ant"].finish(own)
        for task_id, stream in zip(ids, streams, strict=True):
            told = await stream.event()
            assert told is not None
            assert told["params"]["taskId"] == task_id


async def test_tasks_of_all_backends_are_one_list() -> None:
    """In pages, each task once, in the order of the configuration."""
    async with two("handshake") as (travel, boxes):
        client = await travel.handshake()
        ids = [(await begin(client, f"{name}.slow_compute"))["taskId"] for name in ("bee", "ant", "bee")]
        boxes["ant"].page_size = boxes["bee"].page_size = 1
        found = await client.result("tasks/list")
        assert [one["taskId"] for one in found["tasks"]] == [ids[1], ids[0], ids[2]]
        assert "nextCursor" not in found
        assert "ttlMs" not in found
        error = (await client.ask("tasks/list", {"cursor": "garbled"}))["error"]
        assert error["code"] == -32602


async def test_a_backend_that_fails_its_list_of_tasks_costs_its_own_part() -> None:
    """The rest is there, and what is missing is named."""
    async with two("handshake") as (travel, boxes):
        client = await travel.handshake()
        task = await begin(client, "ant.slow_compute")
        boxes["bee"].unknown.add("tasks/list")
        found = await client.result("tasks/list")
        assert [one["taskId"] for one in found["tasks"]] == [task["taskId"]]
        assert [one["backend"] for one in found["_meta"]["dev.gatewright/unavailable"]] == ["bee"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
async def test_each_era_is_offered_its_own_tasks(path: str) -> None:
    """Where a backend speaks both."""
    async with two() as (travel, _):
        old = (await travel.handshake(path)).introduction["capabilities"]
        assert old["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        assert "extensions" not in old
        new = (await travel.modern(path, DECLARED).result("server/discover"))["capabilities"]
        assert new["extensions"] == {EXTENSION: {}, "io.modelcontextprotocol/ui": {}}
        assert "tasks" not in new


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
@pytest.mark.parametrize("era", ERAS)
async def test_nothing_of_tasks_is_offered_across_eras(era: str, path: str) -> None:
    """They are not wire-compatible (SEP-2663, Backward Compatibility); MCP Apps pass."""
    async with two("modern" if era == "handshake" else "handshake") as (travel, _):
        if era == "handshake":
            offered = (await travel.handshake(path)).introduction["capabilities"]
            assert offered["extensions"] == {"io.modelcontextprotocol/ui": {}}
        else:
            offered = (await travel.modern(path, DECLARED).result("server/discover"))["capabilities"]
            assert "extensions" not in offered
        assert "tasks" not in offered


async def test_lists_of_tasks_are_offered_where_every_backend_with_tasks_has_them() -> None:
    """What `tasks/get` finds MUST be in the list (basic/utilities/tasks of 2025-11-25, Task Listing)."""
    async with two("handshake", is_listing=False) as (travel, _):
        client = await travel.handshake()
        assert client.introduction["capabilities"]["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
        assert (await client.ask("tasks/list"))["error"]["code"] == -32601
    lists, silent = TaskBox("ant", "handshake"), TaskBox("bee", "handshake", is_listing=False)
    async with travelling({"ant": lists, "bee": silent, "cat": Toolbox("cat", "handshake")}) as travel:
        client = await travel.handshake()
        assert client.introduction["capabilities"]["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    async with travelling({"ant": lists, "cat": Toolbox("cat", "handshake")}) as travel:
        client = await travel.handshake()
        assert client.introduction["capabilities"]["tasks"]["list"] == {}


async def test_a_tool_of_a_backend_without_tasks_does_not_pose_as_one_with() -> None:
    """Where both are shown as one server (basic/utilities/tasks of 2025-11-25, Tool-Level Negotiation)."""
    ant, cat = TaskBox("ant", "handshake"), Toolbox("cat", "handshake")
    ant.tool_meta = cat.tool_meta = {"execution": {"taskSupport": "optional"}}
    async with travelling({"ant": ant, "cat": cat}) as travel:
        tools = (await (await travel.handshake()).result("tools/list"))["tools"]
        assert all(("execution" in tool) == tool["name"].startswith("ant.") for tool in tools)
        own = (await (await travel.handshake("/mcp/cat")).result("tools/list"))["tools"]
        assert all("execution" in tool for tool in own)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ant"])
async def test_a_modern_client_has_to_declare_the_extension(path: str) -> None:
    """-32021 for every request about tasks, and for a call that cannot do without one."""
    async with two() as (travel, boxes):
        client: ModernClient = travel.modern(path)
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            error = await refused(client, method, "any")
            assert error["code"] == -32021
            assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        listening = await client.ask("subscriptions/listen", {"notifications": {"taskIds": ["any"]}})
        assert listening["error"]["code"] == -32021
        tool = "ant.failing_job" if path == "/mcp" else "failing_job"
        assert (await client.ask("tools/call", {"name": tool, "arguments": {}}))["error"]["code"] == -32021
        for method in ("tasks/result", "tasks/list"):
            assert (await client.ask(method, {"taskId": "any"}))["error"]["code"] == -32601
        assert not boxes["ant"].kept


@pytest.mark.parametrize("era", ERAS)
async def test_a_task_that_nobody_asked_for_is_the_backends_fault(era: str) -> None:
    """A server MUST NOT answer with one to a client that did not declare the extension (SEP-2663): it says so."""
    async with two("modern") as (travel, _):
        client = await travel.client(era, "/mcp", {})
        error = (await client.ask("tools/call", {"name": "ant.unasked", "arguments": {}}))["error"]
        assert EXTENSION in error["message"]
        assert "taskId" not in str(error)


async def test_a_handshake_client_declares_nothing_to_a_modern_backend() -> None:
    """The extension is not defined in its revision, whatever it says: the backend says what it would need."""
    async with two("modern") as (travel, boxes):
        client = await travel.handshake("/mcp/ant", DECLARED)
        answer = await client.ask("tools/call", {"name": "failing_job", "arguments": {}, "task": {"ttl": 1}})
        assert answer["error"]["code"] == -32021
        said = boxes["ant"].noted("call")[0]["_meta"][META + "clientCapabilities"]
        assert said == {"elicitation": {}}
        error = (await client.ask("tasks/list"))["error"]
        assert error["code"] == -32601
        assert "SEP-2663" in error["message"]


async def test_a_modern_client_makes_no_task_of_2025() -> None:
    """Its `task` parameter is unknown in its revision and stays here; the backend says that the tool needs a task."""
    async with two("handshake") as (travel, boxes):
        client = travel.modern("/mcp", DECLARED)
        greeting = await client.result("tools/call", {"name": "ant.greet", "arguments": {}, "task": {"ttl": 1}})
        assert greeting["content"][0]["text"] == "Hello, you!"
        assert "task" not in boxes["ant"].noted("call")[0]
        error = (await client.ask("tools/call", {"name": "ant.slow_compute", "arguments": {}}))["error"]
        assert error["code"] == -32601


@pytest.mark.parametrize("era", ERAS)
async def test_a_task_of_one_era_is_refused_in_the_other(era: str) -> None:
    """With the reason: its state has another form there."""
    async with two() as (travel, _):
        task_id = (await begin(await client_of(travel, era), "ant.slow_compute"))["taskId"]
        error = await refused(
            await client_of(travel, "modern" if era == "handshake" else "handshake"), "tasks/get", task_id
        )
        assert error["code"] == -32602
        assert "not wire-compatible" in error["message"]


async def test_tasks_that_clients_host_are_not_offered_to_backends() -> None:
    """A backend that asks for one nevertheless gets an answer: receivers without the capability ignore what asks."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel:
        hosting_tasks = {"requests": {"elicitation": {"create": {}}}, "list": {}}
        client = await travel.handshake("/mcp", {"elicitation": {}, "tasks": hosting_tasks})
        given = {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "task": {"ttl": 1}}}
        stream = await client.post(client.request("tools/call", {"name": "box.ask", "arguments": given}))
        ask = await stream.event()
        while ask is not None and "id" not in ask:
            ask = await stream.event()
        assert ask is not None
        assert ask["params"] == {"mode": "form", "message": "?"}
        await client.reply(ask, {"action": "decline"})
        assert "decline" in (await stream.last())["result"]["content"][0]["text"]
        told = [one.introduction["capabilities"] for one in box.conversations if one.introduction]
        assert {"elicitation": {}} in told
        assert not any("tasks" in one for one in told)


async def test_a_task_outlives_the_session_that_made_it() -> None:
    """Ids are the caller's, not the session's: a client that comes back polls on."""
    async with two("handshake") as (travel, boxes):
        first = await travel.handshake()
        task_id = (await begin(first, "ant.slow_compute"))["taskId"]
        await first.end()
        await soon(boxes["ant"].until(lambda box: bool(box.noted("deleted"))))
        again = await travel.handshake()
        assert (await again.result("tasks/get", {"taskId": task_id}))["status"] == "working"
