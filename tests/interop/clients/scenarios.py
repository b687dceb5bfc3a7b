"""Runs a plan with one Python client and prints one JSON line per scenario: {client, target, scenario, ok, ms, detail}.

The counterpart of `scenarios.mjs`, with the same kinds and plans (see `../plans.py`). The clients differ in how
they are built and how calls are made: each client script hands in a `connect` that yields a `Peer`. Every wait is
bounded; a failure quotes the newest HTTP exchanges.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx2
import mcp_types as types
from mcp.shared.exceptions import MCPError

SCENARIO_S = 8.0
SCENARIO_SHARE_S = 2.5  # what a scenario may take on average before a target is given up
TRACE_ENTRIES = 8
ENTRY_CHARS = 700
SHOWN_HEADERS = ("mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name", "accept", "last-event-id")
ROOTS = [types.Root.model_validate({"uri": "file:///interop/one", "name": "one"})]

Target = dict[str, Any]
Plan = dict[str, Any]


class MismatchError(Exception):
    """What was seen is not what the plan expects."""


class Inbox:
    """Notifications as they arrive, with a bounded wait for one that matches."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._news = anyio.Event()

    def add(self, message: object) -> None:
        """Keep a notification and wake whoever waits."""
        if isinstance(message, types.Notification):
            self.seen.append(message)
        self._news.set()
        self._news = anyio.Event()

    async def wait(self, match: Callable[[types.ServerNotification], bool], *, since: int, timeout_s: float) -> Any:
        """Return the first notification from index `since` on that matches, or None after `timeout_s`."""
        with anyio.move_on_after(timeout_s):
            while True:
                for message in self.seen[since:]:
                    if match(message):
                        return message
                await self._news.wait()
        return None


class Peer(Protocol):
    """A connected client, in the verbs of the scenarios; results are the SDK's types."""

    revision: str | None

    async def list_page(self, what: str, cursor: str | None) -> types.PaginatedResult: ...
    async def call(self, tool: str, arguments: dict[str, Any], on_progress: Any = None) -> types.CallToolResult: ...
    async def call_logged(self, tool: str, arguments: dict[str, Any], level: types.LoggingLevel) -> None: ...
    async def get_prompt(self, name: str, arguments: dict[str, str]) -> types.GetPromptResult: ...
    async def read(self, uri: str) -> types.ReadResourceResult: ...
    async def complete(self, ref: Any, argument: dict[str, str], context: dict[str, str] | None) -> list[str]: ...
    def watch(self, *, uri: str | None = None) -> AbstractAsyncContextManager[Any]: ...


Connect = Callable[[Target, Inbox, "Trace"], AbstractAsyncContextManager[Peer]]


class Trace:
    """The newest HTTP exchanges, as lines."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=TRACE_ENTRIES)

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """An HTTP client that writes here what it sends and what status it gets."""

        async def sent(request: httpx2.Request) -> None:
            shown = ", ".join(f"{name}: {request.headers[name]}" for name in SHOWN_HEADERS if name in request.headers)
            body = (await request.aread()).decode("utf-8", "replace") if request.method == "POST" else ""
            self.lines.append(f"> {request.method} [{shown}] {body}"[:ENTRY_CHARS])

        async def received(response: httpx2.Response) -> None:
            kind = response.headers.get("content-type", "")
            body = ""
            if kind.startswith("application/json"):
                body = (await response.aread()).decode("utf-8", "replace")
            self.lines.append(f"< {response.status_code} {kind} {body}"[:ENTRY_CHARS])

        options = {name: value for name, value in options.items() if value is not None}
        options.setdefault("timeout", httpx2.Timeout(SCENARIO_S, read=60.0))
        options.setdefault("follow_redirects", True)
        return httpx2.AsyncClient(event_hooks={"request": [sent], "response": [received]}, **options)


async def on_elicit(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Fill in a form, or open a page, as the plan's person would."""
    if isinstance(params, types.ElicitRequestURLParams):
        return types.ElicitResult(action="accept")
    assert isinstance(params, types.ElicitRequestFormParams)
    known: dict[str, Any] = {"name": "Ada", "confirm": True}
    wanted = params.requested_schema["properties"]
    return types.ElicitResult(action="accept", content={key: known[key] for key in known if key in wanted})


