"""The method table: one row per method, each saying what the clauses and the official SDK say."""

from __future__ import annotations

import pytest
from mcp.shared.inbound import NAME_BEARING_METHODS
from mcp_types import methods as sdk

from gatewright.protocol import methods
from gatewright.protocol.methods import METHODS, Method


def test_every_method_has_one_row_under_its_own_name() -> None:
    """A row twice would hide one of the two."""
    assert len({id(row) for row in METHODS.values()}) == len(METHODS)
    assert all(name == row.name and row.eras for name, row in METHODS.items())


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_a_row_is_whole(row: Method) -> None:
    """What its kind needs is there, and nothing that contradicts it."""
    if row.kind != "task":
        assert (row.kind == "addressed") == (row.name_field is not None)
        assert (row.kind == "listed") == (row.items is not None) == (row.item_key is not None)
    assert not row.has_name_header or row.name_field in ("name", "uri", "taskId")
    assert row.kind != "listed" or (row.is_retry_safe and row.is_cacheable)
    assert row.capability is not None or row.kind in ("local", "stream", "task")


def test_the_name_header_mirrors_what_the_sdk_mirrors() -> None:
    """`Mcp-Name` on tools/call, prompts/get and resources/read, from the same members. Of the tasks extension
    (SEP-2663, Routing Headers) it knows nothing."""
    mirrored = {name: row.name_field for name, row in METHODS.items() if row.has_name_header and row.kind != "task"}
    assert mirrored == dict(NAME_BEARING_METHODS)
    of_tasks = {name for name, row in METHODS.items() if row.has_name_header and row.kind == "task"}
    assert of_tasks == {"tasks/get", "tasks/update", "tasks/cancel"}


def test_cacheable_and_asking_methods_are_those_of_the_sdk() -> None:
    """2026-07-28: server/utilities/caching, and basic/patterns/mrtr."""
    assert {name for name, row in METHODS.items() if row.is_cacheable} == set(sdk.CACHEABLE_METHODS)
    assert {name for name, row in METHODS.items() if row.may_ask} == set(sdk.INPUT_REQUIRED_METHODS)


def test_a_call_with_effects_is_never_sent_twice() -> None:
    """A tool may do anything, and a second session is not the first."""
    assert {name for name, row in METHODS.items() if not row.is_retry_safe} == {
        "tools/call",
        "initialize",
        "subscriptions/listen",
        "tasks/update",
        "tasks/cancel",
    }


def test_a_change_notice_makes_lists_stale_that_exist() -> None:
    """And each can be listened for."""
    assert set(methods.LIST_CHANGED) == set(methods.LISTEN_FIELDS)
    stale = {name for names in methods.LIST_CHANGED.values() for name in names}
    assert stale == {name for name, row in METHODS.items() if row.kind == "listed"}


def test_questions_and_calls_are_different_methods() -> None:
    """No method can be sent in both directions, so that none is carried the wrong way."""
    assert not set(methods.ASKS) & set(METHODS)
    assert set(methods.ASKS) == {name for name, _ in sdk.SERVER_REQUESTS} - {"ping"}
