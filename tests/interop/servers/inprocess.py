"""Server objects that a gateway runs in its own process: one of FastMCP, one of the official SDK.

`python: "inprocess:fastmcp_server"` and `python: "inprocess:official_server"`. Run as a script it serves the FastMCP
object over HTTP (first line on standard output: `interop: listening on http://127.0.0.1:PORT`), so that clients can be
checked against it without a gateway. `inprocess.py stdio` serves the FastMCP object on standard input and output.
"""

from __future__ import annotations

import socket
import sys
from typing import Annotated

import anyio
import mcp_types as types
import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from official import STEP_S, build_server, elicitation, read_answer
from pydantic import BaseModel

LABEL = "fastmcp"
NAMES = ["ada", "alan", "grace"]

official_server = build_server("inproc")
fastmcp_server: FastMCP[None] = FastMCP("interop-fastmcp", version="1.0")


class Sum(BaseModel):
    """The structured answer of `add`."""

    sum: int


@fastmcp_server.tool
def echo(text: str) -> str:
    """Answer with the text that came in."""
    return text


@fastmcp_server.tool
def add(a: int, b: int) -> Sum:
    """Answer with a sum, as text and as structured content."""
    return Sum(sum=a + b)


@fastmcp_server.tool
def fail() -> str:
    """Answer with a tool error (a result, not a JSON-RPC error)."""
    raise ToolError("failed on purpose")


@fastmcp_server.tool
async def slow(steps: int, ctx: Context) -> str:
    """Report progress once per step, then answer."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
        await anyio.sleep(STEP_S)
    return f"{steps} steps done"


@fastmcp_server.tool
async def log(text: str, ctx: Context) -> str:
    """Log the text at warning level on the stream of this call."""
    await ctx.warning(text)
    return "logged"


@fastmcp_server.tool(output_schema=None)
async def ask_name(ctx: Context) -> str | types.InputRequiredResult:
    """Ask the user for a name, in the way of the caller's era."""
    question = elicitation("Who are you?", name="string")
    request = ctx.request_context
    if request is not None and request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        if not ctx.input_responses:
            return types.InputRequiredResult(input_requests={"q": question}, request_state="asked")
        return f"{read_answer(ctx.input_responses['q'])}"
    assert isinstance(question.params, types.ElicitRequestFormParams)
    answer = await ctx.session.elicit(
        message=question.params.message,
        requested_schema=question.params.requested_schema,
        related_request_id=ctx.request_id,
    )
    return read_answer(answer)


@fastmcp_server.resource(f"note://{LABEL}/static")
def static_note() -> str:
    """A note at a fixed address."""
    return f"static note of {LABEL}"


@fastmcp_server.resource(f"note://{LABEL}/items/{{id}}")
def item(id: Annotated[str, "which note"]) -> str:  # noqa: A002 -- the template's own word
    """A note at an address of the caller's choice."""
    return f"note {id} of {LABEL}"


@fastmcp_server.prompt
def greeting(who: str) -> str:
    """Ask for a greeting."""
    return f"Greet {who}."


@fastmcp_server.completion
def complete(
    ref: types.PromptReference | types.ResourceTemplateReference,
    argument: types.CompletionArgument,
    context: types.CompletionContext | None,
) -> list[str]:
    """Complete names."""
    del ref, context
    return [name for name in NAMES if name.startswith(argument.value)]


async def serve_http() -> None:
    """Serve the FastMCP object on a free loopback port and print its address."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # without it asyncio leaves Nagle on: 40 ms a call
    listener.bind(("127.0.0.1", 0))
    print(f"interop: listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(fastmcp_server.http_app(path="/mcp"), log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1:] == ["stdio"]:
        fastmcp_server.run("stdio", show_banner=False)
    else:
        anyio.run(serve_http)
