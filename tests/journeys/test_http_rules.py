"""What every request must be, and the exact answer to one that is not, on a running gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gatewright.inbound.settings import Limits, Listen
from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import ACCEPT, Answer, HandshakeClient, Json, Wire

pytestmark = pytest.mark.anyio
JSON = "application/json"
PING = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping"}).encode()


@pytest.fixture
async def travel() -> AsyncIterator[Travel]:
    """A gateway with two backends."""
    limits = Limits(max_body_bytes=2_048)
    async with travelling({"one": Toolbox("one"), "two": Toolbox("two")}, limits=limits) as there:
        yield there


async def sent(
    travel: Travel, method: str = "POST", path: str = "/mcp", body: bytes = PING, **headers: str | None
) -> Answer:
    """One request; a header given as None is left out."""
    fields = {
        "Content-Type": JSON,
        "Accept": ACCEPT,
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }
    wire = await Wire.open(travel.port)
    kept = {key: value for key, value in fields.items() if value is not None}
    return await wire.send(method, path, kept, body)


async def error_of(answer: Answer) -> Json:
    """Its JSON-RPC error."""
    found = await answer.json()
    assert found["jsonrpc"] == "2.0"
    error = found["error"]
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize("path", ["/", "/mcp/", "/mcp/none", "/mcp/one/", "/mcp/one/two", "/mcpone", "/MCP"])
async def test_other_paths_are_not_found(travel: Travel, path: str) -> None:
    """404 that says where the endpoints are."""
    answer = await sent(travel, path=path)
    assert answer.status == 404
    assert "/mcp/<backend>" in (await error_of(answer))["message"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS"])
async def test_other_methods_are_not_allowed(travel: Travel, method: str) -> None:
    """405 and the methods that are."""
    answer = await sent(travel, method, body=b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST, DELETE")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("text/plain", 415),
        ("application/json-patch+json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=utf-8", 400),
        ("Application/JSON", 400),
    ],
)
async def test_only_json_is_read(travel: Travel, content_type: str | None, status: int) -> None:
    """415 for what is no JSON (browsers can send it without asking first); 400 says that only the session misses."""
    assert (await sent(travel, Content_Type=content_type)).status == status


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (JSON, 406),
        ("text/event-stream", 406),
        (f"{JSON}, text/event-stream;q=0", 406),
        (f"{JSON}, text/event-stream;q=0.000", 406),
        ("text/html", 406),
        (f"{JSON};q=0.5,text/event-stream; q=0.1", 400),
        ("*/*", 400),
        ("application/*, TEXT/*", 400),
        (None, 400),
    ],
)
async def test_both_answers_must_be_taken(travel: Travel, accept: str | None, status: int) -> None:
    """406 unless the client takes JSON and event streams; one that says nothing takes everything."""
    assert (await sent(travel, Accept=accept)).status == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"nothing", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100 + b"]" * 100, -32700),
        (b'"text"', -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600),
    ],
)
async def test_broken_bodies_are_told_what_is_wrong(travel: Travel, body: bytes, code: int) -> None:
    """400 and the JSON-RPC code of what is wrong."""
    answer = await sent(travel, body=body)
    assert (answer.status, (await error_of(answer))["code"]) == (400, code)


async def test_too_long_a_body_is_refused(travel: Travel) -> None:
    """413, without reading it."""
    assert (await sent(travel, body=b" " * 3_000)).status == 413


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("http://localhost", 403),
        ("http://localhost:1", 403),
        ("null", 403),
        ("http://127.0.0.1.evil.example:{port}", 403),
        ("http://localhost:{port}@evil.example", 403),
        ("http://localhost:{port}/", 403),
        ("ftp://localhost:{port}", 403),
        ("http://[::2]:{port}", 403),
        ("http://localhost:{port}", 400),
        ("http://127.0.0.1:{port}", 400),
        ("http://[::1]:{port}", 400),
        ("HTTP://LocalHost:{port}", 400),
        ("https://localhost:{port}", 400),
    ],
)
async def test_foreign_origins_are_refused(travel: Travel, origin: str, status: int) -> None:
    """403 for every origin but the listener's own; without one the request passes (it came from no browser)."""
    answer = await sent(travel, Origin=origin.replace("{port}", str(travel.port)))
    assert answer.status == status
    for method in ("GET", "DELETE"):
        answer = await sent(travel, method, body=b"", Origin=origin.replace("{port}", str(travel.port)))
        assert (answer.status == 403) == (status == 403)


async def test_origins_may_be_let_in() -> None:
    """Those of `allowed_origins`, and only they."""
    allowed = Listen(port=0, allowed_origins=("https://app.example",))
    async with travelling({}, listen=allowed) as travel:
        assert (await sent(travel, Origin="https://app.example")).status == 400
        assert (await sent(travel, Origin="https://app.example:444")).status == 403


async def test_a_session_is_needed(travel: Travel) -> None:
    """400 without one, 404 for one that is unknown: on POST, GET and DELETE alike (S-22)."""
    for method in ("POST", "GET", "DELETE"):
        body = PING if method == "POST" else b""
        missing = await sent(travel, method, body=body)
        assert missing.status == 400
        assert "initialize" in (await error_of(missing))["message"]
        unknown = await sent(travel, method, body=body, Mcp_Session_Id="nobody")
        assert unknown.status == 404


