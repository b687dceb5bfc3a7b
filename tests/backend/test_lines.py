"""Newline framing: any chunking gives the same lines, and nothing grows without bound."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.backend.lines import Lines, Remarks, printable
from gatewright.errors import ProtocolError
from gatewright.secret import MASK


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the places that lie inside it."""
    edges = [0, *sorted(place for place in set(places) if place < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=20))
def test_any_chunking_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    """The lines are those between line feeds, without the empty ones, however the bytes arrive."""
    lines = Lines(1000)
    found = [line for piece in cut(data, places) for line in lines.feed(piece)]
    assert found == [line for line in data.split(b"\n")[:-1] if line not in (b"", b"\r")]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=20), st.integers(1, 50))
def test_a_long_line_is_refused_in_any_chunking(data: bytes, places: list[int], bound: int) -> None:
    """A stream with a line above the bound is refused, one without never is."""
    lines = Lines(bound)
    is_too_long = any(len(line) > bound for line in data.split(b"\n"))
    try:
        for piece in cut(data, places):
            lines.feed(piece)
    except ProtocolError:
        assert is_too_long
    else:
        assert not is_too_long


def test_a_long_line_in_small_pieces_takes_its_own_size() -> None:
    """A line fed byte by byte costs about its size, not an object per byte."""
    lines = Lines(1 << 20)
    tracemalloc.start()
    for _ in range(1 << 18):
        lines.feed(b"x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert lines.feed(b"\n") == [b"x" * (1 << 18)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=20))
def test_remarks_never_hold_a_control_character(data: bytes, places: list[int]) -> None:
    """Whatever a program writes, each line kept is printable and the bounds hold."""
    remarks = Remarks(max_lines=5, max_chars=100, max_line_bytes=16)
    told = [text for piece in cut(data, places) for text in remarks.feed(piece)] + remarks.finish()
    assert all(text.isprintable() for text in told)
    assert len(remarks.tail()) <= 5
    assert sum(map(len, remarks.tail())) <= 100
    assert list(remarks.tail()) == told[len(told) - len(remarks.tail()) :]


def test_remarks_keep_the_newest() -> None:
    """The oldest lines go first; the last one that says anything is found behind empty ones."""
    remarks = Remarks(max_lines=3)
    assert remarks.feed(b"a\r\nb\nc\rd") == ["a", "b", "c"]
    assert remarks.finish() == ["d"]
    assert remarks.feed(b"   \n") == ["   "]
    assert remarks.tail() == ("c", "d", "   ")
    assert remarks.last() == "d"
    assert Remarks().last() == ""


def test_a_long_remark_comes_in_pieces() -> None:
    """A line without end cannot be kept back for ever."""
    remarks = Remarks(max_line_bytes=4)
    assert remarks.feed(b"abcdefghij") == ["abcd", "efgh"]
    assert remarks.feed(b"\n") == ["ij"]


def test_secrets_are_masked() -> None:
    """A configured secret that a program prints is not shown."""
    remarks = Remarks(hidden=("hunter22",))
    assert remarks.feed(b"token=hunter22!\n") == [f"token={MASK}!"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"plain", "plain", id="plain"),
        pytest.param(b"\x1b[1;31mred\x1b[0m", "red", id="colour"),
        pytest.param(b"\x1b]0;title\x07", "\\x1b]0;title\\x07", id="title"),
        pytest.param(b"a\x00b\x7f", "a\\x00b\\x7f", id="control"),
        pytest.param("\u202eevil".encode(), "\\u202eevil", id="direction"),
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", id="not utf-8"),
    ],
)
def test_text_is_made_harmless(data: bytes, text: str) -> None:
    """Colours go, what could deceive a terminal is escaped."""
    assert printable(data) == text
