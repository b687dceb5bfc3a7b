"""A modern client before a modern backend: everything of the era, over every kind of transport."""

from __future__ import annotations

import asyncio
import json

import pytest

from gatewright.backend.settings import BackendSettings
from gatewright.inbound.settings import Limits
from journeys.host import hosting
from journeys.toolbox import META, Toolbox
from journeys.travel import KINDS, travelling, travelling_over
from journeys.wire import Answer, Json, ModernClient, soon

pytestmark = pytest.mark.anyio
SUBSCRIPTION = META + "subscriptionId"
CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


def called(client: ModernClient, tool: str, /, token: object = None, **arguments: object) -> Json:
    """A tools/call request."""
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return client.request("tools/call", {"name": tool, "arguments": arguments, **meta})


async def listened(client: ModernClient, wants: Json, request_id: int | str = 77) -> Answer:
    """An acknowledged subscription."""
    request = client.request("subscriptions/listen", {"notifications": wants}, request_id=request_id)
    answer = await client.post(request)
    assert answer.is_stream
    first = await answer.event()
    assert first is not None
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["_meta"] == {SUBSCRIPTION: request_id}
    assert first["params"]["notifications"] == wants
    return answer


@pytest.mark.parametrize("kind", KINDS)
async def test_progress_comes_under_the_clients_own_token(kind: str) -> None:
    """Every step reaches the client, in order, with its own token, ahead of the answer on the same stream."""
    async with travelling_over(kind, "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        answer = await client.post(called(client, "progress", token=5, steps=20))
        *steps, last = [message async for message in answer.messages()]
        assert [one["params"]["progressToken"] for one in steps] == [5] * 20
        assert [one["params"]["progress"] for one in steps] == list(range(1, 21))
        assert last["result"]["resultType"] == "complete"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("level", "heard"), [(None, []), ("warning", ["warning", "error"])])
async def test_log_messages_come_at_the_level_asked_for(level: str | None, heard: list[str], kind: str) -> None:
    """None without a level in the request; with one, those at it and above (S-43)."""
    async with travelling_over(kind, "modern") as (travel, _):
        client = travel.modern("/mcp/box", log_level=level)
        answer = await client.post(called(client, "log", levels=["debug", "warning", "error"]))
        *notices, last = [message async for message in answer.messages()]
        assert [one["params"]["level"] for one in notices] == heard
        assert "result" in last


@pytest.mark.parametrize("kind", KINDS)
async def test_the_request_is_the_backends_too(kind: str) -> None:
    """Capabilities and identity in `_meta` reach the backend as the client wrote them, baggage does not."""
    async with travelling_over(kind, "modern") as (travel, _):
        client = travel.modern("/mcp/box", {"elicitation": {"form": {}}})
        meta = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "example.com/x": [1], "baggage": "a=b"}
        result = await client.result("tools/call", {"name": "client", "arguments": {}, "_meta": meta})
        told = json.loads(result["content"][0]["text"])["meta"]
        assert told[META + "clientCapabilities"] == {"elicitation": {"form": {}}}
        assert told[META + "clientInfo"]["name"] == "traveller"
        assert told["traceparent"] == meta["traceparent"]
        assert told["example.com/x"] == [1]
        assert "baggage" not in told


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_for_input_passes_through(kind: str) -> None:
    """Questions and state reach the client as they are, its answers and the state reach the backend (MRTR)."""
    async with travelling_over(kind, "modern") as (travel, _):
        client = travel.modern("/mcp/box", {"elicitation": {}})
        first = await client.result("tools/call", {"name": "need_input", "arguments": {}})
        assert first["resultType"] == "input_required"
        assert first["inputRequests"]["who"]["method"] == "elicitation/create"
        answers = {"who": {"action": "accept", "content": {"name": "Ada"}}}
        retry = {"name": "need_input", "arguments": {}, "inputResponses": answers}
        last = await client.result("tools/call", {**retry, "requestState": first["requestState"]})
        assert last["resultType"] == "complete"
        assert json.loads(last["content"][0]["text"])["responses"] == answers


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_the_stream_cancels_at_the_backend(kind: str) -> None:
    """The client that leaves has cancelled: the backend sees it at once, whatever the transport."""
    async with travelling_over(kind, "modern") as (travel, box):
        client = travel.modern("/mcp/box")
        if kind == "stdio":  # the toolbox is elsewhere: a progress notice says that the call runs
            answer = await client.post(called(client, "park", token=1, key="k", is_loud=True))
            assert await answer.event() is not None
            answer.close()
            async with asyncio.timeout(5):
                while not (await client.tool("seen", what="cancelled"))["seen"]:
                    pass
        else:
            answer = await client.begin(called(client, "park", key="k"))
            await box.until(lambda it: it.noted("parked"))
            answer.close()
            await box.until(lambda it: it.noted("cancelled"))
        assert await client.tool("release", key="k") == {"released": False}


async def test_a_connection_serves_on_after_its_calls_ended_oddly() -> None:
    """Refusals, failures and timeouts on one connection leave it as good as new for the next request."""
    async with hosting(Toolbox("box", "modern")) as host:
        backend = BackendSettings(url=host.url, timeout_s=0.3)
        async with travelling({"box": backend}) as travel:
            client = travel.modern("/mcp/box")
            wire = await client.wire()
            fields = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            for turn in range(3):
                for tool, arguments in [("park", {"key": "k"}), ("refuse", {"code": -5}), ("echo", {"n": turn})]:
                    request = called(client, tool, **arguments)
                    body = json.dumps(request).encode()
                    answer = await wire.send("POST", "/mcp/box", {**fields, **client.headers(request)}, body)
                    found = await answer.last()
                    assert found["id"] == request["id"]
                    if tool == "park":
                        assert found["error"]["code"] == -31003
                        assert "timeout_s" in found["error"]["message"]
                assert json.loads(found["result"]["content"][0]["text"])["n"] == turn


