"""Clients' own files as configurations: each client's real shape, kept meanings, warnings, refusals."""

import json
from pathlib import Path

import pytest

from gatewright.config import ConfigError, Loaded, parse

ENVIRON = {"API_KEY": "k3y", "HOME": "/home/ada"}


def loaded(value: object) -> Loaded:
    """That JSON file's configuration."""
    return parse(json.dumps(value, indent=2), file="client.json", environ=ENVIRON, folder=Path("/"))


def refused(value: object) -> list[str]:
    """What is wrong with that JSON file."""
    with pytest.raises(ConfigError) as caught:
        loaded(value)
    return [str(problem) for problem in caught.value.problems]


def one(server: dict[str, object]) -> Loaded:
    """The configuration of a file with that one server, named x."""
    return loaded({"mcpServers": {"x": server}})


def test_claude_desktop_file_is_a_configuration() -> None:
    """Command, args and env, beside settings of the application that are left out with a warning."""
    result = loaded(
        {
            "globalShortcut": "Ctrl+Space",
            "mcpServers": {
                "filesystem": {
                    "command": "npx",
                    "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv"],
                    "env": {"API_KEY": "${API_KEY}"},
                }
            },
        }
    )
    backend = result.config.backends["filesystem"]
    assert backend.transport == "stdio"
    assert backend.args == ("-y", "@modelcontextprotocol/server-filesystem", "/srv")
    assert backend.env["API_KEY"].reveal() == "k3y"
    assert [str(warning) for warning in result.warnings] == [
        "client.json:2:3: globalShortcut: concerns the client only and is ignored"
    ]


def test_claude_code_file_is_a_configuration() -> None:
    """`.mcp.json`: types stdio and http, variables with defaults, an OAuth block that is not read."""
    result = loaded(
        {
            "mcpServers": {
                "api": {
                    "type": "http",
                    "url": "${API_BASE:-https://api.example.com}/mcp",
                    "headers": {"Authorization": "Bearer ${API_KEY}"},
                    "oauth": {"clientId": "c"},
                    "timeout": 120_000,
                },
                "local": {"type": "stdio", "command": "${HOME}/bin/server", "args": [], "env": {}},
            }
        }
    )
    api, local = result.config.backends["api"], result.config.backends["local"]
    assert (api.url, api.transport, api.timeout_s) == ("https://api.example.com/mcp", "http", 120.0)
    assert api.headers["Authorization"].reveal() == "Bearer k3y"
    assert local.command == "/home/ada/bin/server"
    assert [warning.path for warning in result.warnings] == [
        ("mcpServers", "api", "oauth"),
        ("mcpServers", "api", "timeout"),
    ]


def test_cursor_file_is_a_configuration() -> None:
    """A url without a type is Streamable HTTP; `${env:NAME}` is a variable."""
    result = loaded({"mcpServers": {"x": {"url": "https://x/mcp", "headers": {"X-Key": "${env:API_KEY}"}}}})
    assert result.config.backends["x"].transport == "http"
    assert result.config.backends["x"].headers["X-Key"].reveal() == "k3y"


def test_vscode_file_is_a_configuration_unless_it_asks_a_person() -> None:
    """`servers`, `inputs`, `dev`; `${input:...}` is refused with what to write instead."""
    file = {
        "inputs": [{"type": "promptString", "id": "api-key", "password": True}],
        "servers": {
            "x": {"type": "http", "url": "https://x/mcp"},
            "y": {"type": "stdio", "command": "y", "dev": {"watch": "src/**"}, "env": {"N": 1}},
        },
    }
    result = loaded(file)
    assert set(result.config.backends) == {"x", "y"}
    assert result.config.backends["y"].env["N"].reveal() == "1"
    assert [warning.path[-1] for warning in result.warnings] == ["inputs", "dev"]
    file["servers"]["x"]["headers"] = {"Authorization": "${input:api-key}"}  # type: ignore[call-overload, index]
    (told,) = refused(file)
    assert "servers.x.headers.Authorization" in told
    assert "write ${API_KEY} and set API_KEY" in told


def test_cline_and_roo_count_seconds_and_their_keys_are_ignored_with_a_warning() -> None:
    """`autoApprove` asks nobody here; `disabledTools` opens more than the client did, and says so."""
    result = one({"command": "x", "timeout": 1_800, "autoApprove": ["a"], "disabledTools": ["rm"], "disabled": False})
    assert result.config.backends["x"].timeout_s == 1_800.0
    assert [str(warning).split(": ", 2)[2] for warning in result.warnings] == [
        "concerns the client only and is ignored",
        "is not applied: every tool of this server is offered",
    ]


