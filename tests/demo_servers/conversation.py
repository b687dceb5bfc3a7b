"""A conversation with a demonstration server, message by message and without sockets."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import orjson

from gatewright.demo_servers.server import Server

WAIT_S = 5.0
MODERN_META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Conversation:
    """One connection to a server: `say` sends, `hear` gives the next message back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.group = asyncio.TaskGroup()

    async def __aenter__(self) -> "Conversation":
        await self.group.__aenter__()
        self.group.create_task(self.server.serve_messages(self._incoming(), self._take))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.said.put_nowait(None)
        async with asyncio.timeout(WAIT_S):
            await self.group.__aexit__(kind, error, trace)

    async def _incoming(self) -> AsyncIterator[bytes]:
        while (message := await self.said.get()) is not None:
            yield message

    def _take(self, message: bytes) -> None:
        assert b"\n" not in message
        self.heard.put_nowait(orjson.loads(message))

    def say(self, message: object) -> None:
        """Send that JSON value, or those bytes as they are."""
        self.said.put_nowait(message if isinstance(message, bytes) else orjson.dumps(message))

    async def hear(self) -> dict[str, Any]:
        """The next message of the server."""
        async with asyncio.timeout(WAIT_S):
            return await self.heard.get()

    async def ask(self, method: str, params: dict[str, Any] | None = None, *, request_id: Any = 1) -> dict[str, Any]:
        """Send a request as it is and give the next message back."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        self.say(body if params is None else body | {"params": params})
        return await self.hear()

    async def modern(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Send a request of revision 2026-07-28 and give the answer back."""
        return await self.ask(method, {"_meta": MODERN_META, **params})

    async def text(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        """Call a tool: the text of its result, and whether it is an error."""
        result = (await self.modern("tools/call", name=tool, arguments=arguments))["result"]
        return result["content"][0]["text"], result["isError"]
