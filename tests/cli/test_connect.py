"""`gatewright connect`: what the command line makes of its words, and the real command before a real gateway."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typing_extensions import override

from cli.commands import line_of, run, running
from cli.speaking import Json, spoken
from gatewright.cli.connect import Options, headers, server
from gatewright.cli.report import WRONG, CommandError
from gatewright.config_expand import UnresolvedError

SECRET = "t0p-s3cret"
PAGE = Path(__file__).parents[2] / "docs" / "stdio.md"
DOCUMENTED = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- words


def test_headers_come_from_the_environment() -> None:
    """`_` stands for `-`; an option stands above a variable of the same name; empty variables are none."""
    environ = {
        "GATEWRIGHT_HEADER_AUTHORIZATION": "Bearer a",
        "GATEWRIGHT_HEADER_X_API_KEY": "k",
        "GATEWRIGHT_HEADER_X_EMPTY": "",
        "TOKEN": SECRET,
    }
    found = headers(["Authorization: Bearer ${TOKEN}", "X-Plain:a:b"], environ)
    assert {name: value.reveal() for name, value in found.items()} == {
        "authorization": f"Bearer {SECRET}",
        "x-api-key": "k",
        "x-plain": "a:b",
    }
    assert SECRET not in repr(found)


def test_a_variable_that_is_not_set_is_named() -> None:
    """And a text that is no header is refused."""
    with pytest.raises(UnresolvedError, match="TOKEN"):
        headers(["authorization: ${TOKEN}"], {})
    with pytest.raises(CommandError, match="'Name: value'"):
        headers(["authorization"], {})


def test_options_become_the_settings_of_one_server() -> None:
    """TLS, transport, and bounds that leave the patience to the host."""
    made = server(
        Options(url="https://${HOST}/mcp", tls_ca="ca.pem", is_insecure=True, is_sse=True), {"HOST": "mcp.example.org"}
    )
    assert (made.url, made.transport, made.tls_ca, made.tls_verify) == (
        "https://mcp.example.org/mcp",
        "sse",
        "ca.pem",
        False,
    )
    assert made.timeout_s == made.max_total_s == 86_400


@pytest.mark.parametrize(
    ("url", "header"),
    [("ftp://x", ""), ("https://u:p@x/", ""), ("http://x", "host: y"), ("http://x", "a: b\nc: d"), ("http://${X}", "")],
)
def test_what_makes_no_sense_is_exit_code_2(url: str, header: str) -> None:
    """Before anything is sent."""
    with pytest.raises(CommandError) as caught:
        server(Options(url=url, headers=[header] if header else []), {})
    assert caught.value.exit_code == WRONG


def test_the_command_says_what_is_wrong_without_secrets() -> None:
    """On standard error, with exit code 2."""
    ended = run("connect", "http://127.0.0.1/mcp", "--header", "x-a: ${A}\rb", A=SECRET)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "x-a" in ended.stderr
    assert SECRET not in ended.stderr


@pytest.mark.parametrize("block", DOCUMENTED, ids=range(len(DOCUMENTED)))
def test_what_the_documents_tell_hosts_to_start_is_a_command(block: str) -> None:
    """Its options are known; `--help` keeps it from running."""
    said = json.loads(block)
    for started in said.get("mcpServers", said.get("servers")).values():
        assert started["command"] == "gatewright"
        assert run(*started["args"], "--help").returncode == 0
        assert set(started.get("env", {})) <= {"GATEWRIGHT_HEADER_AUTHORIZATION"}


# --- a real gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """A running gateway with two servers behind it."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("hello\n")
    args = ["-m", "gatewright.demo_servers.files", str(tmp_path / "files")]
    backends = {"files": {"command": sys.executable, "args": args}}
    file = tmp_path / "gatewright.yaml"
    file.write_text(json.dumps({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
    with running("serve", str(file)) as child:
        yield line_of(child).rsplit(" ", 1)[1]


def test_a_host_of_either_era_reaches_a_gateway(gateway: str) -> None:
    """Names are the gateway's own; both eras in one process."""
    read = {"name": "files.read", "arguments": {"name": "a.txt"}}
    with spoken("connect", f"{gateway}/mcp") as host:
        found = host.ask_modern("server/discover", own=1)["result"]
        assert found["supportedVersions"] == ["2026-07-28"]
        assert host.ask_modern("tools/call", read, own=2)["result"]["content"][0]["text"] == "hello\n"
        assert host.shake_hands()["result"]["serverInfo"]["name"] == "gatewright"
        assert host.ask("tools/call", read, own=3)["result"]["content"][0]["text"] == "hello\n"
        host.close_input()
        assert host.end() == 0


def test_a_signal_ends_it(gateway: str) -> None:
    """With success."""
    with spoken("connect", f"{gateway}/mcp/files") as host:
        host.shake_hands()
        host.child.send_signal(signal.SIGTERM)
        assert host.end() == 0


# --- a server that remembers what it was sent


class Recorder(BaseHTTPRequestHandler):
    """Answers every request with an empty result, and keeps its headers."""

    protocol_version = "HTTP/1.1"
    heard: list[tuple[Json, dict[str, str]]]
    status: int

    def do_POST(self) -> None:
        """One message."""
        message: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.heard.append((message, fields))
        result: Json = {"resultType": "complete", "content": [{"type": "text", "text": "done"}], "tools": []}
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0}
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Iterator[tuple[type[Recorder], str]]:
    """The recorder and its address."""
    kind = type("OneRecorder", (Recorder,), {"heard": [], "status": 200})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        listening.daemon_threads = True
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield kind, f"http://127.0.0.1:{listening.server_port}/mcp"
        listening.shutdown()
        thread.join()


def test_requests_carry_the_given_headers_and_mirror_what_they_say(recorder: tuple[type[Recorder], str]) -> None:
    """The environment's and the option's; method, name and revision."""
    kind, url = recorder
    option = "X-Team: ${TEAM}"
    with spoken(
        "connect", url, "--header", option, TEAM="blue", GATEWRIGHT_HEADER_AUTHORIZATION=f"Bearer {SECRET}"
    ) as host:
        answer = host.ask_modern("tools/call", {"name": "größe", "arguments": {}}, own=1)
        assert answer["result"]["content"][0]["text"] == "done"
        assert all("session" not in name for _, fields in kind.heard for name in fields)
    message, fields = next(one for one in kind.heard if one[0]["method"] == "tools/call")
    assert message["params"]["name"] == "größe"
    assert fields["authorization"] == f"Bearer {SECRET}"
    assert fields["x-team"] == "blue"
    assert fields["mcp-method"] == "tools/call"
    assert fields["mcp-protocol-version"] == "2026-07-28"
    assert fields["mcp-name"].startswith("=?base64?")


def test_refused_credentials_are_a_clear_error_and_not_tried_again(recorder: tuple[type[Recorder], str]) -> None:
    """The host hears why."""
    kind, url = recorder
    kind.status = 401
    with spoken("connect", url) as host:
        error = host.ask_modern("tools/list", own=1)["error"]
        assert "refused the gateway's credentials (401)" in error["message"]


def test_a_server_that_cannot_be_reached_is_an_error_after_the_wait() -> None:
    """With its reason, for requests of either era."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with spoken("connect", f"http://127.0.0.1:{taken.getsockname()[1]}/mcp", "--wait", "0.3") as host:
            told = [host.ask_modern("tools/list", own=1), host.shake_hands()]
    for answer in told:
        assert answer["error"]["code"] == -31002
        assert "cannot be reached: Connection refused" in answer["error"]["message"]


def test_a_server_that_comes_up_in_time_is_waited_for(recorder: tuple[type[Recorder], str]) -> None:
    """A host's first request is not lost to a gateway that is starting."""
    kind, _ = recorder
    with ThreadingHTTPServer(("127.0.0.1", 0), kind, bind_and_activate=False) as late:
        late.daemon_threads = True
        late.server_bind()
        with spoken("connect", f"http://127.0.0.1:{late.server_port}/mcp", "--log-level", "error") as host:
            host.send("server/discover", {"_meta": {}}, id=1)
            assert "error" in host.answer(1)  # not a modern request: it is up and reads
            host.send("tools/list", _modern(), id=2)
            late.server_activate()
            thread = Thread(target=late.serve_forever, args=(0.01,))
            thread.start()
            try:
                assert host.answer(2)["result"]["tools"] == []
            finally:
                late.shutdown()
                thread.join()


def _modern() -> Json:
    meta = "io.modelcontextprotocol/"
    return {"_meta": {f"{meta}protocolVersion": "2026-07-28", f"{meta}clientCapabilities": {}}}
