"""What a process of this replica's own gave: marked on the way out, brought back to that process from anywhere."""

from __future__ import annotations

import pytest

from backend.test_retries import Asking, called, posts
from gatewright.backend.own_process import OwnProcess
from gatewright.call import Failure, InputRequired, Result
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio


def asked(state: object) -> InputRequired:
    """What a backend answers that asks."""
    return InputRequired(jsonrpc.encode({"resultType": "input_required", "inputRequests": {}, "requestState": state}))


@pytest.mark.parametrize("state", ["v1.sealed", "at.other.thing", ""])
async def test_a_state_comes_back_as_it_was(state: str) -> None:
    """To the process that gave it, whatever it looks like; everything else of the answer and the retry stays."""
    async with posts() as (here, _):
        process = OwnProcess("box", here)
        outcome = process.asked(asked(state))
        assert isinstance(outcome, InputRequired)
        result = jsonrpc.members(outcome.value)
        assert result["resultType"] == jsonrpc.raw("input_required")
        retry = {**called(Asking()).params, "requestState": result["requestState"]}
        assert process.opened(retry) == ("", {**retry, "requestState": jsonrpc.raw(state)})


async def test_a_tasks_id_comes_back_as_it_was() -> None:
    """Also where it is looked at without a request; another replica's is none of this process'."""
    async with posts() as (here, _):
        process = OwnProcess("box", here)
        shown = process.marked("t.1")
        assert process.opened({"taskId": jsonrpc.raw(shown)}) == ("", {"taskId": jsonrpc.raw("t.1")})
        assert process.own(shown) == "t.1"
        assert process.own("unmarked") == "unmarked"
        assert process.own("at.b.t.1") is None


async def test_what_has_nothing_to_bring_back_is_left_alone() -> None:
    """Results, failures, questions without a state or with one that is no string; requests with nothing of ours."""
    async with posts() as (here, _):
        process = OwnProcess("box", here)
        stateless = InputRequired(b'{"resultType":"input_required","inputRequests":{}}')
        for outcome in (Result(b"{}"), Failure(-32603, "no"), stateless, asked(7)):
            assert process.asked(outcome) is outcome
        for params in ({}, called(Asking()).params, {"taskId": jsonrpc.raw(7)}, {"taskId": jsonrpc.raw("t")}):
            assert process.opened(params) == ("", params)
        with pytest.raises(InvalidParams):
            process.opened({"requestState": jsonrpc.raw(7)})


@pytest.mark.parametrize(("key", "given"), [("requestState", "at.b.mine"), ("taskId", "at.b.t.1")])
async def test_a_request_is_carried_out_where_its_process_is(key: str, given: str) -> None:
    """With the parameters that the backend there is to get; the mark is taken off there."""
    async with posts() as (here, waiting):
        process, reply = OwnProcess("box", here), Asking()
        replica, params = process.opened({"name": jsonrpc.raw("own"), key: jsonrpc.raw(given)})
        assert replica == "b"
        waiting.ends = Result(b'{"done":1}', is_typed=True)
        outcome = await process.carry(replica, called(reply), params)
        assert isinstance(outcome, Result)
        assert (bytes(outcome.value), outcome.is_typed, outcome.is_hinted) == (b'{"done":1}', True, False)
        (there,) = waiting.calls
        assert there.params == {"name": jsonrpc.raw("own"), key: jsonrpc.raw(given)}
        assert there.caller == called(reply).caller
        assert reply.heard == [("notifications/progress", b'{"progress":1}')]


@pytest.mark.parametrize(("key", "told"), [("requestState", "without requestState"), ("taskId", "Task not found")])
async def test_a_replica_that_is_gone_took_its_process_with_it(key: str, told: str) -> None:
    """Its client is told to make the call again, or that there is no such task."""
    async with posts() as (here, _):
        process = OwnProcess("box", here)
        replica, params = process.opened({key: jsonrpc.raw("at.nobody.mine")})
        with pytest.raises(InvalidParams, match=told):
            await process.carry(replica, called(Asking()), params)
