"""Real peers of the 2024-11-05 transport: the official SDK's server (`server LABEL`) and client (`client PLAN`).

The server is the fixture of the interop tests over `mcp.server.sse`; its first line on standard output says where its
stream is. The client is the SDK over `mcp.client.sse`; it runs a plan of the interop tests and prints one JSON line
per scenario.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

HERE = Path(__file__).parents[1] / "interop"
sys.path[:0] = [str(HERE / "clients"), str(HERE / "servers")]

import mcp_types as types  # noqa: E402
import uvicorn  # noqa: E402
from mcp.client import Client  # noqa: E402
from mcp.client.sse import sse_client  # noqa: E402
from mcp.server.sse import SseServerTransport  # noqa: E402
from official import build_server  # type: ignore[import-not-found]  # noqa: E402
from python_sdk import SdkPeer  # type: ignore[import-not-found]  # noqa: E402
from scenarios import (  # type: ignore[import-not-found]  # noqa: E402
    Inbox,
    Target,
    Trace,
    main,
    on_elicit,
    on_roots,
    on_sampling,
)
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402

LISTENING = "sse: listening on "


async def serve(label: str) -> None:
    """Serve the fixture until ended."""
    server = build_server(label)
    transport = SseServerTransport("/messages/")

    async def stream(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    app = Starlette(
        routes=[Route("/sse", stream, methods=["GET"]), Mount("/messages/", app=transport.handle_post_message)]
    )
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    print(f"{LISTENING}http://127.0.0.1:{listener.getsockname()[1]}/sse", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


@asynccontextmanager
async def connect(target: Target, inbox: Inbox, trace: Trace) -> AsyncIterator[SdkPeer]:
    """Connect over the old transport."""
    del trace

    async def on_message(message: object) -> None:
        inbox.add(message)

    client = Client(
        sse_client(target["url"]),
        mode="legacy",
        elicitation_callback=on_elicit,
        sampling_callback=on_sampling,
        list_roots_callback=on_roots,
        message_handler=on_message,
        client_info=types.Implementation(name="sse-python", version="1.0"),
    )
    async with client:
        yield SdkPeer(client, False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the transport and the era are deprecated in the SDK, and they are what is tested
    role = sys.argv.pop(1)
    if role == "server":
        asyncio.run(serve(sys.argv[1]))
    else:
        main("python-sse", connect)
