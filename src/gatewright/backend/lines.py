"""Newline framing of a child's output, sans-io: bytes in any pieces become lines, or one bounded refusal.

`Lines` is for messages: whole lines as bytes, nothing beyond its bound. `Remarks` is for what people read (standard
error): printable text, long lines cut, the newest kept. Neither does I/O or logs. Both take time linear in the bytes
they are fed, however small the pieces. Source: 2026-07-28 and 2025-11-25 basic/transports, "stdio".
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final, final

from gatewright.errors import ProtocolError
from gatewright.secret import MASK

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
_ANY_BREAK: Final = re.compile(rb"[\r\n]+")


@final
class Lines:
    """Splits a byte stream at LF. A CR before it is white space to JSON and stays; empty lines are left out."""

    __slots__ = ("_max_line_bytes", "_pending")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends. Raises ProtocolError when one exceeds the bound."""
        pending = self._pending
        if b"\n" not in data:
            pending += data
            self._check(len(pending))
            return []
        lines = data.split(b"\n")
        tail = lines.pop()
        if pending:
            self._check(len(pending) + len(lines[0]))
            pending += lines[0]
            lines[0] = bytes(pending)
            self._pending = bytearray(tail)
        elif tail:
            pending += tail
        if len(data) > self._max_line_bytes:
            for line in lines:
                self._check(len(line))
            self._check(len(tail))
        return [line for line in lines if line and line != b"\r"]

    def _check(self, size: int) -> None:
        if size > self._max_line_bytes:
            self._pending = bytearray()
            raise ProtocolError(f"a line of more than {self._max_line_bytes} bytes")


@final
class Remarks:
    """The newest lines of text that a child wrote for people, cleaned of what could deceive a terminal or a log."""

    __slots__ = ("_hidden", "_kept", "_kept_chars", "_max_chars", "_max_line_bytes", "_max_lines", "_pending")

    def __init__(
        self,
        *,
        hidden: tuple[str, ...] = (),
        max_lines: int = 200,
        max_chars: int = 64 << 10,
        max_line_bytes: int = 2 << 10,
    ) -> None:
        self._hidden = hidden
        self._max_lines = max_lines
        self._max_chars = max_chars
        self._max_line_bytes = max_line_bytes
        self._kept: deque[str] = deque()
        self._kept_chars = 0
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, as printable text, also kept. A line beyond the bound comes in pieces."""
        pieces = _ANY_BREAK.split(self._pending + data)
        self._pending = pieces.pop()
        limit = self._max_line_bytes
        while len(self._pending) >= limit:
            pieces.append(self._pending[:limit])
            self._pending = self._pending[limit:]
        texts = [self._clean(piece[start : start + limit]) for piece in pieces for start in range(0, len(piece), limit)]
        for text in texts:
            self._keep(text)
        return texts

    def finish(self) -> list[str]:
        """The stream has ended: its last line, when that had no end."""
        return self.feed(b"\n") if self._pending else []

    def tail(self) -> tuple[str, ...]:
        """What is kept, oldest first."""
        return tuple(self._kept)

    def last(self) -> str:
        """The newest line that says anything, or an empty text."""
        return next((text for text in reversed(self._kept) if text.strip()), "")

    def _clean(self, piece: bytes) -> str:
        text = printable(piece)
        for secret in self._hidden:
            text = text.replace(secret, MASK)
        return text

    def _keep(self, text: str) -> None:
        self._kept.append(text)
        self._kept_chars += len(text)
        while len(self._kept) > self._max_lines or self._kept_chars > self._max_chars:
            self._kept_chars -= len(self._kept.popleft())


def printable(data: bytes) -> str:
    """`data` as text that cannot move a cursor, break a line or turn direction: colours left out, the rest escaped."""
    text = data.decode("utf-8", "replace")
    if text.isprintable():
        return text
    text = _COLOUR.sub("", text)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
