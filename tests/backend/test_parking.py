"""Parked calls: what a handshake backend asks in the middle of a call crosses to a client that is asked by outcomes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw, structs

from gatewright.backend.parking import Limits, Parked, Parking
from gatewright.backend.places import ParkingPlaces
from gatewright.background import Background
from gatewright.call import ANONYMOUS, Call, Caller, Client, Failure, InputRequired, Json, Outcome, Params, Result
from gatewright.errors import BackendUnavailable, GatewayError, InvalidParams, MissingCapability, Overloaded
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import MODERN_2026_07_28
from gatewright.protocol.sealed import KEY_BYTES, Sealer
from gatewright.stores.base import Share
from gatewright.stores.memory import MemoryStore, Shelf

pytestmark = pytest.mark.anyio
FORM = b'{"message":"Who?","requestedSchema":{"type":"object"}}'
URL = b'{"mode":"url","message":"Sign in","url":"https://example.com/sign-in","elicitationId":"e-1"}'
ABLE = b'{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}'
ACCEPTED = Raw(b'{"action":"accept","content":{"name":"Ada"}}')
DONE = Result(b'{"content":[]}')

Body = Callable[[Parked], Awaitable[Outcome]]


class Ear:
    """What one request of the client gets to see while it runs."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.tokens: list[object] = []

    async def emit(self, method: str, params: Json) -> None:
        """Remember it."""
        self.seen.append(method)
        self.tokens.append(json.loads(bytes(params)).get("progressToken"))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """A modern client is never asked by requests."""
        raise AssertionError(method)


class Lot:
    """A parking with a backend behind it that does `body`, and what that backend has seen."""

    def __init__(self, tasks: asyncio.TaskGroup, limits: Limits, sealer: Sealer, places: ParkingPlaces | None) -> None:
        self.background = Background(tasks)
        self.parking = Parking("box", sealer, limits, self.background, places=places)
        self.calls: list[Params] = []
        self.cancelled = asyncio.Event()
        self.answers: list[Result | Failure] = []

    async def make(self, call: Call, body: Body) -> Outcome:
        """One request of the client."""

        async def carry(inner: Call) -> Outcome:
            self.calls.append(inner.params)
            assert isinstance(inner.reply, Parked)
            try:
                return await body(inner.reply)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        async with asyncio.timeout(5):
            return await self.parking.carry(call, carry)

    async def ask(self, reply: Parked, method: str = "elicitation/create", params: bytes = FORM) -> Result | Failure:
        """Put a question as the wire does, in a task of its own."""
        answer: asyncio.Future[Result | Failure] = asyncio.get_running_loop().create_future()

        async def put() -> None:
            try:
                found = await reply.ask(method, params)
            except GatewayError as error:
                answer.set_exception(error)
                return
            self.answers.append(found)
            if not answer.done():
                answer.set_result(found)

        self.background(put())
        return await answer


@asynccontextmanager
async def a_lot(
    limits: Limits | None = None, sealer: Sealer | None = None, places: ParkingPlaces | None = None
) -> AsyncIterator[Lot]:
    """A parking; what still runs at the end is cancelled, and nothing may be left in it."""
    async with asyncio.TaskGroup() as tasks:
        lot = Lot(tasks, limits or Limits(), sealer or Sealer([bytes(KEY_BYTES)]), places)
        yield lot
        lot.parking.close()
        assert len(lot.parking) == 0


def a_call(
    arguments: str = "{}",
    *,
    method: str = "tools/call",
    caller: Caller = ANONYMOUS,
    capabilities: bytes = ABLE,
    client: Ear | None = None,
    **more: Any,
) -> Call:
    """A request of a modern client; `more` are further members of its parameters."""
    task = asyncio.current_task()
    assert task is not None
    params = {"name": Raw(b'"t"'), "arguments": Raw(arguments.encode())}
    return Call(
        method=method,
        row=METHODS[method],
        meta={key: Raw(json.dumps(value).encode()) for key, value in more.get("_meta", {}).items()},
        params={**params, **{key: Raw(json.dumps(value).encode()) for key, value in more.items()}},
        name="t",
        client=Client(MODERN_2026_07_28, b"{}", capabilities),
        caller=caller,
        reply=client or Ear(),
        task=task,
    )


