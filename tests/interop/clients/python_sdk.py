"""The official Python SDK as a client, in both eras: `python_sdk.py PLAN`."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import mcp_types as types
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from scenarios import Inbox, Target, Trace, main, on_elicit, on_roots, on_sampling

warnings.simplefilter("ignore")  # the handshake era's verbs are deprecated in the SDK, and they are what is tested
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"


class SdkPeer:
    """One connected client of the SDK."""

    def __init__(self, client: Client, modern: bool) -> None:
        self.client = client
        self.modern = modern
        self.revision: str | None = client.protocol_version

    async def list_page(self, what: str, cursor: str | None) -> types.PaginatedResult:
        """One page of a list, never from the client's own cache."""
        verb: Callable[..., Awaitable[types.PaginatedResult]] = getattr(self.client, f"list_{what}")
        return await verb(cursor=cursor, cache_mode="refresh")

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: Any = None) -> types.CallToolResult:
        """Call a tool; questions of a modern server are answered by the client."""
        return await self.client.call_tool(tool, arguments, progress_callback=on_progress)

    async def call_logged(self, tool: str, arguments: dict[str, Any], level: types.LoggingLevel) -> None:
        """Ask for log messages in the way of the era, then call."""
        if self.modern:
            await self.client.call_tool(tool, arguments, meta=cast(types.RequestParamsMeta, {LOG_LEVEL_KEY: level}))
            return
        await self.client.set_logging_level(level)
        await self.client.call_tool(tool, arguments)

    async def get_prompt(self, name: str, arguments: dict[str, str]) -> types.GetPromptResult:
        """Get a prompt."""
        return await self.client.get_prompt(name, arguments)

    async def read(self, uri: str) -> types.ReadResourceResult:
        """Read a resource, never from the client's own cache."""
        return await self.client.read_resource(uri, cache_mode="refresh")

    async def complete(self, ref: Any, argument: dict[str, str], context: dict[str, str] | None) -> list[str]:
        """Complete an argument."""
        return (await self.client.complete(ref, argument, context)).completion.values

    @asynccontextmanager
    async def watch(self, *, uri: str | None = None) -> AsyncIterator[None]:
        """Ask for notices of one resource, or of the tools, while the block runs."""
        if self.modern:
            async with self.client.listen(tools_list_changed=uri is None, resource_subscriptions=[uri] if uri else []):
                yield
        elif uri:
            await self.client.subscribe_resource(uri)
            yield
            await self.client.unsubscribe_resource(uri)
        else:
            yield


@asynccontextmanager
async def connect(target: Target, inbox: Inbox, trace: Trace) -> AsyncIterator[SdkPeer]:
    """Connect over HTTP, the transport of 2024-11-05 or standard input and output, in the target's era."""

    async def on_message(message: object) -> None:
        inbox.add(message)

    modern = target["era"] == "modern"
    async with trace.client() as http:
        server: Any
        if "stdio" in target:
            server = StdioServerParameters(**target["stdio"])
        elif target.get("transport") == "sse":
            server = sse_client(target["url"])
        else:
            server = streamable_http_client(target["url"], http_client=http)
        client = Client(
            server,
            mode="auto" if modern else "legacy",
            elicitation_callback=on_elicit,
            sampling_callback=on_sampling,
            list_roots_callback=on_roots,
            message_handler=on_message,
            client_info=types.Implementation(name="interop-python", version="1.0"),
        )
        async with client:
            yield SdkPeer(client, modern)


if __name__ == "__main__":
    main("python-sdk", connect)
