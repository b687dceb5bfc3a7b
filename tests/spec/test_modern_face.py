"""What a modern client meets (2026-07-28, basic/transports/streamable-http and basic/index), over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import META, MODERN
from spec.face import UNSET, code, mirrored, post, request, send

pytestmark = pytest.mark.anyio
ECHO = {"name": "echo", "arguments": {"text": "x"}}


@pytest.fixture
async def travel() -> AsyncIterator[Travel]:
    """A gateway before one toolbox."""
    async with travelling({"box": Toolbox("box")}) as there:
        yield there


# --- the endpoint


@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
async def test_one_path_takes_posts(travel: Travel, path: str) -> None:
    """S-01, S-06: answered as JSON when nothing precedes the answer."""
    message = request("tools/list")
    answer = await post(travel, message, mirrored(message), path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert (await answer.json())["result"]["resultType"] == "complete"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
async def test_other_http_methods_are_not_allowed(travel: Travel, method: str) -> None:
    """S-17."""
    answer = await send(travel, method, {"mcp-protocol-version": MODERN, "accept": "text/event-stream"})
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


async def test_a_session_id_and_a_last_event_id_mean_nothing(travel: Travel) -> None:
    """S-17: ignored, not echoed, none minted."""
    message = request("tools/call", ECHO)
    answer = await post(travel, message, mirrored(message, mcp_session_id="abc", last_event_id="5"))
    assert answer.status == 200
    assert "mcp-session-id" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost:1"]
)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/box", "/mcp/nothing"])
async def test_a_foreign_origin_is_refused_on_every_connection(
    travel: Travel, method: str, origin: str, path: str
) -> None:
    """S-02: 403, before anything else is looked at."""
    message = request("tools/call", ECHO)
    body = json.dumps(message).encode() if method == "POST" else b""
    answer = await send(travel, method, mirrored(message, origin=origin), body, path)
    assert answer.status == 403
    body = await answer.body()
    assert not body or "id" not in json.loads(body)


async def test_our_own_origin_and_none_pass(travel: Travel) -> None:
    """S-02: programs send none; a page of the gateway's own sends its own."""
    message = request("tools/list")
    own = f"http://127.0.0.1:{travel.port}"
    assert (await post(travel, message, mirrored(message))).status == 200
    assert (await post(travel, message, mirrored(message, origin=own))).status == 200


# --- the body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"x" * 100, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":"\xff"}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":' + b"[" * 5_000, -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}', -32602),
    ],
)
async def test_a_body_that_is_no_request_or_notification_is_refused(travel: Travel, body: bytes, expected: int) -> None:
    """S-04, S-30: arrays, responses, null ids and what is not JSON in UTF-8: 400."""
    answer = await post(travel, body, mirrored({"method": "tools/list"}))
    assert await code(answer) == (400, expected)


@pytest.mark.parametrize("request_id", [0, -1, 2**63, "", "a", "é"])
async def test_an_answer_has_the_id_of_its_request(travel: Travel, request_id: Any) -> None:
    """S-30: whatever string or integer it is, refusals included."""
    message = {**request("tools/call", ECHO), "id": request_id}
    assert (await (await post(travel, message, mirrored(message))).json())["id"] == request_id
    refused = await post(travel, message, mirrored(message, mcp_method="x"))
    assert (await refused.json())["id"] == request_id


@pytest.mark.parametrize("method", ["notifications/cancelled", "notifications/initialized", "example/unknown"])
async def test_a_notification_is_accepted_without_a_body(travel: Travel, method: str) -> None:
    """S-05."""
    message = {"jsonrpc": "2.0", "method": method, "params": request("x")["params"]}
    answer = await post(travel, message, mirrored(message))
    assert answer.status == 202
    assert await answer.body() == b""


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "text/html", ""])
async def test_a_client_must_take_both_forms(travel: Travel, accept: str) -> None:
    """S-06: 406 for one that says it does not."""
    message = request("tools/list")
    assert (await post(travel, message, mirrored(message, accept=accept))).status == 406


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_a_body_of_another_media_type_is_refused(travel: Travel, content_type: str) -> None:
    """S-04, S-02: a page can send these without asking first."""
    message = request("tools/list")
    assert (await post(travel, message, mirrored(message, content_type=content_type))).status == 415


# --- streams