def asked(outcome: Outcome) -> tuple[dict[str, Any], str]:
    """The questions of an InputRequiredResult by key, and its state."""
    assert isinstance(outcome, InputRequired), outcome
    value = json.loads(bytes(outcome.value))
    assert value["resultType"] == "input_required"
    return value["inputRequests"], value["requestState"]


def answered(requests: dict[str, Any], state: str) -> dict[str, Any]:
    """The members of a retry that accepts every question."""
    return {"inputResponses": {key: json.loads(bytes(ACCEPTED)) for key in requests}, "requestState": state}


async def test_a_call_that_asks_nothing_passes_as_it_is() -> None:
    """Result, failure and our own refusal; nothing stays parked."""
    refusal = BackendUnavailable("not there")

    async def refuse(_: Parked) -> Outcome:
        raise refusal

    async def fail(_: Parked) -> Outcome:
        return Failure(-1, "no")

    async def succeed(_: Parked) -> Outcome:
        return DONE

    async with a_lot() as lot:
        assert await lot.make(a_call(), succeed) is DONE
        assert await lot.make(a_call(), fail) == Failure(-1, "no")
        with pytest.raises(BackendUnavailable) as raised:
            await lot.make(a_call(), refuse)
        assert raised.value is refusal
        assert len(lot.parking) == 0


async def test_a_question_is_an_outcome_and_its_answer_a_retry() -> None:
    """The same call at the backend goes on: it is made once, and gets the client's answer to its own question."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            answer = await lot.ask(reply)
            assert isinstance(answer, Result)
            return Result(b'{"got":%b}' % bytes(answer.value))

        requests, state = asked(await lot.make(a_call(), body))
        assert [one["method"] for one in requests.values()] == ["elicitation/create"]
        assert [one["params"]["message"] for one in requests.values()] == ["Who?"]
        assert len(lot.parking) == 1
        outcome = await lot.make(a_call(**answered(requests, state)), body)
        assert isinstance(outcome, Result)
        assert json.loads(bytes(outcome.value)) == {"got": json.loads(bytes(ACCEPTED))}
        assert len(lot.calls) == 1
        assert len(lot.parking) == 0


async def test_the_backend_never_sees_what_belongs_to_a_retry() -> None:
    """`inputResponses` and `requestState` are between the client and the gateway."""
    async with a_lot() as lot:

        async def body(_: Parked) -> Outcome:
            return DONE

        await lot.make(a_call(inputResponses={"x": {}}), body)
        assert lot.calls[0].keys() == {"name", "arguments"}


async def test_questions_asked_together_are_one_round() -> None:
    """Three questions at once, each under a key of its own, each answer to its own question."""
    kinds = [("elicitation/create", FORM), ("sampling/createMessage", b'{"messages":[]}'), ("roots/list", b"{}")]
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            async with asyncio.TaskGroup() as group:
                puts = [group.create_task(lot.ask(reply, method, params)) for method, params in kinds]
            found = [put.result() for put in puts]
            values = [bytes(one.value) for one in found if isinstance(one, Result)]
            return Result(b"[%b]" % b",".join(values))

        requests, state = asked(await lot.make(a_call(), body))
        assert sorted(one["method"] for one in requests.values()) == sorted(method for method, _ in kinds)
        by_method = {one["method"]: key for key, one in requests.items()}
        responses = {by_method[method]: {"for": method} for method, _ in reversed(kinds)}
        outcome = await lot.make(a_call(inputResponses=responses, requestState=state), body)
        assert isinstance(outcome, Result)
        assert json.loads(bytes(outcome.value)) == [{"for": method} for method, _ in kinds]


async def test_one_question_after_another_is_one_round_each() -> None:
    """Every round has a state and a key of its own."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            for _ in range(3):
                await lot.ask(reply)
            return DONE

        outcome = await lot.make(a_call(), body)
        keys: set[str] = set()
        states: set[str] = set()
        for _ in range(3):
            requests, state = asked(outcome)
            keys |= requests.keys()
            states.add(state)
            outcome = await lot.make(a_call(**answered(requests, state)), body)
        assert outcome is DONE
        assert len(keys) == len(states) == 3


