"""Plain calls: each era of clients, over each kind of backend, of each era."""

from __future__ import annotations

import json

import pytest

from journeys.travel import KINDS, travelling_over

pytestmark = pytest.mark.anyio
ERAS = ["handshake", "modern"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [*ERAS, "both"])
@pytest.mark.parametrize("era", ERAS)
async def test_plain_calls_cross(era: str, behind: str, kind: str) -> None:
    """List, call, read, get and complete give the same whatever the two eras and the transport between."""
    async with travelling_over(kind, behind) as (travel, _):
        client = await travel.client(era, "/mcp/box")
        listed = await client.result("tools/list")
        assert "echo" in [tool["name"] for tool in listed["tools"]]
        assert await client.tool("echo", text="grüße") == {"label": "box", "text": "grüße"}
        read = await client.result("resources/read", {"uri": "box://note"})
        assert read["contents"] == [{"uri": "box://note", "text": "box has box://note"}]
        templates = await client.result("resources/templates/list")
        assert templates["resourceTemplates"][0]["uriTemplate"] == "box://page/{number}"
        greeting = await client.result("prompts/get", {"name": "greet", "arguments": {"who": "Ada"}})
        assert greeting["messages"][0]["content"]["text"] == "box greets Ada"
        reference = {"type": "ref/prompt", "name": "greet"}
        completed = await client.result(
            "completion/complete", {"ref": reference, "argument": {"name": "who", "value": "A"}}
        )
        assert completed["completion"]["values"] == ["box:greet:A"]
        if era == "modern":
            assert {one["resultType"] for one in (listed, read, templates, greeting, completed)} == {"complete"}
            assert all(one["ttlMs"] >= 0 and one["cacheScope"] in ("public", "private") for one in (listed, read))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("era", ERAS)
async def test_a_backends_own_error_arrives_as_it_is(era: str, kind: str) -> None:
    """Code, message and data of the backend's JSON-RPC error reach the client under the client's own id."""
    async with travelling_over(kind) as (travel, _):
        client = await travel.client(era, "/mcp/box")
        message = client.request("tools/call", {"name": "refuse", "arguments": {"code": -31999}}, request_id="mine")
        answer = await client.post(message)
        assert answer.status == 200
        error = {"code": -31999, "message": "not today", "data": {"why": "rain"}}
        assert await answer.last() == {"jsonrpc": "2.0", "id": "mine", "error": error}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_introduction_is_the_backends(kind: str) -> None:
    """On its own path a backend introduces itself: name, instructions and capabilities are its own, in both eras."""
    async with travelling_over(kind) as (travel, _):
        session = await travel.handshake("/mcp/box")
        assert session.introduction["serverInfo"]["name"] == "box"
        assert session.introduction["protocolVersion"] == "2025-11-25"
        assert session.introduction["instructions"] == "Use box well."
        found = await travel.modern("/mcp/box").result("server/discover")
        assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "box"
        assert found["capabilities"] == session.introduction["capabilities"]
        assert json.dumps(found["supportedVersions"]) == '["2026-07-28"]'
