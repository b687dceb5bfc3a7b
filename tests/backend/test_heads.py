"""Known heads: what is recognised is exactly what the parser would have taken."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.backend.heads import EAGER, SELDOM, KnownHead

MAX_BYTES = 1000
HEAD = b"HTTP/1.1 200 OK\r\nDate: Fri\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n"


def learnt(data: bytes, body_bytes: int) -> KnownHead:
    """A head seen once."""
    known = KnownHead()
    known.learn(data, body_bytes, {b"content-length": b"%d" % body_bytes, b"content-type": b"application/json"})
    return known


def body_of(known: KnownHead, data: bytes) -> bytes | None:
    """The body that is recognised, if all of it is there."""
    at, missing = known.body_in(data, MAX_BYTES)
    return data[at:] if at and not missing else None


class Parsed:
    """What the parser says of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.messages = 0
        self.is_kept = False
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.messages = -1

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.messages += 1
        self.is_kept = self._parser.should_keep_alive()


def test_nothing_is_known_at_first() -> None:
    """Not even what would fit any head."""
    for data in (b"", b"\0", b"\0\r\0", b"\0\r\n\r\n", HEAD % 1 + b"x"):
        assert KnownHead().body_in(data, MAX_BYTES) == (0, 0)


def test_the_same_head_with_another_length_is_known() -> None:
    """The body is whatever the length says, and the fields come without it."""
    known = learnt(HEAD % 3 + b"abc", 3)
    assert body_of(known, HEAD % 3 + b"xyz") == b"xyz"
    assert body_of(known, HEAD % 12 + b"x" * 12) == b"x" * 12
    assert known.headers == {b"content-type": b"application/json"}


def test_the_first_piece_of_an_answer_says_how_much_is_missing() -> None:
    """Once its head is whole; what is longer than it may be is not begun."""
    known = learnt(HEAD % 3 + b"abc", 3)
    head = HEAD % 12
    assert known.body_in(head, MAX_BYTES) == (len(head), 12)
    assert known.body_in(head + b"x" * 11, MAX_BYTES) == (len(head), 1)
    for data in (head[:-1], HEAD % 1001 + b"x", head + b"x" * 13):
        assert known.body_in(data, MAX_BYTES) == (0, 0)


@pytest.mark.parametrize(
    "data",
    [
        HEAD % 3 + b"ab",
        HEAD % 3 + b"abcd",
        HEAD % 3,
        HEAD % 1001 + b"x" * 1001,
        (HEAD % 3 + b"abc").replace(b"Fri", b"Sat"),
        (HEAD % 3 + b"abc").replace(b"200", b"500"),
        (HEAD % 3 + b"abc").replace(b": 3", b": +3"),
        (HEAD % 3 + b"abc").replace(b": 3", b": 3 "),
        (HEAD % 3 + b"abc").replace(b": 3", b": "),
        (HEAD % 3 + b"abc").replace(b": 3", b": 3, 3"),
        (HEAD % 3 + b"abc").replace(b": 3", ": ٣".encode()),
        (HEAD % 3 + b"abc").replace(b": 3", b": 00000000003"),
        (HEAD % 3 + b"abc").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        (HEAD % 3 + b"abc") * 2,
    ],
    ids=lambda data: repr(data[-30:]),
)
def test_anything_else_is_the_parsers(data: bytes) -> None:
    """Another length than there are bytes, another head, digits that are none, a body that is too long."""
    assert body_of(learnt(HEAD % 3 + b"abc", 3), data) is None


def test_only_one_whole_answer_teaches() -> None:
    """Not two, not an informational head before it, not one without a length."""
    early = b"HTTP/1.1 100 Continue\r\n\r\n"
    for data, body_bytes in ((HEAD % 3 + b"abc" + HEAD % 3 + b"abc", 3), (early + HEAD % 3 + b"abc", 3)):
        assert body_of(learnt(data, body_bytes), data) is None
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert body_of(learnt(chunked, 3), chunked) is None


def test_heads_that_never_repeat_are_learnt_seldom() -> None:
    """A new id in every head costs little; a head that came to stay is learnt soon."""
    known = KnownHead()
    for number in range(EAGER):
        known.learn(HEAD.replace(b"Fri", b"%d" % number) % 1 + b"x", 1, {})
    last = HEAD.replace(b"Fri", b"last") % 1 + b"x"
    asked = 0
    while body_of(known, last) is None:
        known.learn(last, 1, {})
        asked += 1
    assert asked == SELDOM


