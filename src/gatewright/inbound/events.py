"""What was sent on the streams of one session, so that a stream that broke off can be resumed where it did.

Each event has an id that is unique in its session and names its stream, so that a resume replays that stream's
messages and no other's. The log is bounded in events and bytes; what fell out of it cannot be replayed, and the client
is told so. Sources: basic/transports "Resumability and Redelivery" of 2025-11-25; S-23 to S-25.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

from gatewright.errors import InvalidRequest
from gatewright.protocol import sse

MAX_DIGITS: Final = 12
"""A session that sent more events than this has digits for outlived every bound."""
MAX_PARTED: Final = 8
"""Standing streams of one session that nobody reads and that can be resumed. A client has one or two; one that opens a
new one each time, without resuming the last, leaves one behind each time."""
STANDING_MARK: Final = "s"
"""In the names of standing streams where there are replicas: says what one was when nothing else is known of it."""
Send = Callable[[bytes], Awaitable[None]]
End = Callable[[], object]


class Tape(Protocol):
    """Where events are written too, for the time when this replica is gone. Never waits, never raises."""

    prefix: str
    """What the names of this replica's streams begin with: no other one's do."""

    def opened(self, stream: str, opened: bytes) -> None:
        """A stream begins."""

    def record(self, stream: str, position: int, message: bytes) -> None:
        """A message was sent on it, or would have been."""

    def done(self, stream: str, position: int) -> None:
        """Nothing comes after that position."""


@final
class Budget:
    """The bytes that the logs of all sessions may hold together. When they are used up, each new event costs its own
    session its oldest ones, and nobody else's."""

    __slots__ = ("max_bytes", "used")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0


@final
class EventLog:
    """The events of one session. `max_events` and `max_bytes` bound what is kept, over all its streams."""

    __slots__ = ("_budget", "_bytes", "_is_closed", "_kept", "_max_bytes", "_max_events", "_opened", "_streams",
                 "tape")  # fmt: skip

    def __init__(self, max_events: int, max_bytes: int, budget: Budget, tape: Tape | None = None) -> None:
        self._budget = budget
        self.tape: Final = tape
        self._is_closed = False
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._kept: deque[tuple[EventStream, int, bytes]] | None = None  # an empty one takes 760 bytes
        self._bytes = 0
        self._opened = 0
        self._streams: dict[str, EventStream] = {}

    def __len__(self) -> int:
        """How many streams it knows."""
        return len(self._streams)

    def open(self, *, is_standing: bool = False) -> EventStream:
        """A new stream: of a request, or a standing one, of which those left longest ago are given up."""
        if is_standing:
            parted = [one for one in self._streams.values() if one.is_standing and not one.is_attached]
            for one in parted[: 1 - MAX_PARTED]:
                one.finish()
        self._opened += 1
        number = str(self._opened)
        if self.tape is not None:
            number = f"{self.tape.prefix}{STANDING_MARK if is_standing else ''}{number}"
        stream = EventStream(self, number, is_standing)
        self._streams[number] = stream
        return stream

    def has(self, last_event_id: str) -> bool:
        """Whether the stream an event id belongs to is one of these."""
        return last_event_id.partition("-")[0] in self._streams

    def resume(self, last_event_id: str) -> tuple[EventStream, list[bytes]]:
        """The stream an event id belongs to, and its later events, encoded. Raises InvalidRequest when they are not
        there any more, or never were."""
        number, _, position = last_event_id.partition("-")
        stream = self._streams.get(number)
        after = position_of(position)
        if stream is None or not 0 <= after <= stream.sent:
            raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed")
        events = [(place, message) for one, place, message in self._kept or () if one is stream and place > after]
        if len(events) != stream.sent - after:
            raise InvalidRequest("Last-Event-ID is too old: events after it are not kept any more")
        return stream, [sse.encode(message, event_id=f"{stream.number}-{place}") for place, message in events]

    def forget(self, stream: EventStream) -> None:
        """A stream that is over and of which nothing is kept."""
        self._streams.pop(stream.number, None)

    def clear(self) -> None:
        """Keep no event any more. Streams that go on can be resumed by who missed nothing."""
        for stream, _, _ in self._kept or ():
            stream.kept = 0
            if stream.is_done:
                self.forget(stream)
        self._kept = None
        self._budget.used -= self._bytes
        self._bytes = 0

    def close(self) -> None:
        """The session is over: nothing is kept any more, whatever is still sent."""
        self._is_closed = True
        self.clear()

    def keep(self, stream: EventStream, position: int, message: bytes) -> None:
        """Keep an event, and let the oldest go that the bounds have no room for."""
        if self._is_closed:
            return
        budget = self._budget
        kept = self._kept
        if kept is None:
            kept = self._kept = deque()
        kept.append((stream, position, message))
        stream.kept += 1
        self._bytes += len(message)
        budget.used += len(message)
        while kept and (
            len(kept) > self._max_events or self._bytes > self._max_bytes or budget.used > budget.max_bytes
        ):
            gone, _, old = kept.popleft()
            gone.kept -= 1
            self._bytes -= len(old)
            budget.used -= len(old)
            if gone.is_done and not gone.kept:
                self.forget(gone)


@final
class EventStream:
    """One stream of a session: its events go to whoever is attached, and are kept either way."""

    __slots__ = ("_attached", "_end", "_log", "is_done", "is_standing", "kept", "number", "sent")

    def __init__(self, log: EventLog, number: str, is_standing: bool) -> None:
        self._log = log
        self.number = number
        """Its name, unique in its session: a number, after the replica's prefix where there are replicas."""
        self.is_standing = is_standing
        self.sent = 0
        self.kept = 0
        """How many of its events the log still has."""
        self.is_done = False
        self._attached: Send | None = None
        self._end: End | None = None

    def prime(self, retry_ms: int) -> bytes:
        """The event that a stream begins with: an id to resume from and no data (2025-11-25)."""
        return sse.encode(b"", event_id=f"{self.number}-{self.sent}", retry_ms=retry_ms)

    def attach(self, send: Send, end: End) -> None:
        """Send what comes to this connection from now on, and `end` it after the last; the one before is ended now."""
        former, self._attached, self._end = self._end, send, end
        if former is not None:
            former()

    def detach(self, send: Send) -> bool:
        """That connection is gone. False when it was not the attached one."""
        if self._attached != send:
            return False
        self._attached = self._end = None
        return True

    @property
    def is_attached(self) -> bool:
        """Whether anybody reads it now."""
        return self._attached is not None

    def record(self, message: bytes) -> None:
        """Keep one message for a resume, as nobody reads now."""
        self.sent += 1
        log = self._log
        log.keep(self, self.sent, message)
        if log.tape is not None:
            log.tape.record(self.number, self.sent, message)

    async def send(self, message: bytes) -> None:
        """Send one message, and keep it for a resume."""
        self.record(message)
        attached = self._attached
        if attached is not None:
            await attached(sse.encode(message, event_id=f"{self.number}-{self.sent}"))

    def finish(self) -> None:
        """Nothing more will come on it: the connection that is attached ends."""
        self.is_done = True
        if not self.kept:
            self._log.forget(self)
        if self._log.tape is not None and self.sent:
            self._log.tape.done(self.number, self.sent)
        end, self._end, self._attached = self._end, None, None
        if end is not None:
            end()


def position_of(text: str) -> int:
    """A count in plain digits, -1 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else -1
