"""`gatewright serve` as a real process: first line, a call, orderly end, a taken port."""

import json
import resource
import signal
import socket
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.commands import line_of, run, running, stop
from gatewright.cli import snippets
from gatewright.cli.process import MIN_DESCRIPTORS
from gatewright.cli.report import WRONG, CommandError
from gatewright.cli.serve import with_options
from gatewright.config import Config
from gatewright.inbound.settings import Listen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with one real child behind it."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("hello\n")
    args = ["-m", "gatewright.demo_servers.files", str(tmp_path / "files")]
    backends = {"files": {"command": sys.executable, "args": args}}
    path = tmp_path / "gatewright.yaml"
    path.write_text(json.dumps({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    return path


def call(url: str, tool: str, **arguments: object) -> dict[str, object]:
    """One call of the modern era at that gateway."""
    told = snippets.plain_call(f"{url}/mcp", tool, arguments)
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", "/mcp", told.body, told.headers)
        answer: dict[str, object] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_serves_and_ends_with_success(file: Path, number: signal.Signals) -> None:
    """The first line is exact; a table follows; either signal is an orderly end."""
    with running("serve", str(file)) as child:
        first = line_of(child)
        assert first.startswith("gatewright: listening on http://127.0.0.1:")
        assert line_of(child).split() == ["/mcp", "all", "backends", "as", "BACKEND.TOOL"]
        assert line_of(child).split() == ["/mcp/files", "stdio", sys.executable]
        answer = call(first.rsplit(" ", 1)[1], "files.read", name="a.txt")
        assert answer["result"]["content"] == [{"type": "text", "text": "hello\n"}]  # type: ignore[index]
        code, out, err = stop(child, number)
        assert (code, out) == (0, "")
        assert all(json.loads(line)["level"] == "info" for line in err.splitlines())


def test_it_takes_the_descriptors_that_it_may_have(file: Path) -> None:
    """Started with the 1,024 of a shell it raises them, so that they bound nobody but real crowds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_024), hard))
    try:
        with running("serve", str(file)) as child:
            line_of(child)
            raised, _ = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
            stop(child)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == min(hard, MIN_DESCRIPTORS)


def test_a_taken_port_is_exit_code_1_with_advice(file: Path) -> None:
    """And no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", str(file), "--listen", address)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"gatewright: the address {address} is taken: stop what listens there, or choose another with --listen\n"
    )


def test_options_stand_above_the_file() -> None:
    """The address keeps the origins of the file; the level replaces the file's."""
    config = Config(listen=Listen(allowed_origins=("https://a",)))
    changed = with_options(config, ":9000", "debug")
    assert (str(changed.listen), changed.listen.allowed_origins) == ("0.0.0.0:9000", ("https://a",))
    assert changed.log.level == "debug"
    assert with_options(config, None, None) == config


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:8081"])
def test_an_option_that_makes_no_sense_is_exit_code_2(listen: str) -> None:
    """No address, or the one of the control plane."""
    with pytest.raises(CommandError) as caught:
        with_options(Config(), listen, None)
    assert caught.value.exit_code == WRONG
