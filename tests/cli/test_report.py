"""Reading a configuration for a command."""

from pathlib import Path

import pytest

from gatewright.cli.report import WRONG, CommandError, read_config


def test_warnings_go_to_stderr_and_problems_end_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 with every problem."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.yaml"
    good.write_text('{"mcpServers": {"a": {"command": "x", "trust": true}}}')
    bad.write_text("a: 1\n")
    assert read_config(good).config.backends["a"].command == "x"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"warning: {good}:1:39: mcpServers.a.trust: concerns")
    with pytest.raises(CommandError, match="1 problem in the configuration") as caught:
        read_config(bad)
    assert caught.value.exit_code == WRONG
