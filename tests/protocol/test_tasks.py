"""Ids of tasks: they open for whom they were made, and say where the task is. What names a task, what offers some."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gatewright.call import Caller, Client
from gatewright.errors import InvalidParams, MissingCapability, ProtocolError
from gatewright.protocol import jsonrpc, tasks
from gatewright.protocol.revisions import HANDSHAKE, HANDSHAKE_2025_11_25, MODERN_2026_07_28, Era
from gatewright.protocol.sealed import KEY_BYTES, Sealer
from gatewright.protocol.tasks import EXTENSION, RELATED_KEY, Task

KEY, OLDER = (bytes([number]) * KEY_BYTES for number in (1, 2))
SEALER = Sealer([KEY])
ALICE, BOB = Caller("alice"), Caller("bob")
ERA: st.SearchStrategy[Era] = st.sampled_from(["handshake", "modern"])
TASKS = st.builds(Task, st.text(max_size=20), ERA, st.text(max_size=60))
CALLERS = st.builds(Caller, st.text(max_size=20))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda more: st.lists(more), max_leaves=4)


def members(value: dict[str, Any]) -> dict[str, Raw]:
    """As a message brings them."""
    return jsonrpc.members(json.dumps(value).encode())


def plain(value: object) -> Any:
    """As a client would read it."""
    return json.loads(jsonrpc.encode(value))


@given(TASKS, CALLERS)
def test_an_id_leads_back_to_its_task(task: Task, caller: Caller) -> None:
    """It is the same each time, text that needs no escape anywhere, and says nothing of what it seals."""
    task_id = tasks.shown(SEALER, caller, task)
    assert tasks.opened(SEALER, caller, task_id) == task
    assert tasks.shown(Sealer([KEY, OLDER]), caller, task) == task_id
    assert task_id.replace("-", "").replace("_", "").isalnum()


@given(TASKS, TASKS, CALLERS, CALLERS)
def test_different_tasks_and_callers_have_different_ids(one: Task, two: Task, mine: Caller, theirs: Caller) -> None:
    """Equal own ids at two backends as well; nobody opens another's."""
    same = one == two and mine.subject == theirs.subject
    assert (tasks.shown(SEALER, mine, one) == tasks.shown(SEALER, theirs, two)) == same
    if mine.subject != theirs.subject:
        with pytest.raises(ProtocolError):
            tasks.opened(SEALER, theirs, tasks.shown(SEALER, mine, one))


def test_every_bit_flip_and_every_truncation_is_an_unknown_task() -> None:
    """THREATS B-8; the answer is that for a task that never was."""
    task_id = tasks.shown(SEALER, ALICE, Task("ant", "modern", "task-1"))
    sealed = base64.urlsafe_b64decode(task_id + "=" * (-len(task_id) % 4))
    forged = [task_id[:length] for length in range(len(task_id))]
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        forged.append(base64.urlsafe_b64encode(flipped).decode().rstrip("="))
    for one in forged:
        with pytest.raises(InvalidParams, match=tasks.UNKNOWN):
            tasks.found(SEALER, ALICE, "modern", one)


@given(st.text(max_size=200), CALLERS, ERA)
def test_garbage_is_an_unknown_task(text: str, caller: Caller, era: Era) -> None:
    """Whatever it is made of."""
    with pytest.raises(InvalidParams, match=tasks.UNKNOWN):
        tasks.found(SEALER, caller, era, text)


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b'["ant","modern"]', b'["ant","stone","x"]', b"\xff", b"[1,2,3]"]
)
def test_what_is_sealed_here_and_no_task_is_unknown(payload: bytes) -> None:
    """Other things are sealed with the same keys."""
    with pytest.raises(ProtocolError):
        tasks.opened(SEALER, ALICE, SEALER.seal_alike(payload, b"4:task5:alice"))


def test_a_task_of_the_other_era_says_why_it_is_not_found() -> None:
    """SEP-2663, Backward Compatibility."""
    task_id = tasks.shown(SEALER, ALICE, Task("ant", "handshake", "1"))
    assert tasks.found(SEALER, ALICE, "handshake", task_id).own == "1"
    with pytest.raises(InvalidParams, match="wire-compatible"):
        tasks.found(SEALER, ALICE, "modern", task_id)


def test_keys_rotate() -> None:
    """The newest seals, every one opens."""
    task = Task("ant", "modern", "1")
    old = tasks.shown(Sealer([OLDER]), ALICE, task)
    assert tasks.opened(Sealer([KEY, OLDER]), ALICE, old) == task
    assert tasks.shown(Sealer([KEY, OLDER]), ALICE, task) != old


# --- who takes tasks, and who offers them


@pytest.mark.parametrize(
    ("capabilities", "is_declared"),
    [
        (b'{"extensions":{"%b":{}}}' % EXTENSION.encode(), True),
        (b'{"extensions":{"%b":null,"x":1}}' % EXTENSION.encode(), True),
        (b'{"extensions":{"%b":{}},"x":"%b"}' % (EXTENSION.encode(), b"y" * 5000), True),
        (b'{"extensions":{}}', False),
        (b"{}", False),
        (b'{"tasks":{}}', False),
        (b'{"extensions":5}', False),
        (b'{"%b":{}}' % EXTENSION.encode(), False),
        (b"[]", False),
    ],
)
def test_a_modern_client_declares_the_extension_in_every_request(capabilities: bytes, is_declared: bool) -> None:
    """By its place among the extensions and nothing else; in the handshake era it means nothing."""
    client = Client(MODERN_2026_07_28, b"{}", capabilities)
    assert tasks.is_declared(capabilities) == tasks.takes_tasks(client) == is_declared
    if not is_declared:
        with pytest.raises(MissingCapability) as refused:
            tasks.check_client(client)
        assert refused.value.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    for revision in HANDSHAKE.values():
        client = Client(revision, b"{}", capabilities)
        tasks.check_client(client)
        assert not tasks.takes_tasks(client)
        assert revision.has_tasks == (revision is HANDSHAKE_2025_11_25)


