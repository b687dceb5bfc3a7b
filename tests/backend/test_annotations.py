"""Mirrored parameters: what is learnt from lists, what is checked and forwarded, and what hostile tools come to."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound as sdk
from msgspec import Raw
from structlog.testing import capture_logs

from gatewright.backend import annotations
from gatewright.backend.annotations import Annotations
from gatewright.call import Params
from gatewright.errors import BackendGarbage, HeaderMismatch, InvalidParams
from gatewright.protocol import headers, jsonrpc

REGION: dict[str, Any] = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
PLAIN: dict[str, Any] = {"type": "object", "properties": {"region": {"type": "string"}}}
INVALID: dict[str, Any] = {"type": "object", "properties": {"region": {"type": "number", "x-mcp-header": "Region"}}}


def listed(*tools: Any, **members: Any) -> bytes:
    """A tools/list result."""
    return json.dumps({"tools": tools, **members}).encode()


def tool(name: str, schema: Any = PLAIN) -> dict[str, Any]:
    """A tool of that schema."""
    return {"name": name, "inputSchema": schema}


def knowing(*tools: Any) -> Annotations:
    """What is known after a list of these."""
    known = Annotations("b")
    known.learn(listed(*tools), is_first_page=True)
    return known


def called(arguments: Any) -> Params:
    """Parameters of a call."""
    return jsonrpc.members(json.dumps({"name": "t", "arguments": arguments}).encode())


def lines_of(known: Annotations, arguments: Any, given_headers: dict[bytes, bytes] | None = None) -> list[bytes]:
    """The header lines that a call of `t` is sent with."""
    _, lines = known.checked("t", called(arguments), given_headers)
    return lines.split(b"\r\n")[:-1]


# --- what is learnt


def test_a_list_without_annotations_passes_byte_for_byte() -> None:
    """The usual list is not even decoded."""
    body = b'{ "tools" : [ {"name":"t"} ] , "nextCursor" : "x" }'
    assert Annotations("b").learn(body, is_first_page=True) == body


def test_tools_that_break_the_rules_leave_the_list_and_the_log_says_why() -> None:
    """S-84: MUST drop them and only them, SHOULD log name and reason."""
    known = Annotations("b")
    with capture_logs() as logs:
        left = known.learn(listed(tool("good", REGION), tool("bad", INVALID), tool("t")), is_first_page=True)
    assert [one["name"] for one in json.loads(left)["tools"]] == ["good", "t"]
    assert [(entry["tool"], entry["backend"]) for entry in logs] == [("bad", "b")]
    assert "type" in logs[0]["reason"]


def test_the_rest_of_a_list_with_a_dropped_tool_is_as_it_was() -> None:
    """Cursor, hints and `_meta` stay."""
    body = listed(tool("bad", INVALID), tool("t"), nextCursor="x", ttlMs=5, _meta={"a": 1})
    assert json.loads(Annotations("b").learn(body, is_first_page=True)) == {
        "tools": [tool("t")],
        "nextCursor": "x",
        "ttlMs": 5,
        "_meta": {"a": 1},
    }


@pytest.mark.parametrize(
    "schema",
    [
        b'{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"maximum":1e999}}}',
        b'{"properties":{"a":{"type":"string","x-mcp-header":"A","x-mcp-header":"B"}}}',
        b'{"properties":{"a":{"type":"string","x-mcp-header":"A"}},"properties":{}}',
        b'{"properties":{"a":{"type":"string","x-mcp-header":"A\\r\\nB"}}}',
        b'{"properties":{"a":{"type":"string","x-mcp-\\u0068eader":""}}}',
        b'{"properties":{"a":' * 70 + b'{"type":"string","x-mcp-header":"A"}' + b"}}" * 70,
        b'{"x-mcp-header":"A"}',
        b'{"items":{"x-mcp-header":"A","type":"string"}}',
    ],
)  # fmt: skip
def test_a_tool_whose_annotations_cannot_be_told_is_not_offered(schema: bytes) -> None:
    """Calling it without its headers would be calling it wrong; no reader may see another schema than was judged."""
    body = b'{"tools":[{"name":"bad","inputSchema":%b},{"name":"t"}]}' % schema
    left = Annotations("b").learn(body, is_first_page=True)
    assert [one["name"] for one in json.loads(left)["tools"]] == ["t"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"tools":5,"x":"x-mcp-header"}',
        b'{"tools":null,"x":"x-mcp-header"}',
        b'{"tools":{"x-mcp-header":1}}',
        b'["x-mcp-header"]',
        b'"x-mcp-header"',
        b'{"tools":["x-mcp-header',
        b'{"tools":["x-mcp-header"],"\xff":1}',
    ],
)
def test_a_list_that_is_none_is_garbage_and_teaches_nothing(body: bytes) -> None:
    """What was known of the backend before still holds."""
    known = knowing(tool("t", REGION))
    known.forget()
    with pytest.raises(BackendGarbage):
        known.learn(body, is_first_page=True)
    assert not known.is_known
    with pytest.raises(HeaderMismatch):
        known.checked("t", called({"region": "x"}), {})


@given(st.lists(st.sampled_from([REGION, PLAIN, INVALID, {}, 5, None, "x-mcp-header", []]), max_size=4), st.binary())
def test_learning_raises_only_backend_garbage(schemas: list[Any], junk: bytes) -> None:
    """Whatever the tools are; what is left is a list."""
    known = Annotations("b")
    left = known.learn(listed(*[tool("t", schema) for schema in schemas], *schemas), is_first_page=True)
    assert isinstance(json.loads(left)["tools"], list)
    with suppress(BackendGarbage):
        known.learn(b'x-mcp-header{"tools":[%b]}' % junk, is_first_page=False)
    with suppress(BackendGarbage):
        known.learn(b'{"tools":[{"name":"t","inputSchema":%b}],"x":"x-mcp-header"}' % junk, is_first_page=False)


def test_a_list_says_nothing_of_tools_that_are_not_in_it() -> None:
    """Lists come in pages and differ by caller: another's list must not unlearn mine."""
    known = knowing(tool("t", REGION))
    known.learn(listed(tool("other")), is_first_page=True)
    known.learn(listed(tool("more", REGION), nextCursor="x"), is_first_page=False)
    with pytest.raises(HeaderMismatch):
        known.checked("t", called({"region": "x"}), {})


