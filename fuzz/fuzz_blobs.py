"""Messages around one long string: read as the decoder reads the whole, or refused as it refuses the whole."""

from __future__ import annotations

import engine
import msgspec

with engine.instrumented():
    from gatewright.errors import ProtocolError
    from gatewright.protocol import blobs, jsonrpc

LONG = b"x" * blobs.LONG_BYTES
WORDS = (
    b"\0",
    b'"\0"',
    b'"',
    b"\\",
    b'\\"',
    b"\\\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"a":',
    b'"params":{"a":"\0"}',
    b'"result":{"a":"\0"}',
    b'"error":{"code":1,"message":"\0"}',
    b'"id":"\0"',
    b'"method":"m"',
    b" " * 70_000,
    b"\xff",
    b"\xc3\xa9",
)
_decode_directly = msgspec.json.Decoder(jsonrpc.Message).decode


def meaning(message: jsonrpc.Message) -> object:
    """What it says, comparable."""
    params = message.params
    return (
        message.id,
        message.method,
        None if isinstance(params, msgspec.UnsetType) else {name: bytes(value) for name, value in params.items()},
        None if isinstance(message.result, msgspec.UnsetType) else bytes(message.result),
    )


def check(data: bytes) -> None:
    """The members of a message, in which each NUL stands for a long run of letters."""
    body = b'{"jsonrpc":"2.0",' + data[:2_000].replace(b"\0", LONG, 3) + b"}"
    try:
        body.decode()
        direct = _decode_directly(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        direct = None
    try:
        read = jsonrpc.decode(body)
    except ProtocolError:
        both = direct is not None and not isinstance(direct.method, msgspec.UnsetType)
        assert direct is None or direct.jsonrpc != "2.0" or both
        return
    assert b"null" in body or (direct is not None and meaning(read) == meaning(direct))


if __name__ == "__main__":
    engine.run("blobs", check, WORDS)