LINES = st.sampled_from(
    [
        *(b"date: x", b"content-length: 3", b"Content-Length:3", b"content-length: 12", b"x-content-length: 3"),
        *(b"connection: close", b"connection: keep-alive", b"transfer-encoding: chunked", b"x: content-length: 9"),
    ]
)
HEADS = st.lists(LINES, max_size=5).map(lambda lines: b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))
BODIES = st.sampled_from([b"", b"abc", b"abc\r\n\r\n", b"x" * 12, b"3\r\nabc\r\n0\r\n\r\n"])


@given(HEADS, BODIES, st.lists(st.tuples(HEADS, BODIES), max_size=4))
def test_what_is_recognised_is_what_the_parser_takes(
    head: bytes, body: bytes, others: list[tuple[bytes, bytes]]
) -> None:
    """Whatever was learnt from a message that the parser took for one whole 200 on an open connection."""
    first = Parsed(head + body)
    if first.messages != 1 or not first.is_kept:
        return
    known = learnt(head + body, len(first.body))
    for other_head, other_body in [(head, body), (head, b"0123456789ab"), *others]:
        recognised = body_of(known, other_head + other_body)
        if recognised is not None:
            parsed = Parsed(other_head + other_body)
            assert (parsed.messages, parsed.body, parsed.is_kept) == (1, recognised, True)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_FIELDS = {b"content-type": b"text/event-stream", b"transfer-encoding": b"chunked"}


def chunks(*pieces: bytes) -> bytes:
    """Pieces as the chunks of a whole body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def learnt_events() -> KnownHead:
    """A stream seen once."""
    known = KnownHead()
    known.learn_events(STREAM + chunks(b"data: 1\n\n"), STREAM_FIELDS)
    return known


@given(pieces=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), cut=st.integers(0, 400))
def test_a_whole_stream_is_recognised_and_a_part_of_one_is_not(pieces: list[bytes], cut: int) -> None:
    """As the parser would read it, however it is chunked."""
    data = STREAM + chunks(*pieces)
    known = learnt_events()
    assert known.events_in(data, MAX_BYTES) == b"".join(pieces)
    part = data[: -1 - cut % (len(data) - 1)]
    found = known.events_in(part, MAX_BYTES)
    parsed = Parsed(part)
    assert not found or (parsed.messages == 1 and parsed.body == found)


@given(at=st.integers(0, 300), junk=st.binary(max_size=3))
def test_an_edited_stream_is_what_the_parser_says_or_not_known(at: int, junk: bytes) -> None:
    """One byte is enough."""
    data = STREAM + chunks(b"data: 1\n\n", b"data: 22\n\n")
    edited = data[: at % len(data)] + junk + data[at % len(data) + 1 :]
    found = learnt_events().events_in(edited, MAX_BYTES)
    if found:
        parsed = Parsed(edited)
        assert (parsed.messages, parsed.body, parsed.is_kept) == (1, found, True)


@pytest.mark.parametrize(
    "data",
    [
        STREAM + chunks(b"data: 1\n\n").replace(b"9\r\n", b"9;x=y\r\n", 1),
        STREAM + b"0\r\nX: y\r\n\r\n",
        STREAM + chunks(b"data: 1\n\n") + chunks(b"x"),
        STREAM + chunks(b"x" * (MAX_BYTES + 1)),
        STREAM + chunks(b"data: 1\n\n").replace(b"9\r\n", b"+9\r\n", 1),
        STREAM.replace(b"OK", b"Ok") + chunks(b"data: 1\n\n"),
    ],
    ids=["extension", "trailer", "more behind", "too long", "sign", "another head"],
)
def test_streams_out_of_the_ordinary_are_the_parsers(data: bytes) -> None:
    """They are read the long way, or refused there."""
    assert learnt_events().events_in(data, MAX_BYTES) == b""


def test_a_stream_that_is_not_chunked_is_not_learnt() -> None:
    """It ends where the connection does."""
    known = KnownHead()
    known.learn_events(STREAM + chunks(b"x"), {b"content-type": b"text/event-stream"})
    assert known.events_in(STREAM + chunks(b"x"), MAX_BYTES) == b""
