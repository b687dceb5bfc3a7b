"""Ready-to-paste set-up for MCP clients, and one plain call.

Contract: pure text. Written for an endpoint without credentials; every snippet is what that client's own
documentation tells its users to write.
"""

import base64
import json
import shlex
from dataclasses import dataclass
from urllib.parse import quote

NAME = "gatewright"
REVISION = "2026-07-28"


@dataclass(frozen=True, slots=True)
class PlainCall:
    """One `tools/call` of the modern era: a single POST, no session before it."""

    url: str
    headers: dict[str, str]
    body: str


def plain_call(endpoint: str, tool: str, arguments: dict[str, object]) -> PlainCall:
    """The call of `tool` at that MCP endpoint; the tool's name must be plain ASCII."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    return PlainCall(
        endpoint, headers, json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    )


def curl(call: PlainCall) -> str:
    """The call as one curl command."""
    fields = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in call.headers.items()]
    return " \\\n  ".join(["curl -sS " + shlex.quote(call.url), *fields, f"-d {shlex.quote(call.body)}"])


def claude_code(endpoint: str) -> str:
    """The command that adds the endpoint to Claude Code."""
    return f"claude mcp add --transport http {NAME} {shlex.quote(endpoint)}"


def mcp_json(endpoint: str) -> str:
    """A project's `.mcp.json`, as Claude Code and others read it."""
    return _pretty({"mcpServers": {NAME: {"type": "http", "url": endpoint}}})


def cursor_json(endpoint: str) -> str:
    """Cursor's `.cursor/mcp.json`."""
    return _pretty({"mcpServers": {NAME: {"url": endpoint}}})


def cursor_link(endpoint: str) -> str:
    """A link that asks Cursor to install the endpoint."""
    settings = base64.b64encode(json.dumps({"url": endpoint}, separators=(",", ":")).encode()).decode()
    return f"cursor://anysphere.cursor-deeplink/mcp/install?name={NAME}&config={quote(settings, safe='')}"


def vscode_json(endpoint: str) -> str:
    """VS Code's `.vscode/mcp.json`."""
    return _pretty({"servers": {NAME: {"type": "http", "url": endpoint}}})


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2)
