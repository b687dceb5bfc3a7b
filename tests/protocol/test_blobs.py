"""Long plain strings: a message is read as if nothing had been cut, or the decoder reads it whole."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from gatewright.errors import GatewayError, ProtocolError
from gatewright.protocol import blobs, jsonrpc

LONG = "x" * blobs.LONG_BYTES
_decode_directly = msgspec.json.Decoder(jsonrpc.Message).decode


def request(params: object) -> bytes:
    """A request that holds them."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def same(message: jsonrpc.Message, body: bytes) -> bool:
    """Whether it is what the decoder makes of the whole."""
    direct = _decode_directly(body)
    params = {} if direct.params is UNSET else {name: bytes(value) for name, value in direct.params.items()}
    read = {} if message.params is UNSET else {name: bytes(value) for name, value in message.params.items()}
    results = [one.result if isinstance(one.result, type(UNSET)) else bytes(one.result) for one in (message, direct)]
    return (message.id, message.method, read) == (direct.id, direct.method, params) and results[0] == results[1]


@pytest.mark.parametrize(
    "params",
    [
        {"name": "n", "arguments": {"text": LONG}},
        {"arguments": {"a": [{"b": LONG}, 1, "c"], "d": '"'}, "name": "n"},
        {"name": LONG},
        {"name": "n", "arguments": {LONG: 1}},
        {"name": 'quoted \\" here', "arguments": {"text": "y" + LONG}},
    ],
    ids=["argument", "deep", "name", "key", "escapes before"],
)
def test_a_long_plain_string_is_cut_and_put_back(params: object) -> None:
    """Wherever in the parameters it stands."""
    body = request(params)
    found = blobs.cut(body)
    assert found is not None
    assert len(found[0]) < 400
    assert same(jsonrpc.decode_request(body), body)
    assert same(jsonrpc.decode(body), body)


def test_a_long_result_is_read() -> None:
    """As an answer's, with nothing lost around it."""
    body = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"text":"%b"}],"isError":false}}' % LONG.encode()
    assert blobs.cut(body) is not None
    message = jsonrpc.decode(body)
    assert same(message, body)
    answer = jsonrpc.answer_of(message)
    assert bytes(getattr(answer, "value", b"")) == body[body.index(b'{"content') : -1]


@pytest.mark.parametrize("byte", range(256))
def test_what_is_not_plain_is_the_decoders(byte: int) -> None:
    """Every byte in the middle of it: the verdict is the decoder's own, and nothing but plain ASCII is cut."""
    text = LONG.encode()
    body = request({"a": "MARK"}).replace(b"MARK", text + bytes([byte]) + text)
    is_plain = 0x20 <= byte < 0x7F + 1 and byte not in b'"\\'
    if byte != ord('"'):
        assert (blobs.cut(body) is not None) is is_plain
    try:
        expected = bool(_decode_directly(body)) and bool(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError):
        expected = False
    if expected:
        assert same(jsonrpc.decode(body), body)
    else:
        with pytest.raises(ProtocolError):
            jsonrpc.decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"b"' + b" " * 80_000 + b',"c":"d"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[' + b"1," * 40_000 + b'1],"c":"d"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","unread":"%b"}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"%b"}}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"%b"},"params":{"a":"b"}}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"b"},"params":{"c":"%b"}}' % LONG.encode(),
        '{"jsonrpc":"2.0","id":1,"method":"m","params":{"\u00e9":"'.encode() + LONG.encode() + b'"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":"%b","method":"m"}' % LONG.encode(),
    ],
    ids=["spaces", "numbers", "unread", "error", "first of two", "last of two", "not ASCII", "method", "id"],
)
def test_what_stands_elsewhere_is_read_all_the_same(body: bytes) -> None:
    """Long stretches outside strings, strings that nobody reads, members that are named twice."""
    assert same(jsonrpc.decode(body), body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"%b"' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"b"%b"c"}}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"\xff":"%b"}}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xff","b":"%b"}}' % LONG.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":["%b"]}' % LONG.encode(),
        b'"%b"' % LONG.encode(),
        LONG.encode(),
        b'"' * 80_000,
    ],
    ids=["unfinished", "between strings", "key", "not UTF-8", "array", "string", "nothing", "quotes"],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """As it is without a look at its strings."""
    with pytest.raises(ProtocolError):
        jsonrpc.decode(body)
    with pytest.raises((GatewayError, ProtocolError)):
        jsonrpc.decode_request(body if body.isascii() else b"")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from([LONG, LONG + '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.booleans(), st.data())
def test_every_message_means_what_the_decoder_says(
    params: dict[str, object], is_ascii: bool, data: st.DataObject
) -> None:
    """Whole, and damaged in one place: the same message, or a refusal where the decoder refuses."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}
    body = json.dumps(message, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    at = data.draw(st.integers(body.index(b'"params": ') + 10, len(body)))
    damage = data.draw(st.sampled_from([None, b"", b'"', b"\\", b"\n", b"\xff", b"}"]))
    if damage is not None:
        body = body[:at] + damage + body[at + 1 :]
    try:
        body.decode()
        _decode_directly(body)
        is_message = True
    except (msgspec.DecodeError, UnicodeDecodeError):
        is_message = False
    if is_message:
        assert same(jsonrpc.decode(body), body)
        return
    try:  # null members count as absent, which the decoder alone does not know
        jsonrpc.decode(body)
    except ProtocolError:
        return
    assert b"null" in body


def test_a_part_that_nothing_was_cut_from_is_left_alone() -> None:
    """It has no mark."""
    found = blobs.cut(request({"a": LONG}))
    assert found is not None
    assert blobs.restored(Raw(b'{"b":1}'), found[1]) is None
