"""Modern clients over HTTP: what cancels, what does not, and what a connection is worth afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
import structlog
from msgspec import structs

from gatewright.call import Call, Failure, InputRequired, Outcome, Result
from gatewright.errors import BackendTimeout, GatewayError, InvalidParams
from gatewright.inbound.modern import admitted
from gatewright.protocol import jsonrpc
from gatewright.protocol.chain import Chain
from gatewright.protocol.modern import MAX_REMEMBERED_BYTES, Admitted, Agreed
from inbound.sides import content, listening, quiet
from journeys.wire import ACCEPT, Json, ModernClient, Wire, soon

pytestmark = pytest.mark.anyio


async def posted(wire: Wire, client: ModernClient, request: Json) -> Json:
    """The final message of a request on this connection."""
    fields = {"Content-Type": "application/json", "Accept": ACCEPT, **client.headers(request)}
    return await (await wire.send("POST", "/mcp", fields, json.dumps(request).encode())).last()


async def test_the_call_is_what_the_request_says() -> None:
    """Method, name, parameters, headers of parameters, client and route, all in one value."""
    seen: list[Call] = []

    async def handle(call: Call) -> Outcome:
        seen.append(call)
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern(capabilities={"roots": {}}, log_level="info")
        request = client.request("tools/call", {"name": "tool", "arguments": {"a": 1}})
        answer = await client.post(request, {"Mcp-Param-Region": "eu"})
        assert answer.status == 200
    [call] = seen
    assert (call.method, call.name, call.route, call.client.session) == ("tools/call", "tool", "", "")
    assert bytes(call.params["arguments"]) == b'{"a": 1}'
    assert call.param_headers == {b"mcp-param-region": b"eu"}
    assert json.loads(bytes(call.client.capabilities)) == {"roots": {}}


@pytest.mark.parametrize(
    ("outcome", "status", "member"),
    [
        (Result(b'{"x":1}'), 200, {"result": {"resultType": "complete", "x": 1}}),
        (InputRequired(b'{"resultType":"input_required"}'), 200, {"result": {"resultType": "input_required"}}),
        (Failure(-31999, "no"), 200, {"error": {"code": -31999, "message": "no"}}),
        (Failure(-32602, "no"), 400, {"error": {"code": -32602, "message": "no"}}),
        (Failure(-32601, "no"), 404, {"error": {"code": -32601, "message": "no"}}),
        (InvalidParams("no"), 400, {"error": {"code": -32602, "message": "no"}}),
        (BackendTimeout("no"), 200, {"error": {"code": -31003, "message": "no"}}),
    ],
)
async def test_every_outcome_has_its_answer(outcome: Outcome | Exception, status: int, member: Json) -> None:
    """In JSON, under the request's id, with the status of this era."""

    async def handle(call: Call) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.post(client.request("tools/call", {"name": "t"}, request_id="id"))
        assert answer.status == status
        assert await answer.json() == {"jsonrpc": "2.0", "id": "id", **member}
        await quiet(sides)


@pytest.mark.parametrize("is_late", [True, False])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_bug_is_answered_under_an_id(is_stream: bool, is_late: bool) -> None:
    """-32603 with an error id that the log has too, whether the bug comes at once or later; the process lives on."""

    async def late(call: Call) -> Outcome:
        if is_stream:
            await call.reply.emit("notifications/progress", b"{}")
        raise ZeroDivisionError("a bug")

    def at_once(call: Call) -> asyncio.Future[Outcome]:
        raise ZeroDivisionError("a bug")

    with structlog.testing.capture_logs() as logged:
        async with listening(late if is_late else at_once) as sides:
            client = sides.modern()
            for _ in range(2):
                answer = await client.post(client.request("tools/call", {"name": "t"}, request_id=7))
                last = await answer.last()
                assert (last["id"], last["error"]["code"]) == (7, -32603)
                assert "bug" not in str(last)
                assert last["error"]["data"]["errorId"] in [one.get("error_id") for one in logged]
            await quiet(sides)


