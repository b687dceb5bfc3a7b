"""JSON bounds: only ProtocolError, and what passes is shallow and unambiguous for the standard library."""

from __future__ import annotations

import json

import engine

with engine.instrumented():
    from gatewright.errors import ProtocolError
    from gatewright.protocol.depth import check_json, decode_unique

WORDS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b'"a":',
    b'"\\u0061":',
    b"\\",
    b'\\"',
    b"\\\\",
    b"1" * 1001,
    b"1e9",
    b"null",
    b"NaN",
    b"\\ud800",
    b"\xc3\xa9",
    b"\xff",
    b"[[[[",
    b"]]]]",
    b'{"a":',
)


def depth_of(value: object) -> int:
    """How deep a decoded value nests."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def check(data: bytes) -> None:
    """The first byte chooses the depth, the rest is the body."""
    max_depth, body = (data[:1] or b"\0")[0] % 24, data[1:]
    repeated: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            repeated.append("member")
        return members

    try:
        check_json(body, max_depth=max_depth)
        is_bounded = True
    except ProtocolError:
        is_bounded = False
    try:
        value = decode_unique(body)
    except ProtocolError:
        return
    assert json.loads(body, object_pairs_hook=note) == value or "e" in body.decode() or "E" in body.decode()
    assert not repeated
    if is_bounded:
        assert depth_of(value) <= max_depth
    elif depth_of(value) <= max_depth:
        assert b"1" * 1001 in body or any(len(run) > 1000 for run in body.translate(None, b"-+.eE").split())


if __name__ == "__main__":
    engine.run("depth", check, WORDS)
