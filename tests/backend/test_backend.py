"""One backend, whole: names and headers, annotations, own requests; and children that are found out and replaced."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.mcp_server import McpServer, World, backed, call_of, handshake_client, members, modern_client
from backend.raw_server import Peer, response, serving, soon, until
from gatewright.backend.backend import McpBackend
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import StdioConnector
from gatewright.call import ANONYMOUS, Failure, Result, Target
from gatewright.errors import BackendError, BackendUnavailable, HeaderMismatch
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio
CHILD = Path(__file__).parent / "era_child.py"


# --- names, headers, annotations


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_a_call_goes_out_under_the_backends_own_name(era: str) -> None:
    """Whatever the client calls it."""
    async with backed(era) as (_, backend):
        for client in (modern_client(), handshake_client()):
            call = call_of(client, name="prefix.tool")
            call.target = Target(backend, "tool")
            assert members(await soon(backend(call)))["name"] == "tool"


async def test_the_tool_list_is_read_once_before_the_first_call() -> None:
    """For its annotations; also when many call at once, and never again."""
    async with backed("modern") as (world, backend):
        await soon(asyncio.gather(*(backend(call_of(modern_client())) for _ in range(5))))
        await soon(backend(call_of(modern_client())))
        assert world.methods().count("tools/list") == 1


async def test_a_tool_list_that_a_chain_kept_from_us_is_read_for_the_next_call() -> None:
    """Whoever makes up a chain that is refused does not keep the annotations from others."""
    async with backed("modern", chain='["here"]') as (world, backend):
        await soon(backend.warm_up())
        world.mcp.refuses = "a"
        refused = await soon(backend(call_of(modern_client(chain='["a","here"]'))))
        assert isinstance(refused, Failure)
        assert not backend.annotations.is_known
        await soon(backend(call_of(modern_client(chain='["here"]'))))
        assert backend.annotations.is_known


async def test_a_backend_without_a_tool_list_is_called_all_the_same() -> None:
    """It is the judge of its own tools."""
    async with backed("handshake") as (world, backend):
        talk = world.mcp.talk

        async def listless(peer: Peer) -> None:
            await talk(Listless(peer))  # type: ignore[arg-type]

        world.server.talk = listless
        assert members(await soon(backend(call_of(handshake_client()))))["calls"] == 1


class Listless:
    """A connection that fails to list tools."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def hear(self) -> Any:
        while b"tools/list" in (heard := await self._peer.hear()).body:
            self._peer.say(response(b"", "500 Oops"))
        return heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)


async def test_mirrored_arguments_are_written_anew_and_held_against_the_clients_headers() -> None:
    """A header that lies is refused before anything is sent."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}}
    mcp = McpServer("modern")
    tools = jsonrpc.encode({"tools": [{"name": "t", "inputSchema": schema}], "resultType": "complete"})

    async def annotated(peer: Peer) -> None:
        await mcp.talk(Annotated(peer, tools))  # type: ignore[arg-type]

    async with serving(annotated) as server, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        backend = World(mcp, server, tasks).backend()
        call = call_of(modern_client(), arguments={"city": "Köln"})
        await soon(backend(call))
        assert server.heard[-1].headers["mcp-param-city"] == "=?base64?S8O2bG4=?="
        lying = call_of(modern_client(), arguments={"city": "Bonn"})
        lying.param_headers = {b"mcp-param-city": b"Ulm"}
        with pytest.raises(HeaderMismatch):
            await soon(backend(lying))
        assert mcp.calls == 1
        await soon(backend.aclose())


class Annotated(Listless):
    """A connection that lists these tools."""

    def __init__(self, peer: Peer, tools: bytes) -> None:
        super().__init__(peer)
        self._tools = tools

    async def hear(self) -> Any:
        while b'"tools/list"' in (heard := await self._peer.hear()).body:
            body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (heard.message["id"], self._tools)
            self._peer.say(response(body))
        return heard


# --- its own requests, being ready, being closed


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_requests_of_the_gateways_own_are_answered_as_calls_are(era: str) -> None:
    """Results and errors are values."""
    async with backed(era) as (_, backend):
        for client in (modern_client(), handshake_client()):
            assert isinstance(await soon(backend.request("tools/list", {}, client, ANONYMOUS)), Result)
            refused = await soon(backend.request("x/unknown", {}, client, ANONYMOUS))
            assert isinstance(refused, Failure)
            assert refused.code == -32601


async def test_a_log_level_needs_no_modern_backend() -> None:
    """Every request carries it: there is no method for it."""
    async with backed("modern") as (world, backend):
        params = {"level": jsonrpc.raw("info")}
        outcome = await soon(backend.request("logging/setLevel", params, handshake_client(), ANONYMOUS))
        assert outcome == Result(b"{}")
        assert members(await soon(backend(call_of(handshake_client(), "logging/setLevel", level="info")))) == {}
        assert "logging/setLevel" not in world.methods()


async def test_warming_up_finds_out_the_era_and_survives_a_backend_that_is_away() -> None:
    """The first call is quick, or asks again."""
    async with backed("modern") as (world, backend):
        await world.server.stop()
        await soon(backend.warm_up())
        assert backend.eras == []
        await world.server.start()
        await soon(backend.warm_up())
        assert backend.eras == ["modern"]


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_a_closed_backend_leaves_nothing_open(era: str) -> None:
    """No connection, no session, no subscription; and it says that it is closed."""
    async with backed(era) as (world, backend):
        for client in (modern_client(), handshake_client()):
            await soon(backend(call_of(client)))
        await soon(backend.aclose())
        await until(lambda: not world.server.open_peers and not world.mcp.open_listens)
        assert not world.mcp.sessions
        with pytest.raises(BackendUnavailable):
            await soon(backend(call_of(modern_client())))


# --- children


@asynccontextmanager
async def child(
    folder: Path, *speaks: str, oddity: str = "", probe_s: float = 5.0
) -> AsyncIterator[tuple[McpBackend, StdioConnector, Path]]:
    """A backend that is a program, in that file's eras."""
    eras = folder / "eras"
    eras.write_text(" ".join(speaks))
    args = (str(CHILD), str(eras), oddity)
    settings = BackendSettings(command=sys.executable, args=args, stop_grace_s=1.0, restart_backoff_s=0.05)
    mcp = McpServer()
    async with serving(mcp.talk) as server, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        connector = StdioConnector("b", settings, tasks)
        backend = World(mcp, server, tasks).backend(
            connector, probe_s, **{name: getattr(settings, name) for name in ("command", "args")}
        )
        yield backend, connector, eras
        await soon(backend.aclose())
        assert connector.pids() == ()


