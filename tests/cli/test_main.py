"""The command line from outside: what it prints where, and its exit codes."""

import json
import re
from pathlib import Path

from cli.commands import run


def test_version_and_help_are_success() -> None:
    """On stdout, exit code 0."""
    version = run("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(r"gatewright \d+\.\d+\.\d+\S*\n", version.stdout)
    helped = run("serve", "--help")
    assert helped.returncode == 0
    assert "Exit codes: 0 success, 1 failure while running, 2 wrong configuration" in helped.stdout


def test_a_wrong_command_line_is_exit_code_2() -> None:
    """Unknown commands, options and values."""
    for arguments in (
        ["fly"],
        ["serve", "--nope"],
        ["serve", "x", "--log-level", "loud"],
        ["demo", "--listen", "here"],
    ):
        ended = run(*arguments)
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert ended.stderr


def test_no_command_shows_the_help() -> None:
    """And is a mistake of use."""
    ended = run()
    assert ended.returncode == 2
    assert "serve" in ended.stdout + ended.stderr


def test_every_problem_of_a_configuration_is_on_stderr_with_exit_code_2(tmp_path: Path) -> None:
    """Nothing on stdout: nothing was bound."""
    (tmp_path / "gatewright.yaml").write_text("lisen: 1\nbackends: {a: {url: '${NOPE}'}}\n")
    for command in ("serve", "check"):
        ended = run(command, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == (
            "gatewright: 2 problems in the configuration\n"
            '  gatewright.yaml:1:1: lisen: unknown key; did you mean "listen"?\n'
            "  gatewright.yaml:2:21: backends.a.url: the environment variable NOPE is not set; set it, or write "
            "${NOPE:-default}\n"
        )


def test_a_missing_file_is_exit_code_2(tmp_path: Path) -> None:
    """With its name."""
    ended = run("serve", str(tmp_path / "none.yaml"))
    assert ended.returncode == 2
    assert f"{tmp_path}/none.yaml:1:1: cannot be read: No such file or directory" in ended.stderr


def test_schema_is_json_on_stdout() -> None:
    """Ready for an editor."""
    ended = run("schema")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["properties"]["backends"]
