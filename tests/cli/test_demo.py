"""`gatewright demo` as a real process: one real answer, then the end or Ctrl-C."""

import signal
import socket
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cli.commands import line_of, run, running, stop
from gatewright.cli import snippets
from gatewright.cli.demo import Answer, demo_config, post
from gatewright.inbound.settings import Listen


def test_once_shows_snippets_and_a_real_answer_and_ends_with_success(tmp_path: Path) -> None:
    """Every client is told how to connect; the answer is the time; nothing is left in the temporary folder."""
    ended = run("demo", "--once", "--listen", "127.0.0.1:0", TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    out = ended.stdout
    assert out.startswith("gatewright: listening on http://127.0.0.1:")
    for expected in ("claude mcp add --transport http", '"mcpServers"', "cursor://", '"servers"', "curl -sS http"):
        assert expected in out
    iso = next(line for line in out.splitlines() if '"iso"' in line).split('"')[3]
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(iso)) < timedelta(minutes=2)
    assert list(tmp_path.iterdir()) == []


def test_it_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    """And removes its folder then."""
    with running("demo", "--listen", "127.0.0.1:0", TMPDIR=str(tmp_path)) as child:
        while "stays up until you press Ctrl-C" not in line_of(child):
            pass
        assert len(list(tmp_path.iterdir())) == 1
        code, _, err = stop(child, signal.SIGINT)
        assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_that_was_asked_for_is_exit_code_1() -> None:
    """Only the default port falls back to a free one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("demo", "--once", "--listen", address)
    assert ended.returncode == 1
    assert f"the address {address} is taken" in ended.stderr


def test_the_demonstration_has_a_child_and_two_servers_in_process(tmp_path: Path) -> None:
    """On loopback, without a control plane."""
    config = demo_config(Listen(port=0), tmp_path)
    assert [backend.transport for backend in config.backends.values()] == ["python", "python", "stdio"]
    assert (config.listen.host, config.admin) == ("127.0.0.1", None)


class _Canned(BaseHTTPRequestHandler):
    """Answers every POST with what the server was given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, content_type, body = self.server.canned  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


TEXT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"noon"}],"isError":false}}'
EVENTS = b': hi\r\n\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\n\ndata: ' + TEXT + b"\n\n"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "answer"),
    [
        (200, "application/json", TEXT, Answer(200, "noon")),
        (200, "text/event-stream", EVENTS, Answer(200, "noon")),
        (200, "application/json", TEXT.replace(b"false", b"true"), None),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}', None),
        (502, "text/plain", b"bad gateway", None),
        (200, "text/event-stream", b"", None),
    ],
)
def test_only_a_result_with_text_is_an_answer(
    status: int, content_type: str, body: bytes, answer: Answer | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON or as a stream; anything else is shown and is none."""
    with HTTPServer(("127.0.0.1", 0), _Canned) as server:
        server.canned = (status, content_type, body)  # type: ignore[attr-defined]
        thread = Thread(target=server.handle_request)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}/mcp"
        assert post(snippets.plain_call(endpoint, "clock.now", {})) == answer
        thread.join(5)
    assert "<- " in capsys.readouterr().out


def test_no_server_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}/mcp"
        assert post(snippets.plain_call(endpoint, "clock.now", {})) is None
    assert "no answer:" in capsys.readouterr().out
