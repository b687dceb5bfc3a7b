"""The composition root: a gateway starts whole or not at all, serves, and ends with everything it began."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
import structlog
import structlog.testing

from gatewright.app import Gateway, Ready, _settled
from gatewright.backend.settings import BackendSettings
from gatewright.config import Config
from gatewright.inbound.settings import Limits, Listen
from gatewright.protocol.chain import CHILD_VARIABLE
from gatewright.secret import Secret
from journeys.host import hosting
from journeys.toolbox import Toolbox
from journeys.travel import over_stdio, travelling
from journeys.wire import ModernClient, Wire, soon

pytestmark = pytest.mark.anyio


def config(**more: object) -> Config:
    """A configuration on a free port."""
    return Config(**{"listen": Listen(port=0), "admin": None, "drain_s": 0.5, "drain_idle_s": 0.0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_busy_address_is_refused_before_anything_starts(which: str) -> None:
    """OSError, no backend touched, and the other address is free again."""
    box = Toolbox("box")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = Listen(port=taken.getsockname()[1])
        async with hosting(box) as host:
            backends = {"box": BackendSettings(url=host.url)}
            gateway = Gateway(config(**{which: busy, "backends": backends}))
            with pytest.raises(OSError, match="in use"):
                await soon(gateway.run(on_ready=lambda ready: pytest.fail("it said that it is ready")))
            assert box.seen == [("opened", host.modern)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_ready_says_where(host: str) -> None:
    """An address that can be called, in IPv6 as well; its own origin is let in."""
    if host == "::1":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 here")
    gateway = Gateway(config(listen=Listen(host=host, port=0)))
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    running = asyncio.get_running_loop().create_task(gateway.run(on_ready=ready.set_result))
    url = (await soon(ready)).url
    assert url.startswith("http://[::1]:" if host == "::1" else "http://127.0.0.1:")
    reader, writer = await asyncio.open_connection(host, int(url.rpartition(":")[2]))
    writer.write(b"GET /mcp HTTP/1.1\r\nHost: x\r\nOrigin: %b\r\nConnection: close\r\n\r\n" % url.encode())
    assert b" 400 " in (await soon(reader.read())).splitlines()[0]
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    gateway.stop()
    await soon(running)


async def test_stopping_what_never_ran_is_nothing() -> None:
    """No error, and it can be run after."""
    gateway = Gateway(config())
    gateway.stop()
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    running = asyncio.get_running_loop().create_task(gateway.run(on_ready=ready.set_result))
    await soon(ready)
    gateway.stop()
    await soon(running)


async def test_a_gateway_without_backends_is_an_empty_server() -> None:
    """It can be initialized and has nothing."""
    async with travelling({}) as travel:
        client = await travel.handshake()
        assert client.introduction["capabilities"] == {}
        assert (await client.result("tools/list"))["tools"] == []


async def test_it_starts_with_whatever_backends_it_can_reach() -> None:
    """One that is down, one that is broken and one that cannot be loaded do not keep it from serving the others."""
    behind = {
        "down": BackendSettings(url="http://127.0.0.1:1/mcp"),
        "broken": BackendSettings(command="/nonexistent/program"),
        "absent": BackendSettings(python="no_such_module:server"),
        "box": Toolbox("box"),
    }
    async with travelling(behind) as travel:
        client = travel.modern()
        assert (await client.tool("box.echo"))["label"] == "box"
        for name in ("down", "broken", "absent"):
            error = (await client.ask("tools/call", {"name": f"{name}.echo", "arguments": {}}))["error"]
            assert error["code"] == -31002
            assert name in error["message"]


async def test_nothing_is_left_when_it_ends() -> None:
    """Sessions of every kind of backend are ended, children are gone, no task is left."""
    before = asyncio.all_tasks()
    web, here = Toolbox("web"), Toolbox("here")
    async with hosting(web) as host:
        behind = {"web": BackendSettings(url=host.url), "here": here, "child": over_stdio("child")}
        async with travelling(behind) as travel:
            client = await travel.handshake()
            await client.listen()
            for name in behind:
                await client.tool(f"{name}.echo")
        assert web.noted("deleted")
        assert [one for one in here.conversations if one.introduction] == []
    assert asyncio.all_tasks() == before


def test_a_child_is_told_that_it_is_one() -> None:
    """In its environment; other backends have none."""
    given = _settled(BackendSettings(command="x", env={"A": Secret("2")})).env
    assert {name: value.reveal() for name, value in given.items()} == {CHILD_VARIABLE: "1", "A": "2"}
    assert not _settled(BackendSettings(url="http://127.0.0.1/")).env


async def test_a_gateway_that_a_gateway_started_asks_nothing_of_its_own_accord() -> None:
    """If it is its own backend it would start itself in turn. Whoever asks it something is answered."""
    box = Toolbox("box")
    async with hosting(box) as host:
        gateway = Gateway(config(gateway_id="a", backends={"box": BackendSettings(url=host.url)}), is_child=True)
        ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        running = asyncio.get_running_loop().create_task(gateway.run(on_ready=ready.set_result))
        port = int((await soon(ready)).url.rpartition(":")[2])
        wire = await Wire.open(port)
        await soon(wire.send("POST", "/mcp", {}))
        assert not box.noted("asked")
        assert await ModernClient(port).tool("box.echo") == {"label": "box"}
        gateway.stop()
        await soon(running)


async def test_more_places_than_descriptors_are_not_promised() -> None:
    """What was asked for in vain is said when the gateway starts."""
    with structlog.testing.capture_logs() as logs:
        async with travelling({"box": Toolbox("box")}, limits=Limits(max_connections=1_000_000)) as travel:
            wire = await Wire.open(travel.port)
            assert (await wire.send("GET", "/livez", {})).status == 200
            wire.close()
    (told,) = [one for one in logs if "max_connections" in one["event"]]
    assert told["room"] < told["descriptors"]


async def test_many_connections_at_once_are_bounded() -> None:
    """One more than `max_connections` is told 503, and the others are served."""
    async with travelling({"box": Toolbox("box")}, limits=Limits(max_connections=3)) as travel:
        wires = [await Wire.open(travel.port) for _ in range(3)]
        answers = [await wire.send("GET", "/nowhere", {}) for wire in wires]
        refused = await (await Wire.open(travel.port)).send("GET", "/nowhere", {})
        assert refused.status == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert [answer.status for answer in answers] == [404, 404, 404]
        assert (await wires[0].send("GET", "/nowhere", {})).status == 404
        for wire in wires:
            wire.close()
