"""Where an event stream broke off, and how long to wait before it is asked for again.

Pure: the clock and the waiting are the caller's. A backend's `retry` is honoured up to a bound; one that asks for no
pause and then says nothing gets longer and longer ones. Source: basic/transports of 2025-11-25, "Resumability and
Redelivery".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, final

from gatewright.protocol import sse

RETRY_S: Final = 1.0
"""The first pause when the backend named none; it doubles up to RETRY_MAX_S while nothing comes."""
RETRY_MAX_S: Final = 30.0
RETRY_ASKED_MIN_S: Final = 0.05
"""The first pause when the backend asked for none at all; it doubles just so. A stream that says nothing and asks to be
fetched again at once would keep two processes busy for nothing."""
RETRY_ASKED_MAX_S: Final = 300.0
"""The longest pause that a backend may ask for: beyond it, it is gone for every purpose."""
MAX_ID_BYTES: Final = 4096
"""An event id goes into a header: a longer one than servers take there cannot be resumed from."""
_MAX_DOUBLINGS: Final = 16


@final
class Resume:
    """What one stream said about resuming it."""

    __slots__ = ("_event_id", "_jitter", "_retry_s", "fruitless")

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._event_id = b""
        self._retry_s: float | None = None
        self._jitter = jitter
        self.fruitless = 0
        """How often in a row the stream ended, or was not to be had, without a message."""

    @property
    def is_possible(self) -> bool:
        """Whether the backend gave an event id to resume from."""
        return bool(self._event_id)

    def note(self, decoder: sse.Decoder) -> None:
        """Keep what the stream said."""
        event_id = decoder.last_event_id
        if event_id:  # most streams have none
            encoded = event_id.encode()
            self._event_id = encoded if len(encoded) <= MAX_ID_BYTES else b""
        if decoder.retry_ms is not None:
            self._retry_s = decoder.retry_ms / 1000

    def header(self) -> bytes:
        """The header line that resumes the stream; none for one that cannot be resumed."""
        return b"last-event-id: %b\r\n" % self._event_id if self._event_id else b""

    def pause_s(self) -> float:
        """How long to wait: at least what the backend asked for; else about a second, more while nothing comes."""
        factor = 2.0 ** min(self.fruitless, _MAX_DOUBLINGS)
        if self._retry_s is not None:
            return max(min(self._retry_s, RETRY_ASKED_MAX_S), min(RETRY_ASKED_MIN_S * factor, RETRY_MAX_S))
        return float(min(RETRY_S * factor, RETRY_MAX_S)) * (0.5 + self._jitter() / 2)