async def test_a_stream_carries_notices_of_its_request_then_the_answer_and_ends(travel: Travel) -> None:
    """S-06, S-07, S-08, S-41: progress under the client's own token, and nothing after the response."""
    message = request("tools/call", {"name": "progress", "arguments": {"steps": 3}})
    message["params"]["_meta"]["progressToken"] = "mine"
    answer = await post(travel, message, mirrored(message))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    *notices, last = [found async for found in answer.messages()]
    assert [notice["params"]["progressToken"] for notice in notices] == ["mine"] * 3
    progress = [notice["params"]["progress"] for notice in notices]
    assert progress == sorted(set(progress))
    assert not any("id" in notice for notice in notices)
    assert last["id"] == 1


async def test_no_progress_without_a_token(travel: Travel) -> None:
    """S-41, S-07: nobody asked for it."""
    message = request("tools/call", {"name": "progress", "arguments": {"steps": 3}})
    answer = await post(travel, message, mirrored(message))
    assert len([found async for found in answer.messages()]) == 1


async def test_a_log_message_passes_only_at_the_level_asked_for() -> None:
    """S-43: none without a level in the request's own `_meta`; else that one and above."""
    arguments = {"name": "log", "arguments": {"levels": ["debug", "warning", "emergency"]}}
    for behind in ("handshake", "modern"):
        async with travelling({"box": Toolbox("box", behind)}) as travel:
            for level, expected in ((UNSET, []), ("warning", ["warning", "emergency"]), ("emergency", ["emergency"])):
                message = request("tools/call", arguments, logLevel=level)
                answer = await post(travel, message, mirrored(message))
                *notices, last = [found async for found in answer.messages()]
                assert [notice["params"]["level"] for notice in notices] == expected
                assert "result" in last


async def test_closing_the_stream_cancels_the_call() -> None:
    """S-09: the backend is told to stop, whichever era it has."""
    for behind in ("handshake", "modern"):
        box = Toolbox("box", behind)
        async with travelling({"box": box}) as travel:
            message = request("tools/call", {"name": "park", "arguments": {"key": "k", "is_loud": True}})
            message["params"]["_meta"]["progressToken"] = 1
            answer = await post(travel, message, mirrored(message))
            assert (await answer.event() or {})["method"] == "notifications/progress"
            answer.close()
            await box.until(lambda box: bool(box.noted("cancelled") or box.noted("told")))


# --- the ladder, over the wire


@pytest.mark.parametrize("version", [None, "2025-11-25", "2026-07-28x", "x", ""])
async def test_the_version_header_equals_the_bodys(travel: Travel, version: str | None) -> None:
    """S-10, S-16: missing or other: 400 and -32020, nothing was called."""
    message = request("tools/call", ECHO)
    answer = await post(travel, message, mirrored(message, mcp_protocol_version=version))
    assert await code(answer) == (400, -32020)


async def test_a_revision_that_is_not_served_is_answered_with_those_that_are(travel: Travel) -> None:
    """S-11."""
    message = request("tools/call", ECHO, protocolVersion="2027-01-01")
    answer = await post(travel, message, mirrored(message, mcp_protocol_version="2027-01-01"))
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert error["code"] == -32022
    assert error["data"] == {"supported": [MODERN], "requested": "2027-01-01"}


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
async def test_a_method_that_the_revision_does_not_have_is_not_found(travel: Travel, method: str, path: str) -> None:
    """S-11: 404 and -32601."""
    message = request(method, {"uri": "box://note", "level": "info"})
    answer = await post(travel, message, mirrored(message, mcp_name=None), path)
    assert await code(answer) == (404, -32601)


async def test_an_unknown_method_is_not_found_on_either_path(travel: Travel) -> None:
    """S-11: the backend's own answer on its path, ours where several share one."""
    message = request("example/unknown")
    for path in ("/mcp", "/mcp/box"):
        assert await code(await post(travel, message, mirrored(message), path)) == (404, -32601)


@pytest.mark.parametrize(
    "changed",
    [
        {"mcp_method": None},
        {"mcp_method": "tools/list"},
        {"mcp_method": "Tools/Call"},
        {"mcp_method": ""},
        {"mcp_name": None},
        {"mcp_name": "other"},
        {"mcp_name": "ECHO"},
        {"mcp_name": ""},
        {"mcp_name": "=?base64?ZWNobw?="},
        {"mcp_name": "=?base64?!!!!?="},
        {"mcp_name": "=?base64?/w==?="},
        {"mcp_name": "=?BASE64?ZWNobw==?="},
        {"mcp_name": "éch"},
    ],
)
async def test_a_mirrored_header_that_is_missing_malformed_or_other_is_refused(
    travel: Travel, changed: dict[str, str | None]
) -> None:
    """S-12, S-13, S-15, S-16: 400 and -32020."""
    message = request("tools/call", ECHO)
    assert await code(await post(travel, message, mirrored(message, **changed))) == (400, -32020)


