"""The MCP Inspector's command line as a client, in both eras: one process per request, its JSON answer on stdout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interop.cells import BOTH, SERVERS, ServerCell
from interop.plans import Era
from interop.processes import running
from interop.runs import Node

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

MAIN = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
CALL_TIMEOUT_S = 20.0
ANSWER_LINES = 50_000  # the Inspector prints indented JSON
DIRECT = [server for server in SERVERS if server.name in ("handshake", "modern")]


@dataclass(frozen=True)
class Inspector:
    """The Inspector pointed at one endpoint by a session configuration of its own."""

    node: Node
    folder: Path

    def ask(self, url: str, era: Era, method: str, *arguments: str) -> Any:
        """Make one request and return its result as JSON."""
        entry = {"type": "streamable-http", "url": url, "protocolEra": "legacy" if era == "handshake" else "modern"}
        file = self.folder / "inspector.json"
        file.write_text(json.dumps({"mcpServers": {"target": entry}}))
        options = ["--cli", "--config", str(file), "--server", "target", "--method", method, *arguments]
        argv: list[str | Path] = [self.node.program, self.node.cache / MAIN, *options]
        with running(
            argv, env={"HOME": str(self.folder)}, name=f"inspector {method}", ring_lines=ANSWER_LINES
        ) as process:
            assert process.wait(timeout_s=CALL_TIMEOUT_S) == 0, process.report()
            return json.loads("\n".join(process.lines))


@pytest.fixture
def inspector(node: Node, tmp_path: Path) -> Inspector:
    """An Inspector with an empty home."""
    return Inspector(node, tmp_path)


def walk(inspector: Inspector, url: str, era: Era, prefix: str, label: str) -> None:
    """List, call, get and read, and check every answer."""
    tools = inspector.ask(url, era, "tools/list")["tools"]
    assert {f"{prefix}echo", f"{prefix}add"} <= {tool["name"] for tool in tools}
    add = ("--tool-name", f"{prefix}add", "--tool-arg", "a=2", "b=3")
    answer = inspector.ask(url, era, "tools/call", *add)
    assert answer["structuredContent"] == {"sum": 5}
    got = inspector.ask(url, era, "prompts/get", "--prompt-name", f"{prefix}greeting", "--prompt-args", "who=Ada")
    assert got["messages"][0]["content"]["text"] == "Greet Ada."
    uri = f"note://{label}/static/3"
    read = inspector.ask(url, era, "resources/read", "--uri", uri)
    assert read["contents"] == [{"uri": uri, "text": f"note 3 of {label}"}]


@pytest.mark.parametrize("server", DIRECT, ids=lambda server: server.name)
def test_inspector_works_without_a_gateway(inspector: Inspector, urls: dict[str, str], server: ServerCell) -> None:
    """The Inspector gets on with the servers themselves."""
    walk(inspector, urls[server.name], server.eras[0], "", server.name)


@pytest.mark.parametrize("era", BOTH)
def test_inspector_works_at_the_endpoint_of_one_server(inspector: Inspector, gateway: str, era: Era) -> None:
    """At `/mcp/NAME`, whichever era the Inspector and the server speak."""
    for name in ("handshake", "modern"):
        walk(inspector, f"{gateway}/mcp/{name}", era, "", name)


@pytest.mark.parametrize("era", BOTH)
def test_inspector_works_at_the_endpoint_of_all_servers(inspector: Inspector, gateway: str, era: Era) -> None:
    """At `/mcp`, with prefixed names."""
    walk(inspector, f"{gateway}/mcp", era, "stdio.", "stdio")
