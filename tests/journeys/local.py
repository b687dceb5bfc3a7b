"""A host on this computer: it speaks lines with a gateway in this process, over two real pipes.

    async with at_home({"box": Toolbox("box")}) as host: ...

Nothing of the gateway is used to read what it says. `said` keeps every line that came; waits are bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from gatewright.app import Gateway
from gatewright.backend.settings import BackendSettings
from gatewright.config import Config
from gatewright.inbound.stdio import StdioHost
from journeys import shelf
from journeys.toolbox import META, MODERN, Toolbox
from journeys.wire import Json, soon

_NUMBERS = count(1)


class LocalHost:
    """The host's ends of the pipes. Give `capabilities` for questions."""

    def __init__(self, gateway: Gateway, to_gateway: int, from_gateway: int) -> None:
        self.gateway = gateway
        self.running: asyncio.Task[None]
        self.said: list[Json] = []
        self.capabilities: Json = {}
        self._to = to_gateway
        self._from = from_gateway
        self._ids = count(1)
        self._buffer = b""
        self._news = asyncio.Event()
        self._is_listening = False
        self.is_over = False
        """The gateway closed its output."""
        self.hear()

    # --- speaking

    def write(self, data: bytes) -> None:
        """Bytes as they are. What is written must fit into the pipe."""
        assert os.write(self._to, data) == len(data)

    def send(self, message: Json | list[Json]) -> None:
        """One message."""
        self.write(json.dumps(message).encode() + b"\n")

    def begin(self, method: str, params: Json | None = None, *, era: str = "modern", request_id: Any = None) -> Any:
        """Send a request; its id."""
        own = next(self._ids) if request_id is None else request_id
        given = dict(params or {})
        if era == "modern":
            meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": self.capabilities}
            given["_meta"] = {**meta, **given.get("_meta", {})}
        self.send({"jsonrpc": "2.0", "id": own, "method": method, "params": given})
        return own

    def tell(self, method: str, params: Json | None = None) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def call(self, tool: str, arguments: Json | None = None, *, era: str = "modern", **more: Any) -> Any:
        """Begin a tool call; its id."""
        return self.begin("tools/call", {"name": tool, "arguments": arguments or {}, **more}, era=era)

    async def ask(self, method: str, params: Json | None = None, *, era: str = "modern") -> Json:
        """The answer to a request."""
        return await self.answer(self.begin(method, params, era=era))

    async def tool(self, name: str, arguments: Json | None = None, *, era: str = "modern", **more: Any) -> Json:
        """What a tool said, as the object in its first text."""
        answer = await self.answer(self.call(name, arguments, era=era, **more))
        assert "result" in answer, answer
        found = json.loads(answer["result"]["content"][0]["text"])
        assert isinstance(found, dict)
        return found

    async def shake_hands(self, revision: str = "2025-11-25") -> Json:
        """Open the session; the result."""
        params = {"protocolVersion": revision, "capabilities": self.capabilities, "clientInfo": {"name": "host"}}
        answer = await self.ask("initialize", params, era="handshake")
        assert "result" in answer, answer
        self.tell("notifications/initialized")
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def close_input(self) -> None:
        """Say no more."""
        if self._to >= 0:
            os.close(self._to)
            self._to = -1

    # --- hearing

    def hear(self) -> None:
        """Read what comes, from now on."""
        if not self._is_listening and not self.is_over and self._from >= 0:
            self._is_listening = True
            asyncio.get_running_loop().add_reader(self._from, self._read)

    def plug_ears(self) -> None:
        """Read nothing, until `hear`."""
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._from)

    def leave(self) -> None:
        """Go away at once, without a word."""
        self.plug_ears()
        if self._from >= 0:
            os.close(self._from)
            self._from = -1
        self.close_input()

    async def until(self, is_it: Callable[[Json], bool]) -> Json:
        """The first message that is it, within the bound."""

        async def found() -> Json:
            while True:
                for message in self.said:
                    if is_it(message):
                        return message
                assert not self.is_over, f"the gateway ended; it said {self.said}"
                self._news.clear()
                await self._news.wait()

        return await soon(found())

    async def answer(self, request_id: Any) -> Json:
        """The response to a request."""
        return await self.until(lambda one: "method" not in one and one.get("id") == request_id)

    async def notice(self, method: str) -> Json:
        """The first notification or question of that method."""
        return await self.until(lambda one: one.get("method") == method)

    async def end(self) -> None:
        """Until the gateway has ended by itself."""
        await soon(asyncio.shield(self.running))
        self._read()

    def _read(self) -> None:
        while self._from >= 0 and not self.is_over:
            try:
                data = os.read(self._from, 1 << 20)
            except BlockingIOError:
                return
            if not data:
                self.plug_ears()
                self.is_over = True
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self.said += [json.loads(line) for line in lines]
            self._news.set()


@asynccontextmanager
async def at_home(
    backends: Mapping[str, Toolbox | BackendSettings],
    *,
    route: str = "",
    patience_s: float = 0.0,
    **settings: Any,
) -> AsyncIterator[LocalHost]:
    """A host and its gateway, until the end. `settings` are those of `Config`."""
    names: list[str] = []
    placed: dict[str, BackendSettings] = {}
    for name, behind in backends.items():
        if isinstance(behind, Toolbox):
            names.append(f"home_{next(_NUMBERS)}")
            setattr(shelf, names[-1], behind)
            behind = BackendSettings(python=f"journeys.shelf:{names[-1]}", stop_grace_s=0.5)
        placed[name] = behind
    gateway = Gateway(Config(admin=None, backends=placed, **{"drain_s": 1.0, **settings}))
    (source, to_gateway), (from_gateway, sink) = os.pipe(), os.pipe()
    os.set_blocking(from_gateway, False)
    host = LocalHost(gateway, to_gateway, from_gateway)
    ready = asyncio.Event()
    given = StdioHost(route, patience_s)
    loop = asyncio.get_running_loop()
    host.running = loop.create_task(gateway.run_stdio((source, sink), given, on_ready=ready.set))
    try:
        await soon(ready.wait())
        yield host
    finally:
        host.hear()
        host.close_input()
        await soon(asyncio.shield(host.running), 10)
        host.leave()
        for name in names:
            delattr(shelf, name)
