"""The same small server four times: as each kind of object that `python: "module:attribute"` takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

cancelled: list[str] = []
lifespans: list[str] = []


class Name(BaseModel):
    """What is asked for."""

    name: str


async def wait(kind: str) -> None:
    """Wait for a cancellation and remember it."""
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        cancelled.append(kind)
        raise


# --- the official SDK's high-level server


@asynccontextmanager
async def life(server: MCPServer[Any]) -> AsyncIterator[str]:
    """One entry per run."""
    lifespans.append(server.name)
    yield "alive"
    lifespans.remove(server.name)


high = MCPServer("high", lifespan=life)


@high.tool(name="echo")
def high_echo(text: str) -> str:
    """Answer with the text."""
    return text


@high.tool(name="count")
async def high_count(steps: int, ctx: Context) -> str:
    """Report progress, then answer."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return "counted"


@high.tool(name="ask")
async def high_ask(ctx: Context) -> str:
    """Ask for a name."""
    answer = await ctx.elicit("Who?", Name)
    return f"hello {answer.data.name}" if answer.action == "accept" else "nobody"


@high.tool(name="wait")
async def high_wait(ctx: Context) -> str:
    """Wait to be cancelled."""
    await ctx.report_progress(0)
    await wait("high")
    return ""


# --- the official SDK's low-level server


async def low_list(
    ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    """Four tools."""
    names = ("echo", "count", "ask", "wait")
    return types.ListToolsResult(tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in names])


async def low_call(ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    """Do what the name says."""
    arguments = params.arguments or {}
    if params.name == "echo":
        told = arguments["text"]
    elif params.name == "count":
        for step in range(arguments["steps"]):
            await ctx.session.report_progress(step + 1, arguments["steps"])
        told = "counted"
    elif params.name == "ask":
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        answer = await ctx.session.elicit("Who?", schema, ctx.request_id)
        told = f"hello {(answer.content or {})['name']}"
    else:
        await ctx.session.report_progress(0)
        await wait("low")
        told = ""
    return types.CallToolResult(content=[types.TextContent(text=told)])


low: Server[Any] = Server("low", on_list_tools=low_list, on_call_tool=low_call)

# --- FastMCP

fast: FastMCP[Any] = FastMCP("fast")


@fast.tool(name="echo", output_schema=None)
def fast_echo(text: str) -> str:
    """Answer with the text."""
    return text


@fast.tool(name="count", output_schema=None)
async def fast_count(steps: int, ctx: FastContext) -> str:
    """Report progress, then answer."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return "counted"


@fast.tool(name="ask", output_schema=None)
async def fast_ask(ctx: FastContext) -> str:
    """Ask for a name."""
    answer = await ctx.elicit("Who?", Name)
    return f"hello {answer.data.name}" if answer.action == "accept" else "nobody"


@fast.tool(name="wait", output_schema=None)
async def fast_wait(ctx: FastContext) -> str:
    """Wait to be cancelled."""
    await ctx.report_progress(0)
    await wait("fast")
    return ""


# --- things that make servers, and things that are none


def factory() -> MCPServer[Any]:
    """The high-level server again."""
    return high


async def later() -> Server[Any]:
    """The low-level server, after a while."""
    await anyio.lowlevel.checkpoint()
    return low


class Plain:
    """A class is called like any other factory."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Echo what comes."""
        async for message in incoming:
            send(message.replace(b'"method"', b'"result":{},"was"'))


class Crashing:
    """Raises at the first message."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Crash."""
        async for _ in incoming:
            raise LookupError("no such thing\nwith a second line")


class Leaving:
    """Returns at the first message."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Leave."""
        async for _ in incoming:
            return


class Stubborn:
    """Does not notice the end of its input."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Stay."""
        async for _ in incoming:
            await anyio.sleep_forever()


class Unready:
    """Never reads."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Stay."""
        await anyio.sleep_forever()


number = 7


def broken() -> None:
    """A factory that fails."""
    raise ZeroDivisionError("by zero")


def leaving() -> None:
    """A factory that wants to end the process."""
    raise SystemExit(3)
