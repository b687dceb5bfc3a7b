"""Python servers in this process: the link contract, and the server objects of the SDKs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backend import sdk_servers
from contracts.links import LinkContract, OpenConnector, Recorder, soon
from gatewright.backend.base import Link, Request
from gatewright.backend.pipe import WireDied
from gatewright.backend.python import PythonConnector
from gatewright.backend.settings import BackendSettings
from gatewright.call import Result
from gatewright.errors import BackendUnavailable
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def connected(target: str, **changes: object) -> AsyncIterator[PythonConnector]:
    """A connector whose tasks have ended at the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        values = {"stop_grace_s": 0.5, **changes}
        connector = PythonConnector("notes", BackendSettings(python=target, **values), tasks)  # type: ignore[arg-type]
        try:
            yield connector
        finally:
            await connector.aclose()


class TestPythonLink(LinkContract):
    """The contract, with a message server behind it."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        return lambda: connected("contracts.link_backend:message_backend")


SDK_OBJECTS = ["high", "low", "fast"]
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "test", "version": "1"},
}


class Client:
    """Enough of an MCP client to talk over one link, in either era."""

    def __init__(self, link: Link, is_modern: bool) -> None:
        self.link = link
        self.is_modern = is_modern
        self._ids = count(1)

    async def open(self) -> None:
        """The handshake, where there is one."""
        if not self.is_modern:
            await self.send("initialize", **HANDSHAKE)
            await self.link.tell(jsonrpc.notification("notifications/initialized", b"{}"))

    def request(self, method: str, **params: Any) -> Request:
        request_id = next(self._ids)
        meta = {"progressToken": request_id, **(MODERN_META if self.is_modern else {})}
        return Request(request_id, method, {key: jsonrpc.raw(it) for key, it in {**params, "_meta": meta}.items()})

    async def send(self, method: str, sink: Recorder | None = None, **params: Any) -> dict[str, Any]:
        outcome = await soon(self.link.exchange(self.request(method, **params), sink or Recorder()))
        assert isinstance(outcome, Result), outcome
        return dict(json.loads(bytes(outcome.value)))

    async def call(self, name: str, sink: Recorder | None = None, **arguments: Any) -> str:
        """The text that a tool answers."""
        result = await self.send("tools/call", sink, name=name, arguments=arguments)
        assert not result.get("isError"), result
        return str(result["content"][0]["text"])


@asynccontextmanager
async def client(target: str, era: str) -> AsyncIterator[Client]:
    async with connected(f"backend.sdk_servers:{target}") as connector:
        made = Client(await connector.connect(Recorder()), era == "modern")
        await made.open()
        yield made


@pytest.mark.parametrize("era", ["modern", "handshake"])
@pytest.mark.parametrize("target", SDK_OBJECTS)
async def test_sdk_objects_are_served_in_both_eras(target: str, era: str) -> None:
    """List, call and progress, from the object that a user already has."""
    async with client(target, era) as it:
        tools = (await it.send("tools/list"))["tools"]
        assert {tool["name"] for tool in tools} == {"echo", "count", "ask", "wait"}
        assert await it.call("echo", text="grüße") == "grüße"
        sink = Recorder()
        assert await it.call("count", sink, steps=3) == "counted"
        assert [note[1]["progress"] for note in sink.notes] == [1, 2, 3]


@pytest.mark.parametrize("era", ["modern", "handshake"])
@pytest.mark.parametrize("target", SDK_OBJECTS)
async def test_a_cancelled_call_stops_the_tool(target: str, era: str) -> None:
    """The tool's own task is cancelled, and the server answers the next call."""
    sdk_servers.cancelled.clear()
    async with client(target, era) as it, asyncio.TaskGroup() as tasks:
        sink = Recorder()
        waiting = tasks.create_task(it.call("wait", sink))
        await sink.until(lambda one: len(one.notes) == 1)
        waiting.cancel()
        assert await it.call("echo", text="next") == "next"
        async with asyncio.timeout(5):
            while sdk_servers.cancelled != [target]:
                await asyncio.sleep(0)


@pytest.mark.parametrize("target", SDK_OBJECTS)
async def test_an_elicitation_finds_its_call_among_many(target: str) -> None:
    """In process the SDK says which call a question is about: it reaches that call's sink, however many run."""
    async with client(target, "handshake") as it, asyncio.TaskGroup() as tasks:
        sinks = [Recorder() for _ in range(3)]
        calls = [tasks.create_task(it.call("ask", sink)) for sink in sinks]
        for number, sink in enumerate(sinks):
            await sink.until(lambda one: len(one.asks) == 1)
            request_id, method, _ = sink.asks[0]
            assert method == "elicitation/create"
            answer = {"action": "accept", "content": {"name": f"n{number}"}}
            await it.link.tell(jsonrpc.result(request_id, jsonrpc.encode(answer)))
        assert [await soon(call) for call in calls] == ["hello n0", "hello n1", "hello n2"]


async def test_the_lifespan_is_the_links() -> None:
    """A run enters the server's lifespan, and closing the link leaves it."""
    async with connected("backend.sdk_servers:high") as connector:
        link = await connector.connect(Recorder())
        await Client(link, is_modern=True).call("echo", text="x")
        assert sdk_servers.lifespans == ["high"]
        await soon(link.aclose())
        assert sdk_servers.lifespans == []


