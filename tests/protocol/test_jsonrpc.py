"""The JSON-RPC envelope: what is read, what is refused and with which error, and that nothing else escapes."""

from __future__ import annotations

import ast
import itertools
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types.jsonrpc import jsonrpc_message_adapter
from msgspec import UNSET, Raw
from pydantic import ValidationError

import gatewright
from gatewright.call import Failure, Result
from gatewright.errors import ClientError, InvalidParams, InvalidRequest, ParseError, ProtocolError
from gatewright.protocol import depth, jsonrpc
from protocol.json_corpus import ACCEPTED, REFUSED

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
IDS = st.integers() | st.text()
CODES = st.integers(-(2**53), 2**53)


def text(value: object) -> bytes:
    """A value as some writer might write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def parsed(body: bytes | Raw) -> Any:
    """What another parser reads."""
    return json.loads(bytes(body))


def admitted(body: bytes) -> jsonrpc.Message:
    """A client's body the way the endpoint reads it."""
    depth.check_json(body)
    return jsonrpc.decode_request(body)


# --- what a client sends


def test_a_request_is_read_with_its_inside_left_as_bytes() -> None:
    """The members of params by name, each as it was written."""
    message = jsonrpc.decode_request(b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":  {"y" : 1} ,"z":1.50}}')
    assert (message.id, message.method) == ("a", "m")
    assert message.params is not UNSET
    assert {key: bytes(value) for key, value in message.params.items()} == {"x": b'{"y" : 1}', "z": b"1.50"}


REFUSALS: list[tuple[bytes, type[ClientError]]] = [
    (b'{"id":1,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"1.0","id":1,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":2.0,"id":1,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":null,"id":1,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":null,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1.0,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1e2,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1e400,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":true,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":[1],"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":{"a":1},"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":1}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":null}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":["m"]}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1}', InvalidRequest),
    (b'{"jsonrpc":"2.0","ID":1,"Method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"Method":"m","Params":{}}', InvalidRequest),
    (b'{"JSONRPC":"2.0","id":1,"method":"m"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","result":{}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","result":0}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","error":{"code":1,"message":"x"}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":null}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":{}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":"no"}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"x"}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":"x"}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":"x"}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","id":null,"result":{}}', InvalidRequest),
    (b'{"jsonrpc":"2.0","result":{}}', InvalidRequest),
    (b"null", InvalidRequest),
    (b"1", InvalidRequest),
    (b'"m"', InvalidRequest),
    (b"[]", InvalidRequest),
    (b'[{"jsonrpc":"2.0","id":1,"method":"m"}]', InvalidRequest),
    (b"{}", InvalidRequest),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":[]}', InvalidParams),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":[1,2]}', InvalidParams),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":"x"}', InvalidParams),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":false}', InvalidParams),
    (b'{"jsonrpc":"2.0","id":1,"method":"m"} x', ParseError),
    (b'{"jsonrpc":"2.0","id":1,"method":"m"', ParseError),
    (b'{"jsonrpc":"2.0","id":"\\ud800","method":"m"}', ParseError),
]


@pytest.mark.parametrize(("body", "error"), REFUSALS, ids=[str(body[:70]) for body, _ in REFUSALS])
def test_what_is_no_message_is_refused_with_the_error_that_says_what_to_mend(
    body: bytes, error: type[ClientError]
) -> None:
    """JSON-RPC 2.0: -32700 for what is no JSON, -32600 for what is no request, -32602 for params of another form."""
    with pytest.raises(ClientError) as refused:
        jsonrpc.decode_request(body)
    assert type(refused.value) is error


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":null}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":null,"result":null,"error":null}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","result":null}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","error":null}',
    ],
)
def test_a_null_member_counts_as_absent(body: bytes) -> None:
    """Many writers cannot leave a member out, and the official SDK takes these too."""
    jsonrpc_message_adapter.validate_json(body)
    for message in (jsonrpc.decode_request(body), jsonrpc.decode(body)):
        assert (message.id, message.method) == (1, "m")
        assert (message.params, message.result, message.error) == (UNSET, UNSET, UNSET)


def test_an_answer_with_a_null_in_the_other_member_is_an_answer() -> None:
    """As JSON-RPC 1.0 writers still send it."""
    success = jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"result":{"a":1},"error":null}')
    assert isinstance(answer := jsonrpc.answer_of(success), Result)
    assert bytes(answer.value) == b'{"a":1}'
    failed = jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":-1,"message":"no"}}')
    assert jsonrpc.answer_of(failed) == Failure(-1, "no")