async def test_the_client_that_leaves_cancels() -> None:
    """The handler's task is cancelled at once; what it then says reaches nobody."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(call: Call) -> Outcome:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.begin(client.request("tools/call", {"name": "t"}))
        await soon(begun.wait())
        answer.close()
        await soon(cancelled.wait())
        await quiet(sides)


async def test_a_cancel_that_is_lost_on_the_way_harms_nobody() -> None:
    """A backend that answers although it was cancelled: the client is gone, others are served."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(call: Call) -> Outcome:
        if call.name == "echo":
            return Result(b"{}")
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.begin(client.request("tools/call", {"name": "t"}))
        await soon(begun.wait())
        answer.close()
        await soon(ended.wait())
        assert await client.result("tools/call", {"name": "echo"}) == {"resultType": "complete"}
        await quiet(sides)


async def test_one_connection_serves_whatever_came_before() -> None:
    """Results, refusals, bugs and streams in turn on one connection: each answered, and its task as good as new."""
    counts: list[int] = []

    async def handle(call: Call) -> Outcome:
        counts.append(call.task.cancelling())
        if call.name == "stream":
            await call.reply.emit("notifications/progress", b"{}")
        elif call.name == "refuse":
            raise InvalidParams("no")
        elif call.name == "bug":
            raise KeyError("bug")
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern()
        wire = await client.wire()
        for name in ["plain", "stream", "refuse", "bug"] * 3:
            request = client.request("tools/call", {"name": name})
            last = await posted(wire, client, request)
            assert last["id"] == request["id"]
            assert ("error" in last) == (name in ("refuse", "bug"))
        assert counts == [0] * 12


async def test_a_subscription_ends_with_a_result_when_the_listener_drains() -> None:
    """What it said before stays said; the last event names the subscription."""

    async def handle(call: Call) -> Outcome:
        await call.reply.emit("notifications/subscriptions/acknowledged", b'{"notifications":{}}')
        await asyncio.Event().wait()
        raise AssertionError

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.post(client.request("subscriptions/listen", {"notifications": {}}, request_id="s"))
        assert await answer.event() is not None
        sides.drain()
        last = await answer.event()
        assert last is not None
        assert last["result"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "s"}
        assert await answer.event() is None
        await quiet(sides)


