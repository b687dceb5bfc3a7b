"""Questions: a handshake client is asked, and the call is made again with its answers."""

import asyncio
import json
from collections.abc import Callable

import pytest
from msgspec import Raw

from gatewright.call import Call, Client, Failure, InputRequired, Json, Outcome, Result, Target
from gatewright.errors import BackendGarbage, MissingCapability, Overloaded
from gatewright.policy.questions import MAX_ROUNDS, Questions
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28, Era, Revision
from policy.calls import Behind

pytestmark = pytest.mark.anyio
ELICIT = {"method": "elicitation/create", "params": {"message": "name?"}}
SAMPLE = {"method": "sampling/createMessage", "params": {"messages": []}}


class Asked:
    """A client that answers questions with what it is told to."""

    def __init__(self, answer: Callable[[str], Result | Failure]) -> None:
        self.answer = answer
        self.seen: list[str] = []

    async def emit(self, method: str, params: Json) -> None:
        """Nothing is emitted here."""

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Answer."""
        self.seen.append(method)
        return self.answer(method)


def a_call(
    reply: Asked, revision: Revision = HANDSHAKE_2025_11_25, capabilities: bytes = b'{"elicitation":{},"sampling":{}}'
) -> Call:
    task = asyncio.current_task()
    assert task is not None
    return Call(
        method="tools/call",
        row=METHODS["tools/call"],
        params={"name": Raw(b'"t"')},
        name="t",
        client=Client(revision, b"{}", capabilities, "s"),
        reply=reply,
        task=task,
    )


def asks(requests: dict[str, object], state: str | None = "st") -> InputRequired:
    body: dict[str, object] = {"resultType": "input_required", "inputRequests": requests}
    return InputRequired(json.dumps(body if state is None else {**body, "requestState": state}).encode())


async def test_questions_are_asked_and_answered_in_a_retry() -> None:
    """All questions of a round are asked; the retry brings every answer under its key, and the state."""
    client = Asked(lambda method: Result(json.dumps({"for": method}).encode()))
    rounds: list[dict[str, Raw]] = []

    async def backend(call: Call) -> Outcome:
        rounds.append(dict(call.params))
        return Result(b"{}") if len(rounds) == 2 else asks({"a": ELICIT, "b": SAMPLE})

    assert await Questions()(a_call(client), backend) == Result(b"{}")
    assert sorted(client.seen) == ["elicitation/create", "sampling/createMessage"]
    assert json.loads(bytes(rounds[1]["inputResponses"])) == {
        "a": {"for": "elicitation/create"},
        "b": {"for": "sampling/createMessage"},
    }
    assert bytes(rounds[1]["requestState"]) == b'"st"'


async def test_a_modern_client_gets_the_outcome_untouched() -> None:
    """It can answer in its own era."""
    outcome = asks({"a": ELICIT})

    async def backend(call: Call) -> Outcome:
        return outcome

    client = Asked(lambda method: Result(b"{}"))
    assert await Questions()(a_call(client, MODERN_2026_07_28), backend) is outcome
    assert client.seen == []


async def test_a_state_alone_is_retried_at_once() -> None:
    """mrtr: without inputRequests the client may retry immediately."""
    outcomes: list[Outcome] = [asks({}), Result(b'{"done":1}')]

    async def backend(call: Call) -> Outcome:
        return outcomes.pop(0)

    assert await Questions()(a_call(Asked(lambda method: Result(b"{}"))), backend) == Result(b'{"done":1}')


async def test_an_error_of_the_client_ends_the_call() -> None:
    """A retry cannot carry an error: the caller gets what it answered."""

    async def backend(call: Call) -> Outcome:
        return asks({"a": SAMPLE})

    refused = Failure(-1, "the user said no")
    assert await Questions()(a_call(Asked(lambda method: refused)), backend) == refused


async def test_an_undeclared_capability_is_not_asked() -> None:
    """The client gets the error the backend would have raised, and sees no question."""
    client = Asked(lambda method: Result(b"{}"))

    async def backend(call: Call) -> Outcome:
        return asks({"a": SAMPLE})

    with pytest.raises(MissingCapability) as caught:
        await Questions()(a_call(client, capabilities=b'{"elicitation":{}}'), backend)
    assert caught.value.data == {"requiredCapabilities": {"sampling": {}}}
    assert client.seen == []


async def test_rounds_are_bounded() -> None:
    """A backend that never has enough is given up."""
    client = Asked(lambda method: Result(b"{}"))

    async def backend(call: Call) -> Outcome:
        return asks({"a": ELICIT})

    with pytest.raises(BackendGarbage, match="not content"):
        await Questions()(a_call(client), backend)
    assert len(client.seen) == MAX_ROUNDS


async def test_garbage_is_the_backends_fault() -> None:
    """An input_required that asks nothing is refused."""

    async def backend(call: Call) -> Outcome:
        return InputRequired(b'{"resultType":"input_required"}')

    with pytest.raises(BackendGarbage):
        await Questions()(a_call(Asked(lambda method: Result(b"{}"))), backend)


async def test_a_question_that_cannot_be_put_takes_the_others_back() -> None:
    """The client is not left with a question whose answer nobody waits for."""
    is_asked, is_taken_back = asyncio.Event(), asyncio.Event()

    class Full(Asked):
        async def ask(self, method: str, params: Json) -> Result | Failure:
            if method == "sampling/createMessage":
                await is_asked.wait()
                raise Overloaded("too many questions are open in this session")
            is_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                is_taken_back.set()
            raise AssertionError

    async def backend(call: Call) -> Outcome:
        return asks({"one": ELICIT, "two": SAMPLE})

    client = Full(lambda _: Result(b"{}"))
    with pytest.raises(Overloaded):
        async with asyncio.timeout(5):
            await Questions()(a_call(client), backend)
    assert is_taken_back.is_set()


async def test_a_backend_that_speaks_the_clients_era_is_not_waited_for() -> None:
    """It asks by requests of its own; one that is not known to, or not known at all, may answer with questions."""

    async def backend(call: Call) -> Outcome:
        return Result(b"{}")

    call = a_call(Asked(lambda _: Result(b"{}")))
    call.target = Target(Behind(), "t")
    known: list[tuple[dict[str, dict[Era, bool | None]], bool]] = [
        ({}, False),
        ({"box": {"handshake": None, "modern": True}}, False),
        ({"box": {"handshake": True, "modern": True}}, True),
    ]
    for speaks, is_passed_on in known:
        going = Questions(speaks)(call, backend)
        assert (getattr(going, "cr_code", None) is backend.__code__) is is_passed_on
        assert await going == Result(b"{}")
