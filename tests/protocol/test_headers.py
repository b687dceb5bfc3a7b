"""Mirrored headers: what is encoded is read back; what could be read in two ways agrees with nothing (B-5)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import ProtocolError
from gatewright.protocol.headers import (
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_NODES,
    InvalidAnnotation,
    Param,
    agrees,
    compile_params,
    decode_value,
    encode_value,
    mentions_param_headers,
    param_text,
)


def sentinel(payload: str | bytes) -> bytes:
    raw = payload.encode() if isinstance(payload, str) else payload
    return b"=?base64?" + base64.b64encode(raw) + b"?="


# 2026-07-28, basic/transports/streamable-http, "Encoding examples", and what the clause says around them.
@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("us-west1", b"us-west1"),
        ("Hello, 世界", b"=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", b"=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", b"=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("", b""),
        ("a b", b"a b"),
        ("~!#$%^&*()_+[]{}|;':\",./<>?", b"~!#$%^&*()_+[]{}|;':\",./<>?"),
        ("file:///projects/my app/config.json", b"file:///projects/my app/config.json"),
        (" ", sentinel(" ")),
        ("\t", sentinel("\t")),
        ("a\tb", sentinel("a\tb")),
        ("\tindented", sentinel("\tindented")),
        ("a\r\nMcp-Param-Admin: true", sentinel("a\r\nMcp-Param-Admin: true")),
        ("a\0b", sentinel("a\0b")),
        ("\x7f", sentinel("\x7f")),
        ("\x80", sentinel("\x80")),
        ("é", sentinel("é")),
        ("\u2028", sentinel("\u2028")),
        ("\ufeff", sentinel("\ufeff")),
        ("a\u00a0", sentinel("a\u00a0")),
        ("=?base64??=", sentinel("=?base64??=")),
        ("=?base64?=", sentinel("=?base64?=")),
        ("=?base64?unfinished", b"=?base64?unfinished"),
        ("unfinished?=", b"unfinished?="),
        ("=?BASE64?SGk=?=", b"=?BASE64?SGk=?="),
        ("=?utf-8?B?SGk=?=", b"=?utf-8?B?SGk=?="),
    ],
)
def test_a_value_travels_in_the_form_the_clause_gives(value: str, wire: bytes) -> None:
    """Safe text as it is, everything else in base64; and both are read back."""
    assert encode_value(value) == wire
    assert decode_value(wire) == value
    assert agrees(wire, value)


@pytest.mark.parametrize("wire", [b" us-west1", b"us-west1 ", b"\tus-west1 \t", b"us-west1"])
def test_white_space_around_a_value_is_not_part_of_it(wire: bytes) -> None:
    """RFC 9110, 5.5: a field value excludes what surrounds it."""
    assert decode_value(wire) == "us-west1"
    assert decode_value(b" " + sentinel(" x ") + b"\t") == " x "


# B-5: abuse of the sentinel. None of these is what an encoder writes, whatever a lenient decoder makes of it.
MALFORMED = [
    pytest.param(b"=?base64?SGVsbG8?=", id="padding missing"),
    pytest.param(b"=?base64?SGVsbG8==?=", id="padding too long"),
    pytest.param(b"=?base64?SGVsbG8===?=", id="padding much too long"),
    pytest.param(b"=?base64?=SGVsbG8?=", id="padding first"),
    pytest.param(b"=?base64?SGVs=bG8=?=", id="padding inside"),
    pytest.param(b"=?base64?SGVs!!!bG8=?=", id="alphabet"),
    pytest.param(b"=?base64?SGVs bG8=?=", id="space inside"),
    pytest.param(b"=?base64? SGVsbG8=?=", id="space first"),
    pytest.param(b"=?base64?SGVsbG8= ?=", id="space last"),
    pytest.param(b"=?base64?SGVs\tbG8=?=", id="tab inside"),
    pytest.param(b"=?base64?_-8=?=", id="url alphabet"),
    pytest.param(b"=?base64?SGVsbG9=?=", id="stray bits, one pad"),
    pytest.param(b"=?base64?SGVsbA9=?=", id="stray character"),
    pytest.param(b"=?base64?SR==?=", id="stray bits, two pads"),
    pytest.param(b"=?base64?S?=", id="one character"),
    pytest.param(b"=?base64?=?=", id="only padding"),
    pytest.param(b"=?base64?====?=", id="four pads"),
    pytest.param(b"=?base64?????=", id="question marks"),
    pytest.param(b"=?base64?/w==?=", id="not utf-8"),
    pytest.param(b"=?base64?wIA=?=", id="overlong utf-8"),
    pytest.param(b"=?base64?7aCA?=", id="surrogate in utf-8"),
    pytest.param(b"=?base64?9JCAgA==?=", id="beyond unicode"),
    pytest.param(b"=?base64?SGk=?==?base64?SGk=?=", id="two of them"),
    pytest.param(b"=?base64?=?base64?SGk=?=?=", id="nested in plain"),
    pytest.param(b"=?base64?SGk=?=, =?base64?SGk=?=", id="a list of them"),
    pytest.param(b"=?base64?SGk\xc3\xa9=?=", id="non-ascii payload"),
    pytest.param(b"caf\xc3\xa9", id="utf-8 in plain text"),
    pytest.param(b"caf\xe9", id="latin-1 in plain text"),
    pytest.param(b"a\x00b", id="nul"),
    pytest.param(b"a\rb", id="cr"),
    pytest.param(b"a\nb", id="lf"),
    pytest.param(b"a\x0bb", id="vt"),
    pytest.param(b"a\x1bb", id="esc"),
    pytest.param(b"a\x7fb", id="del"),
    pytest.param(b"\x85a", id="nel"),
    pytest.param(b"\xa0a", id="nbsp"),
    pytest.param(b"\x0ba\x0c", id="only space and tab are trimmed"),
]


@pytest.mark.parametrize("wire", MALFORMED)
@pytest.mark.parametrize("body", ["Hello", "Hi", "", "café", "ab", "a", "I", 0, True])
def test_a_malformed_value_agrees_with_nothing(wire: bytes, body: object) -> None:
    """It is refused when decoded, and never equal to what it may have meant."""
    with pytest.raises(ProtocolError):
        decode_value(wire)
    assert not agrees(wire, body)


def test_a_value_is_decoded_once() -> None:
    """A sentinel inside a sentinel is the literal text of one."""
    inner = sentinel("admin").decode()
    assert decode_value(sentinel(inner)) == inner
    assert agrees(sentinel(inner), inner)
    assert not agrees(sentinel(inner), "admin")
    assert agrees(sentinel("admin"), "admin")
    assert not agrees(sentinel("admin"), inner)


AGREEMENT: list[tuple[bytes, object, bool]] = [
    (b"foo", "foo", True),
    (b"foo", "Foo", False),
    (b"foo", "foo ", False),
    (b"foo, foo", "foo", False),
    (b"", "", True),
    (b"", None, False),
    (b"null", None, False),
    (b"None", None, False),
    (sentinel("foo"), "foo", True),
    (b"true", True, True),
    (b"false", False, True),
    (b"True", True, False),
    (b"TRUE", True, False),
    (b"1", True, False),
    (b"0", False, False),
    (b"1.0", True, False),
    (b"true", 1, False),
    (b"false", 0, False),
    (b"true", "true", True),
    (b"True", "true", False),
    (sentinel("true"), True, True),
    (b"42", 42, True),
    (b"42.0", 42, True),
    (b"42.000", 42, True),
    (b"42", 42.0, True),
    (b"42.0", 42.0, True),
    (b"-7", -7, True),
    (b"-7.0", -7, True),
    (b"7", -7, False),
    (b"0", 0, True),
    (b"-0", 0, True),
    (b"-0.0", 0, True),
    (b"0", -0.0, True),
    (b"42.", 42, False),
    (b".0", 0, False),
    (b"42.5", 42, False),
    (b"42.01", 42, False),
    (b"042", 42, False),
    (b"00", 0, False),
    (b"+42", 42, False),
    (b"- 42", 42, False),
    (b"4 2", 42, False),
    (b"4_2", 42, False),
    (b"0x2a", 42, False),
    (b"052", 42, False),
    (b"4.2e1", 42, False),
    (b"42e0", 42, False),
    (b"1e3", 1000, False),
    (b"42", "42", True),
    (b"42.0", "42", False),
    (b"", 0, False),
    (b"nan", float("nan"), False),
    (b"inf", float("inf"), False),
    (sentinel("42"), 42, True),
    (sentinel("42.0"), 42, True),
    (sentinel("٤٢"), 42, False),
    (sentinel("４２"), 42, False),
    (sentinel(" 42"), 42, False),
    (sentinel("42\n"), 42, False),
    (b"9007199254740991", 2**53 - 1, True),
    (b"9007199254740993", 2**53 + 1, True),
    (b"9007199254740993.0", 2**53 + 1, True),
    (b"9007199254740992", 2**53 + 1, False),
    (b"9007199254740993", float(2**53), False),
    (b"9007199254740992", float(2**53), True),
    (b"-9007199254740993", -(2**53) - 1, True),
    (b"9" * 400, 10**400 - 1, True),
    (b"9" * 400, 10**400, False),
    (b"1" * 5000, 1, False),
    (b"1." + b"0" * 5000, 1, True),
    (b"1e+300", 1e300, True),
    (b"1.5", 1.5, True),
    (b"1.50", 1.5, False),
    (b"0.1", 0.1, True),
    (b"[]", [], False),
    (b"{}", {}, False),
    (b"x", ["x"], False),
]


@pytest.mark.parametrize(("wire", "body", "is_same"), AGREEMENT, ids=lambda value: repr(value)[:30])
def test_header_and_body_agree_only_when_they_say_the_same(wire: bytes, body: object, is_same: bool) -> None:
    """Text and booleans exactly, numbers by value without rounding; exponents and leading zeros never."""
    assert agrees(wire, body) is is_same


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (-7, "-7"),
        (0, "0"),
        (2**53 + 1, "9007199254740993"),
        (42.0, "42"),
        (-0.0, "0"),
        (1.5, "1.5"),
        (None, None),
        ([], None),
        ({}, None),
        pytest.param(10**5000, None, id="beyond CPython's digits"),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_parameter_has_the_text_of_its_type(value: object, text: str | None) -> None:
    """Type conversion of the clause; null and containers have none and their header is left out."""
    assert param_text(value) == text


def test_a_lone_surrogate_has_no_header_form() -> None:
    """It cannot be sent as UTF-8 either; the refusal is the codec's, not Python's."""
    with pytest.raises(ProtocolError):
        encode_value("\ud800")
    assert not agrees(b"x", "\ud800")


# The annotation in a tool's inputSchema.

REGION = {"type": "string", "x-mcp-header": "Region"}


def schema(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_annotated_parameters_are_mirrored_from_their_exact_path() -> None:
    """Nested objects included; absent and null values send no header."""
    compiled = compile_params(
        schema(
            region=REGION,
            count={"type": "integer", "x-mcp-header": "Count"},
            dry={"type": "boolean", "x-mcp-header": "Dry-Run"},
            where=schema(zone={"type": "string", "x-mcp-header": "Zone"}),
            query={"type": "string"},
        )
    )
    assert compiled.params[0] == Param(("region",), "Mcp-Param-Region", b"mcp-param-region")
    arguments = {"region": "世界", "count": 3, "dry": False, "where": {"zone": "a"}, "query": "q"}
    assert compiled.extract(arguments) == [
        ("Mcp-Param-Region", "世界"),
        ("Mcp-Param-Count", "3"),
        ("Mcp-Param-Dry-Run", "false"),
        ("Mcp-Param-Zone", "a"),
    ]
    assert compiled.fields(arguments)[0] == (b"Mcp-Param-Region", sentinel("世界"))
    assert compiled.extract({"region": None, "where": {}}) == []
    assert compiled.extract({"region": "", "where": "zone", "zone": "top"}) == [("Mcp-Param-Region", "")]
    assert compiled.extract({"region": ["x"], "count": {}}) == []
    for nothing in (None, [], "x", 3):
        assert compiled.extract(nothing) == []


CHECKED = compile_params(schema(region=REGION, count={"type": "integer", "x-mcp-header": "Count"}))


@pytest.mark.parametrize(
    ("arguments", "headers", "complaint"),
    [
        ({"region": "eu", "count": 42}, {b"mcp-param-region": b"eu", b"mcp-param-count": b"42.0"}, None),
        ({"region": "eu"}, {b"mcp-param-region": b"eu", b"mcp-param-other": b"x"}, None),
        ({"region": "eu"}, {b"mcp-param-region": sentinel("eu")}, None),
        ({}, {}, None),
        (None, {}, None),
        ({"region": None, "count": None}, {}, None),
        ({"region": []}, {}, None),
        ({"region": ""}, {b"mcp-param-region": b""}, None),
        ({"region": "eu"}, {}, "missing"),
        ({"region": ""}, {}, "missing"),
        ({"count": 0}, {}, "missing"),
        ({"region": "eu"}, {b"mcp-param-region": b"us"}, "does not match"),
        ({"region": "eu"}, {b"mcp-param-region": b"EU"}, "does not match"),
        ({"region": "eu"}, {b"mcp-param-region": b"=?base64?ZXU?="}, "does not match"),
        ({"region": "eu"}, {b"mcp-param-region": b"e\xc3\xba"}, "does not match"),
        ({}, {b"mcp-param-region": b"eu"}, "does not match"),
        ({"region": None}, {b"mcp-param-region": b"null"}, "does not match"),
        ({"region": ["eu"]}, {b"mcp-param-region": b"eu"}, "does not match"),
        ({"count": 42}, {b"mcp-param-count": b"43"}, "does not match"),
        ("eu", {b"mcp-param-region": b"eu"}, "does not match"),
    ],
)
def test_headers_must_say_what_the_arguments_say(
    arguments: object, headers: dict[bytes, bytes], complaint: str | None
) -> None:
    """The clause's table: given, null, absent, left out; and a header that claims what the body never said."""
    found = CHECKED.check(arguments, headers)
    assert found is None if complaint is None else complaint in str(found)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (schema(a={"type": "string", "x-mcp-header": ""}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "My Region"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "Region:Primary"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "Région"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "Region\t1"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "Region\n"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "a\r\nSet-Cookie"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "a\0"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": "a(b)"}), "token"),
        (schema(a={"type": "string", "x-mcp-header": 'a"'}), "token"),
        (schema(a={"type": "string", "x-mcp-header": None}), "string"),
        (schema(a={"type": "string", "x-mcp-header": 10**5000}), "string"),
        (schema(a={"type": "string", "x-mcp-header": True}), "string"),
        (schema(a={"type": "string", "x-mcp-header": ["Region"]}), "string"),
        (schema(a={"type": "number", "x-mcp-header": "A"}), "type"),
        (schema(a={"type": "object", "x-mcp-header": "A"}), "type"),
        (schema(a={"type": "array", "x-mcp-header": "A"}), "type"),
        (schema(a={"type": "null", "x-mcp-header": "A"}), "type"),
        (schema(a={"type": ["string", "null"], "x-mcp-header": "A"}), "type"),
        (schema(a={"enum": ["x"], "x-mcp-header": "A"}), "type"),
        (schema(a=REGION, b=REGION), "taken"),
        (schema(a=REGION, b={"type": "integer", "x-mcp-header": "rEGION"}), "taken"),
        (schema(a=REGION, b=schema(c=REGION)), "taken"),
        ({"type": "string", "x-mcp-header": "Root"}, "reached"),
        (schema(a={"type": "array", "items": REGION}), "reached"),
        (schema(a={"type": "array", "items": schema(b=REGION)}), "reached"),
        (schema(a={"type": "array", "items": [REGION]}), "reached"),
        (schema(a={"type": "array", "prefixItems": [REGION]}), "reached"),
        (schema(a={"type": "array", "contains": REGION}), "reached"),
        (schema(a={"oneOf": [REGION]}), "reached"),
        (schema(a={"anyOf": [{}, REGION]}), "reached"),
        (schema(a={"allOf": [schema(b=REGION)]}), "reached"),
        (schema(a={"not": REGION}), "reached"),
        ({"if": schema(a=REGION)}, "reached"),
        ({"then": schema(a=REGION)}, "reached"),
        ({"else": schema(a=REGION)}, "reached"),
        ({"$defs": {"r": REGION}}, "reached"),
        ({"definitions": {"r": REGION}}, "reached"),
        ({"patternProperties": {"^a": REGION}}, "reached"),
        ({"additionalProperties": REGION}, "reached"),
        ({"propertyNames": REGION}, "reached"),
        ({"dependentSchemas": {"a": schema(b=REGION)}}, "reached"),
        ({"unevaluatedProperties": REGION}, "reached"),
        (schema(a={"$ref": "#/$defs/r"}) | {"$defs": {"r": REGION}}, "reached"),
    ],
)
def test_a_tool_whose_annotation_breaks_a_rule_is_refused(broken: object, reason: str) -> None:
    """Every rule of the clause; one bad annotation spoils the tool, good ones beside it or not."""
    with pytest.raises(InvalidAnnotation, match=reason):
        compile_params(broken)
    if isinstance(broken, dict) and reason != "taken":
        properties = broken.get("properties", {}) | {"good": {"type": "string", "x-mcp-header": "Good"}}
        with pytest.raises(InvalidAnnotation, match=reason):
            compile_params(broken | {"properties": properties})


