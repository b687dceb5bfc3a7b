"""Wire types: a value reads as a type or raises ProtocolError, and what was read reads the same once written."""

from __future__ import annotations

import engine

with engine.instrumented():
    import msgspec

    from gatewright.errors import ProtocolError
    from gatewright.protocol import types

KINDS = {
    name.encode(): kind for name, kind in vars(types).items() if isinstance(kind, type) and issubclass(kind, types.Wire)
}
NAMES = sorted({name for kind in KINDS.values() for name in kind.__struct_encode_fields__})
WORDS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"null",
    b"1",
    b"1.5",
    b"true",
    b'"x"',
    b'"info"',
    b'"public"',
    *KINDS,
    *(f'"{name}":'.encode() for name in NAMES),
)


def check(data: bytes) -> None:
    """The first line names the type, the rest is the value."""
    name, _, value = data.partition(b"\n")
    kind = KINDS.get(name) or list(KINDS.values())[len(name) % len(KINDS)]
    try:
        kept = types.keep(msgspec.Raw(value), kind)
    except ProtocolError:
        return
    written = msgspec.json.encode(kept.value)
    again = types.keep(msgspec.Raw(written), kind)
    assert msgspec.json.encode(again.value) == written


if __name__ == "__main__":
    engine.run("types", check, WORDS)
