"""Questions between eras."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gatewright.errors import InvalidParams, ProtocolError
from gatewright.protocol import questions
from gatewright.protocol.methods import ASKS
from gatewright.protocol.questions import Question

ASKED = st.dictionaries(
    st.text(max_size=8),
    st.tuples(
        st.sampled_from(sorted(ASKS)), st.dictionaries(st.text("abc", min_size=1), st.integers(-5, 5), max_size=3)
    ),
    max_size=4,
)


@given(ASKED, st.text(max_size=20))
def test_questions_there_and_back_are_the_same(asked: dict[str, tuple[str, dict[str, int]]], state: str) -> None:
    """What is asked in a result is what was asked in requests: keys, methods, params and state."""
    stated = {key: Question(method, Raw(json.dumps(params).encode())) for key, (method, params) in asked.items()}
    found, found_state = questions.read_required(questions.required(stated, state))
    assert {key: (one.method, json.loads(bytes(one.params))) for key, one in found.items()} == asked
    assert found_state is not None
    assert json.loads(bytes(found_state)) == state


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"resultType":"input_required"}',
        b'{"inputRequests":{"a":{"method":"tools/call"}}}',
        b'{"inputRequests":{"a":{}}}',
        b'{"inputRequests":[],"requestState":"x"}',
        b"\xff",
    ],
)
def test_what_asks_nothing_proper_is_refused(text: bytes) -> None:
    """S-60: questions or state must be there, and only the three kinds may be asked."""
    with pytest.raises(ProtocolError):
        questions.read_required(text)


def test_a_retry_carries_answers_and_the_state_as_it_was() -> None:
    """S-63: the state is echoed exactly; an earlier round's answers and state do not stay."""
    first = {"name": Raw(b'"t"'), "inputResponses": Raw(b"{}"), "requestState": Raw(b'"old"')}
    retry = questions.retried(first, {"q": b'{"action":"accept"}'}, Raw(b'"new\\u0020"'))
    assert bytes(retry["requestState"]) == b'"new\\u0020"'
    assert json.loads(bytes(retry["inputResponses"])) == {"q": {"action": "accept"}}
    assert bytes(retry["name"]) == b'"t"'
    assert "requestState" not in questions.retried(first, {}, None)


def test_url_elicitations_get_an_id_for_handshake_clients() -> None:
    """2025-11-25 requires elicitationId in URL mode; an id that is there stays."""
    question = Question("elicitation/create", Raw(b'{"mode":"url","url":"https://x/","message":"m"}'))
    assert json.loads(questions.handshake_params(question, "e1"))["elicitationId"] == "e1"
    question = Question("elicitation/create", Raw(b'{"mode":"url","elicitationId":"own"}'))
    assert json.loads(questions.handshake_params(question, "e1"))["elicitationId"] == "own"
    question = Question("elicitation/create", Raw(b'{"message":"m"}'))
    assert "elicitationId" not in json.loads(questions.handshake_params(question, "e1"))


def test_modern_clients_see_nothing_of_the_backend_session() -> None:
    """Session-bound members of a handshake request do not cross."""
    question = Question(
        "elicitation/create", Raw(b'{"message":"m","elicitationId":"x","task":{},"_meta":{"progressToken":1}}')
    )
    asked = json.loads(questions.required({"q": question}, "s"))["inputRequests"]["q"]
    assert asked == {"method": "elicitation/create", "params": {"message": "m"}}


@pytest.mark.parametrize(
    ("capabilities", "method", "params", "is_askable"),
    [
        (b"{}", "elicitation/create", b"{}", False),
        (b'{"elicitation":{}}', "elicitation/create", b"{}", True),
        (b'{"elicitation":{}}', "elicitation/create", b'{"mode":"url"}', False),
        (b'{"elicitation":{"url":{}}}', "elicitation/create", b'{"mode":"url"}', True),
        (b'{"elicitation":{"url":{}}}', "elicitation/create", b'{"mode":"form"}', False),
        (b'{"elicitation":{"form":{},"url":{}}}', "elicitation/create", b"{}", True),
        (b'{"sampling":{}}', "sampling/createMessage", b"{}", True),
        (b'{"roots":{}}', "roots/list", b"{}", True),
        (b'{"roots":{}}', "sampling/createMessage", b"{}", False),
    ],
)
def test_only_what_the_client_declared_is_asked(
    capabilities: bytes, method: str, params: bytes, is_askable: bool
) -> None:
    """S-60: undeclared capabilities are not used, elicitation modes included."""
    assert questions.is_askable(capabilities, Question(method, Raw(params))) is is_askable


def test_salient_parameters_ignore_form_and_what_a_retry_adds() -> None:
    """Two spellings of one call are one; another argument is another call."""
    first = {"name": Raw(b'"t"'), "arguments": Raw(b'{"a":1,"b":2}'), "_meta": Raw(b"{}")}
    retry = {"arguments": Raw(b'{ "b": 2, "a": 1 }'), "name": Raw(b'"t"'), "requestState": Raw(b'"s"')}
    assert questions.salient(first) == questions.salient(retry)
    assert questions.salient(first) != questions.salient({**first, "arguments": Raw(b'{"a":1,"b":3}')})


@pytest.mark.parametrize("value", [b"5", b"[]", b"null"])
def test_malformed_retries_are_refused(value: bytes) -> None:
    """The client is told which member is wrong."""
    with pytest.raises(InvalidParams, match="inputResponses"):
        questions.answers_in({"inputResponses": Raw(value)})
    with pytest.raises(InvalidParams, match="requestState"):
        questions.state_in({"requestState": Raw(value)})


def test_url_errors_become_questions() -> None:
    """The data of -32042 lists what the user has to open; anything else asks nothing."""
    data = Raw(b'{"elicitations":[{"mode":"url","url":"https://x/","message":"m","elicitationId":"e"}]}')
    (question,) = questions.url_questions(data).values()
    assert question.method == "elicitation/create"
    assert questions.url_questions(None) == questions.url_questions(Raw(b"[]")) == {}
