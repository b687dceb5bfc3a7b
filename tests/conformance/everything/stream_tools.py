"""Tools that speak while they run: log messages, progress, a dropped stream, and changes of what is offered."""

from __future__ import annotations

import anyio
import mcp_types as types
from mcp.server.subscriptions import PromptsListChanged, ResourceUpdated, ToolsListChanged

from conformance.everything.content_tools import text
from conformance.everything.exchange import Exchange

# The suite asks for pauses of about 50 ms, so that each message is its own write on the wire.
PAUSE_S = 0.05
# Longer than the retry interval the fixture announces, so that the client has come back before the rest is sent.
RECONNECT_S = 0.2

WATCHED_URI = "test://watched-resource"


async def tool_with_logging(exchange: Exchange) -> types.CallToolResult:
    """Sends three log messages, then answers."""
    await exchange.log("Tool execution started")
    await anyio.sleep(PAUSE_S)
    await exchange.log("Tool processing data")
    await anyio.sleep(PAUSE_S)
    await exchange.log("Tool execution completed")
    return types.CallToolResult(content=[text("Tool with logging executed successfully")])


async def logging_tool(exchange: Exchange) -> types.CallToolResult:
    """Sends one log message: none may arrive at a modern client that named no level."""
    await exchange.log("A message for clients that asked for one")
    return types.CallToolResult(content=[text("Logged")])


async def tool_with_progress(exchange: Exchange) -> types.CallToolResult:
    """Reports 0, 50 and 100 of 100, then answers."""
    for step in (0, 50, 100):
        await exchange.progress(step, 100)
        await anyio.sleep(PAUSE_S)
    return types.CallToolResult(content=[text("Tool with progress executed successfully")])


async def reconnection(exchange: Exchange) -> types.CallToolResult:
    """Drops the call's stream half-way; the client gets the rest by resuming (SEP-1699)."""
    await exchange.log("Before the stream was dropped")
    if exchange.ctx.close_sse_stream is not None:
        await exchange.ctx.close_sse_stream()
        await anyio.sleep(RECONNECT_S)
    await exchange.log("After the stream was dropped")
    return types.CallToolResult(content=[text("Reconnection test completed")])


async def trigger_tool_change(exchange: Exchange) -> types.CallToolResult:
    """Adds or removes `test_dynamic_tool` and says so to subscribers of either era."""
    world = exchange.world
    world.has_dynamic_tool = not world.has_dynamic_tool
    await world.bus.publish(ToolsListChanged())
    await world.notify(types.ToolListChangedNotification())
    return types.CallToolResult(content=[text("The list of tools has changed")])


async def trigger_prompt_change(exchange: Exchange) -> types.CallToolResult:
    """Adds or removes `test_dynamic_prompt` and says so to subscribers of either era."""
    world = exchange.world
    world.has_dynamic_prompt = not world.has_dynamic_prompt
    await world.bus.publish(PromptsListChanged())
    await world.notify(types.PromptListChangedNotification())
    return types.CallToolResult(content=[text("The list of prompts has changed")])


async def trigger_resource_update(exchange: Exchange) -> types.CallToolResult:
    """Announces a new content of `test://watched-resource` to its subscribers of either era."""
    await exchange.world.bus.publish(ResourceUpdated(uri=WATCHED_URI))
    params = types.ResourceUpdatedNotificationParams(uri=WATCHED_URI)
    await exchange.world.notify(types.ResourceUpdatedNotification(params=params), uri=WATCHED_URI)
    return types.CallToolResult(content=[text("The watched resource has changed")])


async def dynamic_tool(_: Exchange) -> types.CallToolResult:
    """Exists only after an odd number of calls of `test_trigger_tool_change`."""
    return types.CallToolResult(content=[text("dynamic")])