@pytest.mark.parametrize("kind", KINDS)
async def test_a_subscription_tells_what_was_asked_for(kind: str) -> None:
    """The acknowledgment comes first; announcements carry the client's own id; what was not asked for stays away."""
    async with travelling_over(kind, "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        lists = await listened(client, {"toolsListChanged": True}, "mine")
        notes = await listened(client, {"resourceSubscriptions": ["box://note"]})
        for method, params in [
            ("notifications/prompts/list_changed", {}),
            (UPDATED, {"uri": "box://other"}),
            (UPDATED, {"uri": "box://note"}),
            (CHANGED, {}),
        ]:
            await client.tool("announce", method=method, params=params)
        heard = await lists.event()
        assert heard is not None
        assert (heard["method"], heard["params"]["_meta"]) == (CHANGED, {SUBSCRIPTION: "mine"})
        heard = await notes.event()
        assert heard is not None
        assert (heard["method"], heard["params"]) == (UPDATED, {"uri": "box://note", "_meta": {SUBSCRIPTION: 77}})


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_the_backend_listens_only_while_somebody_does(kind: str) -> None:
    """However many subscribe, the backend has one stream for lists; when the last leaves it is closed."""
    async with travelling_over(kind, "modern") as (travel, box):
        client = travel.modern("/mcp/box")
        streams = [await listened(client, {"toolsListChanged": True}) for _ in range(3)]
        assert len(box.noted("listening")) == 1
        for stream in streams:
            stream.close()
        await box.until(lambda it: it.noted("cancelled"))


async def test_a_drain_ends_subscriptions_gracefully() -> None:
    """The stream ends with a result that names the subscription, then closes (S-40)."""
    async with travelling_over("python", "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        stream = await listened(client, {"toolsListChanged": True})
        travel.gateway.stop()
        last = await stream.event()
        assert last is not None
        assert last["id"] == 77
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"] == {SUBSCRIPTION: 77}
        assert await stream.event() is None


async def test_a_changed_list_is_read_anew() -> None:
    """Who is told of a change gets the new list, however long the old one was to hold."""
    async with travelling_over("python", "modern") as (travel, box):
        client = travel.modern("/mcp")
        stream = await listened(client, {"toolsListChanged": True})
        assert "box.fresh" not in str(await client.result("tools/list"))
        box.tools.append("fresh")
        await client.tool("box.announce", method=CHANGED)
        assert await stream.event() is not None
        assert "box.fresh" in str(await client.result("tools/list"))


async def test_get_and_delete_are_not_of_this_era() -> None:
    """With the modern version header they are answered 405 and the method that is served; ids of sessions mean
    nothing (S-17)."""
    async with travelling_over("python", "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        for method in ("GET", "DELETE"):
            fields = {"MCP-Protocol-Version": "2026-07-28", "Accept": "text/event-stream", "Mcp-Session-Id": "x"}
            answer = await (await client.wire()).send(method, "/mcp/box", fields)
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
        answer = await client.post(client.request("tools/list"), {"Mcp-Session-Id": "unknown"})
        assert answer.status == 200
        assert "mcp-session-id" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Mcp-Method": "tools/list"}, -32020),
        ({"Mcp-Name": "other"}, -32020),
        ({"MCP-Protocol-Version": "2025-11-25"}, -32020),
    ],
)
async def test_headers_that_lie_are_refused(headers: dict[str, str], code: int) -> None:
    """A mirrored header that says another thing than the body: 400, with the request's id (S-10, S-12)."""
    async with travelling_over("python", "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        answer = await client.post(called(client, "echo"), headers)
        assert answer.status == 400
        found = await answer.json()
        assert (found["error"]["code"], found["id"]) == (code, 1)


async def test_methods_of_the_other_era_do_not_exist() -> None:
    """404 and -32601: for `initialize`, `ping`, and what nobody knows (S-11)."""
    async with travelling_over("python", "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "no/such"):
            answer = await client.post(client.request(method, {"uri": "box://note"}))
            assert answer.status == 404, method
            assert (await answer.json())["error"]["code"] == -32601


async def test_notifications_are_accepted_and_answers_are_not() -> None:
    """202 without a body for the one, 400 for the other and for arrays (S-04, S-05)."""
    async with travelling_over("python", "modern") as (travel, _):
        client = travel.modern("/mcp/box")
        notice = client.completed({"jsonrpc": "2.0", "method": "notifications/whatever"})
        answer = await client.post(notice)
        assert (answer.status, await answer.body()) == (202, b"")
        reply = {"jsonrpc": "2.0", "id": 1, "result": {}}
        answer = await client.post(reply, {"MCP-Protocol-Version": "2026-07-28"})
        assert answer.status == 400
        answer = await client.post([client.request("tools/list")])
        assert answer.status == 400
        assert "batch" in (await answer.json())["error"]["message"]


async def test_a_silent_call_becomes_a_stream_that_is_kept_alive() -> None:
    """After an interval of silence comments come; the answer is the last event."""
    async with travelling_over("python", "modern", limits=Limits(stream_keepalive_s=0.05)) as (travel, _):
        client = travel.modern("/mcp/box")
        answer = await client.begin(called(client, "park", key="k"))
        await soon(answer.started)
        assert (answer.status, answer.is_stream) == (200, True)
        assert await client.tool("release", key="k") == {"released": True}
        assert "result" in await answer.last()
        assert answer.comments >= 1
