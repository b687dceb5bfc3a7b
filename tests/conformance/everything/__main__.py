"""`python -m conformance.everything --http PORT | --stdio [--era both|handshake|modern]`.

With `--http` the first line on stdout is the URL of the endpoint (port 0 takes a free one); with `--stdio` stdout
carries the protocol and nothing else. Ends on SIGTERM or SIGINT, with `--stdio` also when stdin closes.
"""

from __future__ import annotations

import argparse
import socket
import warnings
from typing import get_args

import anyio
import uvicorn
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning

from conformance.everything.era import Era, OneEra, refuse_handshake
from conformance.everything.event_log import EventLog
from conformance.everything.server import EverythingServer

# What clients are told to wait before they resume a dropped stream.
RETRY_MS = 50
# Streams that are still open when the fixture is told to end are cut after this time.
SHUTDOWN_S = 1


async def run_http(server: EverythingServer, port: int, era: Era) -> None:
    """Serve Streamable HTTP on 127.0.0.1 and print the endpoint's URL."""
    app = server.streamable_http_app(event_store=EventLog(), retry_interval=RETRY_MS, host="127.0.0.1")
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    # Connections queue from here on, so the URL is good as soon as it is printed.
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        app if era == "both" else OneEra(app, era),
        http="h11",
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


async def run_stdio(server: EverythingServer, era: Era) -> None:
    """Serve one client on stdin and stdout."""
    options = server.create_initialization_options()
    async with stdio_server() as (read_stream, write_stream):
        if era == "handshake":
            async with server.lifespan(server) as state:
                await serve_loop(server, read_stream, write_stream, lifespan_state=state, init_options=options)
        else:
            await server.run(read_stream, write_stream, options)


def main() -> None:
    """Parse the command line and serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m conformance.everything", description=__doc__)
    transport = parser.add_mutually_exclusive_group(required=True)
    transport.add_argument("--http", type=int, metavar="PORT", help="Streamable HTTP on 127.0.0.1:PORT")
    transport.add_argument("--stdio", action="store_true", help="stdin and stdout")
    parser.add_argument("--era", choices=get_args(Era), default="both", help="which clients to serve")
    options = parser.parse_args()
    # 2026-07-28 deprecates logging; a server that serves older clients still has it.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    server = EverythingServer()
    if options.era == "modern":
        server.middleware.append(refuse_handshake)
    if options.stdio:
        anyio.run(run_stdio, server, options.era)
    else:
        anyio.run(run_http, server, options.http, options.era)


if __name__ == "__main__":
    main()