async def test_a_name_may_come_encoded_and_header_names_in_any_case(travel: Travel) -> None:
    """S-13, S-15."""
    message = request("tools/call", ECHO)
    headers = mirrored(message, mcp_name="=?base64?ZWNobw==?=")
    shouted = {key.upper(): value for key, value in headers.items()}
    for fields in (headers, shouted):
        assert (await post(travel, message, fields)).status == 200


async def test_a_mirrored_header_that_comes_twice_is_refused(travel: Travel) -> None:
    """S-12, S-16: whoever routes on the first and whoever executes the second would disagree."""
    message = request("tools/call", ECHO)
    for name in ("mcp-name", "mcp-method", "mcp-protocol-version"):
        fields = mirrored(message)
        answer = await post(travel, message, {**fields, name.title(): fields[name]})
        assert answer.status == 400, name


@pytest.mark.parametrize(
    "meta",
    [
        {"protocolVersion": UNSET},
        {"clientCapabilities": UNSET},
        {"protocolVersion": UNSET, "clientCapabilities": UNSET},
        {"clientCapabilities": 5},
        {"clientCapabilities": None},
        {"logLevel": "loud"},
        {"logLevel": 5},
    ],
)
async def test_a_request_without_what_every_one_must_say_is_malformed(travel: Travel, meta: dict[str, Any]) -> None:
    """S-31: 400 and -32602."""
    message = request("tools/call", ECHO, **meta)
    assert await code(await post(travel, message, mirrored(message))) == (400, -32602)


@pytest.mark.parametrize("meta", [UNSET, None, 5, "x", []])
async def test_a_meta_that_is_none_is_malformed(travel: Travel, meta: Any) -> None:
    """S-31: as the version header claims this era."""
    message = request("tools/call", ECHO)
    del message["params"]["_meta"]
    if meta is not UNSET:
        message["params"]["_meta"] = meta
    assert await code(await post(travel, message, mirrored(message))) == (400, -32602)


# --- statelessness, identity, discovery


async def test_capabilities_are_those_of_this_very_request(travel: Travel) -> None:
    """S-32, S-33: what an earlier request on the same connection declared does not count."""
    wire = await travel.modern().wire()
    seen = []
    for capabilities in ({"elicitation": {}}, {}, {"sampling": {}}):
        message = request("tools/call", {"name": "client", "arguments": {}}, clientCapabilities=capabilities)
        answer = await wire.send("POST", "/mcp/box", mirrored(message), json.dumps(message).encode())
        text = (await answer.json())["result"]["content"][0]["text"]
        seen.append(json.loads(text)["meta"][META + "clientCapabilities"])
    assert seen == [{"elicitation": {}}, {}, {"sampling": {}}]


@pytest.mark.parametrize("info", [UNSET, {"name": "x"}, {"name": "admin", "version": "9"}, 5, None])
async def test_who_a_client_says_it_is_decides_nothing(info: Any) -> None:
    """S-34: absent, odd or grand, the answer is the same, whichever era the backend has."""
    for behind in ("handshake", "modern"):
        async with travelling({"box": Toolbox("box", behind)}) as travel:
            message = request("tools/call", ECHO, clientInfo=info)
            answer = await (await post(travel, message, mirrored(message))).json()
            assert json.loads(answer["result"]["content"][0]["text"]) == {"label": "box", "text": "x"}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
async def test_discovery_says_what_is_served(travel: Travel, path: str) -> None:
    """S-36, S-50: revisions, capabilities, and the caching hints of a cacheable result."""
    message = request("server/discover")
    result = (await (await post(travel, message, mirrored(message), path)).json())["result"]
    assert result["supportedVersions"] == [MODERN]
    assert {"tools", "prompts", "resources"} <= set(result["capabilities"])
    assert result["resultType"] == "complete"
    assert (result["ttlMs"] >= 0, result["cacheScope"] in ("public", "private")) == (True, True)


