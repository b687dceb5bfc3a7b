"""Snippets are what each client's documentation asks for, and parse."""

import base64
import json
import shlex
from urllib.parse import parse_qs, urlsplit

from gatewright.cli import snippets
from gatewright.config import parse

ENDPOINT = "http://127.0.0.1:8080/mcp"


def test_claude_code_is_one_command() -> None:
    """`claude mcp add --transport http NAME URL`."""
    words = ["claude", "mcp", "add", "--transport", "http", "gatewright", ENDPOINT]
    assert shlex.split(snippets.claude_code(ENDPOINT)) == words


def test_the_files_name_the_endpoint_where_the_client_looks() -> None:
    """`mcpServers` with a type, without one, and `servers`."""
    assert json.loads(snippets.mcp_json(ENDPOINT)) == {"mcpServers": {"gatewright": {"type": "http", "url": ENDPOINT}}}
    assert json.loads(snippets.cursor_json(ENDPOINT)) == {"mcpServers": {"gatewright": {"url": ENDPOINT}}}
    assert json.loads(snippets.vscode_json(ENDPOINT)) == {"servers": {"gatewright": {"type": "http", "url": ENDPOINT}}}


def test_our_own_loader_reads_them() -> None:
    """One gateway can stand behind another."""
    from pathlib import Path

    for text in (snippets.mcp_json(ENDPOINT), snippets.cursor_json(ENDPOINT), snippets.vscode_json(ENDPOINT)):
        loaded = parse(text, file="x.json", environ={}, folder=Path("/"))
        assert loaded.config.backends["gatewright"].url == ENDPOINT


def test_the_cursor_link_carries_the_settings() -> None:
    """As base64 JSON in `config`."""
    link = urlsplit(snippets.cursor_link(ENDPOINT))
    query = parse_qs(link.query)
    assert (link.scheme, link.netloc, link.path) == ("cursor", "anysphere.cursor-deeplink", "/mcp/install")
    assert query["name"] == ["gatewright"]
    assert json.loads(base64.b64decode(query["config"][0])) == {"url": ENDPOINT}


def test_the_curl_command_is_the_call() -> None:
    """Same URL, headers and body, whatever quotes are in it."""
    call = snippets.plain_call(ENDPOINT, "clock.now", {"zone": "it's"})
    words = shlex.split(snippets.curl(call).replace("\\\n", " "))
    assert words[:3] == ["curl", "-sS", ENDPOINT]
    headers = [words[index + 1] for index, word in enumerate(words) if word == "-H"]
    assert "Mcp-Name: clock.now" in headers
    assert "MCP-Protocol-Version: 2026-07-28" in headers
    body = json.loads(words[words.index("-d") + 1])
    assert body["params"]["arguments"] == {"zone": "it's"}
    assert body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
