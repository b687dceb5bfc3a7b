"""What is sent in one turn of the event loop, sent together.

A turn reads from every socket that has something, then runs what that woke. To write each message as soon as it is
ready would mean to change between Python and the kernel's network code with every one, each driving the other out of
the CPU's caches, and to wake a peer for each alone. So messages wait for each other while more of them are expected
in the same turn, and no longer: the last one sends all, and a busy turn sends many at once. What is the only one is
sent at once. Measured under full load: a quarter less CPU per call (docs/performance.md).

Contract: messages of one connection leave in their order, as long as whoever writes past the outbox flushes it first.
What is expected is a guess that only decides when to send: whoever wakes a task that will most likely send something
adds one to `expected`, and each message takes one off. Where it was wrong, what waits is sent at the beginning of the
next turn, before anything that was read meanwhile is served. Used from one event loop, never locked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

import structlog

MOST: Final = 64
"""So many messages wait for each other at the most: what was ready first must not wait for a whole crowd."""
LARGE_BYTES: Final = 32_768
"""A message of this size waits for nothing, and takes along what waited."""
Write: TypeAlias = Callable[[bytes], None]
"""The `write` of a transport. Each connection has one of its own, always the same object."""
log = structlog.get_logger("gatewright")


@final
class Outbox:
    """The messages of one loop's turn."""

    __slots__ = ("_call_soon", "_in_vain", "_is_scheduled", "_waiting", "expected")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """`call_soon`: the loop's."""
        self._call_soon = call_soon
        self._waiting: list[tuple[Write, bytes]] = []
        self._is_scheduled = False
        self._in_vain = 0
        """What was still expected after the last message: if that stays the last one of its turn, for nothing."""
        self.expected = 0
        """How many messages are still to come in this turn."""

    def post(self, write: Write, data: bytes) -> None:
        """Send a message in this turn: now, if it is the last one that is expected."""
        waiting = self._waiting
        expected = self.expected - 1
        if expected < 0:
            expected = 0
        self.expected = expected
        if not expected and not waiting:
            write(data)
            return
        waiting.append((write, data))
        self._in_vain = expected
        if not expected or len(waiting) >= MOST or len(data) >= LARGE_BYTES:
            self.flush()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._late)

    def pass_by(self) -> None:
        """A message that was expected does not come, or is sent in parts: what waits need not wait for it."""
        self.expected = self._in_vain = max(0, self.expected - 1)
        if not self.expected:
            self.flush()

    def flush(self) -> None:
        """Send now what waits."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            for write, data in waiting:
                try:
                    write(data)
                except Exception:
                    log.exception("a message could not be sent")  # a bug: it must not take the others along

    def drop(self, write: Write) -> None:
        """That connection is gone: what waits for it is sent no more."""
        if self._waiting:
            self._waiting = [message for message in self._waiting if message[0] is not write]

    def _late(self) -> None:
        """The turn is over: what was expected in it and did not come is expected no more."""
        self._is_scheduled = False
        self.expected = max(0, self.expected - self._in_vain)
        self._in_vain = 0
        self.flush()
