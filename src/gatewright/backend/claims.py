"""Which call a question belongs to, on a wire that does not say.

Over pipes a handshake backend asks without naming the call it asks for. While one call is in flight it can only be
that one's. While several are, the question waits until the others have ended: the asking one cannot end before it is
answered. If that takes too long the question is refused, because a guess could put one client's question to another.
Source: basic/transports "stdio" of 2025-11-25; THREATS X.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

from gatewright.backend.sinks import CallSink

CLAIM_S: Final = 5.0
"""How long a question waits for the other calls of its wire to end."""


@final
class Claims:
    """The calls in flight of one session on a shared wire."""

    def __init__(self, patience_s: float = CLAIM_S) -> None:
        self._patience_s = patience_s
        self._calls: set[CallSink] = set()
        self._changed = asyncio.Event()

    def enter(self, sink: CallSink) -> None:
        """A call begins."""
        self._calls.add(sink)

    def leave(self, sink: CallSink) -> None:
        """A call has ended."""
        self._calls.discard(sink)
        self._changed.set()

    async def asker(self) -> CallSink | None:
        """The call that a question belongs to, once only one can have asked; None when that does not come about."""
        try:
            async with asyncio.timeout(self._patience_s):
                while len(self._calls) > 1:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return next(iter(self._calls), None)