async def test_what_is_missing_is_asked_again_and_what_is_too_much_is_ignored() -> None:
    """A retry with one answer of two, and one that nobody asked for, is asked for the other (mrtr, error handling)."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            async with asyncio.TaskGroup() as group:
                group.create_task(lot.ask(reply))
                group.create_task(lot.ask(reply, "roots/list", b"{}"))
            return DONE

        requests, state = asked(await lot.make(a_call(), body))
        first, second = requests
        given: dict[str, dict[str, str]] = {first: {}, "nobody-asked": {}}
        again, state = asked(await lot.make(a_call(inputResponses=given, requestState=state), body))
        assert again == {second: requests[second]}
        nothing, state = asked(await lot.make(a_call(requestState=state), body))
        assert nothing == again
        assert await lot.make(a_call(**answered(again, state)), body) is DONE


async def test_a_question_taken_back_before_it_is_told_is_not_asked() -> None:
    """The backend changed its mind while the gateway collected questions: the client hears the result only."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            question = asyncio.ensure_future(reply.ask("elicitation/create", FORM))  # noqa: TID251 - as the wire does
            await asyncio.sleep(0)
            question.cancel()
            await asyncio.wait([question])
            return await lot.ask(reply, "roots/list", b"{}")

        requests, state = asked(await lot.make(a_call(), body))
        assert [one["method"] for one in requests.values()] == ["roots/list"]
        outcome = await lot.make(a_call(**answered(requests, state)), body)
        assert isinstance(outcome, Result)


async def test_notices_reach_the_request_that_stands_for_the_call() -> None:
    """Before the question the first, after it the retry; while the call is parked there is nobody to tell."""
    first, second = Ear(), Ear()
    async with a_lot() as lot:
        parked: list[Parked] = []

        async def body(reply: Parked) -> Outcome:
            parked.append(reply)
            await reply.emit("notifications/progress", b"{}")
            await lot.ask(reply)
            await reply.emit("notifications/message", b"{}")
            return DONE

        requests, state = asked(await lot.make(a_call(client=first), body))
        await parked[0].emit("notifications/progress", b"{}")
        await lot.make(a_call(client=second, **answered(requests, state)), body)
        assert (first.seen, second.seen) == (["notifications/progress"], ["notifications/message"])


async def test_progress_after_an_answer_comes_under_the_retrys_token() -> None:
    """Each request has a token of its own, or none: then there is no progress to tell."""
    ears = [Ear(), Ear(), Ear()]
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            for step in (b"1", b"2", b"3"):
                await reply.emit("notifications/progress", b'{"progressToken":"a","progress":%b}' % step)
                if step != b"3":
                    await lot.ask(reply)
            return DONE

        first = await lot.make(a_call(client=ears[0], _meta={"progressToken": "a"}), body)
        second = await lot.make(a_call(client=ears[1], _meta={"progressToken": 7}, **answered(*asked(first))), body)
        assert await lot.make(a_call(client=ears[2], **answered(*asked(second))), body) is DONE
        assert [ear.tokens for ear in ears] == [["a"], [7], []]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"caller": Caller("mallory")}, "altered, or was made for another request"),
        ({"arguments": '{"path":"/etc/passwd"}'}, "altered, or was made for another request"),
        ({"method": "prompts/get"}, "altered, or was made for another request"),
        ({"_state": lambda state: state[:-5] + ("A" if state[-5] != "A" else "B") + state[-4:]}, "altered"),
        ({"_state": lambda state: "no such thing"}, "not one of this server's"),
        ({"_state": lambda state: state + "A"}, "requestState"),
        ({"_state": lambda state: 7}, "must be a string"),
    ],
    ids=["another caller", "other arguments", "another method", "altered", "garbage", "longer", "not a string"],
)
async def test_a_state_that_is_not_good_here_reaches_nothing(change: dict[str, Any], said: str) -> None:
    """A precise InvalidParams; the parked call neither moves nor ends, and its own caller can go on."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            return await lot.ask(reply)

        requests, state = asked(await lot.make(a_call(caller=Caller("ada")), body))
        changed = {"caller": Caller("ada"), **answered(requests, state), **change}
        changed["requestState"] = changed.pop("_state", lambda same: same)(state)
        with pytest.raises(InvalidParams) as refused:
            await lot.make(a_call(changed.pop("arguments", "{}"), **changed), body)
        assert said in refused.value.message
        assert "requestState" in refused.value.message
        assert (len(lot.calls), len(lot.parking), lot.answers) == (1, 1, [])
        await lot.make(a_call(caller=Caller("ada"), **answered(requests, state)), body)
        assert [type(answer) for answer in lot.answers] == [Result]


async def test_a_state_of_another_backend_or_another_gateway_is_refused() -> None:
    """It is bound to the backend's name and to the keys of whoever sealed it."""

    async with a_lot() as one, a_lot(sealer=Sealer([b"k" * KEY_BYTES])) as other:

        async def body(reply: Parked) -> Outcome:
            return await one.ask(reply)

        requests, state = asked(await one.make(a_call(), body))
        retry = answered(requests, state)
        with pytest.raises(InvalidParams):
            await other.make(a_call(**retry), body)
        neighbour = Parking("other", Sealer([bytes(KEY_BYTES)]), Limits(), one.background)
        with pytest.raises(InvalidParams):
            await neighbour.carry(a_call(**retry), lambda call: body(Parked(call, 1)))
        assert len(one.calls) == 1


