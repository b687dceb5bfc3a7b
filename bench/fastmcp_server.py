"""A FastMCP server with the tools of the stub, as the neighbour to compare the capacity with.

Stateful sessions, JSON answers, logs off, uvloop and httptools: as well tuned as its public API allows.
`python -m bench.fastmcp_server` prints the URL of its endpoint.
"""

import asyncio
import socket
import warnings

import uvicorn
import uvloop
from fastmcp import FastMCP, settings


async def serve() -> None:
    """Serve until stopped."""
    server: FastMCP[None] = FastMCP("fastmcp")

    @server.tool
    def echo_json(text: str) -> str:
        return text

    app = server.http_app(path="/mcp", json_response=True, stateless_http=False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, http="httptools", lifespan="on", backlog=2048, timeout_keep_alive=75
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    warnings.simplefilter("ignore")
    settings.log_level = "ERROR"
    try:
        uvloop.run(serve())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return


if __name__ == "__main__":
    main()
