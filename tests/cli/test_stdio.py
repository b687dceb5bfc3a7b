"""`gatewright stdio` as a real process: a clean output whatever prints, orderly ends, no process left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.commands import WAIT_S, run
from cli.noisy import NOISE
from cli.speaking import TESTS, Spoken, gone, is_alive, spoken


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with a noisy server in the gateway's process and another in a child."""
    backends = {
        "inside": {"python": "cli.noisy:noisy"},
        "child": {"command": sys.executable, "args": ["-S", str(TESTS / "cli" / "noisy.py")], "stop_grace_s": 0.5},
    }
    path = tmp_path / "gatewright.yaml"
    path.write_text(json.dumps({"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "backends": backends}))
    return path


def call(host: Spoken, backend: str, own: int) -> str:
    """Let that backend make noise; what it says."""
    answer = host.ask("tools/call", {"name": f"{backend}.noise", "arguments": {}}, own=own)
    said = answer["result"]["content"][0]["text"]
    assert isinstance(said, str)
    return said


def test_nothing_but_protocol_is_on_its_output_whatever_prints(file: Path) -> None:
    """Servers in the process and below it print to standard output; the host sees only messages. Standard input is
    the host's as well: who reads it in the process finds nothing."""
    with spoken("stdio", str(file), stderr=subprocess.PIPE) as host:
        host.shake_hands()
        assert call(host, "inside", 1) == ""
        assert int(call(host, "child", 2)) > 0
        host.close_input()
        assert host.end() == 0
        assert len(host.said) == 3
        assert host.child.stderr is not None
        assert host.child.stderr.read().decode().count(NOISE) >= 3


def test_addresses_of_the_file_are_not_bound(file: Path) -> None:
    """Ports 1 and 2 cannot be: every host starts a gateway of its own from the same file."""
    with spoken("stdio", str(file)) as one, spoken("stdio", str(file)) as other:
        for host in (one, other):
            assert "result" in host.ask_modern("tools/list", own=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_orderly_end(file: Path, number: signal.Signals) -> None:
    """Exit code 0, and the children are gone."""
    with spoken("stdio", str(file)) as host:
        host.shake_hands()
        grandchild = int(call(host, "child", 1))
        assert is_alive(grandchild)
        host.child.send_signal(number)
        assert host.end() == 0
        assert gone(grandchild)


def test_the_end_of_input_is_an_orderly_end(file: Path) -> None:
    """Likewise."""
    with spoken("stdio", str(file)) as host:
        host.shake_hands()
        grandchild = int(call(host, "child", 1))
        host.close_input()
        assert host.end() == 0
        assert gone(grandchild)


def test_a_killed_gateway_leaves_no_process_behind(file: Path) -> None:
    """SIGKILL gives it no chance: the guard ends its children and theirs."""
    with spoken("stdio", str(file)) as host:
        host.shake_hands()
        grandchild = int(call(host, "child", 1))
        assert is_alive(grandchild)
        host.child.kill()
        assert gone(grandchild)


def test_a_host_that_never_reads_standard_error_holds_nothing_up(file: Path) -> None:
    """The child writes a megabyte there for each call; the gateway logs of it what finds room."""
    with spoken("stdio", str(file), "--log-level", "debug", stderr=subprocess.PIPE) as host:
        host.shake_hands()
        pids = {call(host, "child", own) for own in range(1, 6)}
        assert len(pids) == 1
        host.close_input()
        assert host.end() == 0


@pytest.mark.parametrize("over", ["two sockets", "one socket"])
def test_sockets_serve_as_well_as_pipes(file: Path, over: str) -> None:
    """Node gives its children sockets; inetd and socat give one for both ways."""
    with spoken("stdio", str(file), over=over) as host:
        host.shake_hands()
        assert call(host, "inside", 1) == ""
        host.child.terminate()
        assert host.end() == 0


def test_files_serve_as_well_as_pipes(file: Path, tmp_path: Path) -> None:
    """Requests from a file, answers into another, and the end of the file is the end."""
    asked, told = tmp_path / "asked", tmp_path / "told"
    asked.write_text('{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    with asked.open("rb") as source, told.open("wb") as sink:
        command = [sys.executable, "-c", "from gatewright.cli.main import main; main()", "stdio", str(file)]
        ended = subprocess.run(
            command, stdin=source, stdout=sink, stderr=subprocess.DEVNULL, cwd=TESTS, timeout=WAIT_S, check=False
        )
    assert ended.returncode == 0
    assert json.loads(told.read_text()) == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_one_backend_is_served_with_its_own_names(file: Path) -> None:
    """As on a path of its own."""
    with spoken("stdio", str(file), "--backend", "inside") as host:
        assert host.shake_hands()["result"]["serverInfo"]["name"] == "noisy"
        assert [tool["name"] for tool in host.ask("tools/list", own=1)["result"]["tools"]] == ["noise"]


def test_what_is_wrong_goes_to_standard_error(file: Path, tmp_path: Path) -> None:
    """A backend that is not there, a file that is none: exit code 2, and nothing on standard output."""
    unknown = run("stdio", str(file), "--backend", "nope")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "has no backend 'nope'; it has inside, child" in unknown.stderr
    absent = run("stdio", str(tmp_path / "absent.yaml"))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.startswith("gatewright: ")
