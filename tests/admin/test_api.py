"""The admin API over the network, in a running gateway."""

import asyncio
import json
from http.client import HTTPConnection
from pathlib import Path

import pytest

from gatewright.app import Gateway, Ready
from gatewright.config import parse

pytestmark = pytest.mark.anyio
TEXT = """
listen: 127.0.0.1:0
admin: 127.0.0.1:{port}
backends:
  clock: {{python: "gatewright.demo_servers.clock:server"}}
  far: {{url: "http://127.0.0.1:9/mcp?key=hidden", headers: {{authorization: Bearer hidden}}}}
"""


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


async def test_the_admin_listener_tells_how_the_gateway_stands(free_tcp_port: int) -> None:
    """Alive, ready, and the backends by name without a secret; it ends with the gateway."""
    gateway = Gateway(parse(TEXT.format(port=free_tcp_port), file="x.yaml", environ={}, folder=Path()).config)
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(on_ready=ready.set_result))
        await ready
        for path in ("/livez", "/readyz", "/health"):
            assert await asyncio.to_thread(get, free_tcp_port, path) == (200, {"status": "ok"})
        status, body = await asyncio.to_thread(get, free_tcp_port, "/api/backends")
        assert status == 200
        assert [row["name"] for row in body["backends"]] == ["clock", "far"]  # type: ignore[attr-defined,index]
        assert "hidden" not in json.dumps(body)
        assert (await asyncio.to_thread(get, free_tcp_port, "/"))[1]["name"] == "gatewright"
        gateway.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, free_tcp_port, "/livez")