async def on_sampling(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    """Answer as the plan's model would."""
    said = types.TextContent(text="hello from the client")
    return types.CreateMessageResult(role="assistant", model="interop-model", content=said, stop_reason="endTurn")


async def on_roots(context: Any) -> types.ListRootsResult:
    """Answer as the plan's host would."""
    return types.ListRootsResult(roots=ROOTS)


def check(held: bool, expected: object, seen: object) -> None:
    """Raise MismatchError with both sides unless `held`."""
    if not held:
        raise MismatchError(f"expected {expected!r}, seen {seen!r}")


def text_of(result: types.CallToolResult) -> str:
    """The blocks of a tool result, one per line: texts as they are, others as their kind."""
    return "\n".join(
        block.text if isinstance(block, types.TextContent) else f"<{block.type}>" for block in result.content
    )


async def names(peer: Peer, what: str, attribute: str) -> list[Any]:
    """Walk every page of a list."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(50):
        page = await peer.list_page(what, cursor)
        found += getattr(page, what)
        cursor = page.next_cursor
        if cursor is None:
            break
    return [getattr(item, attribute) for item in found] if attribute else found


def includes_all(seen: Sequence[Any], expected: Sequence[Any]) -> str:
    """Check that nothing expected is missing."""
    check(all(item in seen for item in expected), expected, seen)
    return f"{len(seen)} seen"


async def failure(attempt: Awaitable[Any], codes: list[int]) -> str:
    """Check that a request fails with one of these JSON-RPC codes."""
    try:
        result = await attempt
    except MCPError as error:
        check(error.code in codes, codes, error.error)
        return f"code {error.code}"
    raise MismatchError(f"expected an error with a code of {codes}, seen {result!r}")


async def noticed(inbox: Inbox, match: Callable[[Any], bool], trigger: Callable[[int], Awaitable[Any]]) -> int:
    """Repeat what triggers a notice until one arrives: a stream opened a moment ago may miss the first."""
    for attempt in range(1, 7):
        since = len(inbox.seen)
        await trigger(attempt)
        if await inbox.wait(match, since=since, timeout_s=1.0) is not None:
            return attempt
    raise MismatchError(f"no notice after 6 triggers; methods seen: {[message.method for message in inbox.seen]}")


async def run_list(peer: Peer, plan: Plan, _: Inbox) -> str:
    """list_tools, list_prompts, list_resources, list_templates: every page, nothing missing."""
    what, attribute = {
        "list_tools": ("tools", "name"),
        "list_prompts": ("prompts", "name"),
        "list_resources": ("resources", "uri"),
        "list_templates": ("resource_templates", "uri_template"),
    }[plan["kind"]]
    return includes_all([str(name) for name in await names(peer, what, attribute)], plan["expect"])


async def run_meta(peer: Peer, plan: Plan, _: Inbox) -> None:
    """A tool's `_meta` arrives as the server wrote it."""
    tools = await names(peer, "tools", "")
    meta = next((tool.meta for tool in tools if tool.name == plan["tool"]), None) or {}
    for key, value in plan["expect"].items():
        check(meta.get(key) == value, {key: value}, meta)


async def run_call(peer: Peer, plan: Plan, _: Inbox) -> None:
    """A tool call with its text, its error flag and its structured content."""
    result = await peer.call(plan["tool"], plan["arguments"])
    check(plan["expect"] in text_of(result), plan["expect"], result)
    check(bool(result.is_error) == bool(plan.get("is_error")), plan.get("is_error"), result)
    if "structured" in plan:
        check(result.structured_content == plan["structured"], plan["structured"], result)


async def run_call_error(peer: Peer, plan: Plan, _: Inbox) -> str:
    """A tool call that fails with a JSON-RPC error."""
    return await failure(peer.call(plan["tool"], plan["arguments"]), plan["codes"])


async def run_parallel(peer: Peer, plan: Plan, _: Inbox) -> None:
    """Many calls at once: every answer belongs to its question."""
    said = [f"number {index}" for index in range(plan["times"])]
    seen: dict[str, str] = {}

    async def ask(text: str) -> None:
        seen[text] = text_of(await peer.call(plan["tool"], {"text": text}))

    async with anyio.create_task_group() as group:
        for text in said:
            group.start_soon(ask, text)
    check([seen[text] for text in said] == said, said, seen)


async def run_progress(peer: Peer, plan: Plan, _: Inbox) -> None:
    """Progress notifications, all of them, in order, before the answer."""
    seen: list[float] = []

    async def on_progress(value: float, *_: object) -> None:
        seen.append(value)

    result = await peer.call(plan["tool"], plan["arguments"], on_progress)
    check(plan["expect"] in text_of(result), plan["expect"], result)
    check(seen == plan["progress"], plan["progress"], seen)


async def run_logging(peer: Peer, plan: Plan, inbox: Inbox) -> None:
    """A log message of a call, after the client asked for its level."""
    since = len(inbox.seen)
    await peer.call_logged(plan["tool"], plan["arguments"], "info")

    def match(message: types.ServerNotification) -> bool:
        return isinstance(message, types.LoggingMessageNotification) and plan["expect"] in str(message.params.data)

    entry = await inbox.wait(match, since=since, timeout_s=SCENARIO_S / 2)
    check(entry is not None, "a log message", [message.method for message in inbox.seen])
    assert isinstance(entry, types.LoggingMessageNotification)
    check(entry.params.level == "warning", "warning", entry)


async def run_cancellation(peer: Peer, plan: Plan, _: Inbox) -> None:
    """A call given up after its first progress is cancelled at the server."""
    started = False
    with anyio.CancelScope() as scope:

        async def on_progress(*_: object) -> None:
            nonlocal started
            started = True
            scope.cancel()

        await peer.call(plan["tool"], plan["arguments"], on_progress)
    check(started, "a progress notification, then a cancelled call", "none")
    result = await peer.call(plan["probe"], plan["arguments"])
    check(text_of(result) == "cancelled", "cancelled", result)


async def run_completion(peer: Peer, plan: Plan, _: Inbox) -> None:
    """Completion of a prompt's or a template's argument."""
    ref: Any = (
        types.PromptReference(name=plan["prompt"])
        if "prompt" in plan
        else types.ResourceTemplateReference(uri=plan["template"])
    )
    values = await peer.complete(ref, plan["argument"], plan.get("context"))
    check(values == plan["expect"], plan["expect"], values)


async def run_prompt(peer: Peer, plan: Plan, _: Inbox) -> None:
    """A prompt with arguments."""
    result = await peer.get_prompt(plan["prompt"], plan["arguments"])
    check(plan["expect"] in result.model_dump_json(), plan["expect"], result)


async def run_read(peer: Peer, plan: Plan, _: Inbox) -> None:
    """A resource, under the address that was asked for."""
    result = await peer.read(plan["uri"])
    seen = [str(getattr(item, "text", None) or getattr(item, "blob", "")) for item in result.contents]
    check(plan["expect"] in "\n".join(seen), plan["expect"], result)
    check(str(result.contents[0].uri) == plan["uri"], plan["uri"], result)


async def run_read_error(peer: Peer, plan: Plan, _: Inbox) -> str:
    """A resource that does not exist, with the code of the client's era."""
    return await failure(peer.read(plan["uri"]), plan["codes"])


async def run_subscribe(peer: Peer, plan: Plan, inbox: Inbox) -> str:
    """A notice for the one resource that was subscribed to."""

    def match(message: Any) -> bool:
        return isinstance(message, types.ResourceUpdatedNotification) and str(message.params.uri) == plan["uri"]

    async with peer.watch(uri=plan["uri"]):
        attempts = await noticed(inbox, match, lambda _: peer.call(plan["tool"], plan["arguments"]))
    if plan.get("toggle") and attempts % 2 == 1:
        await peer.call(plan["tool"], plan["arguments"])
    return f"{attempts} triggers"


async def run_list_changed(peer: Peer, plan: Plan, inbox: Inbox) -> str:
    """A notice that the tools changed, and then a list with the new ones."""
    grown: list[str] = []

    async def trigger(attempt: int) -> None:
        grown.append(f"{plan['grown']}_{attempt}")
        await peer.call(plan["tool"], {"name": grown[-1]})

    async with peer.watch():
        attempts = await noticed(inbox, lambda seen: isinstance(seen, types.ToolListChangedNotification), trigger)
    includes_all(await names(peer, "tools", "name"), [plan["prefix"] + name for name in grown])
    return f"{attempts} triggers"


async def run_caching(peer: Peer, _: Plan, __: Inbox) -> None:
    """A modern list result carries `ttlMs` and `cacheScope`."""
    page = await peer.list_page("resources", None)
    fields = page.model_fields_set
    check({"ttl_ms", "cache_scope"} <= fields, "ttlMs and cacheScope", fields)


KINDS: dict[str, Callable[[Peer, Plan, Inbox], Awaitable[str | None]]] = {
    "list_tools": run_list,
    "list_prompts": run_list,
    "list_resources": run_list,
    "list_templates": run_list,
    "tool_meta": run_meta,
    "call": run_call,
    "call_error": run_call_error,
    "parallel": run_parallel,
    "progress": run_progress,
    "logging": run_logging,
    "cancellation": run_cancellation,
    "completion": run_completion,
    "get_prompt": run_prompt,
    "read": run_read,
    "read_error": run_read_error,
    "subscribe": run_subscribe,
    "list_changed": run_list_changed,
    "caching": run_caching,
}


async def run_target(client: str, connect: Connect, target: Target) -> None:
    """Run one target's scenarios over one connection and print their outcomes."""
    trace, inbox, since = Trace(), Inbox(), time.monotonic()
    unrun = {"connect": None} | {plan["name"]: plan for plan in target["scenarios"]}

    def report(scenario: str, ok: bool, detail: str | None) -> None:
        unrun.pop(scenario, None)
        nonlocal since
        since, took_ms = time.monotonic(), round(1000 * (time.monotonic() - since))
        line = {"client": client, "target": target["name"], "scenario": scenario, "ok": ok, "ms": took_ms}
        line["detail"] = detail or ""
        print(json.dumps(line), flush=True)

    def failed(scenario: str, error: BaseException) -> None:
        said = str(error) if isinstance(error, MismatchError) else "".join(traceback.format_exception(error))[-3000:]
        report(scenario, False, said + "\nwire:\n" + "\n".join(trace.lines))

    try:
        with anyio.fail_after(SCENARIO_S + SCENARIO_SHARE_S * len(target["scenarios"])):
            async with connect(target, inbox, trace) as peer:
                check(peer.revision == target["revision"], target["revision"], peer.revision)
                report("connect", True, peer.revision)
                for plan in target["scenarios"]:
                    trace.lines.clear()
                    try:
                        with anyio.fail_after(SCENARIO_S):
                            report(plan["name"], True, await KINDS[plan["kind"]](peer, plan, inbox))
                    except Exception as error:  # noqa: BLE001 -- a scenario's failure is its outcome
                        failed(plan["name"], error)
    except Exception as error:  # noqa: BLE001 -- so is the connection's
        failed("connect" if "connect" in unrun else "close", error)
    for scenario in list(unrun):
        report(scenario, False, "not run")


def main(client: str, connect: Connect) -> None:
    """Run the plan whose file is the script's only argument; the status is 0 however the scenarios end."""
    plan = json.loads(Path(sys.argv[1]).read_text())

    async def run() -> None:
        for target in plan["targets"]:
            await run_target(client, connect, target)

    anyio.run(run)
