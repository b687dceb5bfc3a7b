"""A body that comes in pieces, held so that it never takes much more memory than its bytes do.

Contract: no I/O, knows no protocol. Large pieces are held as they came and are copied once, when they are joined;
small ones are put together at once, since an object for each byte of a body takes forty times what the body does.
"""

from __future__ import annotations

from typing import Final, TypeAlias

SMALL_BYTES: Final = 4_096
"""Below this, copying a piece costs less than holding it does."""

Pieces: TypeAlias = list[bytes | bytearray | memoryview]


def hold(pieces: Pieces, piece: bytes | memoryview) -> None:
    """Add one more piece."""
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray):
        last += piece
    elif len(piece) < SMALL_BYTES:
        pieces.append(bytearray(piece))
    else:
        pieces.append(piece)
