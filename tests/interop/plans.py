"""What the clients are told to do: for each server, the scenarios as plain data, era by era.

A plan is JSON that a client script reads: `{"targets": [{"name", "url" or "stdio", "era", "revision", "scenarios"}]}`,
with scenarios `{"name", "kind", ...}` whose kinds are those of `clients/scenarios.mjs` and `clients/scenarios.py`.
Names of tools and prompts carry the prefix of the endpoint; resource addresses are as the server gave them. Nothing
here talks to a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Scenario = dict[str, Any]
Era = Literal["handshake", "modern"]

REVISION: dict[Era, str] = {"handshake": "2025-11-25", "modern": "2026-07-28"}
NOT_FOUND = -32002  # handshake revisions; the modern one says -32602
INVALID_PARAMS = -32602
SINCE_2025 = frozenset(
    [
        *("tool_meta", "structured", "gallery", "elicitation_ask_name", "elicitation_ask_twice"),
        *("elicitation_in_prompt", "elicitation_in_read", "elicitation_url"),
    ]
)
"""Scenarios about what 2024-11-05 does not have."""
PANEL_META = {"ui": {"resourceUri": "ui://panel"}, "example.org/kept": {"deep": [1, None, "é"]}}


@dataclass(frozen=True)
class Fixture:
    """A server with the tools of `servers/official.py`; `label` is in its resource addresses.

    `is_aged`: it speaks 2024-11-05 only, which has no elicitation, structured content, audio or resource links.
    """

    label: str
    is_aged: bool = False

    def plain(self, prefix: str, era: Era) -> list[Scenario]:
        """Calls that need nothing but an answer."""
        note = f"note://{self.label}"
        tools = [prefix + name for name in ("echo", "add", "fail", "slow", "log")]
        notes = [f"{note}/static/{number}" for number in range(7)]
        ref = {"argument": {"name": "who", "value": "a"}, "expect": ["ada", "alan"]}
        scenarios = [
            {"name": "list_tools", "kind": "list_tools", "expect": tools},
            {"name": "tool_meta", "kind": "tool_meta", "tool": prefix + "echo", "expect": PANEL_META},
            call("call", prefix + "echo", {"text": "hé ✓"}, "hé ✓"),
            {**call("structured", prefix + "add", {"a": 2, "b": 3}, "5"), "structured": {"sum": 5}},
            call("bulk", prefix + "bulk", {"kib": 700}, "<end>"),
            call("gallery", prefix + "gallery", {}, "gallery\n<image>\n<audio>\n<resource>\n<resource_link>"),
            {**call("parallel", prefix + "echo", {"text": "NUMBER"}, ""), "kind": "parallel", "times": 20},
            call("header_argument", prefix + "regional", {"region": "Zürich"}, "region=Zürich"),
            {**call("tool_failure", prefix + "fail", {}, "failed on purpose"), "is_error": True},
            {**call("unknown_tool", prefix + "absent", {}, ""), "kind": "call_error", "codes": [INVALID_PARAMS]},
            {"name": "list_prompts", "kind": "list_prompts", "expect": [prefix + "greeting"]},
            prompt("get_prompt", prefix + "greeting", {"who": "Ada"}, "Greet Ada."),
            {"name": "pagination", "kind": "list_resources", "expect": [*notes, f"{note}/blob"]},
            {"name": "list_templates", "kind": "list_templates", "expect": [f"{note}/items/{{id}}"]},
            read("read", f"{note}/static/3", f"note 3 of {self.label}"),
            read("read_blob", f"{note}/blob", "AAEC/w=="),
            read("read_template", f"{note}/items/9", f"note 9 of {self.label}"),
            {
                "name": "read_missing",
                "kind": "read_error",
                "uri": f"{note}/absent",
                "codes": [INVALID_PARAMS if era == "modern" else NOT_FOUND],
            },
            {"name": "complete_prompt", "kind": "completion", "prompt": prefix + "greeting", **ref},
            {"name": "complete_template", "kind": "completion", "template": f"{note}/items/{{id}}", **ref},
        ]
        return [it for it in scenarios if not (self.is_aged and it["name"] in SINCE_2025)]

    def full(self, prefix: str, era: Era) -> list[Scenario]:
        """Everything that client and server can do with each other, whatever the two eras."""
        waiting = {"tool": prefix + "wait", "probe": prefix + "was_cancelled"}
        uri = f"note://{self.label}/static/1"
        ask = {"ask_name": "name=Ada", "ask_twice": "name=Ada | confirm=True"}
        scenarios = [
            *self.plain(prefix, era),
            progress(prefix + "slow", {"steps": 3}, [1, 2, 3], "3 steps done"),
            {**call("logging", prefix + "log", {"text": "noted"}, "noted"), "kind": "logging"},
            {"name": "cancellation", "kind": "cancellation", **waiting, "arguments": {"key": "KEY"}},
            *[call(f"elicitation_{name}", prefix + name, {}, said) for name, said in ask.items()],
            prompt("elicitation_in_prompt", prefix + "asking", {}, "Greet name=Ada."),
            read("elicitation_in_read", f"note://{self.label}/asking", "note for name=Ada"),
            call("elicitation_url", prefix + "ask_url", {}, "accepted"),
            call("sampling", prefix + "ask_model", {}, "interop-model:hello from the client"),
            call("roots", prefix + "ask_roots", {}, "file:///interop/one"),
            {"name": "subscribe", "kind": "subscribe", "uri": uri, "tool": prefix + "touch", "arguments": {"uri": uri}},
            {
                "name": "list_changed",
                "kind": "list_changed",
                "tool": prefix + "grow",
                "prefix": prefix,
                "grown": "KEY",
            },
        ]
        if era == "modern":
            scenarios.append({"name": "caching", "kind": "caching"})
        return [it for it in scenarios if not (self.is_aged and it["name"] in SINCE_2025)]


@dataclass(frozen=True)
class Small:
    """The FastMCP server of `servers/inprocess.py`: what FastMCP offers without a handler of one's own."""

    label: str

    def plain(self, prefix: str, era: Era) -> list[Scenario]:
        """A subset of the fixture's plain calls, with the same names."""
        del era
        note = f"note://{self.label}"
        ref = {"argument": {"name": "who", "value": "a"}, "expect": ["ada", "alan"]}
        return [
            {"name": "list_tools", "kind": "list_tools", "expect": [prefix + name for name in ("echo", "add", "slow")]},
            call("call", prefix + "echo", {"text": "hé ✓"}, "hé ✓"),
            {**call("structured", prefix + "add", {"a": 2, "b": 3}, "5"), "structured": {"sum": 5}},
            {**call("tool_failure", prefix + "fail", {}, "failed on purpose"), "is_error": True},
            {"name": "list_prompts", "kind": "list_prompts", "expect": [prefix + "greeting"]},
            prompt("get_prompt", prefix + "greeting", {"who": "Ada"}, "Greet Ada."),
            {"name": "list_resources", "kind": "list_resources", "expect": [f"{note}/static"]},
            {"name": "list_templates", "kind": "list_templates", "expect": [f"{note}/items/{{id}}"]},
            read("read", f"{note}/static", f"static note of {self.label}"),
            read("read_template", f"{note}/items/9", f"note 9 of {self.label}"),
            {"name": "complete_prompt", "kind": "completion", "prompt": prefix + "greeting", **ref},
        ]

    def full(self, prefix: str, era: Era) -> list[Scenario]:
        """With progress, logging and a question."""
        return [
            *self.plain(prefix, era),
            progress(prefix + "slow", {"steps": 3}, [1, 2, 3], "3 steps done"),
            {**call("logging", prefix + "log", {"text": "noted"}, "noted"), "kind": "logging"},
            call("elicitation_ask_name", prefix + "ask_name", {}, "name=Ada"),
        ]


