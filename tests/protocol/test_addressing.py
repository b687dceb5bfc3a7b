"""What a request addresses: read strictly, rewritten whole."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gatewright.call import Params
from gatewright.errors import InvalidParams
from gatewright.protocol import addressing, jsonrpc
from gatewright.protocol.methods import METHODS, Method

ADDRESSED = [row for row in METHODS.values() if row.kind == "addressed"]
COMPLETE = METHODS["completion/complete"]
CALL = METHODS["tools/call"]
NAMES = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


def read(**members: Any) -> Params:
    """Parameters as they are read."""
    return jsonrpc.members(json.dumps(members).encode())


def addressed(row: Method, name: str, kind: str = "ref/prompt") -> Params:
    """Parameters that address `name`, with other members beside."""
    if row.name_field == "ref":
        ref = {"type": kind, "name" if kind == "ref/prompt" else "uri": name, "title": "T"}
        return read(ref=ref, argument={"name": "a", "value": "b"}, _meta={"x": 1})
    return read(**{str(row.name_field): name, "arguments": {"name": "other", "uri": "other"}, "_meta": {"x": 1}})


def kinds(row: Method) -> list[str]:
    """The kinds of reference there are, where there are any."""
    return ["ref/prompt", "ref/resource"] if row.name_field == "ref" else [""]


@pytest.mark.parametrize("row", ADDRESSED, ids=lambda row: row.name)
@given(name=NAMES, other=NAMES)
def test_a_name_is_read_and_replaced_and_nothing_else(row: Method, name: str, other: str) -> None:
    """There and back is the same; the members beside it stay as they were."""
    for kind in kinds(row):
        params = addressed(row, name, kind)
        assert addressing.name_of(row, params) == name
        renamed = addressing.renamed(row, params, other)
        assert addressing.name_of(row, renamed) == other
        assert addressing.space_of(row, renamed) == addressing.space_of(row, params)
        back = addressing.renamed(row, renamed, name)
        assert json.loads(jsonrpc.encode(back)) == json.loads(jsonrpc.encode(params))
        assert {key: bytes(value) for key, value in renamed.items() if key != row.name_field} == {
            key: bytes(value) for key, value in params.items() if key != row.name_field
        }


@pytest.mark.parametrize("row", [row for row in METHODS.values() if row.name_field is None], ids=lambda row: row.name)
def test_a_method_that_addresses_nothing_has_no_name(row: Method) -> None:
    """Whatever its parameters hold."""
    params = read(name="x", uri="y", ref=5)
    assert addressing.name_of(row, params) is None
    assert addressing.renamed(row, params, "z") is params


@pytest.mark.parametrize(
    ("method", "kind", "space"),
    [
        ("tools/call", "", "tools"),
        ("prompts/get", "", "prompts"),
        ("resources/read", "", "resources"),
        ("resources/subscribe", "", "resources"),
        ("resources/unsubscribe", "", "resources"),
        ("completion/complete", "ref/prompt", "prompts"),
        ("completion/complete", "ref/resource", "resources"),
    ],
)
def test_a_name_is_among_the_names_of_its_kind(method: str, kind: str, space: str) -> None:
    """Only tools and prompts are prefixed on the shared route."""
    row = METHODS[method]
    assert addressing.space_of(row, addressed(row, "x", kind)) == space


@pytest.mark.parametrize("value", [None, 5, 1.5, True, [], {}, ["x"]])
@pytest.mark.parametrize("row", ADDRESSED, ids=lambda row: row.name)
def test_a_name_that_is_none_is_refused(row: Method, value: object) -> None:
    """-32602, whatever stands there instead of a string or a reference."""
    field = str(row.name_field)
    for params in ({}, read(**{field: value}), {field: Raw(b'"\xff"')}, {field: Raw(b"[" * 5_000)}):
        with pytest.raises(InvalidParams):
            addressing.name_of(row, params)


@pytest.mark.parametrize(
    "ref",
    [
        {"type": "ref/prompt"},
        {"type": "ref/resource"},
        {"type": "ref/prompt", "uri": "x"},
        {"type": "ref/resource", "name": "x"},
        {"type": "ref/prompt", "name": 5},
        {"type": "ref/resource", "uri": None},
        {"type": 5, "name": "x"},
        {"name": "x"},
        "x",
        5,
        None,
        [],
    ],
)
def test_a_reference_of_another_form_is_refused_by_every_function(ref: object) -> None:
    """Also by those that are only called after `name_of`: a policy may have put another in its place."""
    params = read(ref=ref)
    with pytest.raises(InvalidParams):
        addressing.name_of(COMPLETE, params)
    for function in (
        lambda: addressing.space_of(COMPLETE, params),
        lambda: addressing.renamed(COMPLETE, params, "y"),
    ):
        with suppress(InvalidParams):
            function()
    with pytest.raises(InvalidParams):
        addressing.space_of(COMPLETE, {})


@pytest.mark.parametrize(
    "ref",
    [
        b'{"type":"ref/prompt","name":"good","name":"evil"}',
        b'{"type":"ref/prompt","name":"x","type":"ref/resource","uri":"y"}',
        b'{"type":"ref/prompt","name":"good","n\\u0061me":"evil"}',
    ],
)
def test_a_reference_that_names_a_member_twice_is_refused(ref: bytes) -> None:
    """It travels on undecoded: the backend might read the other one."""
    with pytest.raises(InvalidParams):
        addressing.name_of(COMPLETE, {"ref": Raw(ref)})


@pytest.mark.parametrize("member", ["Name", "NAME", "naMe", "Arguments", "_META", "URI", "argumentſ", "tasK"])
@pytest.mark.parametrize("row", ADDRESSED, ids=lambda row: row.name)
def test_a_member_that_differs_in_case_alone_is_refused(row: Method, member: str) -> None:
    """CVE-2026-27896: a backend that folds case would call what nobody here judged."""
    with pytest.raises(InvalidParams, match="case"):
        addressing.name_of(row, {**addressed(row, "good"), member: Raw(b'"evil"')})


def test_members_of_other_names_pass() -> None:
    """Extensions add members of their own."""
    params = {**addressed(CALL, "x"), "com.example/x": Raw(b"1"), "names": Raw(b"2"), "nam": Raw(b"3"), "": Raw(b"4")}
    assert addressing.name_of(CALL, params) == "x"
    assert addressing.renamed(CALL, params, "y").keys() == params.keys()


@given(st.dictionaries(st.sampled_from(["name", "uri", "ref", "Name", "_meta"]), st.binary(max_size=20)))
def test_junk_raises_only_invalid_params(members: dict[str, bytes]) -> None:
    """From every function, for every method."""
    params = {key: Raw(value) for key, value in members.items()}
    for row in ADDRESSED:
        for function in (addressing.name_of, addressing.space_of):
            with suppress(InvalidParams):
                function(row, params)
        with suppress(InvalidParams):
            addressing.renamed(row, params, "x")
