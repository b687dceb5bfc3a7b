"""The control plane's door: which names a page could have that asks there."""

from functools import partial

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gatewright.admin.hosts import Guarded, Hosts

pytestmark = pytest.mark.anyio
HOSTS = Hosts("Gateway.example.com", ["https://console.example.com", "http://other.example.com:8443"])


async def _said(text: str, request: Request) -> PlainTextResponse:
    return PlainTextResponse(text)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8081", "10.1.2.3:80", "[::1]:8081", "[fe80::1]", "[::ffff:10.0.0.1]:1"),
        *("localhost:8081", "LOCALHOST", "app.localhost:1", "gatewright-1:8081", "printer.local", "vault.internal"),
        *("gatewright.prod.svc:8081", "gatewright.prod.svc.cluster.local.", "pi.home.arpa", ""),
        *("gateway.example.com:8081", "GATEWAY.EXAMPLE.COM", "console.example.com", "other.example.com"),
    ],
)
def test_names_that_no_stranger_can_have_are_let_in(host: str) -> None:
    """Addresses, private names, the listener's own and what is configured, whatever the port."""
    assert HOSTS.is_allowed(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.evil.example", "a.gateway.example.com",
     "evil.example.", "0x7f.1", "notlocal.xlocal", "1.2.3.4.5", "evil.example:8081:1"],
)  # fmt: skip
def test_names_that_anybody_can_register_are_not(host: str) -> None:
    """Those are what a page may be rebound under."""
    assert not HOSTS.is_allowed(host)


@pytest.mark.parametrize(
    ("path", "headers", "status", "says"),
    [
        ("/metrics", {"host": "127.0.0.1:8081"}, 200, "here"),
        ("/metrics", {"host": "evil.example:81"}, 403, "as evil.example:81: name it in admin.allowed_origins"),
        ("/", {"host": "x." * 999 + "example"}, 403, "nothing is served here as x.x."),
        ("/livez", {"host": "evil.example"}, 200, "alive"),
        ("/metrics", {"host": "localhost", "origin": "http://localhost:1"}, 200, "here"),
        ("/metrics", {"host": "localhost", "origin": "https://evil.example"}, 403, "pages of https://evil.example"),
    ],
)
async def test_a_stranger_is_told_why(path: str, headers: dict[str, str], status: int, says: str) -> None:
    """And what to do about it; probes tell nothing and are answered to everybody."""
    routes = {"/livez": "alive", "/metrics": "here", "/": "here"}
    app = Starlette(routes=[Route(place, partial(_said, text)) for place, text in routes.items()])
    guarded = Guarded(app, HOSTS, b"http://localhost:1".__eq__)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=guarded), base_url="http://admin") as client:
        answer = await client.get(path, headers=headers)
    assert (answer.status_code, says in answer.text) == (status, True)
    assert len(answer.content) < 500
