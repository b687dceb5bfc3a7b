"""The response head that a backend sends again and again, recognised without parsing it anew.

A server's answers differ in their length and, once a second, in their date. A head that the parser accepted is kept
in two parts, around the digits of its `Content-Length`; an answer that begins with the one, goes on with digits and
the other, and then with exactly as much as they say, is the same message to the parser but for its body. Anything else
is the parser's. So nothing is accepted that the parser would refuse. Source: RFC 9112, sections 2, 4 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final

from gatewright.backend.response import HttpResponse

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_MAX_DIGITS: Final = 10
"""Of a length: more is beyond every bound."""
EAGER: Final = 64
"""So many heads are learnt as they come. Then only one in SELDOM: a server that puts a new id into every head teaches
nothing, and one that only dates them is learnt soon enough."""
SELDOM: Final = 16
_NEVER: Final = b"\0"
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_HEX: Final = b"0123456789abcdefABCDEF"
_MAX_CHUNK_DIGITS: Final = 8
_UNKNOWN: Final = (0, 0)


@final
class KnownHead:
    """The last head learnt on one channel."""

    __slots__ = ("_events_head", "_fixed_bytes", "_prefix", "_seen", "_start", "_suffix", "events_headers", "headers")

    def __init__(self) -> None:
        self._prefix = _NEVER
        self._suffix = _NEVER
        self._start = 1
        self._fixed_bytes = 0
        """How long the head was when it was last seen: the next answer's length most often has as many digits."""
        self._seen = 0
        self.headers: Mapping[bytes, bytes] = {}
        """The fields of the head, less its length."""
        self._events_head = _NEVER
        self.events_headers: Mapping[bytes, bytes] = {}
        """The fields of the head that an event stream began with."""

    def body_in(self, data: bytes, max_body_bytes: int) -> tuple[int, int]:
        """Where the body begins in `data`, if that is an answer under the known head, and how much of it is still to
        come; (0, 0) if it is not."""
        # Told from how much there is, most answers are recognised by one comparison.
        length = len(data) - self._fixed_bytes
        head = b"%b%d%b" % (self._prefix, length, self._suffix)
        if data.startswith(head) and len(head) + length == len(data) and length <= max_body_bytes:
            return len(head), 0
        if not data.startswith(self._prefix):
            return _UNKNOWN
        start = self._start
        end = data.find(b"\r", start, start + _MAX_DIGITS)
        suffix = self._suffix
        if end < 0 or not data.startswith(suffix, end):
            return _UNKNOWN
        digits = data[start:end]
        if not digits.isdigit():  # of bytes: ASCII digits only
            return _UNKNOWN
        length = int(digits)
        at = end + len(suffix)
        self._fixed_bytes = at
        missing = at + length - len(data)
        return (at, missing) if missing >= 0 and length <= max_body_bytes else _UNKNOWN

    def events_in(self, data: bytes, max_body_bytes: int) -> bytes:
        """The body of `data`, if that is one whole event stream under the known head of one; empty if it is not."""
        if data.endswith(_LAST_CHUNK) and data.startswith(self._events_head):
            body = dechunked(data, len(self._events_head))
            if body is not None and len(body) <= max_body_bytes:
                return body
        return b""

    def stream_in(self, data: bytes, max_body_bytes: int) -> HttpResponse | None:
        """The response that `data` is, if it is one whole event stream under the known head of one."""
        events = self.events_in(data, max_body_bytes)
        return HttpResponse(200, self.events_headers, b"", None, events) if events else None

    def learn_events(self, data: bytes, headers: Mapping[bytes, bytes]) -> None:
        """`data` is what the parser took for a 200 with a whole event stream on a connection that stays open."""
        end = data.find(b"\r\n\r\n") + 4
        if headers.get(b"transfer-encoding") == b"chunked" and dechunked(data, end) is not None:
            self._events_head = data[:end]
            self.events_headers = headers

    def learn(self, data: bytes, body_bytes: int, headers: Mapping[bytes, bytes], missing: int = 0) -> None:
        """`data` is what the parser took for a 200 of that many body bytes on a connection that stays open, less the
        last `missing` of them."""
        self._seen += 1
        if self._seen > EAGER and self._seen % SELDOM:
            return
        end = data.find(b"\r\n\r\n") + 4
        if end + body_bytes != len(data) + missing:
            return
        found = _LENGTH.search(data, 0, end - 2)
        if found is None:
            return
        start, stop = found.span(1)
        self._prefix, self._suffix, self._start = data[:start], data[stop:end], start
        self.headers = {name: value for name, value in headers.items() if name != b"content-length"}


def dechunked(data: bytes, at: int) -> bytes | None:
    """The body in the chunks from `at` on, when they are plain (sizes in hexadecimal and nothing else, no trailers) and
    end where `data` does (RFC 9112, section 7.1). None says nothing: the parser decides."""
    pieces: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at, at + _MAX_CHUNK_DIGITS + 2)
        digits = data[at:end]
        if end < 0 or not digits or digits.translate(None, _HEX):
            return None
        size = int(digits, 16)
        start = end + 2
        at = start + size + 2
        if data[at - 2 : at] != b"\r\n":
            return None
        if not size:
            return b"".join(pieces) if at == len(data) else None
        pieces.append(data[start : at - 2])
