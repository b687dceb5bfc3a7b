"""Retries on another replica: carried out there, with everything that is said and however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backend.test_relay import until
from gatewright.backend.retries import RetryHost, retry
from gatewright.background import Background
from gatewright.call import Call, Caller, Client, Failure, InputRequired, Json, Outcome, Result
from gatewright.errors import GatewayError, InvalidParams, MissingCapability, Overloaded
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import MODERN_2026_07_28
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

pytestmark = pytest.mark.anyio
CLIENT = Client(MODERN_2026_07_28, b'{"name":"n"}', b'{"roots":{}}')


class Waiting:
    """A backend with a parked call."""

    def __init__(self) -> None:
        self.ends: Outcome | GatewayError = Result(b"{}")
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Outcome:
        """As a parked call."""
        return await self.resume(call)

    async def resume(self, call: Call) -> Outcome:
        """Say something, then end as told."""
        self.calls.append(call)
        await call.reply.emit("notifications/progress", b'{"progress":1}')
        with pytest.raises(MissingCapability):
            await call.reply.ask("roots/list", b"{}")
        if isinstance(self.ends, GatewayError):
            raise self.ends
        return self.ends


class Asking:
    """Who made the call."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []

    async def emit(self, method: str, params: Json) -> None:
        self.heard.append((method, bytes(params)))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        raise AssertionError


def called(reply: Asking) -> Call:
    """A retry."""
    task = asyncio.current_task()
    assert task is not None
    params = jsonrpc.members(b'{"name":"x","requestState":"s","_meta":{"progressToken":3}}')
    caller = Caller("ada", frozenset({"b", "a"}))
    return Call(
        method="tools/call", row=METHODS["tools/call"], params=params, name="x", client=CLIENT, caller=caller,
        reply=reply, task=task,
    )  # fmt: skip


@asynccontextmanager
async def posts() -> AsyncIterator[tuple[Post, Waiting]]:
    """This replica, and a backend on the other one, `b`."""
    shelf = Shelf()
    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        here, there = (Post(MemoryStore(shelf, name), background, beat_s=0.02, settle_s=0.5) for name in "ab")
        waiting = Waiting()
        RetryHost({"box": waiting}, there)
        running = [background(one.run()) for one in (here, there)]
        await until(lambda: here.alive == {"a", "b"})
        yield here, waiting
        for task in running:
            assert task is not None
            task.cancel()


@pytest.mark.parametrize(
    "ends", [Result(b'{"x":1}'), InputRequired(b'{"resultType":"input_required"}'), Failure(-5, "no", jsonrpc.raw([1]))]
)
async def test_an_outcome_comes_back_as_it_is(ends: Outcome) -> None:
    """The call is there what it was here: method, parameters, client, caller."""
    async with posts() as (here, waiting):
        waiting.ends, reply = ends, Asking()
        found = await retry(here, "b", "box", called(reply))
        assert type(found) is type(ends)
        assert str(found) == str(ends) or isinstance(ends, Failure)
        assert reply.heard == [("notifications/progress", b'{"progress":1}')]
        (call,) = waiting.calls
        assert (call.method, call.caller) == ("tools/call", Caller("ada", frozenset({"a", "b"})))
        assert jsonrpc.encode(call.params) == jsonrpc.encode(called(reply).params)
        assert bytes(call.meta["progressToken"]) == b"3"
        assert (call.client.revision, bytes(call.client.capabilities)) == (CLIENT.revision, CLIENT.capabilities)


@pytest.mark.parametrize("error", [InvalidParams("used"), Overloaded("full"), MissingCapability("m", {"roots": {}})])
async def test_a_refusal_comes_back_as_it_is(error: GatewayError) -> None:
    """With its kind, its message and its data."""
    async with posts() as (here, waiting):
        waiting.ends = error
        with pytest.raises(type(error), match=error.message) as refused:
            await retry(here, "b", "box", called(Asking()))
        assert (refused.value.data is None) == (error.data is None)


async def test_a_call_that_is_gone_is_to_be_made_again() -> None:
    """Its replica is dead, or does not know the backend any more."""
    async with posts() as (here, _):
        with pytest.raises(InvalidParams, match="make it again"):
            await retry(here, "nobody", "box", called(Asking()))
        with pytest.raises(InvalidParams, match="not served"):
            await retry(here, "b", "other", called(Asking()))
