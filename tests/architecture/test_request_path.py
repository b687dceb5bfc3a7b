"""The documented request path is the one that runs: who stands on the stack when a call is written to its backend.

A real gateway serves one call over a real socket; a profile function looks at the stack at the moment the wire to the
backend takes the bytes. Every module of the package found there has to be a documented step, in the documented order.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest
from typing_extensions import override

from architecture.modules import PACKAGE, ROOT, SOURCE
from architecture.path import documented
from gatewright.app import Gateway, Ready
from gatewright.cli.snippets import plain_call
from gatewright.config import parse

WAIT_S = 5.0
FOLDER = str(SOURCE / PACKAGE) + "/"
WIRES = {("backend.channel", "HttpConnection.ask"), ("backend.python", "Inlet.write")}
"""Where a call's bytes leave, of the wires that these tests use."""

Stack = list[tuple[str, str]]
"""Modules and names of the package's frames, from the socket's side to the backend's."""


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
def watching(stacks: list[Stack]) -> Iterator[None]:
    """Note the stack whenever a wire to a backend takes a `tools/call`."""

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            stack = list(_stack(frame))
            if stack[-1] in WIRES and any(b'"tools/call"' in value for value in _texts(frame)):
                stacks.append(stack)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def _stack(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    if frame is None:
        return
    yield from _stack(frame.f_back)
    code = frame.f_code
    if code.co_filename.startswith(FOLDER):
        module = code.co_filename.removeprefix(FOLDER).removesuffix(".py").replace("/", ".")
        yield module, code.co_qualname


def _texts(frame: FrameType) -> Iterator[bytes]:
    yield from (value for value in frame.f_locals.values() if isinstance(value, bytes))


def modern_call(url: str, tool: str) -> dict[str, Any]:
    """One call that stands alone."""
    call = plain_call(f"{url}/mcp", tool, {})
    return post(url, call.headers, json.loads(call.body))[1]


def handshake_call(url: str, tool: str) -> dict[str, Any]:
    """One call in a session of its own."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    session, _ = post(url, headers, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    post(url, headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    params = {"name": tool, "arguments": {}}
    return post(url, headers, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})[1]


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


async def stacks_of(backend: dict[str, Any], *, is_modern: bool, tool: str) -> list[Stack]:
    """The stacks at the backend's wire while one call goes through a gateway."""
    text = json.dumps({"listen": "127.0.0.1:0", "admin": None, "backends": {"one": backend}})
    gateway = Gateway(parse(text, file="test", environ={}, folder=Path()).config)
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    stacks: list[Stack] = []
    async with asyncio.timeout(4 * WAIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(on_ready=ready.set_result))
        url = (await ready).url
        with watching(stacks):
            answer = await asyncio.to_thread(modern_call if is_modern else handshake_call, url, f"one.{tool}")
        gateway.stop()
    assert "content" in answer.get("result", {}), answer
    return stacks


def check(stacks: list[Stack]) -> None:
    """One call was written once, through nothing but documented steps, in their order."""
    assert len(stacks) == 1
    steps = documented(ROOT / "docs" / "architecture.md")
    numbers = {place.module: step.number for step in steps for place in step.places}
    numbers |= {helper: step.number for step in steps for helper in step.helpers}
    seen = [(numbers.get(module, 0), module, name) for module, name in stacks[0]]
    assert all(number for number, _, _ in seen), f"not in docs/architecture.md: {seen}"
    assert [number for number, _, _ in seen] == sorted(number for number, _, _ in seen), seen
    not_awaited = {numbers["policy.dispatch"]}  # it hands over before anything is awaited
    assert {number for number, _, _ in seen} == set(numbers.values()) - not_awaited


@pytest.mark.anyio
async def test_a_modern_call_to_an_http_backend_takes_the_documented_path(backend_url: str) -> None:
    """From the listener's protocol class to the pooled connection."""
    check(await stacks_of({"url": backend_url}, is_modern=True, tool="now"))


@pytest.mark.anyio
async def test_a_handshake_call_to_a_server_in_process_takes_the_documented_path() -> None:
    """The same steps, with what stands in their place in the other era and on the other wire."""
    clock = {"python": "gatewright.demo_servers.clock:server"}
    check(await stacks_of(clock, is_modern=False, tool="now"))