async def test_a_session_is_bound_to_its_path(travel: Travel) -> None:
    """Elsewhere it is as unknown as any other."""
    client = await travel.handshake("/mcp/one")
    for path in ("/mcp", "/mcp/two"):
        other = HandshakeClient(travel.port, path)
        other.session = client.session
        assert (await other.post(other.request("ping"))).status == 404
        assert (await other.listen()).status == 404
        assert await other.end() == 404
    assert await client.result("ping") == {}


async def test_the_version_header_must_be_one_that_is_served(travel: Travel) -> None:
    """400 that lists them; none at all is taken for the oldest that has none (S-26)."""
    client = await travel.handshake("/mcp/one")
    for wrong in ("2024-01-01", "latest", ""):
        answer = await client.post(client.request("ping"), {"MCP-Protocol-Version": wrong})
        assert answer.status == 400
        assert "2025-11-25" in (await error_of(answer))["message"]
    older = HandshakeClient(travel.port, "/mcp/one")
    message = older.request("ping")
    answer = await older.post(message, {"Mcp-Session-Id": client.session})
    assert (answer.status, await answer.json()) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_ids_of_sessions_are_unguessable(travel: Travel) -> None:
    """Visible ASCII, 192 bits, no two alike (S-20)."""
    ids = {(await travel.handshake("/mcp/one")).session for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) == 32 and one.isascii() and one.isprintable() and " " not in one for one in ids)


async def test_the_revision_is_negotiated(travel: Travel) -> None:
    """A known one is answered with itself, an unknown one with the latest of the era."""
    for asked, given in [("2025-03-26", "2025-03-26"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")]:
        client = HandshakeClient(travel.port, "/mcp/one", revision=asked)
        params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        assert (await client.result("initialize", params))["protocolVersion"] == given


async def test_initialize_must_be_whole(travel: Travel) -> None:
    """Without a version, or as a notification, it is refused and opens nothing."""
    client = HandshakeClient(travel.port, "/mcp/one")
    answer = await client.post(client.request("initialize", {"capabilities": {}}))
    assert "mcp-session-id" not in answer.headers
    assert (await error_of(answer))["code"] == -32602
    answer = await client.post({"jsonrpc": "2.0", "method": "initialize", "params": {}})
    assert answer.status == 400


async def test_a_standing_stream_wants_its_media_type(travel: Travel) -> None:
    """406 for a GET that does not take event streams."""
    client = await travel.handshake("/mcp/one")
    answer = await sent(travel, "GET", "/mcp/one", b"", Mcp_Session_Id=client.session, Accept=JSON)
    assert answer.status == 406
    answer = await sent(travel, "GET", "/mcp/one", b"", Mcp_Session_Id=client.session, Accept="Text/Event-Stream")
    assert (answer.status, answer.is_stream) == (200, True)
    assert answer.headers["x-accel-buffering"] == "no"


async def test_batches_belong_to_one_revision(travel: Travel) -> None:
    """In 2025-03-26 an array is answered message by message, on one stream; elsewhere it is refused."""
    old = await travel.handshake("/mcp/one", revision="2025-03-26")
    call = {"name": "echo", "arguments": {"text": "b"}}
    batch: list[Json] = [
        old.request("ping", request_id=1),
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}},
        old.request("tools/call", call, request_id="two"),
        old.request("no/such", request_id=3),
        old.request("tools/call", {}, request_id=4),
    ]
    answer = await old.post(batch)
    assert answer.is_stream
    found = {message["id"]: message async for message in answer.messages()}
    assert found[1]["result"] == {}
    assert json.loads(found["two"]["result"]["content"][0]["text"]) == {"label": "one", "text": "b"}
    assert found[3]["error"]["code"] == -32601
    assert found[4]["error"]["code"] == -32602
    only = await old.post([{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}])
    assert (only.status, await only.body()) == (202, b"")
    for wrong in (b"[]", b"[1]", b'[{"jsonrpc":"2.0","id":1}]', b"[[]]", b"[,]"):
        assert (await sent_batch(old, wrong)).status == 400
    new = await travel.handshake("/mcp/one")
    answer = await new.post([new.request("ping")])
    assert answer.status == 400
    assert "one message" in (await error_of(answer))["message"]


async def sent_batch(client: HandshakeClient, body: bytes) -> Answer:
    """An array as it stands here."""
    fields = {"Content-Type": JSON, "Accept": ACCEPT, **client.headers({})}
    return await (await client.wire()).send("POST", client.path, fields, body)


async def test_an_unknown_method_of_the_handshake_era_is_an_answer(travel: Travel) -> None:
    """-32601 in a 200: a 404 would say that the session is gone."""
    client = await travel.handshake("/mcp/one")
    for method in ("no/such", "server/discover", "subscriptions/listen"):
        answer = await client.post(client.request(method, {}))
        assert answer.status == 200
        assert (await error_of(answer))["code"] == -32601
