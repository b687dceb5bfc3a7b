"""What a handshake client meets (2025-03-26 to 2025-11-25), and where the eras differ, over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import ACCEPT, MODERN, HandshakeClient
from spec.face import code, mirrored, post, request, send

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json", "accept": ACCEPT}
REVISIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


@pytest.fixture
async def travel() -> AsyncIterator[Travel]:
    """A gateway before one toolbox."""
    async with travelling({"box": Toolbox("box")}) as there:
        yield there


def plain(method: str, params: Any = None, request_id: Any = 1) -> dict[str, Any]:
    """A request of this era."""
    message = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return message if params is None else {**message, "params": params}


def within(session: str, **more: str) -> dict[str, str]:
    """The headers of a POST in a session."""
    return {**JSON, "mcp-session-id": session, **{key.replace("_", "-"): value for key, value in more.items()}}


# --- opening


@pytest.mark.parametrize("requested", [*REVISIONS, MODERN, "1999-01-01", ""])
async def test_a_session_is_opened_in_the_revision_agreed(travel: Travel, requested: str) -> None:
    """S-26: the one asked for if it is served, else the latest of this era."""
    opening = plain("initialize", {"protocolVersion": requested, "capabilities": {}, "clientInfo": {"name": "c"}})
    answer = await post(travel, opening, JSON)
    result = (await answer.json())["result"]
    assert result["protocolVersion"] == (requested if requested in REVISIONS else "2025-11-25")
    assert answer.headers["mcp-session-id"]


async def test_session_ids_are_unguessable_visible_ascii(travel: Travel) -> None:
    """S-20: at least 128 bits of them, no two alike in any place."""
    ids = [(await travel.handshake()).session for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(0x21 <= ord(character) <= 0x7E for one in ids for character in one)
    assert all(len(one) >= 22 for one in ids)
    assert all(len({one[at] for one in ids}) > 1 for at in range(min(map(len, ids))))


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "ping", "example/unknown"])
async def test_initialize_comes_first(travel: Travel, method: str) -> None:
    """S-22, S-26: without a session: 400."""
    assert (await code(await post(travel, plain(method), JSON)))[0] == 400


async def test_a_session_is_initialised_once(travel: Travel) -> None:
    """S-26: a second initialize opens a second session and leaves the first alone."""
    client = await travel.handshake("/mcp/box")
    opening = plain("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    again = await post(travel, opening, within(client.session))
    assert again.headers.get("mcp-session-id", "") != client.session
    assert await client.tool("echo", text="still here") == {"label": "box", "text": "still here"}


async def test_ping_is_answered_at_once(travel: Travel) -> None:
    """S-26: here, whatever the backends do."""
    client = await travel.handshake()
    assert await client.result("ping") == {}


@pytest.mark.parametrize(
    "params", [{}, {"protocolVersion": 5}, {"protocolVersion": "2025-11-25", "capabilities": 5}, []]
)
async def test_an_initialize_that_is_none_opens_nothing(travel: Travel, params: Any) -> None:
    """S-26: -32602, and no session id."""
    answer = await post(travel, plain("initialize", params), JSON)
    assert "mcp-session-id" not in answer.headers
    assert (await answer.json())["error"]["code"] == -32602


# --- sessions


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("session", ["", "x", "A" * 32, "../../etc", "x" * 1_000, "\xff\xfe", "a b"])
async def test_an_unknown_session_is_not_found(travel: Travel, method: str, session: str) -> None:
    """S-22: 404 on every method."""
    body = json.dumps(plain("tools/list")).encode() if method == "POST" else b""
    assert (await send(travel, method, within(session), body)).status in ((404, 400) if not session else (404,))


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_an_ended_session_and_a_foreign_one_look_the_same(travel: Travel, method: str) -> None:
    """S-22, S-21: ended, of another path, and never there: one and the same answer."""
    ended = await travel.handshake("/mcp/box")
    assert await ended.end() in (200, 204)
    elsewhere = await travel.handshake("/mcp")
    body = json.dumps(plain("tools/list")).encode() if method == "POST" else b""
    answers = []
    for session in (ended.session, elsewhere.session, "A" * 32):
        answer = await send(travel, method, within(session), body)
        answers.append((answer.status, await answer.body()))
    assert answers[0][0] == 404
    assert len(set(answers)) == 1
    assert await elsewhere.result("ping") == {}


@pytest.mark.parametrize("version", [MODERN + "x", "1999-01-01", "", "2025-11-25, 2025-06-18", "\xff"])
async def test_a_version_header_that_is_not_served_is_refused(travel: Travel, version: str) -> None:
    """S-26: MUST 400."""
    client = await travel.handshake("/mcp/box")
    answer = await post(travel, plain("tools/list"), within(client.session, mcp_protocol_version=version))
    assert answer.status == 400


async def test_a_request_without_a_version_header_is_taken(travel: Travel) -> None:
    """S-26: clients before 2025-06-18 have none."""
    client = await travel.handshake("/mcp/box", revision="2025-03-26")
    answer = await post(travel, plain("tools/list"), within(client.session))
    assert (await answer.json())["result"]["tools"]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_foreign_origin_is_refused_here_too(travel: Travel, method: str) -> None:
    """S-02."""
    client = await travel.handshake("/mcp/box")
    body = json.dumps(plain("tools/list")).encode() if method == "POST" else b""
    answer = await send(travel, method, within(client.session, origin="https://evil.example"), body)
    assert answer.status == 403
    assert await client.result("ping") == {}


# --- where the eras differ


async def test_an_unknown_method_is_an_error_in_a_200(travel: Travel) -> None:
    """S-11: here a 404 would mean that the session is gone."""
    for path in ("/mcp", "/mcp/box"):
        client = await travel.handshake(path)
        for method in ("example/unknown", "server/discover", "subscriptions/listen"):
            answer = await client.post(client.request(method))
            assert await code(answer) == (200, -32601), (path, method)


async def test_bad_parameters_are_an_error_in_a_200(travel: Travel) -> None:
    """S-11, S-81: so are those of a missing resource, under this era's code."""
    client = await travel.handshake("/mcp/box")
    assert await code(await client.post(client.request("tools/call", {}))) == (200, -32602)
    assert await code(await client.post(client.request("resources/read", {"uri": "box://missing"}))) == (200, -32002)