def test_of_two_members_with_one_name_the_last_counts_and_only_it_is_forwarded() -> None:
    """Whatever a first-wins parser behind would have read never leaves."""
    body = b"""{"jsonrpc":"2.0","id":1,"id":2,"method":"evil","method":"good",
        "params":{"name":"evil"},"params":{"name":"bad","name":"good"}}"""
    message = jsonrpc.decode_request(body)
    assert (message.id, message.method) == (2, "good")
    assert isinstance(message.id, int)
    assert isinstance(message.method, str)
    assert jsonrpc.salvage_id(body) == 2
    forwarded = jsonrpc.request(message.id, message.method, message.params)
    assert b"evil" not in forwarded
    assert b"bad" not in forwarded
    assert parsed(forwarded) == {"jsonrpc": "2.0", "id": 2, "method": "good", "params": {"name": "good"}}


def test_members_that_differ_in_case_are_other_members() -> None:
    """CVE-2026-27896: a parser that folds case must find nothing to fold, because only what was read is forwarded."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"good","Method":"evil","METHOD":"evil","Params":{"name":"evil"}}'
    message = jsonrpc.decode_request(body)
    assert message.method == "good"
    assert message.params is UNSET


@pytest.mark.parametrize("request_id", [0, -1, 2**53 + 1, 2**63, 2**64, -(2**80), 10**999, "", "1", "\u0000", "\u4e16"])
def test_an_id_comes_back_as_it_was(request_id: int | str) -> None:
    """However large: JSON bounds no integer, and a client may count in any."""
    body = text({"jsonrpc": "2.0", "id": request_id, "method": "m"})
    message = admitted(body)
    assert message.id == request_id
    assert isinstance(message.id, (int, str))
    assert jsonrpc.salvage_id(body) == request_id
    assert parsed(jsonrpc.result(message.id, b"{}"))["id"] == request_id
    assert parsed(jsonrpc.error(message.id, Failure(1, "x")))["id"] == request_id


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"1", b'{"id":1.0}', b'{"id":true}', b'{"id":null}', b'{"id":[1]}', b'{"id":1'],
)
def test_an_id_that_cannot_be_echoed_is_not(body: bytes) -> None:
    """The error that answers it then carries none (2026-07-28, basic/index)."""
    assert jsonrpc.salvage_id(body) is None
    assert "id" not in parsed(jsonrpc.error(None, Failure(-32700, "x")))


# --- THREATS B-2: every text in every position of a message

POSITIONS = {
    "the body": b"%b",
    "params": b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}',
    "within params": b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"a":[%b]}}}',
    "an unknown member": b'{"jsonrpc":"2.0","id":1,"method":"m","x":%b}',
    "the id": b'{"jsonrpc":"2.0","id":%b,"method":"m"}',
    "a result": b'{"jsonrpc":"2.0","id":1,"result":%b}',
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("value", REFUSED, ids=[f"{i}-{value[:24]!r}" for i, value in enumerate(REFUSED)])
def test_what_is_no_json_is_refused_wherever_it_stands(value: bytes, position: str) -> None:
    """By the bounds or by the decoder, with nothing but their own errors; never carried further."""
    body = POSITIONS[position] % value
    with pytest.raises((ProtocolError, ClientError)):
        admitted(body)


@pytest.mark.parametrize("position", ["within params", "an unknown member", "a result"])
@pytest.mark.parametrize("value", ACCEPTED, ids=[f"{i}-{value[:24]!r}" for i, value in enumerate(ACCEPTED)])
def test_json_however_odd_is_carried_as_it_is(value: bytes, position: str) -> None:
    """Where nobody here reads it."""
    body = POSITIONS[position] % value
    message = admitted(body)
    if message.params is not UNSET:
        assert value.strip(b" \t\r\n") in bytes(message.params["arguments"])
    if message.result is not UNSET:
        assert bytes(message.result) == value.strip(b" \t\r\n")


@given(st.sampled_from([*POSITIONS.values()]), JSON.map(text), st.data())
def test_the_verdict_on_broken_json_is_another_parsers_too(position: bytes, value: bytes, data: st.DataObject) -> None:
    """Differential: what is carried here, a strict parser behind (orjson) reads as well."""
    at = data.draw(st.integers(0, len(value)))
    cut = data.draw(st.integers(at, min(len(value), at + 2)))
    body = position % (value[:at] + data.draw(st.binary(max_size=2)) + value[cut:])
    try:
        admitted(body)
    except (ProtocolError, ClientError):
        return
    orjson.loads(body)


# --- what a backend sends


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"\xff":1}}',
        b'{"jsonrpc":"2.0","method":"m","params":{"a\xff":1}}',
        b'{"jsonrpc":"2.0","method":"m","params":{"a":["\xed\xa0\x80"]}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x","data":"\xc3"}}',
        b'{"jsonrpc":"2.0","id":1,"x":"\xff","result":{}}',
    ],
)
def test_a_backends_message_that_is_not_utf8_goes_no_further(body: bytes) -> None:
    """Wherever the bytes stand: a client must get UTF-8 (basic/index)."""
    with pytest.raises(ProtocolError, match="UTF-8"):
        jsonrpc.decode(body)


@pytest.mark.parametrize("depth_levels", [2_000, 100_000])
def test_a_backends_nesting_bomb_is_a_protocol_error(depth_levels: int) -> None:
    """Without a RecursionError."""
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        bomb = opening * depth_levels + b"1" + closing * depth_levels
        with pytest.raises(ProtocolError):
            jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"result":%b}' % bomb)
        with pytest.raises(ProtocolError):
            jsonrpc.members(b'{"a":%b}' % bomb)
        with pytest.raises(ParseError):
            jsonrpc.decode_batch(b"[%b]" % bomb)


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": IDS | JSON,
        "method": st.text() | JSON,
        "params": OBJECTS | JSON,
        "result": OBJECTS | JSON,
        "error": st.fixed_dictionaries({"code": CODES, "message": st.text()}) | JSON,
    },
)


@given(MEMBERS.map(text) | st.binary() | JSON.map(text))
def test_garbage_raises_only_documented_errors(body: bytes) -> None:
    """From every function that reads a peer's bytes."""
    try:
        message = jsonrpc.decode(body)
    except ProtocolError:
        pass
    else:
        try:
            jsonrpc.answer_of(message)
        except ProtocolError:
            assert message.result is UNSET or message.error is not UNSET
    for read in (jsonrpc.decode_request, jsonrpc.decode_batch):
        with suppress(ParseError, InvalidRequest, InvalidParams):
            read(body)
    assert jsonrpc.salvage_id(body) is None or isinstance(jsonrpc.salvage_id(body), (int, str))
    with suppress(ProtocolError):
        jsonrpc.members(body)