def test_a_tool_that_lost_its_annotations_is_an_ordinary_one() -> None:
    """The newest definition counts, whether it still mentions the annotation or not."""
    known = knowing(tool("t", REGION))
    known.learn(listed(tool("t", PLAIN)), is_first_page=True)
    assert lines_of(known, {"region": "x"}, {}) == []


def test_a_change_notice_makes_everything_be_learnt_anew() -> None:
    """With the first page of the next list; until then what is known still holds."""
    known = knowing(tool("t", REGION), tool("gone", REGION))
    known.forget()
    assert not known.is_known
    assert lines_of(known, {"region": "x"}) == [b"Mcp-Param-Region: x"]
    known.learn(listed(tool("t", REGION)), is_first_page=True)
    assert known.is_known
    _, lines = known.checked("gone", called({"region": "x"}), {})
    assert lines == b""


def test_a_list_that_never_ends_does_not_fill_the_memory() -> None:
    """The oldest annotated tools go first."""
    known = Annotations("b")
    count = annotations.MAX_TOOLS + 10
    known.learn(listed(*(tool(f"t{i}", REGION) for i in range(count))), is_first_page=True)
    with pytest.raises(HeaderMismatch):
        known.checked(f"t{count - 1}", called({"region": "x"}), {})
    assert known.checked("t0", called({"region": "x"}), {})[1] == b""


# --- what is checked and forwarded


def test_a_tool_without_annotations_is_not_looked_into() -> None:
    """Its parameters pass as they are, undecodable ones too: the backend is the judge."""
    params = {"name": Raw(b'"t"'), "arguments": Raw(b'{"a":1e999}')}
    assert knowing(tool("t")).checked("t", params, None) == (params, b"")
    assert knowing(tool("t")).checked("t", params, {}) == (params, b"")


@pytest.mark.parametrize("schema", [PLAIN, REGION])
def test_headers_that_nobody_here_recognises_are_forwarded(schema: dict[str, Any]) -> None:
    """S-14: intermediaries MUST, whether or not the tool has annotations of its own."""
    given_headers = {b"mcp-param-other": b"=?base64?w6k=?=", b"mcp-param-region": b"x"}
    lines = lines_of(knowing(tool("t", schema)), {"region": "x"}, given_headers)
    assert b"mcp-param-other: =?base64?w6k=?=" in lines
    assert len(lines) == 2
    assert len({line.partition(b":")[0].lower() for line in lines}) == 2


