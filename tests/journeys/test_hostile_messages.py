"""Messages that nobody should send: whatever they hold, each is answered, completely, and none is taken for a bug.

Made at random from the words of the protocol, with values of every type in every place, some broken in a byte; sent in
sessions and without, to every route. The seed is fixed: a failure names the message.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import ACCEPT, META, HandshakeClient, Json, Wire, soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
MESSAGES = 600
PATHS = ["/mcp", "/mcp/box", "/mcp/ant"]
REQUESTS = [
    *("tools/call", "tools/list", "resources/read", "resources/list", "resources/templates/list", "prompts/get"),
    *("prompts/list", "completion/complete", "ping", "initialize", "logging/setLevel", "resources/subscribe"),
    *("resources/unsubscribe", "server/discover", "tasks/get", "no/such", ""),
]
NOTICES = ["cancelled", "progress", "initialized", "roots/list_changed", "no/such"]
MEMBERS = [
    *("name", "arguments", "uri", "cursor", "level", "ref", "argument", "_meta", "requestId", "progressToken"),
    *("inputResponses", "requestState", "protocolVersion", "capabilities", "clientInfo", "task", "Name"),
]
META_MEMBERS = [
    *(META + name for name in ("protocolVersion", "clientCapabilities", "clientInfo", "logLevel", "subscriptionId")),
    *("progressToken", "traceparent", "baggage", "x"),
]
SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, 2**70, -(2**70), 1.5, 1e308),
    *("", "echo", "box.echo", "ant.echo", "box.", "a" * 300, "\x00", "\ud83d", "é", "\u2028", "%", "{"),
    *("box://note", "ant://page/1", "ui://x", "2026-07-28", "2025-11-25", "debug", "ref/prompt", "box.greet"),
]
TOOLS = ["box.echo", "ant.echo", "echo", "box.progress", "box.log", "ant.client", "box.greet", "box.refuse", "greet"]


class Maker:
    """Makes messages."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        """Any JSON value."""
        kind = self.chance.random()
        if kind < 0.6 or depth > 3:
            return self.chance.choice(SCALARS)
        if kind < 0.75:
            return [self.value(depth + 1) for _ in range(self.chance.randrange(3))]
        return self.members(self.chance.choice([MEMBERS, META_MEMBERS]), depth + 1)

    def members(self, names: list[str], depth: int = 0) -> Json:
        """Any object of these members."""
        return {self.chance.choice(names): self.value(depth) for _ in range(self.chance.randrange(5))}

    def params(self, method: Any) -> Any:
        """Parameters that are at times what the method takes."""
        chance = self.chance
        if chance.random() < 0.05:
            return self.value()
        found = self.members(MEMBERS)
        if method in ("tools/call", "prompts/get") and chance.random() < 0.7:
            found["name"] = chance.choice(TOOLS)
            found["arguments"] = chance.choice([{}, {"steps": 3, "levels": ["debug"], "code": -32042}, self.value()])
        if chance.random() < 0.7:
            meta = self.members(META_MEMBERS)
            if chance.random() < 0.6:
                meta[META + "protocolVersion"] = "2026-07-28"
                meta[META + "clientCapabilities"] = chance.choice([{}, {"roots": 1}, self.value()])
            found["_meta"] = meta
        return found

    def message(self) -> Json:
        """Any message."""
        chance = self.chance
        method: Any = chance.choice(REQUESTS)
        if chance.random() < 0.2:
            method = "notifications/" + chance.choice(NOTICES)
        found: Json = {"jsonrpc": "2.0" if chance.random() < 0.97 else self.value(), "method": method}
        if chance.random() < 0.85:
            found["id"] = chance.choice([1, "a", 2**60, -5, "", 0]) if chance.random() < 0.9 else self.value()
        if chance.random() < 0.9:
            found["params"] = self.params(method)
        for name in ("result", "error"):
            if chance.random() < 0.05:
                found[name] = self.value()
        if chance.random() < 0.05:
            found["method"] = self.value()
        return found

    def body(self) -> bytes:
        """A message, or several, at times broken."""
        text = json.dumps([self.message(), self.message()] if self.chance.random() < 0.05 else self.message())
        if self.chance.random() < 0.03:
            at = self.chance.randrange(len(text))
            text = text[:at] + self.chance.choice(["", "\x00", "}", '"', ","]) + text[at + 1 :]
        return text.encode("utf-8", "surrogatepass")


def mirrored(body: bytes) -> dict[str, str]:
    """The headers that a well-meaning modern client would send with it."""
    fields = {"MCP-Protocol-Version": "2026-07-28"}
    try:
        message = json.loads(body)
        named = message["params"].get("uri" if message["method"] == "resources/read" else "name")
        for header, value in (("Mcp-Method", message["method"]), ("Mcp-Name", named)):
            if isinstance(value, str) and value and value.isascii() and value.isprintable():
                fields[header] = value
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return fields


async def answered(travel: Travel, path: str, fields: dict[str, str], body: bytes) -> tuple[int, list[Json]]:
    """Status and messages of the answer, after which nothing may come."""
    wire = await Wire.open(travel.port)
    fields = {"Content-Type": "application/json", "Accept": ACCEPT, **fields}
    answer = await wire.send("POST", path, fields, body)
    said = [message async for message in answer.messages()]
    nothing = await (await wire.send("GET", "/nowhere", {})).json() if wire.is_open else None
    assert wire.stray == b"", (path, fields, body, said)
    assert nothing is None or "nothing is served here" in nothing["error"]["message"]
    return answer.status, said


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_sent_is_answered(seed: int) -> None:
    """With a status below 500, in whole, and never as an internal error; the gateway serves on."""
    maker = Maker(seed)
    behind = {"box": Toolbox("box", "handshake"), "ant": Toolbox("ant", "modern")}
    async with travelling(behind) as travel:
        sessions: list[HandshakeClient] = [
            await travel.handshake(path, revision=revision)
            for path in PATHS
            for revision in ("2025-11-25", "2025-03-26")
        ]
        for _ in range(MESSAGES):
            body, path, fields = maker.body(), maker.chance.choice(PATHS), {}
            if maker.chance.random() < 0.5:
                session = maker.chance.choice(sessions)
                path, fields = session.path, session.headers({})
            elif maker.chance.random() < 0.9:
                fields = mirrored(body)
            status, said = await answered(travel, path, fields, body)
            assert status < 500, (path, fields, body, said)
            assert "Internal error" not in str(said), (path, fields, body, said)
        for session in sessions:
            assert await soon(session.result("ping")) == {}
