"""Replies on the shared channel: lines for as long as the host wants them, and nothing after a cancel."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewright.call import ANONYMOUS, Call, Client, Failure, Result
from gatewright.inbound.session import Session, Unanswered
from gatewright.inbound.stdio_reply import ModernLineReply, SessionLineReply
from gatewright.inbound.stdio_wire import StdioWire
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[StdioWire, list[Any]]]:
    """An open wire, and what was said on it once the block has ended."""
    (source, to_wire), (from_wire, sink) = os.pipe(), os.pipe()
    wire = StdioWire(1 << 20, lambda _: None, lambda: None)
    await wire.open(source, sink)
    said: list[Any] = []
    yield wire, said
    await wire.close()
    os.close(to_wire)
    with os.fdopen(from_wire, "rb") as heard:
        said += [json.loads(line) for line in heard]


def session_of(capabilities: bytes = b"{}") -> Session:
    """A session of a client that can be asked so much."""
    client = Client(HANDSHAKE_2025_11_25, b"{}", capabilities, "s")
    return Session("s", "", ANONYMOUS, client, 4, asyncio.get_running_loop())


async def test_each_message_is_a_line_and_the_status_is_not_said() -> None:
    """Notifications, then the answer."""
    async with channel() as (wire, said):
        reply = ModernLineReply(wire, 1, METHODS["tools/call"], MODERN_2026_07_28)
        await reply.emit("notifications/progress", b'{"progress":1}')
        await reply.finish(404, jsonrpc.error(1, Failure(-32601, "no")))
    assert [one.get("method", "answer") for one in said] == ["notifications/progress", "answer"]


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_nothing_is_said_of_a_cancelled_request(era: str) -> None:
    """Whatever its backend still says."""
    async with channel() as (wire, said):
        if era == "modern":
            reply: Any = ModernLineReply(wire, 1, None, MODERN_2026_07_28)
        else:
            reply = SessionLineReply(wire, 1, None, HANDSHAKE_2025_11_25, session_of())
        reply.is_closed = True
        await reply.emit("notifications/progress", b"{}")
        await reply.finish(200, b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert said == []


async def test_a_subscription_that_ends_here_is_named() -> None:
    """basic/patterns/cancellation: the one use of the notification by a server."""
    async with channel() as (wire, said):
        await ModernLineReply(wire, "one", METHODS["subscriptions/listen"], MODERN_2026_07_28).torn_down()
    assert said == [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "one"}}]


async def test_a_question_goes_on_the_channel_and_is_taken_back_with_its_call() -> None:
    """The answer that comes first wins; what is open at the answer of the call needs none."""
    session = session_of(b'{"roots":{}}')
    async with channel() as (wire, said):
        reply = SessionLineReply(wire, 1, None, HANDSHAKE_2025_11_25, session)
        with pytest.raises(Unanswered):
            await reply.ask("roots/list", b"{}")  # it is no call's yet
        task = asyncio.current_task()
        assert task is not None
        reply.call = Call(
            method="tools/call", row=None, params={}, name=None, client=session.client, reply=reply, task=task
        )
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(reply.ask("roots/list", b"{}"))
            second = tasks.create_task(_unanswered(reply))
            while reply.call.open_asks < 2:
                await asyncio.sleep(0)
            session.answered(jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}'))
            answer = await first
            assert isinstance(answer, Result)
            await reply.finish(200, jsonrpc.result(1, b"{}"))
        assert second.result()
        reply.is_closed = True
        with pytest.raises(Unanswered):
            await reply.ask("roots/list", b"{}")
    told = [one.get("method", "answer") for one in said]
    assert told == ["roots/list", "roots/list", "notifications/cancelled", "answer"]


async def _unanswered(reply: SessionLineReply) -> bool:
    try:
        await reply.ask("roots/list", b"{}")
    except Unanswered:
        return True
    return False