@pytest.mark.parametrize(
    "harmless",
    [
        None,
        True,
        [],
        "x-mcp-header",
        {},
        schema(**{"x-mcp-header": {"type": "string"}}),
        schema(a={"type": "object", "default": {"x-mcp-header": "A"}}),
        schema(a={"const": {"x-mcp-header": "A"}, "enum": [{"x-mcp-header": "A"}], "examples": [{"x-mcp-header": ""}]}),
        {"properties": [REGION]},
        {"properties": {"a": True, "b": None, "c": 3}},
        {"dependencies": {"a": ["b"]}, "items": True, "anyOf": 3, "$defs": 7},
        {"x-other": REGION},
        {"$ref": "#"},
    ],
)
def test_what_only_looks_like_an_annotation_is_none(harmless: object) -> None:
    """Data, a property of that name, and shapes that are no schema at all."""
    assert compile_params(harmless).params == ()


def test_a_schema_beyond_its_bounds_is_refused_without_recursion() -> None:
    """Too deep and too wide, by any keyword, ends in a refusal and not in a RecursionError."""
    for wrap in (lambda s: schema(a=s), lambda s: {"anyOf": [s]}, lambda s: {"not": s}, lambda s: {"$defs": {"a": s}}):
        deep: Any = {}
        for _ in range(50_000):
            deep = wrap(deep)
        with pytest.raises(InvalidAnnotation, match="deeper"):
            compile_params(deep)
        while deep:  # Taken apart step by step: the interpreter would recurse to free it.
            deep = next(iter(deep.values())) if not isinstance(deep, list) else deep.pop()
            deep = deep if isinstance(deep, dict | list) else {}
    nested: Any = REGION
    for _ in range(MAX_SCHEMA_DEPTH - 1):
        nested = schema(a=nested)
    assert len(compile_params(nested).params[0].path) == MAX_SCHEMA_DEPTH - 1
    with pytest.raises(InvalidAnnotation, match="deeper"):
        compile_params(schema(a=nested))
    with pytest.raises(InvalidAnnotation, match="more than"):
        compile_params(schema(**{f"p{i}": {} for i in range(MAX_SCHEMA_NODES)}))
    with pytest.raises(InvalidAnnotation, match="more than"):
        compile_params({"anyOf": [True] * MAX_SCHEMA_NODES})


