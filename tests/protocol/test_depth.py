"""JSON bounds: what is too deep, too long, not UTF-8 or ambiguous is refused; everything else is left alone."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import ProtocolError
from gatewright.protocol.depth import MAX_DIGITS, check_json, check_utf8, decode_unique, reject_duplicates


def nested(depth: int, opening: str = "[", closing: str = "]", core: str = "") -> bytes:
    return (opening * depth + core + closing * depth).encode()


@pytest.mark.parametrize(
    ("opening", "closing", "core"),
    [
        ("[", "]", ""),
        ("[", "]", "1"),
        ('{"a":', "}", "1"),
        ("[ ", "\n]", ""),
        ("[1,", ",2]", "3"),
        ('["]]]}}}",', ',"[[[{{{"]', "3"),
        (r'["\"]\\",', r',"\\\"["]', "3"),
        (r'{"\\":', ',"x":1}', "3"),
    ],
)
def test_nesting_is_bounded_exactly(opening: str, closing: str, core: str) -> None:
    """As deep as the bound passes, one level more is refused, whatever the strings between look like."""
    check_json(nested(20, opening, closing, core), max_depth=20)
    with pytest.raises(ProtocolError, match="deeper"):
        check_json(nested(21, opening, closing, core), max_depth=20)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"[" * 500 + b'"}',
        b'{"a":"\\"' + b"[{" * 500 + b'\\\\"}',
        b"[" + b",".join([b"[]"] * 500) + b"]",
        b"[" + b",".join([b'{"a":{"b":[]}}'] * 500) + b"]",
    ],
)
def test_many_brackets_that_are_not_deep_pass(body: bytes) -> None:
    """Brackets in strings and siblings do not nest."""
    check_json(body, max_depth=4)


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
def test_a_nesting_bomb_is_refused_closed_or_not(depth: int) -> None:
    """Without recursion, also when the brackets never close."""
    for body in (nested(depth), b"[" * depth, b'{"a":' * depth, b'{"params":{"a":[' * depth):
        with pytest.raises(ProtocolError):
            check_json(body, max_depth=64)


@pytest.mark.parametrize(
    "body",
    [
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe4\xb8"',
        b'{"\xfe":1}',
        b'"\x80"',
        b'["a","\xc3(',
    ],
)
def test_a_body_that_is_not_utf8_is_refused(body: bytes) -> None:
    """Wherever the bytes stand: an envelope decoder does not look into what it skips."""
    with pytest.raises(ProtocolError, match="UTF-8"):
        check_json(body)
    with pytest.raises(ProtocolError, match="UTF-8"):
        check_utf8(b'{"a":' + body + b"}")
    with pytest.raises(ProtocolError, match="UTF-8"):
        check_json(b'{"method":"x","params":{"a":' + body + b"}}")


@pytest.mark.parametrize("text", ["é", "世界", "😀", "\u2028", "\ufeff"])
def test_utf8_passes(text: str) -> None:
    """Everything that is UTF-8, of any length of sequence."""
    check_json(json.dumps({"a": text}, ensure_ascii=False).encode())
    check_utf8(text.encode())


@pytest.mark.parametrize("padding", [0, 1, 499, 500, 999, 1000, 1001])
@pytest.mark.parametrize("form", ["%s", "-%s", "0.%s", "1e%s", "[1,%s,2]", '{"a":"\\"","b":%s}'])
def test_a_number_beyond_its_digits_is_refused_wherever_it_starts(form: str, padding: int) -> None:
    """One thousand digits pass, one more is refused; the position in the body does not matter."""
    for digits, is_refused in ((MAX_DIGITS, False), (MAX_DIGITS + 1, True), (50_000, True)):
        body = b'{"p":"' + b"x" * padding + b'","n":' + form.replace("%s", "1" * digits).encode() + b"}"
        if is_refused:
            with pytest.raises(ProtocolError, match="digits"):
                check_json(body)
        else:
            check_json(body)


def test_digits_in_strings_are_not_a_number() -> None:
    """A hash table of pi in a string is nobody's integer; a long number beside it still is one."""
    body = b'{"pi":"' + b"3" * 9000 + b'","n":1}'
    check_json(body)
    with pytest.raises(ProtocolError, match="digits"):
        check_json(body.replace(b":1}", b":" + b"1" * 1001 + b"}"))


