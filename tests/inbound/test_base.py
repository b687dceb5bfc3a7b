"""What every reply does whatever carries it: each way a call may end has its answer, and each era its own rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Raw
from structlog.testing import capture_logs
from typing_extensions import override

from gatewright.call import Failure, InputRequired, Outcome, Result
from gatewright.errors import (
    BackendUnavailable,
    GatewayError,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    ResourceNotFound,
)
from gatewright.inbound.base import BaseReply, ModernRules, closed
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28

pytestmark = pytest.mark.anyio
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Plain(BaseReply):
    """Keeps what is said."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.sent: list[Any] = []
        self.answers: list[tuple[int, Any]] = []

    @override
    async def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    @override
    async def finish(self, status: int, body: bytes) -> None:
        self.answers.append((status, json.loads(body)))


class Modern(ModernRules, Plain):
    """In the modern era."""


def ending(outcome: Outcome | BaseException) -> Callable[[], Awaitable[Outcome]]:
    """A call that ends so."""

    async def end() -> Outcome:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return end


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (Result(b'{"a":1}'), 200, {"result": {"a": 1}}),
        (Failure(-32602, "no", Raw(b'{"b":2}')), 200, {"error": {"code": -32602, "message": "no", "data": {"b": 2}}}),
        (MethodNotFound("no x"), 200, {"error": {"code": -32601, "message": "no x"}}),
        (ResourceNotFound("gone"), 200, {"error": {"code": -32002, "message": "gone"}}),
        (BackendUnavailable("away"), 200, {"error": {"code": -31002, "message": "away"}}),
    ],
)
async def test_a_handshake_call_is_answered_as_its_era_writes_it(
    outcome: Outcome | GatewayError, status: int, expected: dict[str, Any]
) -> None:
    """Errors that answer a request are JSON-RPC errors in a 200."""
    reply = Plain(7, METHODS["tools/call"], HANDSHAKE_2025_11_25)
    await reply.answer("tools/call", ending(outcome))
    assert reply.answers == [(status, {"jsonrpc": "2.0", "id": 7, **expected})]


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (Result(b'{"a":1}'), 200, {"result": {"resultType": "complete", "a": 1}}),
        (InputRequired(b'{"resultType":"input_required"}'), 200, {"result": {"resultType": "input_required"}}),
        (Failure(-32601, "no"), 404, {"error": {"code": -32601, "message": "no"}}),
        (InvalidParams("no"), 400, {"error": {"code": -32602, "message": "no"}}),
    ],
)
async def test_a_modern_call_is_answered_as_its_era_writes_it(
    outcome: Outcome | GatewayError, status: int, expected: dict[str, Any]
) -> None:
    """Results say that they are complete; errors have a status of their own."""
    reply = Modern("x", METHODS["tools/call"], MODERN_2026_07_28)
    await reply.answer("tools/call", ending(outcome))
    assert reply.answers == [(status, {"jsonrpc": "2.0", "id": "x", **expected})]


async def test_a_bug_is_answered_under_an_id_that_the_log_has_too() -> None:
    """And nothing else of it is shown."""
    reply = Plain(1, None, HANDSHAKE_2025_11_25)
    with capture_logs() as logs:
        await reply.answer("tools/call", ending(ZeroDivisionError("secret")))
    status, body = reply.answers[0]
    assert (status, body["error"]["code"], body["error"]["message"]) == (500, -32603, "Internal error")
    assert body["error"]["data"] == {"errorId": logs[0]["error_id"]}


async def test_a_cancelled_call_is_not_answered() -> None:
    """Whoever cancelled it knows what to say."""
    reply = Plain(1, None, HANDSHAKE_2025_11_25)
    with pytest.raises(asyncio.CancelledError):
        await reply.answer("tools/call", ending(asyncio.CancelledError()))
    assert not reply.answers


async def test_without_a_way_to_ask_a_question_is_refused() -> None:
    """As the client would refuse it."""
    with pytest.raises(MissingCapability):
        await Modern(1, None, MODERN_2026_07_28).ask("roots/list", b"{}")


@pytest.mark.parametrize(("asked", "heard"), [(None, []), ("warning", ["error"]), ("debug", ["info", "error"])])
async def test_log_messages_pass_at_the_level_that_was_asked_for(asked: str | None, heard: list[str]) -> None:
    """None, when none was (S-43); what has no level never."""
    level = None if asked is None else Raw(json.dumps(asked).encode())
    reply = Modern(1, METHODS["tools/call"], MODERN_2026_07_28, level)
    for said in (b'{"level":"info"}', b'{"level":"error"}', b'{"level":"loud"}', b"{}"):
        await reply.emit("notifications/message", said)
    assert [one["params"]["level"] for one in reply.sent] == heard


async def test_a_modern_request_is_told_what_is_about_it_and_nothing_else() -> None:
    """Changes are for subscriptions."""
    reply = Modern(1, METHODS["tools/call"], MODERN_2026_07_28)
    for method in ("progress", "tools/list_changed", "resources/updated", "cancelled", "subscriptions/acknowledged"):
        await reply.emit(f"notifications/{method}", b"{}")
    assert [one["method"] for one in reply.sent] == ["notifications/progress"]


async def test_everything_on_a_subscription_bears_its_id() -> None:
    """Also its end."""
    reply = Modern("mine", METHODS["subscriptions/listen"], MODERN_2026_07_28)
    assert reply.is_subscription
    await reply.emit("notifications/tools/list_changed", b'{"_meta":{"x":1}}')
    await reply.answer("subscriptions/listen", closed)
    assert reply.sent[0]["params"] == {"_meta": {"x": 1, SUBSCRIPTION: "mine"}}
    assert reply.answers[0][1]["result"] == {"resultType": "complete", "_meta": {SUBSCRIPTION: "mine"}}


async def test_a_transport_has_to_say_how_it_sends() -> None:
    """The base alone cannot be made."""
    with pytest.raises(TypeError, match="finish, send"):
        BaseReply(1, None, MODERN_2026_07_28)  # type: ignore[abstract]