ABSENT = object()
CHOICES: dict[str, list[object]] = {
    "jsonrpc": ["2.0", "1.0", ABSENT],
    "id": [1, "a", 1.5, True, None, [], ABSENT],
    "method": ["m", "", 1, None, ABSENT],
    "params": [{}, {"a": 1}, [], "x", None, ABSENT],
    "result": [{}, [], None, ABSENT],
    "error": [{"code": -1, "message": "x"}, {"code": -1}, {"code": "1", "message": "x"}, {}, None, ABSENT],
}


def is_ours_alone(members: dict[str, Any]) -> bool:
    """What is read here and not by the SDK: all of them answers, judged once their call is known so that a backend's
    slip costs that call and not the link. A result that is no object; an error without a message, or with a result."""
    return "method" not in members and ("error" in members or not isinstance(members.get("result"), dict))


def is_sdks_alone(members: dict[str, Any]) -> bool:
    """What the SDK reads and we do not: a call that is an answer too, a null id, members of a type that the SDK takes
    for something else or skips in a message of another kind."""
    is_both = "method" in members and any(members.get(name) is not None for name in ("result", "error"))
    is_odd_id = not isinstance(members.get("id", 1), (int, str)) or isinstance(members.get("id"), bool)
    is_odd_elsewhere = not isinstance(members.get("params", {}), (dict, type(None))) or (
        "method" in members and not isinstance(members["method"], str)
    )
    is_odd_error = isinstance(members.get("error"), dict) and not isinstance(members["error"].get("code"), int)
    return is_both or is_odd_id or is_odd_elsewhere or is_odd_error


def test_messages_are_those_of_the_official_sdk() -> None:
    """Differential, over every combination of members present, absent, null and of a wrong type."""
    agreed = 0
    for values in itertools.product(*CHOICES.values()):
        members: dict[str, Any] = {
            name: value for name, value in zip(CHOICES, values, strict=True) if value is not ABSENT
        }
        body = text(members)
        try:
            jsonrpc.decode_request(body)
            is_ours = True
        except ClientError:
            is_ours = False
        try:
            jsonrpc_message_adapter.validate_json(body)
            is_sdks = True
        except ValidationError:
            is_sdks = False
        if is_ours and not is_sdks:
            assert is_ours_alone(members), members
        elif is_sdks and not is_ours:
            assert is_sdks_alone(members), members
        else:
            agreed += is_ours
    assert agreed > 50