@pytest.mark.parametrize(
    ("arguments", "stated"),
    [
        ({"region": "x"}, {}),
        ({"region": "x"}, {b"mcp-param-region": b"y"}),
        ({"region": "x"}, {b"mcp-param-region": b"X"}),
        ({"region": "é"}, {b"mcp-param-region": "é".encode()}),
        ({"region": "x"}, {b"mcp-param-region": b"=?base64?eA?="}),
        ({"region": None}, {b"mcp-param-region": b"x"}),
        ({}, {b"mcp-param-region": b""}),
        ({"region": ["x"]}, {b"mcp-param-region": b"x"}),
        ("x", {b"mcp-param-region": b"x"}),
        (None, {b"mcp-param-region": b"x"}),
    ],
)
def test_headers_that_disagree_with_the_arguments_are_refused(arguments: Any, stated: dict[bytes, bytes]) -> None:
    """S-14: a value without its header, a header without its value, another value."""
    with pytest.raises(HeaderMismatch):
        knowing(tool("t", REGION)).checked("t", called(arguments), stated)


@pytest.mark.parametrize("arguments", [{}, {"region": None}, {"other": 1}, [], "x", None, {"region": {"a": 1}}])
def test_a_value_that_is_absent_expects_no_header(arguments: Any) -> None:
    """S-14: MUST NOT."""
    assert lines_of(knowing(tool("t", REGION)), arguments, {}) == []
    assert lines_of(knowing(tool("t", REGION)), arguments, None) == []


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"region":"x","region":"y"}',
        b'{"region":"x","regi\\u006fn":"y"}',
        b'{"region":"x","n":1e999}',
        b'{"region":"x","n":' + b"9" * 5_000 + b"}",
        b'{"region":"\xff"}',
        b'{"region":"x","n":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_arguments_that_cannot_be_judged_are_refused(arguments: bytes) -> None:
    """-32602: two parsers might read two things, or one of them nothing."""
    for given_headers in (None, {b"mcp-param-region": b"x"}):
        with pytest.raises(InvalidParams):
            knowing(tool("t", REGION)).checked("t", {"arguments": Raw(arguments)}, given_headers)


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.integers() | st.booleans() | st.none(),
    st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(), max_size=2),
)
def test_what_the_official_client_sends_is_accepted_and_sent_on_alike(
    region: str, level: int | None, rest: dict[str, int]
) -> None:
    """Differential: its headers pass here, and ours are the same; the arguments come through unchanged."""
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"level": {"type": "integer", "x-mcp-header": "Level"}}},
        },
    }
    arguments = {**rest, "region": region, "deep": {"level": level}}
    stated = {
        name.lower().encode(): value.encode("ascii")
        for name, value in sdk.mcp_param_headers(sdk.x_mcp_header_map(schema), arguments).items()
    }
    known = knowing(tool("t", schema))
    params, lines = known.checked("t", called(arguments), stated)
    assert json.loads(bytes(params["arguments"])) == arguments
    sent = dict(line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1])
    assert {name.lower(): value for name, value in sent.items()} == stated
    assert known.checked("t", called(arguments), None)[1] == lines


@given(st.text(), st.dictionaries(st.from_regex(rb"mcp-param-[a-z]{1,8}", fullmatch=True), st.binary(max_size=9)))
def test_no_argument_can_write_a_header_line_of_its_own(region: str, stated: dict[bytes, bytes]) -> None:
    """CR and LF travel encoded or not at all."""
    clean = {key: value.replace(b"\r", b"").replace(b"\n", b"") for key, value in stated.items()}
    arguments = b'{"region":%b}' % json.dumps(region).encode()
    for given_headers in (None, clean):
        with suppress(InvalidParams, HeaderMismatch):
            _, lines = knowing(tool("t", REGION)).checked("t", {"arguments": Raw(arguments)}, given_headers)
            written = lines.split(b"\r\n")
            assert written.pop() == b""
            assert all(b"\r" not in line and b"\n" not in line for line in written)
            assert len(written) <= 1 + len(clean)
            assert headers.decode_value(written[0].partition(b": ")[2]) == region or given_headers is not None