async def test_a_call_outlives_the_drain() -> None:
    """Only subscriptions are ended by it; a call is answered, and its connection closed after."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def handle(call: Call) -> Outcome:
        begun.set()
        await go.wait()
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.begin(client.request("tools/call", {"name": "t"}))
        await soon(begun.wait())
        sides.drain()
        go.set()
        await soon(answer.started)
        assert answer.headers["connection"] == "close"
        assert "result" in await answer.json()


async def test_what_the_request_does_not_allow_is_not_said() -> None:
    """No announcements, no acknowledgment, no cancellation and no log message on the stream of a plain request."""

    async def handle(call: Call) -> Outcome:
        for method in (
            "notifications/tools/list_changed",
            "notifications/resources/updated",
            "notifications/subscriptions/acknowledged",
            "notifications/cancelled",
            "notifications/message",
        ):
            await call.reply.emit(method, b'{"level":"emergency"}')
        return Result(b"{}")

    async with listening(handle) as sides:
        client = sides.modern()
        answer = await client.post(client.request("tools/call", {"name": "t"}))
        assert not answer.is_stream
        assert "result" in await answer.json()


@pytest.mark.parametrize("left_out", ["protocolVersion", "clientCapabilities"])
async def test_an_incomplete_request_is_told_what_it_lacks(left_out: str) -> None:
    """400 and -32602, by name, under its id (S-31)."""
    async with listening(content) as sides:
        client = sides.modern()
        request = client.request("tools/list")
        del request["params"]["_meta"]["io.modelcontextprotocol/" + left_out]
        answer = await client.post(request)
        assert answer.status == 400
        error = await answer.json()
        assert (error["id"], error["error"]["code"]) == (1, -32602)
        assert left_out in error["error"]["message"]


async def test_an_unserved_version_is_told_which_are() -> None:
    """400 and -32022 with the list (S-11)."""
    async with listening(content) as sides:
        client = sides.modern()
        request = client.request("tools/list")
        request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2027-01-01"
        answer = await client.post(request, {"MCP-Protocol-Version": "2027-01-01"})
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert error["code"] == -32022
        assert error["data"]["supported"] == ["2026-07-28"]


# --- what was admitted before

REVISION = "2026-07-28"
HERE = Chain("here", 8)


def judged(body: Json, headers: dict[bytes, bytes], agreed: Agreed | None) -> Admitted | tuple[type, str]:
    """What becomes of a request: as the endpoint judges it, or without anything that is remembered."""
    message = jsonrpc.decode_request(json.dumps(body).encode())
    method = message.method
    assert isinstance(method, str)
    params = message.params if isinstance(message.params, dict) else jsonrpc.NO_PARAMS
    try:
        found = None if agreed is None else agreed.again(method, params)
        return found or admitted(message, method, headers, HERE, agreed)
    except GatewayError as error:
        return type(error), error.message


def said(version: str = REVISION, **members: object) -> Json:
    """A `_meta`."""
    key = "io.modelcontextprotocol/"
    return {key + "protocolVersion": version, key + "clientCapabilities": {}, **members}


NAMES = ["one", "two", "t\u00f6", "", 5, None]
METAS = [
    said(),
    None,
    5,
    {},
    said("2027-01-01"),
    said(progressToken=1),
    said(**{"io.modelcontextprotocol/logLevel": "info"}),
    said(**{"io.modelcontextprotocol/logLevel": "loud"}),
    said(long="x" * MAX_REMEMBERED_BYTES),
]
OTHERS: list[Json] = [{}, {"arguments": {"a": 1}}, {"Name": "lookalike", "Uri": "lookalike"}, {"": 1}, {"own": True}]
FIELDS = {"tools/call": "name", "resources/read": "uri", "tasks/get": "taskId", "tools/list": "x", "made/up": "name"}


def bodies(method: str) -> list[Json]:
    """Requests with every combination of name, `_meta` and other members; the first of them is a good one."""
    found = []
    for name, meta, others in itertools.product(NAMES, METAS, OTHERS):
        named, described = {} if name is None else {FIELDS[method]: name}, {} if meta is None else {"_meta": meta}
        found.append({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**named, **described, **others}})
    return found


@pytest.mark.parametrize("method", FIELDS)
def test_what_is_remembered_of_a_head_changes_no_verdict(method: str) -> None:
    """Whatever comes behind a request that was admitted, and that one again: each is judged as if it were the first."""
    headers = {b"mcp-protocol-version": REVISION.encode(), b"mcp-method": method.encode(), b"mcp-name": b"one"}
    agreed = Agreed()
    good, *others = bodies(method)
    for body in (each for other in others for each in (good, other, other)):
        first, again = judged(body, headers, None), judged(body, headers, agreed)
        if isinstance(first, Admitted) and isinstance(again, Admitted):
            assert structs.asdict(again) == structs.asdict(first)
        else:
            assert again == first


def test_a_request_that_says_the_same_needs_no_second_look() -> None:
    """Its arguments are not judged by the head; another name, another `_meta` and another member are looked at."""
    headers = {b"mcp-protocol-version": REVISION.encode(), b"mcp-method": b"tools/call", b"mcp-name": b"one"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one", "_meta": said()}}
    agreed = Agreed()
    first = judged(body, headers, agreed)
    other = {**body, "id": 2, "params": {**body["params"], "arguments": {"a": 1}}}
    assert judged(other, headers, agreed) is first
    for changed in ({"_meta": said(x=1)}, {"own": 1}):
        once = judged({**body, "params": {**body["params"], **changed}}, headers, agreed)
        assert isinstance(once, Admitted)
        assert once is not first


def test_what_is_long_is_not_remembered() -> None:
    """A connection holds little of what its client wrote."""
    headers = {b"mcp-protocol-version": REVISION.encode(), b"mcp-method": b"tools/call", b"mcp-name": b"one"}
    params = {"name": "one", "_meta": said(long="x" * MAX_REMEMBERED_BYTES)}
    agreed = Agreed()
    assert isinstance(
        judged({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers, agreed), Admitted
    )
    assert agreed.admitted is None
    assert bytes(agreed.meta_text) == b"{}"
