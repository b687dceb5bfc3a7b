"""The FastMCP client, in both eras: `fastmcp_client.py PLAN`."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from mcp.client.subscriptions import listen
from scenarios import ROOTS, Inbox, Target, Trace, main, on_elicit, on_sampling

warnings.simplefilter("ignore")  # the handshake era's verbs are deprecated in the SDK, and they are what is tested
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"


class FastmcpPeer:
    """One connected client of FastMCP."""

    def __init__(self, client: Client[Any], modern: bool) -> None:
        self.client = client
        self.modern = modern
        self.revision: str | None = client.protocol_version

    async def list_page(self, what: str, cursor: str | None) -> types.PaginatedResult:
        """One page of a list."""
        verb: Callable[..., Awaitable[types.PaginatedResult]] = getattr(self.client, f"list_{what}_mcp")
        return await verb(cursor=cursor)

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: Any = None) -> types.CallToolResult:
        """Call a tool and return the protocol's own result."""
        return await self.client.call_tool_mcp(tool, arguments, progress_handler=on_progress)

    async def call_logged(self, tool: str, arguments: dict[str, Any], level: types.LoggingLevel) -> None:
        """Ask for log messages in the way of the era, then call."""
        if self.modern:
            await self.client.call_tool_mcp(tool, arguments, meta={LOG_LEVEL_KEY: level})
            return
        await self.client.set_logging_level(level)
        await self.client.call_tool_mcp(tool, arguments)

    async def get_prompt(self, name: str, arguments: dict[str, str]) -> types.GetPromptResult:
        """Get a prompt."""
        return await self.client.get_prompt_mcp(name, arguments)

    async def read(self, uri: str) -> types.ReadResourceResult:
        """Read a resource."""
        return await self.client.read_resource_mcp(uri)

    async def complete(self, ref: Any, argument: dict[str, str], context: dict[str, str] | None) -> list[str]:
        """Complete an argument."""
        return (await self.client.complete_mcp(ref, argument, context)).completion.values

    @asynccontextmanager
    async def watch(self, *, uri: str | None = None) -> AsyncIterator[None]:
        """Ask for notices through the SDK session inside: FastMCP has no verb for it."""
        if not self.modern:
            if uri:
                await self.client.session.subscribe_resource(uri)
            yield
        else:
            wanted = [uri] if uri else []
            async with listen(self.client.session, tools_list_changed=uri is None, resource_subscriptions=wanted):
                yield


async def elicit(_: str, __: Any, params: types.ElicitRequestParams, context: Any) -> Any:
    """FastMCP's shape of an elicitation answer."""
    return await on_elicit(context, params)


async def sample(_: Any, params: types.CreateMessageRequestParams, context: Any) -> types.CreateMessageResult:
    """FastMCP's shape of a sampling answer."""
    return await on_sampling(context, params)


@asynccontextmanager
async def connect(target: Target, inbox: Inbox, trace: Trace) -> AsyncIterator[FastmcpPeer]:
    """Connect over HTTP or standard input and output in the target's era."""

    async def on_message(message: object) -> None:
        inbox.add(message)

    modern = target["era"] == "modern"
    transport: Any = (
        StdioTransport(**target["stdio"])
        if "stdio" in target
        else StreamableHttpTransport(target["url"], httpx_client_factory=cast(Any, trace.client))
    )
    client: Client[Any] = Client(
        transport,
        mode="auto" if modern else "legacy",
        roots=ROOTS,
        elicitation_handler=elicit,
        sampling_handler=sample,
        message_handler=on_message,
        cache=False,
    )
    async with client:
        yield FastmcpPeer(client, modern)


if __name__ == "__main__":
    main("fastmcp", connect)
