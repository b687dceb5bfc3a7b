"""Pieces of a body: all of it, in order, in few objects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewright.pieces import SMALL_BYTES, Pieces, hold


@given(st.lists(st.integers(0, 3 * SMALL_BYTES), max_size=20))
def test_joined_pieces_are_the_body(sizes: list[int]) -> None:
    """Whatever their sizes, in the order in which they came."""
    pieces: Pieces = []
    cut = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    for number, piece in enumerate(cut):
        hold(pieces, memoryview(piece) if number % 2 else piece)
    assert b"".join(pieces) == b"".join(cut)


def test_a_body_in_single_bytes_is_one_object() -> None:
    """Not a million of them."""
    pieces: Pieces = []
    for _ in range(100_000):
        hold(pieces, b"x")
    assert len(pieces) == 1


def test_large_pieces_are_not_copied_before_they_are_joined() -> None:
    """Each is held as it came."""
    pieces: Pieces = []
    large = b"x" * SMALL_BYTES
    hold(pieces, large)
    hold(pieces, large)
    assert all(piece is large for piece in pieces)
