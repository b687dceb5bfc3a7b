"""The documented request path is the one that runs: who stands on the stack when a call is written to its backend.

A real gateway serves a call over a real socket, and a profile function watches. Every documented step has to be
entered, in the documented order; and whoever is on the stack when the wire to the backend takes the bytes has to be
one of them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest
from typing_extensions import override

from architecture.modules import PACKAGE, ROOT, SOURCE
from architecture.path import Place, documented
from gatewright.app import Gateway, Ready
from gatewright.cli.snippets import plain_call
from gatewright.config import parse

WAIT_S = 5.0
FOLDER = str(SOURCE / PACKAGE) + "/"
WIRES = {("backend.connection", "HttpConnection.ask"), ("backend.python", "Inlet.write")}
"""Where a call's bytes leave, of the wires that these tests use."""

READER = ("inbound.http", "HttpProtocol.data_received")
"""Where a call's bytes arrive."""

Frame = tuple[str, str]
"""A module of the package and a name in it."""


@dataclass
class Seen:
    """What was seen of one call on its way to its backend."""

    entered: list[Frame] = field(default_factory=list)
    """Every function of the package in the order of first entry, since the call arrived."""
    stack: list[Frame] = field(default_factory=list)
    """Who waited when the wire took the call, from the socket's side to the backend's."""
    writes: int = 0


class OneTool(BaseHTTPRequestHandler):
    """A modern backend with one tool."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        results: dict[str, dict[str, Any]] = {
            "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
            "tools/list": {"tools": [{"name": "now", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": "noon"}]},
        }
        result = {"resultType": "complete", **results[asked["method"]]}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def backend_url() -> Iterator[str]:
    """The address of such a backend."""
    with ThreadingHTTPServer(("127.0.0.1", 0), OneTool) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
        server.shutdown()
        thread.join(WAIT_S)


@contextmanager
def watching(seen: Seen) -> Iterator[None]:
    """Note what is entered from the moment a `tools/call` arrives, and the stack when a wire takes it."""

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(FOLDER):
            return
        here = _frame(frame)
        is_call = here in {READER, *WIRES} and any(b'"tools/call"' in value for value in _texts(frame))
        if is_call and here == READER:
            seen.entered, seen.writes = [], 0
        if not seen.writes and here not in seen.entered:
            seen.entered.append(here)
        if is_call and here in WIRES:
            seen.stack = list(_stack(frame))
            seen.writes += 1

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def _frame(frame: FrameType) -> Frame:
    module = frame.f_code.co_filename.removeprefix(FOLDER).removesuffix(".py").replace("/", ".")
    return module, frame.f_code.co_qualname


def _stack(frame: FrameType | None) -> Iterator[Frame]:
    if frame is None:
        return
    yield from _stack(frame.f_back)
    if frame.f_code.co_filename.startswith(FOLDER):
        yield _frame(frame)


def _texts(frame: FrameType) -> Iterator[bytes]:
    yield from (value for value in frame.f_locals.values() if isinstance(value, bytes))


def modern_call(url: str, tool: str) -> dict[str, Any]:
    """A call that stands alone, made twice: the first finds out about the backend."""
    call = plain_call(f"{url}/mcp", tool, {})
    post(url, call.headers, json.loads(call.body))
    return post(url, call.headers, json.loads(call.body))[1]


def handshake_call(url: str, tool: str) -> dict[str, Any]:
    """A call in a session of its own, made twice: the first opens a session with the backend."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    session, _ = post(url, headers, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    post(url, headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    post(url, headers, call)
    return post(url, headers, call)[1]


def post(url: str, headers: dict[str, str], message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Send a message: the session id that came back, and the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WAIT_S)
    try:
        connection.request("POST", "/mcp", json.dumps(message), headers)
        response = connection.getresponse()
        lines = response.read().decode().splitlines()
    finally:
        connection.close()
    last = lines[0] if len(lines) == 1 else next((x[5:] for x in reversed(lines) if x.startswith("data:")), "{}")
    return response.headers.get("Mcp-Session-Id", ""), json.loads(last)


async def seen_of(backend: dict[str, Any], *, is_modern: bool, tool: str) -> Seen:
    """What is seen while one call goes through a gateway."""
    text = json.dumps({"listen": "127.0.0.1:0", "admin": None, "backends": {"one": backend}})
    gateway = Gateway(parse(text, file="test", environ={}, folder=Path()).config)
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    seen = Seen()
    async with asyncio.timeout(4 * WAIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(on_ready=ready.set_result))
        url = (await ready).url
        with watching(seen):
            answer = await asyncio.to_thread(modern_call if is_modern else handshake_call, url, f"one.{tool}")
        gateway.stop()
    assert "content" in answer.get("result", {}), answer
    return seen


def check(seen: Seen) -> None:
    """The call was written once, by way of every documented step in order, and no module beside them had it in hand."""
    assert seen.writes == 1
    steps = documented(ROOT / "docs" / "architecture.md")
    firsts = [min(found) for step in steps if (found := [_first(place, seen.entered) for place in step.places])]
    assert all(first < len(seen.entered) for first in firsts), f"not entered: {steps[firsts.index(len(seen.entered))]}"
    assert firsts == sorted(firsts), [seen.entered[first] for first in firsts]
    numbers = {place.module: step.number for step in steps for place in step.places}
    numbers |= {helper: step.number for step in steps for helper in step.helpers}
    waiting = [(numbers.get(module, 0), module, name) for module, name in seen.stack]
    assert all(number for number, _, _ in waiting), f"not in docs/architecture.md: {waiting}"
    assert [number for number, _, _ in waiting] == sorted(number for number, _, _ in waiting), waiting


def _first(place: Place, entered: list[Frame]) -> int:
    """When a place was entered first: as a function, or as any method of a class. The length, if it was not."""
    for index, (module, name) in enumerate(entered):
        if module == place.module and (name == place.qualname or name.startswith(f"{place.qualname}.")):
            return index
    return len(entered)


@pytest.mark.anyio
async def test_a_modern_call_to_an_http_backend_takes_the_documented_path(backend_url: str) -> None:
    """From the listener's protocol class to the pooled connection."""
    check(await seen_of({"url": backend_url}, is_modern=True, tool="now"))


@pytest.mark.anyio
async def test_a_handshake_call_to_a_server_in_process_takes_the_documented_path() -> None:
    """The same steps, with what stands in their place in the other era and on the other wire."""
    clock = {"python": "gatewright.demo_servers.clock:server"}
    check(await seen_of(clock, is_modern=False, tool="now"))
