"""Gateways behind gateways: three in a row in any mix of eras carry everything, and trace context gets through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gatewright.backend.settings import BackendSettings, Era
from journeys.host import hosting
from journeys.local import at_home
from journeys.old_client import connected
from journeys.toolbox import META, Toolbox
from journeys.travel import KINDS, Travel, over_http, travelling, travelling_over
from journeys.wire import Client, HandshakeClient, Json

pytestmark = pytest.mark.anyio
ERAS = ["modern", "handshake"]
CHAIN = "dev.gatewright/chain"
TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=a,rojo=00f067aa0ba902b7",
}
SAID = {**TRACE, "baggage": "secret=1", CHAIN: ["before"]}
HOPS: list[tuple[Era, Era]] = [
    ("modern", "modern"),
    ("handshake", "handshake"),
    ("modern", "handshake"),
    ("handshake", "modern"),
]
"""In which era the first gateway speaks to the second, and that one to the third."""


def told(result: Json) -> Json:
    """What a tool said, as the object in its first text."""
    found = json.loads(result["content"][0]["text"])
    assert isinstance(found, dict)
    return found


@asynccontextmanager
async def row(hops: tuple[Era, Era], era: str = "both", **third: Any) -> AsyncIterator[tuple[Travel, Toolbox]]:
    """Three gateways in a row, and a toolbox of that era behind the third; the first one and the toolbox."""
    box = Toolbox("box", era)
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(hosting(box))
        c = await stack.enter_async_context(travelling({"box": over_http(host)}, gateway_id="c", **third))
        behind = BackendSettings(url=f"http://127.0.0.1:{c.port}/mcp", era=hops[1])
        b = await stack.enter_async_context(travelling({"c": behind}, gateway_id="b"))
        behind = BackendSettings(url=f"http://127.0.0.1:{b.port}/mcp/c", era=hops[0])
        a = await stack.enter_async_context(travelling({"b": behind}, gateway_id="a"))
        yield a, box


def passed(box_said: Json) -> Json:
    """The chain that the toolbox was told: in `_meta` of the call, or when its session was opened."""
    meta = box_said["meta"] if META + "protocolVersion" in box_said["meta"] else box_said["introduction"]["_meta"]
    found = meta[CHAIN]
    assert isinstance(found, list)
    return {"chain": found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", ERAS)
@pytest.mark.parametrize("era", ERAS)
async def test_trace_context_reaches_a_server_of_either_era(era: str, behind: str, kind: str) -> None:
    """As the client wrote it, over every transport; its baggage and its claims about gateways do not."""
    async with travelling_over(kind, behind, gateway_id="here") as (travel, _):
        client = await travel.client(era, "/mcp/box")
        said = told(await client.result("tools/call", {"name": "client", "arguments": {}, "_meta": TRACE | SAID}))
        meta = said["meta"]
        assert {key: meta.get(key) for key in TRACE} == TRACE
        assert "baggage" not in meta
        # What a handshake client says of gateways it says in `initialize`.
        assert passed(said)["chain"] == (["before", "here"] if era == "modern" else ["here"])
        assert (CHAIN in meta) is (behind == "modern")


@pytest.mark.parametrize("behind", ERAS)
@pytest.mark.parametrize("era", ["modern", "handshake", "sse"])
async def test_trace_context_comes_from_a_host_of_any_transport(era: str, behind: str) -> None:
    """Standard input in either era, and the old stream."""
    box = Toolbox("box", behind)
    params = {"name": "client", "arguments": {}, "_meta": TRACE | {"baggage": "secret=1"}}
    if era == "sse":
        async with travelling({"box": box}) as travel, connected(travel.port, "/sse/box") as old:
            said = told((await old.ask("tools/call", params))["result"])
    else:
        async with at_home({"box": box}, route="box") as host:
            if era == "handshake":
                await host.shake_hands()
            said = told((await host.ask("tools/call", params, era=era))["result"])
    assert {key: said["meta"].get(key) for key in TRACE} == TRACE
    assert "baggage" not in said["meta"]


@pytest.mark.parametrize("hops", HOPS, ids="-".join)
@pytest.mark.parametrize("era", ERAS)
async def test_calls_progress_and_trace_context_pass_three_gateways(era: str, hops: tuple[Era, Era]) -> None:
    """In any mix of eras, in order and once; and the server is told which gateways those were."""
    async with row(hops) as (a, _):
        client = await a.client(era)
        listed = await client.result("tools/list")
        assert "b.box.echo" in [tool["name"] for tool in listed["tools"]]
        assert await client.tool("b.box.echo", n=1) == {"label": "box", "n": 1}
        params = {"name": "b.box.progress", "arguments": {"steps": 3}, "_meta": {"progressToken": "mine", **TRACE}}
        *notices, last = [one async for one in (await client.post(client.request("tools/call", params))).messages()]
        assert [(one["params"]["progressToken"], one["params"]["progress"]) for one in notices] == [
            ("mine", step) for step in (1, 2, 3)
        ]
        assert told(last["result"]) == {"steps": 3}
        said = told(await client.result("tools/call", {"name": "b.box.client", "arguments": {}, "_meta": TRACE}))
        assert passed(said)["chain"] == ["a", "b", "c"]
        assert {key: said["meta"].get(key) for key in TRACE} == TRACE


@pytest.mark.parametrize("behind", ERAS)
@pytest.mark.parametrize("hops", HOPS, ids="-".join)
@pytest.mark.parametrize("era", ERAS)
async def test_a_question_passes_three_gateways_and_so_does_its_answer(
    era: str, hops: tuple[Era, Era], behind: str
) -> None:
    """Put by a server of either era, answered by a client of either, whatever is spoken between."""
    form = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
    given = {"action": "accept", "content": {"name": "me"}}
    params: Json = {"name": "b.box.need_input", "arguments": {}}
    if behind == "handshake":
        params = {"name": "b.box.ask", "arguments": {"method": "elicitation/create", "params": form}}
    async with row(hops, behind) as (a, _):
        client = await a.client(era, capabilities={"elicitation": {"form": {}}})
        if isinstance(client, HandshakeClient):
            answer = await client.post(client.request("tools/call", params))
            asked = await answer.event()
            assert asked is not None
            assert asked["method"] == "elicitation/create"
            await client.reply(asked, given)
            result = (await answer.last())["result"]
        else:
            first = await client.result("tools/call", params)
            assert first["resultType"] == "input_required", first
            [(key, question)] = first["inputRequests"].items()
            assert question["params"]["message"] == "Who?"
            retry = {**params, "inputResponses": {key: given}, "requestState": first["requestState"]}
            result = await client.result("tools/call", retry)
        assert json.dumps(given) in json.dumps(result).replace("\\", "")


@pytest.mark.parametrize("hops", HOPS, ids="-".join)
@pytest.mark.parametrize("era", ERAS)
async def test_a_cancel_passes_three_gateways(era: str, hops: tuple[Era, Era]) -> None:
    """The server stops; the next call is served."""
    async with row(hops) as (a, box):
        client = await a.client(era)
        message = client.request("tools/call", {"name": "b.box.park", "arguments": {"key": "x"}}, request_id=77)
        answer = await client.begin(message)
        await box.until(lambda it: bool(it.noted("parked")))
        if isinstance(client, HandshakeClient):
            await client.tell("notifications/cancelled", {"requestId": 77})
        else:
            answer.close()
        await box.until(lambda it: bool(it.noted("cancelled")))
        assert await client.tool("b.box.echo", n=2) == {"label": "box", "n": 2}


@pytest.mark.parametrize("hops", HOPS, ids="-".join)
async def test_list_changes_pass_three_gateways(hops: tuple[Era, Era]) -> None:
    """To a subscription of a client in front of the first."""
    async with row(hops) as (a, box):
        client: Client = a.modern()
        request = client.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        stream = await client.post(request)
        acknowledged = await stream.event()
        assert acknowledged is not None
        assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
        await box.until(lambda it: bool(it.noted("listening") or it.noted("standing")))
        for conversation in list(box.conversations):
            conversation.announce("notifications/tools/list_changed")
        async with asyncio.timeout(5):
            notice = await stream.event()
        assert notice is not None
        assert notice["method"] == "notifications/tools/list_changed"