async def test_a_child_that_is_not_modern_is_not_kept_for_it(tmp_path: Path) -> None:
    """The one that was asked goes; the one that serves stays."""
    async with child(tmp_path, "handshake") as (backend, connector, _):
        found = members(await soon(backend(call_of(modern_client()))))
        await until(lambda: connector.pids() == (found["pid"],))


async def test_a_modern_child_serves_everybody(tmp_path: Path) -> None:
    """One process for both eras of clients; the handshake that it refused left none."""
    async with child(tmp_path, "modern") as (backend, connector, _):
        pids = {members(await soon(backend(call_of(one))))["pid"] for one in (handshake_client(), modern_client())}
        await until(lambda: set(connector.pids()) == pids)
        assert len(pids) == 1


async def test_a_child_that_dies_of_the_probe_is_started_again(tmp_path: Path) -> None:
    """Its backlash is waited for: the first call is served."""
    async with child(tmp_path, "handshake", oddity="dies") as (backend, _, _eras):
        assert members(await soon(backend(call_of(modern_client()))))["calls"] == 1


async def test_a_child_that_is_deaf_to_the_probe_is_of_the_older_era(tmp_path: Path) -> None:
    """As the clause says; it is not asked again."""
    async with child(tmp_path, "handshake", oddity="silent", probe_s=0.3) as (backend, connector, _):
        found = members(await soon(backend(call_of(modern_client()))))
        assert backend.eras == ["handshake"]
        await until(lambda: connector.pids() == (found["pid"],))


@pytest.mark.parametrize("asks", [modern_client, handshake_client])
@pytest.mark.parametrize(("before", "after"), [("modern", "handshake"), ("handshake", "modern"), ("modern", "modern")])
async def test_another_process_is_asked_anew(tmp_path: Path, before: str, after: str, asks: Any) -> None:
    """What was known went with the process: no call reaches one that was not asked."""
    async with child(tmp_path, before) as (backend, connector, eras):
        first = members(await soon(backend(call_of(asks()))))
        eras.write_text(after)
        await ended(backend, asks)
        await until(lambda: first["pid"] not in connector.pids())
        found = await soon(asyncio.gather(*(retried(backend, asks) for _ in range(5))))
        assert sorted(one["calls"] for one in found) == [1, 2, 3, 4, 5]
        assert {one["pid"] for one in found} != {first["pid"]}
        assert backend.eras == [after]


async def ended(backend: McpBackend, asks: Any) -> None:
    """Have the process end itself."""
    with pytest.raises(BackendError):
        await soon(backend(call_of(asks(), "test/exit")))


async def retried(backend: McpBackend, asks: Any) -> dict[str, Any]:
    """The result; a child that died may want a moment before it is started again."""
    async with asyncio.timeout(5):
        while True:
            try:
                return members(await backend(call_of(asks())))
            except BackendUnavailable:
                await asyncio.sleep(0)