OFFERED = {"tools": {}, "tasks": {"list": {}}, "extensions": {EXTENSION: {}, "ui": {}}}


@pytest.mark.parametrize(
    ("client", "backend", "expected"),
    [
        ("handshake", "handshake", {"tools": {}, "tasks": {"list": {}}, "extensions": {"ui": {}}}),
        ("modern", "modern", {"tools": {}, "extensions": {EXTENSION: {}, "ui": {}}}),
        ("handshake", "modern", {"tools": {}, "extensions": {"ui": {}}}),
        ("modern", "handshake", {"tools": {}, "extensions": {"ui": {}}}),
    ],
)
def test_each_era_is_offered_its_own_tasks(client: Era, backend: Era, expected: dict[str, Any]) -> None:
    """And none across eras; everything else as it was."""
    assert plain(tasks.offered(members(OFFERED), client, backend)) == expected


@given(st.dictionaries(st.sampled_from(["tasks", "extensions"]) | st.text(), JSON), ERA, ERA)
def test_odd_capabilities_are_passed_as_they_are(capabilities: dict[str, Any], client: Era, backend: Era) -> None:
    """Whatever stands there, but for tasks of the wrong era."""
    found = plain(tasks.offered(members(capabilities), client, backend))
    assert {**found, "tasks": 0} == {**capabilities, "tasks": 0}


def test_an_extension_alone_leaves_nothing_behind() -> None:
    """No empty object, which would say that there are some."""
    assert tasks.without_extension(members({"a": 1, "extensions": {EXTENSION: {}}})) == members({"a": 1})


@pytest.mark.parametrize(
    ("capabilities", "offers"),
    [
        ({"tasks": {"list": {}}}, True),
        ({"tasks": {"list": True}}, False),
        ({"tasks": {}}, False),
        ({"tasks": True}, False),
        ({}, False),
    ],
)
def test_a_list_of_tasks_is_offered_by_an_object(capabilities: dict[str, Any], offers: bool) -> None:
    """However empty (schema 2025-11-25, ServerCapabilities)."""
    assert tasks.offers(members(capabilities), "list") == offers


def test_tools_of_a_server_without_task_calls_say_nothing_of_them() -> None:
    """To clients whose revision has such calls; to others the member means nothing anyway."""
    declared = members({"tasks": {"requests": {"tools": {"call": {}}}}})
    old = Client(HANDSHAKE_2025_11_25, b"{}", b"{}")
    assert tasks.undeclared(old, declared) == frozenset()
    assert tasks.undeclared(old, members({"tasks": {"list": {}}})) == {"execution"}
    assert tasks.undeclared(Client(MODERN_2026_07_28, b"{}", b"{}"), members({})) == frozenset()


# --- what names a task


@given(st.dictionaries(st.text(), JSON), st.text(), st.dictionaries(st.text(), JSON), st.text())
def test_a_related_task_is_read_and_renamed(value: dict[str, Any], own: str, meta: dict[str, Any], shown: str) -> None:
    """There and back is the identity, and nothing else changes."""
    told = members({**value, "_meta": {**meta, RELATED_KEY: {"taskId": own, "x": 1}}})
    assert tasks.related_in(told) == own
    renamed = tasks.related(told, shown)
    assert tasks.related_in(renamed) == shown
    assert plain(tasks.related(renamed, own)) == plain(told)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"_meta": None},
        {"_meta": 5},
        {"_meta": {}},
        {"_meta": {"x": "related-task"}},
        {"_meta": {RELATED_KEY: 5}},
        {"_meta": {RELATED_KEY: {}}},
        {"_meta": {RELATED_KEY: {"taskId": 5}}},
        {RELATED_KEY: {"taskId": "1"}},
    ],
)
def test_what_names_no_task_is_related_to_none(value: dict[str, Any]) -> None:
    """Such messages pass as they are."""
    assert tasks.related_in(members(value)) is None


@pytest.mark.parametrize("value", [{}, {"taskId": None}, {"taskId": 5}, {"taskid": "x"}])
def test_a_task_without_an_id_is_none(value: dict[str, Any]) -> None:
    """The id MUST be a string (basic/utilities/tasks, Task ID Requirements)."""
    with pytest.raises(ProtocolError):
        tasks.id_in(members(value))


def test_a_task_is_named_anew() -> None:
    """The rest stays."""
    assert plain(tasks.named(members({"taskId": "a", "ttl": None}), "b")) == {"taskId": "b", "ttl": None}
    assert tasks.id_in(members({"taskId": "a"})) == "a"


def test_a_call_of_another_revision_asks_for_no_task() -> None:
    """The member is unknown there."""
    assert tasks.plain(members({"name": "x", "task": {}})) == members({"name": "x"})
