"""A toolbox with tasks: the extension of 2026-07-28 (SEP-2663) and those of 2025-11-25 (basic/utilities/tasks).

Its own ids are `task-1`, `task-2` and so on, the same in every box. A task made by `slow_compute` ends after `seconds`,
or when a test says so (`finish`). Its tools are those that the official conformance suite wants of a server of tasks.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from journeys.toolbox import META, Conversation, Json, Send, Toolbox, speak

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
STAMP = "2026-11-20T10:30:00Z"
MISSING = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
NEEDS_INPUT = {"confirm_delete": ("confirm",), "multi_input": ("first", "second")}


class Kept:
    """One task."""

    def __init__(self, box: TaskBox, own: str, tool: str, given: Json, owner: TaskConversation, token: Any) -> None:
        self.box, self.own, self.tool, self.given, self.owner, self.token = box, own, tool, given, owner, token
        self.status = "working"
        self.result: Json | None = None
        self.error: Json | None = None
        self.open: list[str] = []
        self.answers: Json = {}
        self.waiting: list[tuple[TaskConversation, int]] = []

    def state(self, era: str) -> Json:
        """As each era writes it."""
        found: Json = {"taskId": self.own, "status": self.status, "createdAt": STAMP, "lastUpdatedAt": STAMP}
        if era == "handshake":
            return {**found, "ttl": 60_000, "pollInterval": 100}
        return {**found, "ttlMs": 60_000, "pollIntervalMs": 100}

    def detailed(self) -> Json:
        """With what the modern era has within."""
        found = self.state("modern")
        if self.open:
            found["inputRequests"] = {key: _question(key) for key in self.open}
        if self.result is not None:
            found["result"] = {"resultType": "complete", **self.result}
        if self.error is not None:
            found["error"] = self.error
        return found

    def move(self, status: str, result: Json | None = None, error: Json | None = None) -> None:
        """Another status; who waits for the end or wants to hear of it is told."""
        if self.status in ("completed", "failed", "cancelled"):
            return
        self.status, self.result, self.error = status, result, error
        for conversation in list(self.box.conversations):
            assert isinstance(conversation, TaskConversation)
            conversation.told_of(self)
        if status in ("completed", "failed", "cancelled"):
            waiting, self.waiting = self.waiting, []
            for conversation, request_id in waiting:
                conversation.end_result(request_id, self)

    def answered(self, answers: Json) -> None:
        """Some of what was asked; unknown keys mean nothing."""
        for key in [key for key in answers if key in self.open]:
            self.open.remove(key)
            self.answers[key] = answers[key]
        if not self.open and self.status == "input_required":
            self.move("completed", _text(f"{self.box.label}: {self.tool} was told {self.answers}"))


class TaskBox(Toolbox):
    """One server with tasks."""

    def __init__(self, label: str = "box", era: str = "both", *, is_listing: bool = True) -> None:
        super().__init__(label, era)
        self.tools = ["greet", "slow_compute", "failing_job", "protocol_error_job", "test_tool_with_task"]
        self.tools += [*NEEDS_INPUT, "unasked"]
        self.is_listing = is_listing
        self.kept: dict[str, Kept] = {}

    def converse(self, send: Send) -> Conversation:
        """See Toolbox.converse."""
        return TaskConversation(self, send)

    def finish(self, own: str = "task-1") -> None:
        """It is done."""
        kept = self.kept[own]
        kept.move("completed", _text(f"{self.label} finished {own}: {kept.given.get('label')}"))

    def begin(self, tool: str, given: Json, owner: TaskConversation, token: Any) -> Kept:
        """A task for a call."""
        own = f"task-{len(self.kept) + 1}"
        kept = self.kept[own] = Kept(self, own, tool, given, owner, token)
        loop = asyncio.get_running_loop()
        if tool == "failing_job":
            loop.call_soon(kept.move, "completed", {**_text("it failed"), "isError": True})
        elif tool == "protocol_error_job":
            loop.call_soon(kept.move, "failed", None, {"code": -32603, "message": "it broke"})
        elif tool == "test_tool_with_task":
            loop.call_soon(kept.move, "completed", _text(f"Hello, {given['name']}"))
        elif tool in NEEDS_INPUT:
            kept.open = list(NEEDS_INPUT[tool])
            kept.move("input_required")
        elif given.get("seconds", 3600) < 60:
            loop.call_later(given["seconds"], self.finish, own)
        self.note("begun", own)
        return kept


class TaskConversation(Conversation):
    """One client of a box with tasks."""

    _box: TaskBox

    # --- what it offers

    def _on_initialize(self, request_id: int, params: Json) -> Json:
        found = super()._on_initialize(request_id, params)
        lists = {"list": {}} if self._box.is_listing else {}
        tasks = {**lists, "cancel": {}, "requests": {"tools": {"call": {}}}}
        return {**found, "capabilities": {**found["capabilities"], "tasks": tasks}}

    def _on_server_discover(self, request_id: int, params: Json) -> Json:
        found = super()._on_server_discover(request_id, params)
        extensions = {EXTENSION: {}, "io.modelcontextprotocol/ui": {}}
        return {**found, "capabilities": {**found["capabilities"], "extensions": extensions}}

    # --- tools

    def _on_tools_call(self, request_id: int, params: Json) -> Json | None:
        tool, given = params["name"], params.get("arguments", {})
        self._box.note("call", params)
        if tool not in self._box.tools:
            return super()._on_tools_call(request_id, params)
        if tool == "greet" or (tool == "slow_compute" and given.get("seconds") == 0):
            return _text(f"Hello, {given.get('name', 'you')}!")
        token = params.get("_meta", {}).get("progressToken")
        if not _is_modern(params):
            if "task" not in params:
                self._fail(request_id, -32601, f"{tool} must be called as a task")
                return None
            return {"task": self._box.begin(tool, given, self, token).state("handshake")}
        if not _declares(params) and tool != "unasked":
            self._fail(request_id, -32021, "Missing required client capability", MISSING)
            return None
        if tool == "test_tool_with_task":
            if "inputResponses" not in params:
                return {"resultType": "input_required", "inputRequests": {"name": _question("name")}}
            given = params["inputResponses"]["name"]["content"]
        return {"resultType": "task", **self._box.begin(tool, given, self, token).state("modern")}

    # --- tasks

    def _on_tasks_get(self, request_id: int, params: Json) -> Json | None:
        kept = self._kept(request_id, params)
        if kept is None:
            return None
        return kept.detailed() if _is_modern(params) else kept.state("handshake")

    def _on_tasks_update(self, request_id: int, params: Json) -> Json | None:
        kept = self._kept(request_id, params)
        if kept is None:
            return None
        self._box.note("updated", params["inputResponses"])
        kept.answered(params["inputResponses"])
        return {}

    def _on_tasks_cancel(self, request_id: int, params: Json) -> Json | None:
        kept = self._kept(request_id, params)
        if kept is None:
            return None
        if _is_modern(params):
            kept.move("cancelled")
            return {}
        if kept.status in ("completed", "failed", "cancelled"):
            self._fail(request_id, -32602, f"Cannot cancel task: already in terminal status '{kept.status}'")
            return None
        kept.move("cancelled", _text("cancelled"))
        return kept.state("handshake")

    def _on_tasks_result(self, request_id: int, params: Json) -> None:
        kept = self._kept(request_id, params)
        if kept is None:
            return
        if kept.status in ("completed", "failed", "cancelled"):
            self.end_result(request_id, kept)
            return
        kept.waiting.append((self, request_id))
        self._box.note("waiting", kept.own)
        for key in kept.open:
            asked = {**_question(key)["params"], "_meta": {RELATED: {"taskId": kept.own}}}
            self._ask_about(kept, key, asked, request_id)

    def _on_tasks_list(self, request_id: int, params: Json) -> Json:
        return self._page("tasks", [kept.state("handshake") for kept in self._box.kept.values()], params)

    def end_result(self, request_id: int, kept: Kept) -> None:
        """The end of a `tasks/result`."""
        if kept.error is not None:
            self._fail(request_id, kept.error["code"], kept.error["message"])
        else:
            self._answer(request_id, {**(kept.result or {}), "_meta": {RELATED: {"taskId": kept.own}, "x": 1}})

    def told_of(self, kept: Kept) -> None:
        """Tell this client of a task's status, if it is to hear of it."""
        for request_id, wants in self._listens.items():
            if kept.own in wants.get("taskIds", ()):
                meta = {"_meta": {META + "subscriptionId": request_id}}
                self._notify("notifications/tasks", {**kept.detailed(), **meta}, request_id)
        if self is kept.owner and self.introduction:
            self._notify("notifications/tasks/status", kept.state("handshake"), None)

    def report(self, kept: Kept, step: int) -> None:
        """Progress of a task, after its call."""
        meta = {"_meta": {RELATED: {"taskId": kept.own}}}
        self._notify("notifications/progress", {"progressToken": kept.token, "progress": step, **meta}, None)

    def _on_subscriptions_listen(self, request_id: int, params: Json) -> None:
        if params["notifications"].get("taskIds") and not _declares(params):
            self._fail(request_id, -32021, "Missing required client capability", MISSING)
            return
        super()._on_subscriptions_listen(request_id, params)

    def _ask_about(self, kept: Kept, key: str, params: Json, request_id: int) -> None:
        self._ask("elicitation/create", params, request_id)
        self._asking[max(self._asking)] = (None, f"{kept.own} {key}")

    def _answered(self, message: Json) -> None:
        about = self._asking.get(message["id"], (None, ""))[1].split(" ")
        super()._answered(message)
        if about[0] in self._box.kept and "result" in message:
            self._box.kept[about[0]].answered({about[1]: message["result"]})

    def _kept(self, request_id: int, params: Json) -> Kept | None:
        if _is_modern(params) and not _declares(params):
            self._fail(request_id, -32021, "Missing required client capability", MISSING)
            return None
        kept = self._box.kept.get(params["taskId"])
        if kept is None:
            self._fail(request_id, -32602, f"Failed to retrieve task: Task not found: {params['taskId']}")
        return kept


def _is_modern(params: Json) -> bool:
    return META + "protocolVersion" in params.get("_meta", {})


def _declares(params: Json) -> bool:
    capabilities = params.get("_meta", {}).get(META + "clientCapabilities", {})
    return EXTENSION in capabilities.get("extensions", {})


def _question(key: str) -> Json:
    schema = {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}
    params = {"mode": "form", "message": f"{key}?", "requestedSchema": schema}
    return {"method": "elicitation/create", "params": params}


def _text(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


async def main() -> None:
    """`python -m journeys.task_box LABEL ERA`: over standard input and output. Nothing happens there by itself."""
    speak(TaskBox(sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
