"""Cursors of merged lists: an offset, sealed so that a client can neither make one nor move it elsewhere (S-83)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final, final

import msgspec

from gatewright.errors import InvalidParams

_TAG_BYTES: Final = 16


@final
class Cursors:
    """Makes and reads cursors with one key. Every replica that shares the key reads them."""

    def __init__(self, key: bytes) -> None:
        self._key = self._former = key

    def adopt(self, key: bytes) -> None:
        """Make them with another key from now on; those made with the last one are read as before."""
        self._former, self._key = self._key, key

    def make(self, method: str, subject: str, offset: int) -> str:
        """A cursor for the items from `offset` on."""
        text = b"%d" % offset
        return base64.urlsafe_b64encode(self._tag(self._key, method, subject, text) + text).decode().rstrip("=")

    def read(self, method: str, subject: str, cursor: str) -> int:
        """The offset in a cursor made for the same method and caller. Raises InvalidParams."""
        try:
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except ValueError as error:
            raise InvalidParams("the cursor is not one of this server's") from error
        tag, text = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        canonical = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        is_ours = hmac.compare_digest(tag, self._tag(self._key, method, subject, text))
        was_ours = hmac.compare_digest(tag, self._tag(self._former, method, subject, text))
        if canonical != cursor or not (is_ours or was_ours):
            raise InvalidParams("the cursor is not one of this server's")
        return int(text)

    def offset(self, method: str, subject: str, cursor: msgspec.Raw | None) -> int:
        """Where a list begins by `params.cursor`, None without one. Raises InvalidParams."""
        if cursor is None:
            return 0
        try:
            return self.read(method, subject, msgspec.json.decode(cursor, type=str))
        except msgspec.DecodeError as error:
            raise InvalidParams("params.cursor must be a string") from error

    def _tag(self, key: bytes, method: str, subject: str, text: bytes) -> bytes:
        subject_bytes = subject.encode("utf-8", "surrogatepass")
        # The length divides what a subject says from what a forged text might pretend to be the end of.
        said = b"cursor\0%b\0%d\0%b%b" % (method.encode(), len(subject_bytes), subject_bytes, text)
        return hmac.new(key, said, hashlib.sha256).digest()[:_TAG_BYTES]