async def test_a_state_is_good_once() -> None:
    """Neither while the retry runs, nor when the call asks again, nor after its end."""
    async with a_lot() as lot:
        is_retried, go_on = asyncio.Event(), asyncio.Event()

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            is_retried.set()
            await go_on.wait()
            await lot.ask(reply)
            return DONE

        requests, state = asked(await lot.make(a_call(), body))
        retry = answered(requests, state)
        async with asyncio.TaskGroup() as group:
            going = group.create_task(lot.make(a_call(**retry), body))
            await asyncio.wait_for(is_retried.wait(), 5)
            with pytest.raises(InvalidParams, match="used already"):
                await lot.make(a_call(**retry), body)
            go_on.set()
        again, next_state = asked(going.result())
        with pytest.raises(InvalidParams, match="used already"):
            await lot.make(a_call(**retry), body)
        assert await lot.make(a_call(**answered(again, next_state)), body) is DONE
        for used in (retry, answered(again, next_state)):
            with pytest.raises(InvalidParams, match="has ended"):
                await lot.make(a_call(**used), body)
        assert len(lot.calls) == 1


async def test_answers_that_are_none_leave_the_state_good() -> None:
    """A retry that is malformed is refused before it counts as one."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            return DONE

        retry = answered(*asked(await lot.make(a_call(), body)))
        with pytest.raises(InvalidParams, match="inputResponses"):
            await lot.make(a_call(**{**retry, "inputResponses": []}), body)
        assert await lot.make(a_call(**retry), body) is DONE


async def test_meta_may_differ_between_request_and_retry() -> None:
    """A retry has a progress token of its own; it is no part of what a state is bound to."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            return DONE

        requests, state = asked(await lot.make(a_call(_meta={"progressToken": 1}), body))
        retry = answered(requests, state)
        assert await lot.make(a_call('{ }', _meta={"progressToken": 2}, **retry), body) is DONE  # fmt: skip


async def test_an_expired_call_is_freed_and_its_backend_told() -> None:
    """Its task is cancelled, its question answered by an error, its state refused with a reason."""
    async with a_lot(Limits(expires_s=0.02)) as lot:

        async def body(reply: Parked) -> Outcome:
            return await lot.ask(reply)

        requests, state = asked(await lot.make(a_call(), body))
        await asyncio.wait_for(lot.cancelled.wait(), 5)
        assert len(lot.parking) == 0
        with pytest.raises(InvalidParams, match="has expired: make the call again without it"):
            await lot.make(a_call(**answered(requests, state)), body)
        assert [type(answer) for answer in lot.answers] == [Failure]
        assert len(lot.calls) == 1


@pytest.mark.parametrize("is_parked_first", [False, True])
async def test_a_client_that_leaves_cancels_its_call(is_parked_first: bool) -> None:
    """In its era that is the cancel: before any question, and while a retry runs."""
    async with a_lot() as lot:
        is_running = asyncio.Event()

        async def body(reply: Parked) -> Outcome:
            if is_parked_first:
                await lot.ask(reply)
            is_running.set()
            await asyncio.Event().wait()
            raise AssertionError

        retry = answered(*asked(await lot.make(a_call(), body))) if is_parked_first else {}
        async with asyncio.TaskGroup() as group:
            going = group.create_task(lot.make(a_call(**retry), body))
            await asyncio.wait_for(is_running.wait(), 5)
            going.cancel()
        await asyncio.wait_for(lot.cancelled.wait(), 5)
        assert len(lot.parking) == 0


