"""Known heads: recognised byte for byte or not at all."""

from __future__ import annotations

import pytest

from gatewright.inbound.known_heads import KnownHeads

HEAD = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX: y\r\n\r\n"
FIELDS = {b"host": b"a", b"x": b"y"}
MAX_BODY_BYTES = 1_000


def _taught(*raws: bytes) -> KnownHeads:
    heads = KnownHeads()
    for raw in raws or (HEAD % 3 + b"abc",):
        for _ in range(200):  # long enough for the least patient
            heads.learn(raw, "POST", "/mcp", b"q", FIELDS)
    return heads


@pytest.mark.parametrize("body", [b"", b"x", b"abc", b"\r\n\r\n", b"x" * 1_000])
def test_a_repeated_head_is_recognised_whatever_the_body(body: bytes) -> None:
    """Only the digits and the body may differ."""
    found = _taught().match(HEAD % len(body) + body, MAX_BODY_BYTES)
    assert found is not None
    known, at, missing = found
    assert (known.method, known.path, known.query, known.fields) == ("POST", "/mcp", b"q", FIELDS)
    assert (at, missing) == (len(HEAD % len(body)), 0)


@pytest.mark.parametrize("came", [0, 1, 299])
def test_the_first_piece_of_a_request_says_how_much_is_missing(came: int) -> None:
    """Once the head is whole."""
    head = HEAD % 300
    found = _taught().match(head + b"x" * came, MAX_BODY_BYTES)
    assert found is not None
    assert found[1:] == (len(head), 300 - came)
    assert _taught().match(head[:-1], MAX_BODY_BYTES) is None


def test_a_request_in_pieces_teaches_its_head() -> None:
    """The head alone is given, and how much came behind it: no more and no less than it says."""
    for missing, is_taught in ((3, True), (2, False), (4, False)):
        heads = KnownHeads()
        for _ in range(2):
            heads.learn(HEAD % 3, "POST", "/mcp", b"", FIELDS, missing)
        assert (heads.match(HEAD % 1 + b"x", MAX_BODY_BYTES) is not None) is is_taught


@pytest.mark.parametrize(
    "raw",
    [
        HEAD % 3 + b"abcd",
        HEAD % 1_001 + b"x" * 1_001,
        HEAD % 1_001,
        HEAD.replace(b"%d", b"") + b"abc",
        HEAD.replace(b"%d", b"+3") + b"abc",
        HEAD.replace(b"%d", b"3 ") + b"abc",
        HEAD.replace(b"%d", b"0x3") + b"abc",
        HEAD.replace(b"%d", b"\xb3") + b"abc",
        HEAD.replace(b"%d", b"000000003") + b"abc",
        HEAD.replace(b"X: y", b"X: z") % 3 + b"abc",
        HEAD.replace(b"X: y", b"X: y\r\nZ: z") % 3 + b"abc",
        HEAD.replace(b"\r\nX: y", b"") % 3 + b"abc",
        HEAD.replace(b"POST", b"post") % 3 + b"abc",
        b"",
    ],
)
def test_anything_else_is_left_to_the_parser(raw: bytes) -> None:
    """One byte is enough."""
    assert _taught().match(raw, MAX_BODY_BYTES) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n\r\n" + HEAD % 3 + b"abc",
        HEAD % 3 + b"abc\r\n",
        HEAD.replace(b"X: y", b"X: " + b"y" * 5_000) % 3 + b"abc",
        HEAD.replace(b"%d", b"3 ") + b"abc",
    ],
    ids=["no length", "chunked", "empty line before", "empty line behind", "long", "space behind the length"],
)
def test_what_cannot_be_told_apart_by_its_bytes_is_not_learned(raw: bytes) -> None:
    """It goes through the parser every time."""
    assert _taught(raw).match(raw, MAX_BODY_BYTES) is None


def test_the_first_request_of_a_connection_is_not_learned() -> None:
    """It may be the only one."""
    heads = KnownHeads()
    raw = HEAD % 3 + b"abc"
    heads.learn(raw, "POST", "/mcp", b"", FIELDS)
    assert heads.match(raw, MAX_BODY_BYTES) is None
    heads.learn(raw, "POST", "/mcp", b"", FIELDS)
    assert heads.match(raw, MAX_BODY_BYTES) is not None


def test_a_few_heads_are_known_and_the_oldest_is_forgotten() -> None:
    """Memory per connection is bounded."""
    raws = [HEAD.replace(b"/mcp", b"/%d" % number) % 3 + b"abc" for number in range(5)]
    heads = KnownHeads()
    for raw in raws:
        while heads.match(raw, MAX_BODY_BYTES) is None:
            heads.learn(raw, "POST", "/mcp", b"", FIELDS)
    assert [heads.match(raw, MAX_BODY_BYTES) is not None for raw in raws] == [False, True, True, True, True]


def test_a_client_whose_heads_never_repeat_is_looked_at_less_but_not_never() -> None:
    """Learning costs more than parsing saves, then; when it changes its ways, that is noticed."""
    heads = KnownHeads()
    for number in range(1_000):
        heads.learn(HEAD.replace(b"X: y", b"X: %d" % number) % 3 + b"abc", "POST", "/mcp", b"", FIELDS)
    raw = HEAD % 3 + b"abc"
    tries = 0
    while heads.match(raw, MAX_BODY_BYTES) is None and tries < 1_000:
        heads.learn(raw, "POST", "/mcp", b"", FIELDS)
        tries += 1
    assert tries <= 65