async def test_modern_headers_bind_nobody_here(travel: Travel) -> None:
    """S-12, S-16: a proxy may add them; this era has no such rule, and they decide nothing."""
    client = await travel.handshake("/mcp/box")
    message = client.request("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    answer = await client.post(message, {"Mcp-Method": "tools/list", "Mcp-Name": "other"})
    assert json.loads((await answer.json())["result"]["content"][0]["text"]) == {"label": "box", "text": "x"}


async def test_both_eras_share_one_address(travel: Travel) -> None:
    """S-01: and take no notice of each other's state."""
    client = await travel.handshake("/mcp/box")
    message = request("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    modern = await post(travel, message, mirrored(message, mcp_session_id=client.session))
    assert "resultType" in (await modern.json())["result"]
    assert await client.tool("echo", text="y") == {"label": "box", "text": "y"}
    assert await client.end() in (200, 204)
    assert (await post(travel, message, mirrored(message, mcp_session_id=client.session))).status == 200


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_arrays_are_for_the_one_revision_that_has_them(travel: Travel, revision: str) -> None:
    """S-04: refused in every other."""
    client = await travel.handshake("/mcp/box", revision=revision)
    answer = await client.post([client.request("ping"), client.request("tools/list")])
    if revision == "2025-03-26":
        ids = set()
        async for message in answer.messages():
            ids |= {one["id"] for one in (message if isinstance(message, list) else [message])}
        assert len(ids) == 2
    else:
        assert await code(answer) == (400, -32600)


async def test_results_are_as_this_era_writes_them() -> None:
    """S-36, S-50: a handshake backend's come unchanged, without `resultType` and hints."""
    async with travelling({"box": Toolbox("box", "handshake")}) as travel:
        client = await travel.handshake("/mcp/box")
        for method, params in (("tools/list", {}), ("resources/read", {"uri": "box://note"})):
            assert not {"resultType", "ttlMs", "cacheScope"} & set(await client.result(method, params))


async def test_a_notification_is_accepted_without_a_body(travel: Travel) -> None:
    """S-05."""
    client: HandshakeClient = await travel.handshake("/mcp/box")
    for method in ("notifications/initialized", "notifications/roots/list_changed", "notifications/unknown"):
        answer = await client.tell(method)
        assert (answer.status, await answer.body()) == (202, b"")


NO_CANCELS = [{}, {"requestId": None}, {"requestId": [1]}, {"requestId": 1e5}]


@pytest.mark.parametrize("params", [{"requestId": "nobody's"}, {"requestId": 99, "reason": 5}, *NO_CANCELS])
async def test_a_cancel_of_nothing_harms_nothing(travel: Travel, params: Any) -> None:
    """S-42: what is unknown or finished is ignored."""
    client = await travel.handshake("/mcp/box")
    await client.tell("notifications/cancelled", params)
    assert await client.tool("echo", text="x") == {"label": "box", "text": "x"}


@pytest.mark.parametrize("params", NO_CANCELS)
async def test_a_notification_that_is_refused_is_an_http_error(travel: Travel, params: Any) -> None:
    """S-05: it has no answer to stand in."""
    client = await travel.handshake("/mcp/box")
    assert (await client.tell("notifications/cancelled", params)).status in (202, 400)


async def test_log_messages_come_at_the_level_of_the_session() -> None:
    """S-43: set by logging/setLevel, carried to backends of either era."""
    for behind in ("handshake", "modern"):
        async with travelling({"box": Toolbox("box", behind)}) as travel:
            client = await travel.handshake("/mcp/box")
            assert await client.result("logging/setLevel", {"level": "warning"}) == {}
            message = client.request("tools/call", {"name": "log", "arguments": {"levels": ["emergency"]}})
            answer = await client.post(message)
            assert [found.get("method", "") async for found in answer.messages()] == ["notifications/message", ""]


@pytest.mark.parametrize("level", ["loud", "", 5, None, [], "INFO"])
async def test_a_level_that_is_none_is_refused(travel: Travel, level: Any) -> None:
    """S-43: -32602."""
    client = await travel.handshake("/mcp/box")
    assert await code(await client.post(client.request("logging/setLevel", {"level": level}))) == (200, -32602)


async def test_progress_comes_under_the_clients_own_token() -> None:
    """S-41: whatever it is, whatever era the backend has; none without a token."""
    for behind in ("handshake", "modern"):
        async with travelling({"box": Toolbox("box", behind)}) as travel:
            client = await travel.handshake("/mcp/box")
            for token in ("t", 7, 0):
                message = client.request("tools/call", {"name": "progress", "arguments": {"steps": 2}})
                message["params"]["_meta"] = {"progressToken": token}
                answer = await client.post(message)
                *notices, _ = [found async for found in answer.messages()]
                assert [notice["params"]["progressToken"] for notice in notices] == [token] * 2


async def test_two_calls_with_one_id_are_two_calls(travel: Travel) -> None:
    """S-30: a client that numbers badly gets each answer on the exchange that asked."""
    client = await travel.handshake("/mcp/box")
    answers = []
    for text in "ab":
        call = client.request("tools/call", {"name": "echo", "arguments": {"text": text}}, request_id=1)
        answers.append(await client.begin(call))
    for text, answer in zip("ab", answers, strict=True):
        result = (await answer.json())["result"]
        assert json.loads(result["content"][0]["text"])["text"] == text