async def test_closing_ends_every_parked_call() -> None:
    """Whoever waits in a retry is told, and whoever comes later too."""
    async with a_lot() as lot:
        is_running = asyncio.Event()

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            is_running.set()
            await asyncio.Event().wait()
            raise AssertionError

        waiting = answered(*asked(await lot.make(a_call('{"a":1}'), body)))
        retry = answered(*asked(await lot.make(a_call(), body)))
        async with asyncio.TaskGroup() as group:
            going = group.create_task(refused(lot.make(a_call(**retry), body)))
            await asyncio.wait_for(is_running.wait(), 5)
            lot.parking.close()
        assert going.result().message == "the call has ended"
        with pytest.raises(InvalidParams, match="has ended"):
            await lot.make(a_call('{"a":1}', **waiting), body)
        assert len(lot.parking) == 0


async def refused(making: Awaitable[Outcome]) -> GatewayError:
    """What a call is refused with."""
    with pytest.raises(GatewayError) as raised:
        await making
    return raised.value


@pytest.mark.parametrize("limits", [Limits(max_parked=2), Limits(max_per_caller=2)], ids=["in all", "per caller"])
async def test_parked_calls_are_bounded(limits: Limits) -> None:
    """One more is refused as Overloaded, before its backend hears of it; a place that is free is taken again."""
    async with a_lot(limits) as lot:

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            return DONE

        one = answered(*asked(await lot.make(a_call('{"n":1}'), body)))
        asked(await lot.make(a_call('{"n":2}'), body))
        with pytest.raises(Overloaded):
            await lot.make(a_call('{"n":3}'), body)
        assert len(lot.calls) == 2
        assert await lot.make(a_call('{"n":1}', **one), body) is DONE
        asked(await lot.make(a_call('{"n":3}'), body))


async def test_one_caller_does_not_take_anothers_share() -> None:
    """The bound per caller is each caller's own."""
    async with a_lot(Limits(max_per_caller=1)) as lot:

        async def body(reply: Parked) -> Outcome:
            return await lot.ask(reply)

        asked(await lot.make(a_call(caller=Caller("ada")), body))
        asked(await lot.make(a_call(caller=Caller("alan")), body))


class SlowStore:
    """One that takes its time."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def admit(self, what: str, caller: str, own: Share, most: Share) -> bool:
        """See ShareStore.admit."""
        self.is_asked.set()
        await self.may_answer.wait()
        return await self._store.admit(what, caller, own, most)

    def hold(self, what: str, caller: str, own: Share) -> None:
        """See ShareStore.hold."""
        self._store.hold(what, caller, own)


def sharing(shelf: Shelf, replica: str, most: Share) -> ParkingPlaces:
    """What a replica knows of the places of all."""
    return ParkingPlaces("box", MemoryStore(shelf, replica), most, lambda: 2)


async def test_parked_calls_are_bounded_over_all_replicas() -> None:
    """A call that asks when all places are taken is refused and cancelled; one that asks nothing needs none; a place
    is held through all rounds and free when its call has ended."""
    shelf, most = Shelf(), Share(1, 10)
    async with a_lot(places=sharing(shelf, "a", most)) as lot, a_lot(places=sharing(shelf, "b", most)) as other:

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            await lot.ask(reply)
            return DONE

        async def quiet(_: Parked) -> Outcome:
            return DONE

        one = answered(*asked(await lot.make(a_call(), body)))
        assert "on all replicas" in (await refused(other.make(a_call(), body))).message
        await asyncio.wait_for(other.cancelled.wait(), 5)
        assert len(other.parking) == 0
        assert await other.make(a_call(), quiet) is DONE
        asked(await other.make(a_call(caller=Caller("alan")), body))
        two = answered(*asked(await lot.make(a_call(**one), body)))
        assert isinstance(await refused(other.make(a_call(), body)), Overloaded)
        assert await lot.make(a_call(**two), body) is DONE
        asked(await other.make(a_call(), body))


async def test_a_call_that_ends_while_its_place_is_sought_leaves_none() -> None:
    """Its gateway closes; the place is another's."""
    shelf, most = Shelf(), Share(1, 1)
    slow = SlowStore(MemoryStore(shelf, "a"))
    async with a_lot(places=ParkingPlaces("box", slow, most, lambda: 2)) as lot:

        async def body(reply: Parked) -> Outcome:
            return await lot.ask(reply)

        async def close() -> None:
            await slow.is_asked.wait()
            lot.parking.close()
            slow.may_answer.set()

        lot.background(close())
        await refused(lot.make(a_call(), body))
        assert await sharing(shelf, "b", most).take("ada")