@pytest.mark.parametrize("code_given", [-32002, -32042, -32050, -32099])
async def test_codes_that_must_not_be_emitted_are_not(travel: Travel, code_given: int) -> None:
    """S-35: a backend's own, replaced on the way; message and data stay."""
    message = request("tools/call", {"name": "refuse", "arguments": {"code": code_given}})
    error = (await (await post(travel, message, mirrored(message))).json())["error"]
    assert error["code"] == (-32602 if code_given == -32002 else -32603)
    assert (error["message"], error["data"]) == ("not today", {"why": "rain"})


@pytest.mark.parametrize("behind", ["handshake", "modern"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
async def test_a_missing_resource_is_invalid_params(behind: str, path: str) -> None:
    """S-81: -32602 whatever the backend's era says, and its data."""
    async with travelling({"box": Toolbox("box", behind)}) as travel:
        message = request("resources/read", {"uri": "box://missing"})
        answer = await (await post(travel, message, mirrored(message), path)).json()
        assert answer["error"]["code"] == -32602


async def test_baggage_stays_here_and_trace_context_passes(travel: Travel) -> None:
    """S-37: the caller's baggage is not the backend's."""
    message = request("tools/call", {"name": "client", "arguments": {}})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message["params"]["_meta"] |= {"traceparent": trace, "baggage": "secret=1", "com.example/x": [1]}
    answer = await (await post(travel, message, mirrored(message))).json()
    seen = json.loads(answer["result"]["content"][0]["text"])["meta"]
    assert "baggage" not in seen
    assert (seen["traceparent"], seen["com.example/x"]) == (trace, [1])


# --- caching hints, pages, retries


@pytest.mark.parametrize("behind", ["handshake", "modern"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/box"])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/list", {}),
        ("prompts/list", {}),
        ("resources/list", {}),
        ("resources/templates/list", {}),
        ("resources/read", {"uri": "box://note"}),
    ],
)
async def test_a_cacheable_result_carries_its_hints(behind: str, path: str, method: str, params: Any) -> None:
    """S-50: also when the backend has never heard of them."""
    async with travelling({"box": Toolbox("box", behind)}) as travel:
        message = request(method, params)
        result = (await (await post(travel, message, mirrored(message), path)).json())["result"]
        assert isinstance(result["ttlMs"], int)
        assert result["ttlMs"] >= 0
        assert result["cacheScope"] in ("public", "private")


@pytest.mark.parametrize("hints", [{"ttlMs": -5}, {"ttlMs": "x"}, {"cacheScope": "all"}, {"ttlMs": None}])
async def test_hints_that_break_the_clause_become_the_strictest(hints: Any) -> None:
    """S-50: what a server MUST NOT say is not passed on."""
    box = Toolbox("box")
    box.hints = {"ttlMs": 0, "cacheScope": "private", **hints}
    async with travelling({"box": box}) as travel:
        for path in ("/mcp", "/mcp/box"):
            message = request("tools/list")
            result = (await (await post(travel, message, mirrored(message), path)).json())["result"]
            assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "\u0000", "é" * 100, "A" * 10_000])
async def test_a_cursor_that_is_not_ours_is_refused(travel: Travel, cursor: str) -> None:
    """S-83: on the shared route; -32602."""
    message = request("tools/list", {"cursor": cursor})
    assert await code(await post(travel, message, mirrored(message), "/mcp")) == (400, -32602)


async def test_input_required_passes_and_its_state_comes_back_exactly(travel: Travel) -> None:
    """S-60, S-63: to a client that can be asked; the retry carries what the backend had said, under a new id."""
    capabilities = {"elicitation": {}}
    message = request("tools/call", {"name": "need_input", "arguments": {}}, clientCapabilities=capabilities)
    asked = (await (await post(travel, message, mirrored(message))).json())["result"]
    assert asked["resultType"] == "input_required"
    assert asked["inputRequests"]
    again = {
        "name": "need_input",
        "arguments": {},
        "inputResponses": {"who": {"action": "accept", "content": {"a": 1}}},
        "requestState": asked["requestState"],
    }
    retry = {**request("tools/call", again, clientCapabilities=capabilities), "id": 2}
    result = (await (await post(travel, retry, mirrored(retry))).json())["result"]
    seen = json.loads(result["content"][0]["text"])
    assert seen == {"responses": again["inputResponses"], "state": "sealed"}
