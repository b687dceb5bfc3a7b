"""The FastMCP proxy, tuned as well as its public API allows, as the neighbour to compare with.

One connected `ProxyClient` is shared by all calls (as shipped, the proxy makes a new backend connection and handshake
per call), answers are JSON, sessions stateless, logs off, uvloop on. `python -m bench.fastmcp_proxy BACKEND` prints
the URL of its endpoint; BACKEND is a URL, or `stdio:COMMAND ARG...`.
"""

import argparse
import asyncio
import shlex
import socket
import warnings
from typing import Any

import uvicorn
import uvloop
from fastmcp import settings
from fastmcp.client.transports import ClientTransport, StdioTransport
from fastmcp.server.providers.proxy import FastMCPProxy, ProxyClient


async def serve(backend: str, mode: str) -> None:
    """Connect to the backend once, then serve until stopped."""
    target: Any = backend
    if backend.startswith("stdio:"):
        command, *arguments = shlex.split(backend.removeprefix("stdio:"))
        target = StdioTransport(command, arguments)
    async with ProxyClient(target, mode=mode) as client:
        await run(client)


async def run(client: ProxyClient[ClientTransport]) -> None:
    proxy = FastMCPProxy(client_factory=lambda: client, name="fastmcp-proxy")
    app = proxy.http_app(path="/mcp", json_response=True, stateless_http=True)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, http="httptools", lifespan="on")
    server = uvicorn.Server(config)
    await server.serve(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description="A FastMCP proxy with one shared client.")
    parser.add_argument("backend")
    parser.add_argument("--mode", default="auto", help="auto, legacy, or a modern revision")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    settings.log_level = "ERROR"
    try:
        uvloop.run(serve(options.backend, options.mode))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return


if __name__ == "__main__":
    main()