async def test_a_client_is_asked_only_what_it_can_answer() -> None:
    """The backend's question fails as it would with the client itself; nothing is asked (mrtr, server requirements)."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            with pytest.raises(MissingCapability):
                await lot.ask(reply, "sampling/createMessage", b"{}")
            with pytest.raises(MissingCapability):
                await lot.ask(reply, params=URL)
            return DONE

        assert await lot.make(a_call(capabilities=b'{"elicitation":{}}'), body) is DONE


async def test_a_retry_with_fewer_capabilities_is_not_asked_more() -> None:
    """Capabilities are the request's: what the first one could answer, the retry cannot; the call ends."""
    async with a_lot() as lot:

        async def body(reply: Parked) -> Outcome:
            await lot.ask(reply)
            return await lot.ask(reply, "roots/list", b"{}")

        retry = answered(*asked(await lot.make(a_call(), body)))
        with pytest.raises(MissingCapability) as raised:
            await lot.make(a_call(capabilities=b'{"elicitation":{}}', **retry), body)
        assert raised.value.data == {"requiredCapabilities": {"roots": {}}}
        await asyncio.wait_for(lot.cancelled.wait(), 5)
        assert len(lot.parking) == 0


async def test_urls_to_open_first_are_asked_and_the_call_made_anew() -> None:
    """The error -32042 of 2025-11-25 is no error here: a URL elicitation, then a fresh call (basic/index)."""
    urls = Raw(b'{"elicitations":[%b]}' % URL)
    async with a_lot() as lot:

        async def body(_: Parked) -> Outcome:
            return Failure(-32042, "sign in first", urls) if len(lot.calls) == 1 else DONE

        requests, state = asked(await lot.make(a_call(), body))
        assert [one["params"]["url"] for one in requests.values()] == ["https://example.com/sign-in"]
        assert "elicitationId" not in json.dumps(requests)
        assert len(lot.parking) == 0
        assert await lot.make(a_call(**answered(requests, state)), body) is DONE
        assert len(lot.calls) == 2


async def test_urls_are_not_asked_of_a_client_that_cannot_open_them() -> None:
    """It gets the backend's error."""
    failure = Failure(-32042, "sign in first", Raw(b'{"elicitations":[%b]}' % URL))

    async def body(_: Parked) -> Outcome:
        return failure

    async with a_lot() as lot:
        assert await lot.make(a_call(capabilities=b'{"elicitation":{}}'), body) is failure


async def test_a_bug_on_the_way_is_told_and_not_waited_for() -> None:
    """The client gets an error at once, not at its deadline."""

    async def body(_: Parked) -> Outcome:
        raise ValueError("a bug")

    async with a_lot() as lot:
        assert "inside the gateway" in (await refused(lot.make(a_call(), body))).message
        assert len(lot.parking) == 0


async def test_a_question_after_the_end_is_answered_at_once() -> None:
    """The backend's answer overtook its question: nobody is left to be asked."""
    async with a_lot() as lot:
        late: list[Parked] = []

        async def body(reply: Parked) -> Outcome:
            late.append(reply)
            return DONE

        await lot.make(a_call(), body)
        assert isinstance(await lot.ask(late[0]), Failure)


async def test_a_gateway_that_is_ending_parks_nothing() -> None:
    """It says so instead of waiting for work that is never begun."""

    async def body(_: Parked) -> Outcome:
        raise AssertionError

    async with a_lot() as lot:
        ended = asyncio.TaskGroup()
        async with ended:
            pass
        lot.parking = Parking("box", Sealer([bytes(KEY_BYTES)]), Limits(), Background(ended))
        with pytest.raises(Overloaded):
            await lot.make(a_call(), body)


def test_limits_have_defaults() -> None:
    """Those of the settings."""
    assert structs.astuple(Limits()) == (10_000, 1_000, 300.0)
