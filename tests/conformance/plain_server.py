"""`python -m conformance.plain_server`: a server with one tool that no scenario asks for.

What the suite grants even this server is no proof of anything: `baselines/floor.json` names the scenarios it fails,
and those are the ones the gate counts. Prints the URL of its endpoint as the first line on stdout.
"""

from __future__ import annotations

import socket

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer


async def run() -> None:
    """Serve on a free port of 127.0.0.1 until told to end."""
    server = MCPServer(name="plain", version="1.0.0")

    @server.tool()
    def unrelated() -> str:
        """Nothing the suite knows."""
        return "unrelated"

    app = server.streamable_http_app(host="127.0.0.1")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, lifespan="on", log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    anyio.run(run)