@pytest.mark.parametrize(
    ("text", "may_mention"),
    [
        (b'{"x-mcp-header":"A"}', True),
        (b'{"\\u0078-mcp-header":"A"}', True),
        (b'{"x\\u002Dmcp-header":"A"}', True),
        (b'{"x-mcp-header\\u0000":"A"}', True),
        (b'{"description":"caf\\u00e9"}', True),
        (b'{"description":"\\u4e16"}', False),
        (b'{"type":"object"}', False),
        (b"", False),
    ],
)
def test_a_schema_that_cannot_mention_the_annotation_is_skipped(text: bytes, may_mention: bool) -> None:
    """The quick look errs to one side only."""
    assert mentions_param_headers(text) is may_mention


def test_every_escaped_spelling_of_the_annotation_is_noticed() -> None:
    """Each letter alone and all together, in both cases of hexadecimal."""
    name = "x-mcp-header"
    for spelling in ("\\u%04x", "\\u%04X"):
        for i, letter in enumerate(name):
            escaped = name[:i] + spelling % ord(letter) + name[i + 1 :]
            text = f'{{"{escaped}":"A"}}'
            assert json.loads(text) == {name: "A"}
            assert mentions_param_headers(text.encode())


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.lists(
    st.sampled_from(["=?base64?", "?=", "=?", "SGk=", "=", "?", " ", "\t", "\r\n", "\0", "é", "a", "%", '"']),
    max_size=8,
).map("".join)


