"""The response head that a backend sends again and again, recognised without parsing it anew.

A server's answers differ in their length and, once a second, in their date. A head that the parser accepted is kept
in two parts, around the digits of its `Content-Length`; an answer that begins with the one, goes on with digits and
the other, and is exactly as long as they say, is the same message to the parser but for its body. Anything else is the
parser's. So nothing is accepted that the parser would refuse. Source: RFC 9112, sections 2, 4 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_MAX_DIGITS: Final = 10
"""Of a length: more is beyond every bound."""
EAGER: Final = 64
"""So many heads are learnt as they come. Then only one in SELDOM: a server that puts a new id into every head teaches
nothing, and one that only dates them is learnt soon enough."""
SELDOM: Final = 16
_NEVER: Final = b"\0"


@final
class KnownHead:
    """The last head learnt on one channel."""

    __slots__ = ("_prefix", "_seen", "_start", "_suffix", "headers")

    def __init__(self) -> None:
        self._prefix = _NEVER
        self._suffix = _NEVER
        self._start = 1
        self._seen = 0
        self.headers: Mapping[bytes, bytes] = {}
        """The fields of the head, less its length."""

    def body_at(self, data: bytes, max_body_bytes: int) -> int:
        """Where the body begins in `data`, if that is one whole answer under the known head; 0 if it is not."""
        if not data.startswith(self._prefix):
            return 0
        start = self._start
        end = data.find(b"\r", start, start + _MAX_DIGITS)
        suffix = self._suffix
        if end < 0 or not data.startswith(suffix, end):
            return 0
        digits = data[start:end]
        if not digits.isdigit():  # of bytes: ASCII digits only
            return 0
        length = int(digits)
        at = end + len(suffix)
        return at if at + length == len(data) and length <= max_body_bytes else 0

    def learn(self, data: bytes, body_bytes: int, headers: Mapping[bytes, bytes]) -> None:
        """`data` is what the parser took for a 200 of that many body bytes on a connection that stays open."""
        self._seen += 1
        if self._seen > EAGER and self._seen % SELDOM:
            return
        end = data.find(b"\r\n\r\n") + 4
        if end + body_bytes != len(data):
            return
        found = _LENGTH.search(data, 0, end - 2)
        if found is None:
            return
        start, stop = found.span(1)
        self._prefix, self._suffix, self._start = data[:start], data[stop:end], start
        self.headers = {name: value for name, value in headers.items() if name != b"content-length"}
