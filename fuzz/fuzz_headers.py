"""Mirrored headers: a value decodes unambiguously or is refused; a schema compiles to what it then accepts, or not."""

from __future__ import annotations

import engine

with engine.instrumented():
    import msgspec

    from gatewright.errors import ProtocolError
    from gatewright.protocol.headers import (
        InvalidAnnotation,
        agrees,
        compile_params,
        decode_value,
        encode_value,
        mentions_param_headers,
    )

WORDS = (
    b"=?base64?",
    b"?=",
    b"SGk=",
    b"=",
    b"=?",
    b"42.0",
    b"-0",
    b"1e3",
    b"true",
    b'"x-mcp-header":"A"',
    b'"type":"string"',
    b'"properties":{"a":',
    b'"items":',
    b'"anyOf":[',
    b'"$defs":{',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\u0078",
    b"\t",
)


def check(data: bytes) -> None:
    """The input is a header value, and a JSON array of a schema and arguments."""
    check_value(data)
    try:
        schema, arguments = msgspec.json.decode(data, type=tuple[object, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    try:
        compiled = compile_params(schema)
    except InvalidAnnotation:
        return
    assert not compiled.params or mentions_param_headers(data)
    wire = {name.lower(): value for name, value in compiled.fields(arguments)}
    assert compiled.check(arguments, wire) is None


def check_value(data: bytes) -> None:
    """Round trip, and no agreement with anything for what does not decode."""
    try:
        value = decode_value(data)
    except ProtocolError:
        assert not agrees(data, data.decode("latin-1"))
        return
    again = encode_value(value)
    assert decode_value(again) == value
    assert agrees(data, value)
    assert agrees(again, value)
    assert not agrees(data, value + " ")
    assert all(0x20 <= byte <= 0x7E for byte in again)


if __name__ == "__main__":
    engine.run("headers", check, WORDS)
