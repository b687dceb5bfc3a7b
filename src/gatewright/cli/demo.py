"""`gatewright demo`: a gateway with three servers behind it, and one call through it.

Contract: starts two servers in this process and one as a child, on loopback only, with a temporary folder that is
removed at the end. Says how to connect clients, makes one real call over HTTP through the public port and shows the
answer. Runs until Ctrl-C; with `once` it ends after the answer. Fails (exit code 1) when there was none.
"""

import asyncio
import errno
import http.client
import json
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from gatewright.app import Gateway
from gatewright.backend.settings import BackendSettings
from gatewright.cli import snippets
from gatewright.cli.logs import configure
from gatewright.cli.process import Signals, explained, stopping_on_signals
from gatewright.cli.report import FAILED, WRONG, CommandError, say
from gatewright.cli.serve import announce
from gatewright.config import Config, Log
from gatewright.errors import GatewrightError
from gatewright.inbound.settings import Listen

DEFAULT_LISTEN = Listen(port=8080)
CALL_TIMEOUT_S = 20.0
"""The first call may start the child; a second is usual, this is for a busy machine."""

_FILES = {
    "welcome.txt": "This file was read by a child process of the gateway, started when it was first needed.\n",
    "recipes/tea.txt": "Boil water. Pour it over the leaves. Wait four minutes. Enjoy.\n",
    "recipes/bread.txt": "Flour, water, salt, yeast. Knead, wait a day, bake at 240 degrees.\n",
    "todo.md": "- connect a client to the gateway\n- put a server of your own behind it\n",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the call came back with: the HTTP status and the text of the result."""

    status: int
    text: str


def demo(listen: str | None, *, once: bool) -> None:
    """Run the demonstration. Raises `CommandError`."""
    try:
        address = Listen.parse(listen) if listen is not None else _free(DEFAULT_LISTEN)
    except ValueError as error:
        raise CommandError(f"gatewright: {error}", WRONG) from None
    with tempfile.TemporaryDirectory(prefix="gatewright-demo-") as folder:
        _write_files(Path(folder))
        config = demo_config(address, Path(folder))
        configure(config.log)
        try:
            gateway = Gateway(config)
            with stopping_on_signals(gateway) as signals:
                answer = uvloop.run(_run(gateway, config, signals, once=once))
        except (OSError, GatewrightError, BaseExceptionGroup) as error:
            raise explained(error, config.listen) from error
    if answer is None:
        raise CommandError("gatewright: the demonstration had no answer", FAILED)


def demo_config(listen: Listen, folder: Path) -> Config:
    """Two servers in this process, and one child that serves the files below `folder`."""
    return Config(
        listen=listen,
        admin=None,
        log=Log(level="warning"),
        backends={
            "clock": BackendSettings(python="gatewright.demo_servers.clock:server", stateless=True),
            "notes": BackendSettings(python="gatewright.demo_servers.notes:server", stateless=True),
            "files": BackendSettings(
                command=sys.executable, args=("-m", "gatewright.demo_servers.files", str(folder)), stateless=True
            ),
        },
    )


def _free(wanted: Listen) -> Listen:
    """That address, or the same host with port 0 (any free one) and a notice when it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.host, wanted.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            say(f"Port {wanted.port} is taken, so a free one is used instead.")
            return Listen(host=wanted.host, port=0)
    return wanted


def _write_files(folder: Path) -> None:
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


async def _run(gateway: Gateway, config: Config, signals: Signals, *, once: bool) -> Answer | None:
    """Serve, say how to connect, call, show; then wait for the end. None when the call had no answer."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    answer: Answer | None = None
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(gateway.run(on_ready=lambda listening: ready.set_result(listening.url)))
        either: list[asyncio.Future[Any]] = [serving, ready]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            return None  # stopped, or failed: the group raises what it was
        signals.arm()
        announce(ready.result(), config)
        endpoint = f"{ready.result()}/mcp"
        call = snippets.plain_call(endpoint, "clock.now", {"zone": "Europe/Berlin"})
        say(_instructions(endpoint, call))
        answer = await asyncio.to_thread(post, call)
        if once or answer is None:
            gateway.stop()
        else:
            say("\nThe gateway stays up until you press Ctrl-C.")
    return answer


def _instructions(endpoint: str, call: snippets.PlainCall) -> str:
    parts = [
        ("Claude Code", snippets.claude_code(endpoint)),
        ("Claude Code, per project: .mcp.json", snippets.mcp_json(endpoint)),
        ("Cursor: .cursor/mcp.json", snippets.cursor_json(endpoint)),
        ("Cursor, one click", snippets.cursor_link(endpoint)),
        ("VS Code: .vscode/mcp.json", snippets.vscode_json(endpoint)),
        ("curl: one call, no session", snippets.curl(call)),
    ]
    return "\nConnect a client:\n" + "".join(f"\n# {title}\n{text}\n" for title, text in parts)


def post(call: snippets.PlainCall) -> Answer | None:
    """Make that call over plain HTTP and show request and answer; None (and the reason shown) when it failed."""
    address = urlsplit(call.url)
    say(f"The same call, made now through {call.url}:\n  -> tools/call clock.now (zone Europe/Berlin)")
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=CALL_TIMEOUT_S)
    try:
        connection.request("POST", address.path, call.body.encode(), call.headers)
        response = connection.getresponse()
        body = response.read().decode()
        text = _text_of(response.headers.get_content_type(), body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        say(f"  <- no answer: {error}")
        return None
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK or text is None:
        say(f"  <- HTTP {response.status}: {body[:2_000]}")
        return None
    say("\n".join(f"  <- {line}" for line in text.splitlines()))
    return Answer(response.status, text)


def _text_of(content_type: str, body: str) -> str | None:
    """The text of a tool's result, from JSON or from the last event of a stream; None when it is an error."""
    if content_type == "text/event-stream":
        data = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
        body = data[-1] if data else ""
    message = json.loads(body)
    result = message.get("result") if isinstance(message, dict) else None
    if not isinstance(result, dict) or result.get("isError"):
        return None
    texts = [str(part.get("text")) for part in result.get("content", []) if part.get("type") == "text"]
    return "\n".join(texts) or None
