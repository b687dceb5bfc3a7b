"""What a journey starts from: a gateway in this process on a free loopback port, and toolboxes behind it.

    async with travelling({"one": Toolbox("one")}, {"two": ...}) as there: ...

A toolbox given alone is served in process; `over_http` and `over_stdio` say otherwise.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from gatewright.app import Gateway, Ready
from gatewright.backend.settings import BackendSettings
from gatewright.config import Config
from gatewright.inbound.settings import Listen
from journeys import shelf
from journeys.host import HttpHost, hosting
from journeys.toolbox import Toolbox
from journeys.wire import Client, HandshakeClient, Json, ModernClient, soon

HERE = Path(__file__).parent
KINDS = ["python", "stdio", "http"]
_NUMBERS = count(1)
Behind: TypeAlias = "Toolbox | BackendSettings"


class Travel:
    """A running gateway and its clients."""

    def __init__(self, gateway: Gateway, port: int, running: asyncio.Task[None]) -> None:
        self.gateway = gateway
        self.port = port
        self.running = running
        self._clients: list[Client] = []

    async def handshake(self, path: str = "/mcp", capabilities: Json | None = None, **more: Any) -> HandshakeClient:
        """A client with an open session."""
        client = HandshakeClient(self.port, path, capabilities, **more)
        self._clients.append(client)
        return await client.open()

    def modern(self, path: str = "/mcp", capabilities: Json | None = None, **more: Any) -> ModernClient:
        """A client of the modern era."""
        client = ModernClient(self.port, path, capabilities, **more)
        self._clients.append(client)
        return client

    async def client(self, era: str, path: str = "/mcp", capabilities: Json | None = None) -> Client:
        """A client of that era."""
        return await self.handshake(path, capabilities) if era == "handshake" else self.modern(path, capabilities)

    def close(self) -> None:
        """Every client leaves."""
        for client in self._clients:
            client.close()


def over_stdio(label: str, era: str = "both", **more: Any) -> BackendSettings:
    """A toolbox in a child process."""
    return BackendSettings(
        command=sys.executable, args=("-I", "-S", str(HERE / "toolbox.py"), label, era), stop_grace_s=0.5, **more
    )


def over_http(host: HttpHost, **more: Any) -> BackendSettings:
    """A toolbox behind its HTTP address."""
    return BackendSettings(url=host.url, **more)


@asynccontextmanager
async def travelling(backends: Mapping[str, Behind], **settings: Any) -> AsyncIterator[Travel]:
    """A gateway before these backends, until the end. `settings` are those of `Config`."""
    placed: dict[str, BackendSettings] = {}
    names: list[str] = []
    for name, behind in backends.items():
        if isinstance(behind, Toolbox):
            attribute = f"box_{next(_NUMBERS)}"
            names.append(attribute)
            setattr(shelf, attribute, behind)
            behind = BackendSettings(python=f"journeys.shelf:{attribute}", stop_grace_s=0.5)
        placed[name] = behind
    config = Config(
        **{"listen": Listen(port=0), "admin": None, "drain_s": 1.0, "drain_idle_s": 0.0, "backends": placed, **settings}
    )
    gateway = Gateway(config)
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    running = asyncio.get_running_loop().create_task(gateway.run(on_ready=ready.set_result))
    try:
        await asyncio.wait({running, ready}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        assert ready.done(), "the gateway did not start"
        travel = Travel(gateway, int(ready.result().url.rpartition(":")[2]), running)
        try:
            yield travel
        finally:
            travel.close()
            gateway.stop()
            await soon(asyncio.shield(running), 10)
    finally:
        for attribute in names:
            delattr(shelf, attribute)


@asynccontextmanager
async def travelling_over(kind: str, era: str = "both", **settings: Any) -> AsyncIterator[tuple[Travel, Toolbox]]:
    """A gateway before one toolbox, `box`, of that era over a transport of that kind.

    The toolbox yielded is the one behind for `python` and `http`; behind `stdio` it is in another process, and the
    one here stays empty.
    """
    box = Toolbox("box", era)
    async with AsyncExitStack() as stack:
        behind: Behind = box
        if kind == "http":
            behind = over_http(await stack.enter_async_context(hosting(box)))
        elif kind == "stdio":
            behind = over_stdio("box", era)
        travel = await stack.enter_async_context(travelling({"box": behind}, **settings))
        yield travel, box