@pytest.mark.parametrize(
    "token",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\u0041"',
        b'"\\udc00\\ud800"',
        b'"\\uD83D"',
    ],
)
def test_the_envelope_decoder_refuses_what_is_left_to_it(token: bytes) -> None:
    """NaN, infinities and lone surrogates, in what it skips as well: the module relies on it."""
    for kind in (object, msgspec.Raw, dict[str, msgspec.Raw]):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(b'{"a":[' + token + b"]}", type=kind)
    with pytest.raises(ProtocolError):
        decode_unique(b'{"a":[' + token + b"]}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1,"b":2,"a":3}',
        b'{ "a" : 1 , "a" : 2 }',
        b'{"a":1,"\\u0061":2}',
        b'{"\\u0061":1,"a":2}',
        b'{"\\/":1,"/":2}',
        b'{"":1,"":2}',
        b'[{"a":{"b":[{"c":1,"c":2}]}}]',
        b'{"x":{"a":1,"a":2},"x":{"a":1}}',
        b'{"a":":","a":"::"}',
        b'{"a":"\\"",":":1,"a":":"}',
        b'{"a":1.0,"a":1.00}',
        b'{"\xc3\xa9":1,"\\u00e9":2}',
        b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":2}',
    ],
)
def test_an_object_that_names_a_member_twice_is_refused(body: bytes) -> None:
    """At any depth, after unescaping: two parsers could each pick another one."""
    with pytest.raises(ProtocolError, match="twice"):
        decode_unique(body)
    with pytest.raises(ProtocolError, match="twice"):
        reject_duplicates(msgspec.Raw(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"A":2}',
        b'{"a":{"a":1},"b":{"a":1}}',
        b'[{"a":1},{"a":1}]',
        b'{"a" : "a\\":\\"a" , "b":1e5, "c":1.00, "d":12345678901234567890123}',
        b'{"\xc3\xa9":1,"e\xcc\x81":2}',
        b'{"a":":\\\\","b":"\\\\\\":"}',
        b" 1 ",
        b'":"',
        b'" : "',
    ],
)
def test_names_that_differ_are_left_alone(body: bytes) -> None:
    """Names compare exactly: case and composition make a difference."""
    assert decode_unique(body) == json.loads(body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1,]", b'"', b"\xff", b'"\xff"', b"1e999", b"nul", b"[" * 5000, b"{}x", b"1" * 5000]
)
def test_what_is_not_json_raises_a_protocol_error_and_nothing_else(body: bytes) -> None:
    """Truncated, trailing, deep and huge alike."""
    with pytest.raises(ProtocolError):
        decode_unique(body)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\[]{}:,1')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab":\\[{é', max_size=2), inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(value=JSON, is_ascii=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_the_bound_is_the_real_depth(value: object, is_ascii: bool, indent: int | None) -> None:
    """Passes at its own depth, refused at one less, however it is written; and is never taken for ambiguous."""
    body = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()
    depth = depth_of(value)
    check_json(body, max_depth=depth)
    if depth:
        with pytest.raises(ProtocolError):
            check_json(body, max_depth=depth - 1)
    again: Any = decode_unique(body)
    assert again == value or (isinstance(again, float) and math.isclose(again, value))  # type: ignore[arg-type]


MEMBERS = st.recursive(
    st.sampled_from(["1", '":"', '"\\""', "null", '"\\\\"', "[]", "{}"]),
    lambda inner: st.lists(
        st.tuples(st.sampled_from(['"a"', '"\\u0061"', '"b"', '":"', '"\\u003a"', '"\\""', '""']), inner), max_size=4
    ).map(lambda pairs: "{" + " ,".join(f"{name}: {value}" for name, value in pairs) + "}"),
    max_leaves=12,
)


@given(text=MEMBERS)
def test_repeated_members_are_found_as_a_plain_parser_finds_them(text: str) -> None:
    """Against the standard library, which can show every pair."""
    is_repeated = False

    def note(pairs: list[tuple[str, object]]) -> None:
        nonlocal is_repeated
        is_repeated = is_repeated or len({name for name, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=note)
    if is_repeated:
        with pytest.raises(ProtocolError, match="twice"):
            decode_unique(text.encode())
    else:
        assert decode_unique(text.encode()) == json.loads(text)


GARBAGE = st.binary() | st.lists(st.sampled_from([*'[]{}":,\\1', "é", "\\u00", "1" * 600]), max_size=60).map(
    lambda parts: "".join(parts).encode()
)


@given(body=GARBAGE, max_depth=st.integers(0, 8))
def test_garbage_gives_only_protocol_errors(body: bytes, max_depth: int) -> None:
    """And what the decoder takes for JSON is never deeper than the bound that it passed."""
    try:
        check_json(body, max_depth=max_depth)
        value = decode_unique(body)
    except ProtocolError:
        return
    assert depth_of(value) <= max_depth
