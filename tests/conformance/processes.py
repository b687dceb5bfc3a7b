"""The processes of a conformance run: fixture, gateway, plain server. Each says where it listens on its first line."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from conformance.suite import TESTS

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
WARM_UP_TIMEOUT_S = 20.0

FIXTURE = (sys.executable, "-m", "conformance.everything")
PLAIN = (sys.executable, "-m", "conformance.plain_server")
GATEWAY = (str(Path(sys.executable).parent / "gatewright"), "serve")

_URL = re.compile(r"http://127\.0\.0\.1:\d+\S*")


class StartError(Exception):
    """A process ended, or stayed silent, before it said where it listens."""


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[str]:
    """Start `command` and yield the URL on its first line of stdout; end it by its own pid. `log` gets its stderr."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=dict(os.environ)
        )
        try:
            line = _first_line(process)
            found = _URL.search(line)
            if found is None:
                raise StartError(f"{command[0]} said {line!r}\n{log.read_text()[-4000:]}")
            yield found[0]
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
            if process.stdout is not None:
                process.stdout.close()


def _first_line(process: subprocess.Popen[bytes]) -> str:
    """What the process prints up to its first newline, or as far as it came before it ended or time was up."""
    assert process.stdout is not None
    seen = b""
    until = time.monotonic() + START_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in seen and (left_s := until - time.monotonic()) > 0:
            if not selector.select(left_s):
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            seen += chunk
    return seen.decode(errors="replace").split("\n", 1)[0]


@contextmanager
def gateway(backends: Mapping[str, Mapping[str, Any]], directory: Path) -> Iterator[str]:
    """A gateway with these backends; yields the base of its URLs, to which `/mcp/<backend>` is added."""
    config = directory / "gatewright.yaml"
    config.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": dict(backends)}))
    with running([*GATEWAY, str(config)], directory / "gateway.log") as url:
        yield url.rstrip("/")


def warm_up(url: str) -> None:
    """Have the server at `url` answer one `tools/list`, so that a child process behind it has started.

    Some scenarios allow one second to the first byte. The answer itself is the suite's business, not ours.
    """
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "warm-up", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/list",
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=WARM_UP_TIMEOUT_S) as response:
            response.read()
    except urllib.error.HTTPError as refused:
        refused.close()