@pytest.mark.parametrize("target", ["factory", "later"])
async def test_a_callable_makes_the_server(target: str) -> None:
    """A function without arguments may make the server, and may need to be awaited."""
    async with client(target, "modern") as it:
        assert await it.call("echo", text="x") == "x"


async def test_a_class_makes_a_message_server() -> None:
    """A class is called like any other factory; its object needs no SDK."""
    async with client("Plain", "modern") as it:
        assert await it.send("anything") == {}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("no_such_module:x", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("backend.sdk_servers:missing", "AttributeError: module 'backend.sdk_servers' has no attribute 'missing'"),
        ("backend.sdk_servers:number", "TypeError: int is not an MCP server: expected an object of the official SDK"),
        ("backend.sdk_servers:broken", "ZeroDivisionError: by zero"),
        ("backend.sdk_servers:leaving", "SystemExit: 3"),
    ],
)
async def test_what_cannot_be_loaded_says_why(target: str, told: str) -> None:
    """The refusal names the object and the cause, each time it is tried."""
    async with connected(target) as connector:
        for _ in range(2):
            with pytest.raises(BackendUnavailable) as caught:
                await connector.connect(Recorder())
            assert caught.value.message.startswith(f"notes: {target} could not be loaded: {told}")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("Crashing", "notes: the server failed: LookupError: no such thing"),
        ("Leaving", "notes: the server returned although its input was open"),
    ],
)
async def test_a_failed_server_starts_afresh(target: str, told: str) -> None:
    """Its exchanges fail with the cause; the next connect runs it again."""
    async with connected(f"backend.sdk_servers:{target}") as connector:
        for _ in range(2):
            link = await connector.connect(Recorder())
            with pytest.raises(WireDied) as caught:
                await Client(link, is_modern=True).send("x")
            assert caught.value.message == told
            assert not link.is_open


async def test_a_stubborn_server_is_cancelled() -> None:
    """A server that overlooks the end of its input is cancelled after the grace."""
    async with connected("backend.sdk_servers:Stubborn", stop_grace_s=0.01) as connector:
        link = await connector.connect(Recorder())
        await link.tell(b'{"jsonrpc":"2.0","method":"x"}')
        await soon(link.aclose())
        assert not link.is_open


async def test_a_server_that_does_not_read_stops_its_writers() -> None:
    """What waits for it is bounded: further senders wait, and closing releases them."""
    async with connected("backend.sdk_servers:Unready", stop_grace_s=0.01) as connector, asyncio.TaskGroup() as tasks:
        link = await connector.connect(Recorder())
        told = 0

        async def tell() -> bool:
            nonlocal told
            while True:
                try:
                    await link.tell(b"{}")
                except BackendUnavailable:
                    return True
                told += 1

        telling = [tasks.create_task(tell()) for _ in range(2)]
        for _ in range(1000):
            await asyncio.sleep(0)
        assert told == 256
        await soon(link.aclose())
        assert [await soon(task) for task in telling] == [True, True]


async def test_links_are_bounded() -> None:
    """One link more than max_connections is refused; a closed one makes room."""
    async with connected("backend.sdk_servers:Plain", max_connections=1) as connector:
        link = await connector.connect(Recorder())
        with pytest.raises(BackendUnavailable, match=r"1 links are open already \(max_connections\)"):
            await connector.connect(Recorder())
        await soon(link.aclose())
        await connector.connect(Recorder())


async def test_the_server_does_not_see_its_opener() -> None:
    """Context variables of the call that opened the link are not the server's to see."""
    seen: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="nobody")

    class Curious:
        async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
            seen.append(variable.get())

    curious_module = types.ModuleType("curious_module")
    curious_module.server = Curious()  # type: ignore[attr-defined]
    sys.modules["curious_module"] = curious_module
    try:
        variable.set("a caller")
        async with connected("curious_module:server") as connector:
            link = await connector.connect(Recorder())
            async with asyncio.timeout(5):
                while link.is_open:
                    await asyncio.sleep(0)
        assert seen == ["nobody"]
    finally:
        del sys.modules["curious_module"]


async def test_a_module_in_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `python -m`: the user's own module stands in the directory the gateway was started in."""
    (tmp_path / "my_local_server.py").write_text("from backend.sdk_servers import low as server\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    async with connected("my_local_server:server") as connector:
        it = Client(await connector.connect(Recorder()), is_modern=True)
        assert await it.call("echo", text="here") == "here"
    sys.modules.pop("my_local_server", None)


async def test_no_sdk_is_imported_for_a_message_server() -> None:
    """The SDK is no dependency: a gateway with message servers only never loads it."""
    program = """
import asyncio, sys
from gatewright.backend.python import PythonConnector
from gatewright.backend.settings import BackendSettings
async def main():
    async with asyncio.TaskGroup() as tasks:
        connector = PythonConnector("x", BackendSettings(python="contracts.link_backend:message_backend"), tasks)
        await connector.connect(None)
        await connector.aclose()
asyncio.run(main())
print(sorted({"mcp", "mcp_types", "fastmcp"} & set(sys.modules)))
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert done.stdout.strip() == "[]"


async def test_a_backend_without_an_object_is_refused() -> None:
    """The composition root picked the wrong transport: a bug, said at once."""
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ValueError, match="no python object"):
            PythonConnector("x", BackendSettings(command="x"), tasks)
