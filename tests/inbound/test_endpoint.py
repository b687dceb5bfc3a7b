"""The endpoint by itself: which path is which route, and which side serves a request.

The exact answer to every wrong request is in `journeys/test_http_rules.py`, on a running gateway.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gatewright.inbound.endpoint import Endpoint
from gatewright.inbound.probes import Probes
from gatewright.telemetry.readiness import OK
from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import ACCEPT, Json, ModernClient, Wire

pytestmark = pytest.mark.anyio


@pytest.fixture
async def travel() -> AsyncIterator[Travel]:
    """A gateway with one backend."""
    async with travelling({"one": Toolbox("one")}) as there:
        yield there


def endpoint() -> Endpoint:
    """One that has the routes `one` and `two`; its sides are never reached here."""
    probes = Probes(lambda: OK)
    return Endpoint(None, None, None, lambda route: route in ("", "one", "two"), 64, probes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/mcp", ""),
        ("/mcp/one", "one"),
        ("/mcp/two", "two"),
        ("/mcp/three", None),
        ("/mcp/", None),
        ("/mcp/one/", None),
        ("/mcp//one", None),
        ("/mcp/../mcp/one", None),
        ("/mcp/%6fne", None),
        ("/MCP", None),
        ("mcp", None),
        ("", None),
    ],
)
async def test_a_path_is_one_route_or_none(path: str, route: str | None) -> None:
    """Exactly as it is written: nothing is normalised, so no proxy in front can disagree about it."""
    there = endpoint()
    assert there.route_of(path) == route
    assert there.route_of(path) == route


async def test_strangers_leave_no_trace() -> None:
    """Neither paths that are not served nor `Accept` values are remembered without bound."""
    there = endpoint()
    for number in range(2_000):
        there.route_of(f"/mcp/{number}")
        there._is_acceptable(b"text/x%d" % number)
    assert len(there._routes) == 1
    assert len(there._accepts) <= 257


async def posted(travel: Travel, message: str, **headers: str) -> Json:
    """What a POST of this body is answered with."""
    fields = {
        "Content-Type": "application/json",
        "Accept": ACCEPT,
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    wire = await Wire.open(travel.port)
    return await (await wire.send("POST", "/mcp/one", fields, message.encode())).json()


async def test_the_era_is_what_the_request_claims(travel: Travel) -> None:
    """By its header or its `_meta`; one that claims nothing is of the handshake era, whatever it asks for."""
    ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    assert "initialize" in (await posted(travel, ping))["error"]["message"]
    claimed = await posted(travel, ping, MCP_Protocol_Version="2026-07-28")
    assert claimed["error"]["code"] == -32602
    meta = '{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28"}}'
    claimed = await posted(travel, '{"jsonrpc":"2.0","id":1,"method":"ping","params":' + meta + "}")
    assert "clientCapabilities" in claimed["error"]["message"]


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ('{"jsonrpc":"2.0","id":"a","method":7}', "a"),
        ('{"jsonrpc":"1.0","id":5,"method":"ping"}', 5),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', None),
        ('{"jsonrpc":"2.0","id":{},"method":"ping"}', None),
        ('{"jsonrpc":"2.0","id":1', None),
    ],
)
async def test_a_refusal_bears_the_id_that_can_be_saved(travel: Travel, body: str, request_id: object) -> None:
    """So that the client knows which of its requests it was; else it has none, not null."""
    found = await posted(travel, body)
    assert found["error"]["code"] in (-32600, -32700)
    assert found.get("id") == request_id
    assert ("id" in found) is (request_id is not None)


async def test_a_head_that_was_judged_before_is_held_against_every_body(travel: Travel) -> None:
    """Repeated heads are recognised byte by byte, and what they agreed with last is no proof for another body."""
    client = ModernClient(travel.port, "/mcp/one")
    calls = {
        name: client.completed(client.request("tools/call", {"name": name, "arguments": {"text": "x"}}))
        for name in ("echo", "echa")
    }
    headers = {"Content-Type": "application/json", "Accept": ACCEPT, **client.headers(calls["echo"])}
    wire = await Wire.open(travel.port)
    seen = []
    for name in ["echo"] * 5 + ["echa"] * 2 + ["echo"] * 2 + ["echa"]:
        answer = await wire.send("POST", "/mcp/one", headers, json.dumps(calls[name]).encode())
        body = await answer.json()
        seen.append((name, answer.status, body.get("error", {}).get("code")))
    assert seen == [("echo", 200, None) if name == "echo" else ("echa", 400, -32020) for name, _, _ in seen]