@given(value=TEXT | TRICKY)
def test_any_text_survives_the_round_trip(value: str) -> None:
    """And its wire form is a safe field value that agrees with it, and with it alone."""
    wire = encode_value(value)
    assert decode_value(wire) == value
    assert all(0x20 <= byte <= 0x7E for byte in wire)
    assert wire == wire.strip(b" ")
    assert agrees(wire, value)
    assert not agrees(wire, value + "x")


@given(raw=st.binary() | TRICKY.map(str.encode))
def test_garbage_gives_only_protocol_errors(raw: bytes) -> None:
    """What does decode is unambiguous: encoding it again gives a form that decodes to the same."""
    try:
        value = decode_value(raw)
    except ProtocolError:
        assert not agrees(raw, raw.decode("latin-1"))
        return
    assert decode_value(encode_value(value)) == value


@given(value=st.integers() | st.integers(min_value=2**53, max_value=2**70), other=st.integers(-3, 3))
def test_integers_agree_exactly_when_they_are_equal(value: int, other: int) -> None:
    """At any size: no double in between."""
    assert agrees(str(value + other).encode(), value) is (other == 0)
    assert agrees(f"{value + other}.0".encode(), value) is (other == 0)


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["string", "integer", "object", "Region", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "anyOf", "$defs", "x-mcp-header", "a", "not", "default"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(hostile=SCHEMAS, arguments=SCHEMAS)
def test_any_schema_compiles_or_is_refused(hostile: object, arguments: object) -> None:
    """Never anything but InvalidAnnotation; what compiles mirrors exactly what it then accepts."""
    try:
        compiled = compile_params(hostile)
    except InvalidAnnotation:
        return
    wire = {name.lower(): value for name, value in compiled.fields(arguments)}
    assert compiled.check(arguments, wire) is None