@dataclass(frozen=True)
class Everything:
    """`@modelcontextprotocol/server-everything`: handshake only; some tools exist for clients that can answer only."""

    label: str = "everything"

    def plain(self, prefix: str, era: Era) -> list[Scenario]:
        """Tools, prompts, resources, templates and completion."""
        del era
        named = {"argument": {"name": "department", "value": "E"}, "expect": ["Engineering"]}
        member = {
            "argument": {"name": "name", "value": "B"},
            "expect": ["Bob"],
            "context": {"department": "Engineering"},
        }
        tools = ["echo", "get-sum", "trigger-long-running-operation"]
        return [
            {"name": "list_tools", "kind": "list_tools", "expect": [prefix + name for name in tools]},
            call("call", prefix + "echo", {"message": "hé ✓"}, "Echo: hé ✓"),
            call("sum", prefix + "get-sum", {"a": 2, "b": 3}, "5"),
            {
                **call("structured", prefix + "get-structured-content", {"location": "Chicago"}, "conditions"),
                "structured": {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82},
            },
            prompt("get_prompt", prefix + "simple-prompt", {}, "simple prompt"),
            prompt("get_prompt_arguments", prefix + "args-prompt", {"city": "Oslo"}, "Oslo"),
            {"name": "complete_prompt", "kind": "completion", "prompt": prefix + "completable-prompt", **named},
            {"name": "complete_context", "kind": "completion", "prompt": prefix + "completable-prompt", **member},
        ]

    def addressed(self) -> list[Scenario]:
        """Resource scenarios of a handshake client; left out where two of these servers offer the same addresses."""
        dynamic = "demo://resource/dynamic/text"
        documents = ["demo://resource/static/document/architecture.md"]
        return [
            {"name": "list_resources", "kind": "list_resources", "expect": documents},
            {"name": "list_templates", "kind": "list_templates", "expect": [f"{dynamic}/{{resourceId}}"]},
            read("read", f"{dynamic}/7", "Resource 7: This is a plaintext resource"),
            {
                "name": "subscribe",
                "kind": "subscribe",
                "uri": f"{dynamic}/1",
                "tool": "toggle-subscriber-updates",
                "arguments": {},
                "toggle": True,
            },
        ]

    def full(self, prefix: str, era: Era) -> list[Scenario]:
        """With the conditional tools, progress, questions and subscriptions."""
        conditional = ["get-roots-list", "trigger-elicitation-request", "trigger-sampling-request"]
        # It asks for the roots at a time of its own. A modern client is asked by the outcome of the call that runs just
        # then, and hears no progress until it has answered: the first step must come later than that.
        steps = {"duration": 1.2 if era == "modern" else 0.3, "steps": 3}
        return [
            *self.plain(prefix, era),
            *([] if prefix else self.addressed()),
            {"name": "conditional_tools", "kind": "list_tools", "expect": [prefix + name for name in conditional]},
            progress(prefix + "trigger-long-running-operation", steps, [1, 2, 3], "completed"),
            call("elicitation", prefix + "trigger-elicitation-request", {}, "Name: Ada"),
            call(
                "sampling",
                prefix + "trigger-sampling-request",
                {"prompt": "Hi", "maxTokens": 9},
                "hello from the client",
            ),
            call("roots", prefix + "get-roots-list", {}, "file:///interop/one"),
        ]


