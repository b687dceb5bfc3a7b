"""Probes on the data plane, and on the way to them: no header and no route surprises anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gatewright.inbound.crowd import Crowd, Places
from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.probes import PATHS, Probes
from gatewright.inbound.responder import Responder
from gatewright.inbound.settings import Limits
from gatewright.outbox import Outbox
from gatewright.telemetry.readiness import OK, Verdict
from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import Wire

pytestmark = pytest.mark.anyio


@pytest.fixture
async def travel() -> AsyncIterator[Travel]:
    """A gateway whose backends are called like probes."""
    async with travelling({"livez": Toolbox("livez"), "health": Toolbox("health")}) as there:
        yield there


async def asked(travel: Travel, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    answer = await (await Wire.open(travel.port)).send(method, path, headers)
    return answer.status, answer.headers, b"" if method == "HEAD" else await answer.body()


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_a_probe_is_answered_whatever_it_looks_like(travel: Travel, path: str) -> None:
    """Any origin, any host, a query: none of it is looked at; nobody keeps the answer."""
    for headers in ({}, {"Origin": "https://evil.example"}, {"Host": "elsewhere"}, {"MCP-Protocol-Version": "1"}):
        for query in ("", "?verbose=1"):
            status, fields, body = await asked(travel, "GET", path + query, **headers)
            assert (status, json.loads(body)) == (200, {"status": "ok"})
            assert fields["cache-control"] == "no-store"
            assert fields["content-type"] == "application/json"


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_a_head_is_the_same_without_a_body(travel: Travel, path: str) -> None:
    """The connection goes on after it."""
    wire = await Wire.open(travel.port)
    head = await wire.send("HEAD", path, {"Connection": "close"})
    assert head.status == 200
    assert head.headers["content-length"] == str(len(b'{"status":"ok"}'))
    assert not wire.stray


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS"])
async def test_nothing_else_can_be_done_there(travel: Travel, method: str) -> None:
    """405, which says what can."""
    status, fields, _ = await asked(travel, method, "/readyz")
    assert (status, fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/livez/", "/LIVEZ", "/healthz", "//livez", "/mcp/readyz", "/live"])
async def test_only_the_very_path_is_a_probe(travel: Travel, path: str) -> None:
    """Nothing is normalised."""
    assert (await asked(travel, "GET", path))[0] == 404


async def test_a_backend_of_that_name_is_reached(travel: Travel) -> None:
    """It has its own path, below `/mcp/`."""
    result = await travel.modern("/mcp/livez").result("tools/list")
    assert result["tools"]


async def test_a_full_gateway_is_alive_and_not_ready() -> None:
    """Beyond its connections it still answers probes, and nothing else; when one is free it is ready again."""
    async with travelling({"one": Toolbox("one")}, limits=Limits(max_connections=2)) as there:
        kept = [await Wire.open(there.port) for _ in range(2)]
        for wire in kept:  # a request each, so that they have surely been taken
            assert (await wire.send("GET", "/livez", {})).status == 200
        assert (await asked(there, "GET", "/livez"))[0] == 200
        status, fields, body = await asked(there, "GET", "/readyz")
        assert (status, json.loads(body)["status"]) == (503, "overloaded")
        assert "2 client connections" in json.loads(body)["detail"]
        assert int(fields["retry-after"]) >= 1
        assert (await asked(there, "GET", "/health"))[2] == b'{"status":"overloaded"}'
        assert (await asked(there, "GET", "/mcp"))[0] == 503
        kept[0].close()
        async with asyncio.timeout(5):
            while (await asked(there, "GET", "/readyz"))[0] != 200:
                await asyncio.sleep(0)
        kept[1].close()


async def test_a_draining_gateway_is_alive_and_not_ready() -> None:
    """From the moment it is told to stop, for as long as it still accepts."""
    async with travelling({"one": Toolbox("one")}, drain_delay_s=1.0) as there:
        there.gateway.stop()
        async with asyncio.timeout(5):
            while (answer := await asked(there, "GET", "/readyz"))[0] == 200:
                await asyncio.sleep(0)
        assert (answer[0], json.loads(answer[2])["status"]) == (503, "draining")
        assert (await asked(there, "GET", "/livez"))[0] == 200
        assert (await asked(there, "GET", "/health"))[2] == b'{"status":"draining"}'


class Recorded:
    """A connection that keeps what is written."""

    is_draining = is_paused = False

    def __init__(self) -> None:
        self.written = b""
        self.crowd = Crowd(Places(1, 1), retry_after_s=1.0)
        self.outbox = Outbox(lambda flush: pytest.fail("nothing waits where nothing else is expected"))

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written += b"".join(parts)

    def finish(self, responder: Responder) -> None:
        """It is kept."""


@pytest.mark.parametrize(
    ("path", "verdict", "status", "body"),
    [
        ("/readyz", OK, 200, {"status": "ok"}),
        ("/readyz", Verdict("overloaded", "too many"), 503, {"status": "overloaded", "detail": "too many"}),
        ("/readyz", Verdict("draining", "so it is"), 503, {"status": "draining", "detail": "so it is"}),
        ("/health", Verdict("draining", "so it is"), 503, {"status": "draining"}),
        ("/livez", Verdict("draining", "so it is"), 200, {"status": "ok"}),
        ("/livez", Verdict("starting", "wait"), 200, {"status": "ok"}),
    ],
)
async def test_what_a_verdict_becomes(path: str, verdict: Verdict, status: int, body: object) -> None:
    """503 with the reason on `/readyz`, with the word alone on `/health`; `/livez` is no matter of readiness."""
    connection = Recorded()
    request = HttpRequest("GET", path, "", {}, b"", None)
    responder = Responder(connection, False, False, False)  # type: ignore[arg-type]
    assert Probes(lambda: verdict).serve(request, responder)
    head, _, told = connection.written.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(told) == body
