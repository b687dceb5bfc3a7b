"""States of a process of this replica's own: marked on the way out, brought back to the process that gave them."""

from __future__ import annotations

import pytest

from backend.test_retries import Asking, called, posts
from gatewright.backend.states import OwnStates
from gatewright.call import Call, Failure, InputRequired, Outcome, Result
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio


def asked(state: object) -> InputRequired:
    """What a backend answers that asks."""
    return InputRequired(jsonrpc.encode({"resultType": "input_required", "inputRequests": {}, "requestState": state}))


def brought(outcome: Outcome, reply: Asking) -> Call:
    """The retry that brings the state of an answer."""
    assert isinstance(outcome, InputRequired)
    call = called(reply)
    call.params = {**call.params, "requestState": jsonrpc.members(outcome.value)["requestState"]}
    return call


@pytest.mark.parametrize("state", ["v1.sealed", "at.other.thing", ""])
async def test_a_state_comes_back_as_it_was(state: str) -> None:
    """To the process that gave it, whatever it looks like; everything else of the answer and the retry stays."""
    async with posts() as (here, _):
        states = OwnStates("box", here)
        outcome = states.marked(asked(state))
        assert isinstance(outcome, InputRequired)
        assert jsonrpc.members(outcome.value)["resultType"] == jsonrpc.raw("input_required")
        call = brought(outcome, Asking())
        assert states.is_here(call.params)
        replica, params = states.opened(call.params)
        assert not replica
        assert params == {**call.params, "requestState": jsonrpc.raw(state)}


async def test_what_has_no_state_is_left_alone() -> None:
    """Results, failures, questions without a state or with one that is no string; retries with none of ours."""
    async with posts() as (here, _):
        states = OwnStates("box", here)
        stateless = InputRequired(b'{"resultType":"input_required","inputRequests":{}}')
        for outcome in (Result(b"{}"), Failure(-32603, "no"), stateless, asked(7)):
            assert states.marked(outcome) is outcome
        call = called(Asking())
        assert states.opened(call.params) == ("", call.params)
        assert states.opened({}) == ("", {})
        assert not states.is_here(call.params)
        with pytest.raises(InvalidParams):
            states.opened({"requestState": jsonrpc.raw(7)})


async def test_a_retry_is_carried_out_where_its_state_is_from() -> None:
    """With the parameters that the backend there is to get; the mark is taken off there."""
    async with posts() as (here, waiting):
        states = OwnStates("box", here)
        reply = Asking()
        call = brought(asked("at.b.mine"), reply)
        replica, params = states.opened(call.params)
        assert replica == "b"
        assert params == call.params
        waiting.ends = Result(b'{"done":1}')
        outcome = await states.retry(replica, call, {**params, "name": jsonrpc.raw("own")})
        assert outcome == Result(b'{"done":1}')
        (there,) = waiting.calls
        assert there.params == {**call.params, "name": jsonrpc.raw("own")}
        assert there.caller == call.caller
        assert reply.heard == [("notifications/progress", b'{"progress":1}')]


async def test_a_replica_that_is_gone_took_its_states_with_it() -> None:
    """Its client is told to make the call again."""
    async with posts() as (here, _):
        states = OwnStates("box", here)
        call = brought(asked("at.nobody.mine"), Asking())
        replica, params = states.opened(call.params)
        with pytest.raises(InvalidParams, match="without requestState"):
            await states.retry(replica, call, params)
