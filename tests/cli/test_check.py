"""`gatewright check` prints what is in force and no secret."""

import json
from pathlib import Path

import yaml

from cli.commands import run

CANARY = "c4nary"


def test_the_effective_configuration_is_printed_without_secrets(tmp_path: Path) -> None:
    """Values from the file and defaults; secrets of every origin masked; warnings apart on stderr."""
    file = tmp_path / "client.json"
    server = {
        "command": "npx",
        "args": ["--token", CANARY, f"--api-key={CANARY}", "${ARG:-c4nary}", f"postgres://u:{CANARY}@db/x", "-v"],
        "env": {"A": CANARY},
        "autoApprove": [],
    }
    remote = {"url": f"https://h/mcp?key={CANARY}", "headers": {"authorization": "${TOKEN}"}}
    templated = {"url": "https://h/${TOKEN}/mcp"}
    file.write_text(json.dumps({"mcpServers": {"local": server, "remote": remote, "templated": templated}}))
    for flags in ([], ["--json"]):
        ended = run("check", str(file), *flags, TOKEN=CANARY, ARG=CANARY)
        assert ended.returncode == 0
        assert CANARY not in ended.stdout + ended.stderr
        assert "mcpServers.local.autoApprove: concerns the client only" in ended.stderr
        shown = json.loads(ended.stdout) if flags else yaml.safe_load(ended.stdout)
        local, remote_shown = shown["backends"]["local"], shown["backends"]["remote"]
        assert local["args"] == [
            "--token",
            "********",
            "--api-key=********",
            "${ARG:-********}",
            "postgres://********@db/x",
            "-v",
        ]
        assert local["env"] == {"A": "********"}
        assert local["timeout_s"] == 60.0
        assert remote_shown["url"] == "https://h/mcp?key=********"
        assert remote_shown["headers"] == {"authorization": "********"}
        assert shown["backends"]["templated"]["url"] == "https://h/${TOKEN}/mcp"
        assert shown["listen"] == "127.0.0.1:8080"


def test_what_is_printed_is_a_configuration_again(tmp_path: Path) -> None:
    """Without secrets in it, checking the output gives the same output."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(
        "admin: null\nlisten: {port: 9000, allowed_origins: ['https://a.example']}\n"
        "backends: {a: {command: x, args: [1], stateless: true}, b: {python: 'm:a'}}\n"
    )
    first = run("check", str(one))
    two.write_text(first.stdout)
    assert run("check", str(two)).stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