# --- what we send


@given(IDS, st.text(), OBJECTS)
def test_a_request_reads_back(request_id: int | str, method: str, params: dict[str, Any]) -> None:
    """Round trip, undecoded members included."""
    message = jsonrpc.decode(jsonrpc.request(request_id, method, jsonrpc.members(text(params))))
    assert (message.id, message.method) == (request_id, method)
    assert message.params is not UNSET
    assert parsed(jsonrpc.raw(message.params)) == parsed(text(params))
    assert jsonrpc.encode_id(request_id) == jsonrpc.encode(request_id)


@given(st.text(), OBJECTS)
def test_a_notification_reads_back(method: str, params: dict[str, Any]) -> None:
    """It has no id."""
    message = jsonrpc.decode(jsonrpc.notification(method, text(params)))
    assert (message.id, message.method) == (UNSET, method)
    assert message.params is not UNSET
    assert parsed(jsonrpc.raw(message.params)) == parsed(text(params))


@given(IDS, JSON)
def test_a_result_reads_back_byte_for_byte(request_id: int | str, value: object) -> None:
    """The value is copied, never rebuilt."""
    body = text(value)
    for given_value in (body, Raw(body)):
        message = jsonrpc.decode(jsonrpc.response(request_id, Result(given_value)))
        assert message.id == request_id
        answer = jsonrpc.answer_of(message)
        assert isinstance(answer, Result)
        assert bytes(answer.value) == body


@given(IDS, CODES, st.text(), st.none() | JSON.filter(lambda value: value is not None))
def test_an_error_reads_back(request_id: int | str, code: int, message: str, data: object) -> None:
    """Code, message and data; no data is no member."""
    failure = Failure(code, message, None if data is None else jsonrpc.raw(data))
    body = jsonrpc.response(request_id, failure)
    answer = jsonrpc.answer_of(jsonrpc.decode(body))
    assert isinstance(answer, Failure)
    assert (answer.code, answer.message) == (code, message)
    assert (answer.data is None) == (data is None) == ("data" not in parsed(body)["error"])
    if answer.data is not None:
        assert parsed(answer.data) == parsed(text(data))


def test_data_that_is_null_is_still_data() -> None:
    """Absent and null differ, and pass through as they are."""
    failure = jsonrpc.answer_of(jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":null}}'))
    assert isinstance(failure, Failure)
    assert failure.data is not None
    assert parsed(jsonrpc.error(1, failure))["error"]["data"] is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"error":null}',
    ],
)
def test_an_answer_is_a_result_or_an_error_and_not_both(body: bytes) -> None:
    """JSON-RPC 2.0, "Response object"."""
    with pytest.raises(ProtocolError):
        jsonrpc.answer_of(jsonrpc.decode(body))


def test_a_batch_is_split_undecoded() -> None:
    """Each message as it was written."""
    assert [bytes(one) for one in jsonrpc.decode_batch(b'[ {"a" : 1} ,2, [3]]')] == [b'{"a" : 1}', b"2", b"[3]"]


@pytest.mark.parametrize("body", [b"{}", b"1", b"", b"[1", b"[1]x"])
def test_what_is_no_array_is_no_batch(body: bytes) -> None:
    """-32700, as for any other text."""
    with pytest.raises(ParseError):
        jsonrpc.decode_batch(body)


def test_no_decoded_struct_has_an_optional_raw_member() -> None:
    """msgspec never fills `Raw | None`: it refuses every value but null. Such members belong to our own values only."""

    class Wrong(msgspec.Struct):
        value: Raw | None = None

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"value":{}}', type=Wrong)
    for path in sorted(Path(gatewright.__path__[0]).rglob("*.py")):
        tree = ast.parse(path.read_text())
        decoded = {
            ast.unparse(call)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and "Decoder" in ast.unparse(call)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(re.search(rf"\b{node.name}\b", call) for call in decoded):
                for member in node.body:
                    if isinstance(member, ast.AnnAssign):
                        parts = {part.strip() for part in ast.unparse(member.annotation).split("|")}
                        assert "None" not in parts or not parts & {"Raw", "msgspec.Raw", "Json"}, (path.name, node.name)
