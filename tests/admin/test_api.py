"""The admin API over the network, in a running gateway."""

import asyncio
import json
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest

from gatewright.admin.api import admin_app
from gatewright.app import Gateway, Ready
from gatewright.config import parse
from gatewright.telemetry.exposition import CONTENT_TYPE
from gatewright.telemetry.readiness import Verdict

pytestmark = pytest.mark.anyio
TEXT = """
listen: 127.0.0.1:0
admin: 127.0.0.1:{port}
backends:
  clock: {{python: "gatewright.demo_servers.clock:server"}}
  far: {{url: "http://127.0.0.1:9/mcp?key=hidden", headers: {{authorization: Bearer hidden}}}}
"""


def fetch(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str | None, bytes]:
    """Status, type and body of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("content-type"), response.read()
    finally:
        connection.close()


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Status and body of an answer in JSON."""
    status, _, body = fetch(port, path)
    return status, json.loads(body)


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
        assert await asyncio.to_thread(fetch, free_tcp_port, "/livez", "HEAD") == (200, "application/json", b"")
        status, kind, text = await asyncio.to_thread(fetch, free_tcp_port, "/metrics")
        assert (status, kind) == (200, CONTENT_TYPE)
        assert b"\nmcp_active_sessions 0\n" in text
        assert b"hidden" not in text
        assert (await asyncio.to_thread(get, free_tcp_port, "/metrics?worker=nobody"))[0] == 404
        for path in ("/metrics", "/api/backends", "/", "/nowhere"):
            status, _, text = await asyncio.to_thread(fetch, free_tcp_port, path, host="evil.example:8081")
            assert (status, b"admin.allowed_origins" in text) == (403, True)
            status, _, text = await asyncio.to_thread(fetch, free_tcp_port, path, origin="https://evil.example")
            assert (status, b"backends" in text) == (403, False)
        status, _, text = await asyncio.to_thread(fetch, free_tcp_port, "/readyz", host="evil.example")
        assert (status, text) == (200, b'{"status":"ok"}')
        own = f"http://localhost:{free_tcp_port}"
        assert (await asyncio.to_thread(fetch, free_tcp_port, "/metrics", origin=own))[0] == 200
        gateway.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, free_tcp_port, "/livez")


async def test_one_that_is_not_ready_says_why() -> None:
    """503 on `/readyz` and `/health`, the reason on the first alone; it is alive all the same."""

    async def nothing(worker: str | None) -> None:
        """There are no metrics here."""

    app = admin_app({}, {}, lambda: 0, lambda: Verdict("draining", "it stops"), nothing, "0")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://admin") as client:
        for path, status, body in (
            ("/readyz", 503, {"status": "draining", "detail": "it stops"}),
            ("/health", 503, {"status": "draining"}),
            ("/livez", 200, {"status": "ok"}),
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (status, body)