@pytest.mark.parametrize(
    ("written", "timeout_s", "warns"),
    [(60, 60.0, False), (999, 999.0, False), (30_000, 30.0, True), (1_500, 1.5, True)],
)
def test_a_timeout_below_1000_is_seconds_and_above_milliseconds(written: int, timeout_s: float, warns: bool) -> None:
    """What was understood is said when it is not obvious."""
    result = one({"command": "x", "timeout": written})
    assert result.config.backends["x"].timeout_s == timeout_s
    assert bool(result.warnings) is warns


@pytest.mark.parametrize("server", [{"disabled": True}, {"enabled": False}])
def test_a_server_that_is_switched_off_is_left_out(server: dict[str, object]) -> None:
    """With a warning, and whatever else it says."""
    result = one({"command": "x"} | server)
    assert result.config.backends == {}
    assert str(result.warnings[0]).endswith("mcpServers.x: is switched off and left out")


@pytest.mark.parametrize(
    "server",
    [
        {"httpUrl": "https://x/mcp"},
        {"serverUrl": "https://x/mcp"},
        {"transport": "streamable-http", "url": "https://x/mcp"},
        {"type": "streamableHttp", "url": "https://x/mcp"},
        {"transport": "http", "url": "https://x/mcp", "protocolEra": "legacy"},
    ],
)
def test_other_clients_words_are_understood(server: dict[str, object]) -> None:
    """Gemini CLI, Windsurf, FastMCP, Cline, Inspector."""
    backend = one(server).config.backends["x"]
    assert (backend.url, backend.transport) == ("https://x/mcp", "http")
    assert backend.era == ("handshake" if "protocolEra" in server else "auto")


def test_gateway_keys_work_in_client_files_too() -> None:
    """So that one server can be tuned without a second file."""
    result = loaded({"mcpServers": {"x": {"command": "x", "stop_grace_s": 5}}, "listen": 9000})
    assert result.config.backends["x"].stop_grace_s == 5.0
    assert str(result.config.listen) == "127.0.0.1:9000"


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({"commnd": "x"}, 'mcpServers.x.commnd: unknown key; did you mean "command"?'),
        ({"command": "x", "autoAprove": []}, 'did you mean "autoApprove"?'),
        ({"command": "x", "frobnicate": 1}, "mcpServers.x.frobnicate: unknown key; known are"),
        ({"type": "sse", "url": "https://x/sse", "era": "modern"}, "carries the handshake era only"),
        ({"type": "ws", "url": "https://x"}, "mcpServers.x.type: must be"),
        ({"url": "https://x", "serverUrl": "https://x"}, "mcpServers.x.serverUrl: says url a second time"),
        ({"command": "x", "timeout": "long"}, "mcpServers.x.timeout: must be a number"),
        ({"command": "x", "url": "https://x"}, "exactly one of url, command and python; this one has url and command"),
        ({}, "this one has none of them"),
    ],
)
def test_what_no_client_writes_is_refused(server: dict[str, object], told: str) -> None:
    """With the path as the file has it."""
    assert any(told in line for line in refused({"mcpServers": {"x": server}}))


def test_a_server_that_is_no_mapping_is_refused() -> None:
    """With its place."""
    assert refused({"mcpServers": {"x": "npx"}}) == ["client.json:3:10: mcpServers.x: write a mapping of keys here"]


@pytest.mark.parametrize(("name", "fixed"), [("my files", "my-files"), ("io.github/x", "io-github-x"), ("ü", "server")])
def test_a_name_that_cannot_stand_in_a_path_is_refused_with_one_that_can(name: str, fixed: str) -> None:
    """Renaming silently would hide where its tools come from."""
    (told,) = refused({"mcpServers": {name: {"command": "x"}}})
    assert told.endswith(f'call it "{fixed}"')


def test_a_misspelt_gateway_key_in_a_client_file_is_refused() -> None:
    """Unknown keys of a client are left out, but not what looks like ours."""
    (told,) = refused({"mcpServers": {}, "limitz": {}})
    assert told == 'client.json:3:3: limitz: unknown key; did you mean "limits"?'
