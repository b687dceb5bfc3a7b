"""The same tools as an official-SDK server object, for `python: "bench.inprocess:server"` backends.

Also the yardstick for it: `python -m bench.inprocess --port 0` lets the SDK itself serve the object over Streamable
HTTP (stateless, JSON answers, uvloop) and prints the URL of its endpoint.
"""

import argparse
import socket

import anyio
import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from bench.answers import TOOLS, digest

_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
_TOOLS = [
    types.Tool(name=name, description="A tool of the in-process bench backend.", input_schema=_SCHEMA) for name in TOOLS
]


async def _list_tools(
    context: ServerRequestContext, params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    return types.ListToolsResult(tools=_TOOLS)


async def _call_tool(context: ServerRequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments = params.arguments or {}
    text = arguments.get("text", "")
    if params.name == "digest":
        await anyio.sleep(arguments.get("delay_ms", 0) / 1000)
        text = digest(arguments["secret"], arguments["nonce"])
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


server = Server("bench-inprocess", version="1.0", on_list_tools=_list_tools, on_call_tool=_call_tool)


def main() -> None:
    parser = argparse.ArgumentParser(description="The official SDK serves the in-process bench backend.")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=1024)
    app = server.streamable_http_app(stateless_http=True, json_response=True)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, loop="uvloop", http="httptools")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
