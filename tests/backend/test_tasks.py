"""Tasks of one backend: what its clients are shown of them, and what it is told back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from backend.mcp_server import Replies, call_of, handshake_client, modern_client
from gatewright.backend.tasks import MAX_KEPT, Tasks
from gatewright.call import ANONYMOUS, Call, Caller, Failure, Json, Outcome, Params, Result
from gatewright.errors import BackendGarbage, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.sealed import KEY_BYTES, Sealer
from gatewright.protocol.tasks import EXTENSION, NOTICE, RELATED_KEY, STATUS

pytestmark = pytest.mark.anyio
SEALER = Sealer([b"k" * KEY_BYTES])
DECLARED = b'{"extensions":{"%b":{}}}' % EXTENSION.encode()
ALICE, BOB = Caller("alice"), Caller("bob")


def ant() -> Tasks:
    """A backend with tasks."""
    return Tasks("ant", SEALER)


def members(value: dict[str, Any]) -> Params:
    """As a message brings them."""
    return jsonrpc.members(json.dumps(value).encode())


def plain(value: object) -> Any:
    """As the other side reads it."""
    return json.loads(jsonrpc.encode(value))


def answer_of(outcome: Outcome) -> Any:
    """A result's members."""
    assert isinstance(outcome, Result), outcome
    return json.loads(bytes(outcome.value))


async def asking_for_a_task(
    tasks: Tasks, answer: Result | Failure, told: list[Raw | None] | None = None, **meta: Any
) -> Result | Failure:
    """What a call comes to that carries `task`, the backend answering that; `told` gets the progress token of it."""

    async def exchange(call: Call, params: Params, sink: object, token: int, progress: Raw | None) -> Result | Failure:
        if told is not None:
            told.append(progress)
        return answer

    call = call_of(handshake_client("c1"), task={}, **({"_meta": meta} if meta else {}))
    return await tasks.carry(exchange, call, call.params, None, 7)  # type: ignore[arg-type] # nothing is said meanwhile


# --- modern


async def test_a_task_is_shown_under_an_id_of_its_own() -> None:
    """Everything else as the backend wrote it; the id leads back here alone."""
    call = call_of(modern_client(DECLARED))
    shown = answer_of(ant().begun(call, b'{"resultType":"task","taskId":"1","ttlMs":null,"x":[1]}'))
    task_id = shown.pop("taskId")
    assert shown == {"resultType": "task", "ttlMs": None, "x": [1]}
    assert ant().own(ANONYMOUS, task_id) == "1"
    assert ant().own(ALICE, task_id) is None
    assert Tasks("bee", SEALER).own(ANONYMOUS, task_id) is None


@pytest.mark.parametrize(
    "call_client", [modern_client(), modern_client(b'{"tasks":{}}'), handshake_client("c1", DECLARED)]
)
async def test_a_task_for_a_client_that_takes_none_is_the_backends_fault(call_client: Any) -> None:
    """A server MUST NOT answer with one then (SEP-2663, Capability Negotiation)."""
    with pytest.raises(BackendGarbage, match=EXTENSION):
        ant().begun(call_of(call_client), b'{"resultType":"task","taskId":"1"}')


@pytest.mark.parametrize("value", [b'{"resultType":"task"}', b'{"taskId":5}', b'{"taskId":null}'])
async def test_a_task_without_an_id_is_the_backends_fault(value: bytes) -> None:
    """There is nothing to ask it about."""
    with pytest.raises(BackendGarbage, match="taskId"):
        ant().begun(call_of(modern_client(DECLARED)), value)


# --- 2025-11-25


async def test_a_created_task_is_shown_and_remembered_as_its_callers() -> None:
    """Its metadata names it as well."""
    tasks = ant()
    created = {"task": {"taskId": "1", "status": "working"}, "_meta": {RELATED_KEY: {"taskId": "1"}, "x": 1}}
    shown = answer_of(await asking_for_a_task(tasks, Result(json.dumps(created).encode())))
    task_id = tasks.shown(ANONYMOUS, "handshake", "1")
    assert shown == {
        "task": {"taskId": task_id, "status": "working"},
        "_meta": {RELATED_KEY: {"taskId": task_id}, "x": 1},
    }
    assert tasks.is_owned(ANONYMOUS, "1")
    assert not tasks.is_owned(ALICE, "1")


@pytest.mark.parametrize("answer", [Failure(-1, "no"), *(Result(value) for value in (b'{"content":[]}', b"[]"))])
@pytest.mark.parametrize("meta", [{}, {"progressToken": "mine"}])
async def test_a_call_that_became_no_task_ends_as_any_other(answer: Result | Failure, meta: dict[str, Any]) -> None:
    """A backend may ignore what asks for one; nothing of it stays."""
    tasks = ant()
    assert await asking_for_a_task(tasks, answer, **meta) is answer
    assert tasks.is_owned(ANONYMOUS, "1")
    assert not tasks._owners


@pytest.mark.parametrize("task", [None, 5, {}, {"taskId": 5}])
async def test_an_odd_task_is_passed_as_it_is(task: object) -> None:
    """The client is the judge of what it cannot use."""
    answer = Result(json.dumps({"task": task}).encode())
    assert await asking_for_a_task(ant(), answer) is answer