ServerKind = Fixture | Small | Everything


def call(name: str, tool: str, arguments: dict[str, Any], expect: str) -> Scenario:
    """A tool call whose text must contain `expect`."""
    return {"name": name, "kind": "call", "tool": tool, "arguments": arguments, "expect": expect}


def progress(tool: str, arguments: dict[str, Any], values: Sequence[int], expect: str) -> Scenario:
    """A tool call that must report exactly these progress values, in this order, before it answers."""
    return {**call("progress", tool, arguments, expect), "kind": "progress", "progress": list(values)}


def prompt(name: str, of: str, arguments: dict[str, str], expect: str) -> Scenario:
    """A prompts/get whose messages must contain `expect`."""
    return {"name": name, "kind": "get_prompt", "prompt": of, "arguments": arguments, "expect": expect}


def read(name: str, uri: str, expect: str) -> Scenario:
    """A resources/read whose contents must contain `expect` under the same address."""
    return {"name": name, "kind": "read", "uri": uri, "expect": expect}


def keyed(scenarios: Sequence[Scenario], key: str) -> list[Scenario]:
    """The scenarios with `KEY` replaced, so that two runs against one server never share a name."""

    def put(value: object) -> object:
        if isinstance(value, dict):
            return {name: put(item) for name, item in value.items()}
        return key if value == "KEY" else value

    return [{name: put(value) for name, value in scenario.items()} for scenario in scenarios]