async def test_progress_goes_on_under_the_clients_token_in_its_own_session() -> None:
    """It outlives the call (basic/utilities/tasks, Task Progress Notifications), and the replica that made it."""
    told: list[Raw | None] = []
    await asking_for_a_task(ant(), Result(b'{"task":{"taskId":"1"}}'), told, progressToken="mine")
    (token,) = told
    assert token is not None
    elsewhere = ant()
    assert bytes(elsewhere.progress_of("c1", token) or b"") == b'"mine"'
    for session, wrong in (("c2", token), ("", token), *(("c1", Raw(one)) for one in (b"7", b'"7"', b"null", b'"'))):
        assert elsewhere.progress_of(session, wrong) is None
    assert Tasks("bee", SEALER).progress_of("c1", token) is None
    assert elsewhere.progress_of("c1", None) is None


async def test_what_is_remembered_is_bounded() -> None:
    """The oldest make room; a task that nobody is known to have is shown to nobody with a name."""
    tasks = ant()
    for number in range(MAX_KEPT + 1):
        answer = Result(json.dumps({"task": {"taskId": str(number)}}).encode())
        await asking_for_a_task(tasks, answer)
    assert len(tasks._owners) == MAX_KEPT
    assert tasks.is_owned(ANONYMOUS, "0")
    assert not tasks.is_owned(ALICE, "0")


async def test_a_list_shows_a_caller_its_own_tasks() -> None:
    """Others are left out; what is no task breaks the protocol."""
    tasks = ant()
    tasks._owners.update({"a": "alice", "b": "bob"})
    assert tasks.listed(ALICE, b'{"taskId":"b"}') is None
    assert tasks.listed(ANONYMOUS, b'{"taskId":"b"}') is None
    shown = plain(Raw(tasks.listed(BOB, b'{"taskId":"b","status":"working"}') or b""))
    assert shown == {"taskId": tasks.shown(BOB, "handshake", "b"), "status": "working"}
    assert tasks.listed(BOB, b'{"taskId":"unknown"}') is None
    assert tasks.listed(ANONYMOUS, b'{"taskId":"unknown"}') is not None
    for odd in (b"5", b"{}", b'{"taskId":5}'):
        with pytest.raises(ProtocolError):
            tasks.listed(BOB, odd)


async def test_a_notification_names_the_task_by_the_clients_id() -> None:
    """Its status in its own member, all others in `_meta`; what names none passes as it is."""
    tasks = ant()
    task_id = tasks.shown(ALICE, "handshake", "1")
    status = tasks.told(ALICE, STATUS, members({"taskId": "1", "status": "working"}))
    assert plain(status) == {"taskId": task_id, "status": "working"}
    related = {"_meta": {RELATED_KEY: {"taskId": "1"}}, "level": "info"}
    told = tasks.told(ALICE, "notifications/message", members(related))
    assert plain(told) == {"_meta": {RELATED_KEY: {"taskId": task_id}}, "level": "info"}
    other = members({"_meta": {"x": 1}})
    assert tasks.told(ALICE, "notifications/message", other) is other


async def test_what_has_no_place_outside_a_subscription_is_not_told() -> None:
    """A modern task's notice, and a status of nothing."""
    assert ant().told(ALICE, NOTICE, members({"taskId": "1"})) is None
    assert ant().told(ALICE, STATUS, members({"status": "working"})) is None


class Answering(Replies):
    """Answers with that."""

    def __init__(self, answer: Result | Failure) -> None:
        super().__init__()
        self.answer = answer

    async def ask(self, method: str, params: Json) -> Result | Failure:
        return self.answer


async def test_a_question_and_its_answer_name_the_task_by_each_sides_id() -> None:
    """Notifications go the same way unchanged."""
    tasks = ant()
    task_id = tasks.shown(ALICE, "handshake", "1")
    answer = {"action": "accept", "_meta": {RELATED_KEY: {"taskId": task_id}}}
    client = Answering(Result(json.dumps(answer).encode()))
    reply, params = tasks.asking(ALICE, client, members({"_meta": {RELATED_KEY: {"taskId": "1"}}}))
    assert plain(params) == {"_meta": {RELATED_KEY: {"taskId": task_id}}}
    answered = await reply.ask("elicitation/create", b"{}")
    assert answer_of(answered) == {"action": "accept", "_meta": {RELATED_KEY: {"taskId": "1"}}}
    await reply.emit("x", b"{}")
    assert client.notes == [("x", {})]


@pytest.mark.parametrize(
    "answer",
    [
        Failure(-1, "no"),
        Result(b'{"action":"accept"}'),
        Result(b"5"),
        Result(b'{"_meta":{"%b":{"taskId":"another"}}}' % RELATED_KEY.encode()),
    ],
)
async def test_an_answer_that_names_another_task_or_none_passes_as_it_is(answer: Result | Failure) -> None:
    """It is the backend's to judge."""
    reply, _ = ant().asking(ALICE, Answering(answer), members({"_meta": {RELATED_KEY: {"taskId": "1"}}}))
    assert await reply.ask("elicitation/create", b"{}") is answer


async def test_a_question_about_no_task_is_asked_as_it_is() -> None:
    """Nothing stands between it and its client."""
    client, params = Replies(), members({"message": "?"})
    assert ant().asking(ALICE, client, params) == (client, params)
