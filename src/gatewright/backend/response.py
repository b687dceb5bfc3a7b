"""What comes back on a connection: a whole response, or the head of an event stream that is read piece by piece.

Holds no socket: a stream asks its `Source` for more, or to be rid of it. Never parses JSON or events. A reader that
falls behind stops its own socket and nothing else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol, final

import msgspec

from gatewright.errors import BackendGarbage

EVENT_STREAM: Final = b"text/event-stream"
PAUSE_BYTES: Final = 256 * 1024
"""A stream whose reader is this far behind is not read from the socket any more: back-pressure, not memory."""
_TIMEOUT: Final = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)


class Source(Protocol):
    """The connection below a stream."""

    def resume_reading(self) -> None:
        """The reader has caught up."""

    def rest(self) -> None:
        """The same; nothing may come for long."""

    def drain_or_close(self) -> None:
        """The rest is not wanted: free the connection if it ends soon."""

    def lend(self) -> None:
        """What is on it waits for a person: let others have its place meanwhile."""

    def close(self) -> None:
        """Close the connection now."""


@final
class HttpStream:
    """The body of an event stream. One reader."""

    __slots__ = ("_chunks", "_error", "_is_whole", "_queued_bytes", "_source", "_tell", "_waiter")

    def __init__(self, source: Source | None, whole: bytes = b"") -> None:
        """`source` is None for what came `whole`."""
        self._source = source
        self._chunks: list[bytes] = [whole] if whole else []
        self._queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._tell: Callable[[], None] | None = None
        self._is_whole = source is None
        self._error: BackendGarbage | None = None

    async def read(self) -> bytes:
        """The next piece, empty at the end. Raises BackendGarbage when the connection died before it."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_whole:
                return b""
            if self._source is not None:
                self._source.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks = self._chunks, []
        self._queued_bytes = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def rest(self, tell: Callable[[], None]) -> bool:
        """Have `tell` called, once, when there is something to read, instead of waiting for it. False, and nothing is
        called, when there is already."""
        if self._chunks or self._is_whole or self._error is not None:
            return False
        if self._source is not None:
            self._source.rest()
        self._tell = tell
        return True

    def finish(self) -> None:
        """Nothing more of it is wanted: its connection is kept if it ends soon, else closed."""
        if self._source is not None:
            self._source.drain_or_close()

    def lend(self) -> None:
        """What comes next on it is for a person to answer: its connection takes nobody's place meanwhile."""
        if self._source is not None:
            self._source.lend()

    def abort(self) -> None:
        """Close its connection now: for a peer that takes the close as a cancel (2026-07-28), and for broken ones."""
        if self._source is not None:
            self._source.close()

    def push(self, piece: bytes) -> bool:
        """Take a piece from the socket. Returns whether the reader is too far behind."""
        self._chunks.append(piece)
        self._queued_bytes += len(piece)
        self._wake()
        return self._queued_bytes > PAUSE_BYTES

    def complete(self) -> None:
        """The message is whole; the connection is somebody else's from here on."""
        self._is_whole = True
        self._source = None
        self._wake()

    def fail(self, error: BackendGarbage) -> None:
        """The connection died in it."""
        self._error = error
        self._source = None
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


@final
class HttpResponse(msgspec.Struct):
    """One response: `body` once whole, or a stream to `read` when `is_stream`.

    `headers` have lower-case names and are shared between responses: never change them.
    """

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes = b""
    stream: HttpStream | None = None
    events: bytes = b""
    """A whole event stream that was not made a `stream` yet: see `unfold`."""

    @property
    def is_stream(self) -> bool:
        """It is an event stream: handed over at its head, to be read, finished or aborted."""
        return self.stream is not None

    def unfold(self) -> None:
        """Make events that came whole a stream like any other."""
        if self.events:
            self.stream = HttpStream(None, self.events)
            self.events = b""

    async def read(self) -> bytes:
        """See HttpStream.read; what has no stream is at its end."""
        return b"" if self.stream is None else await self.stream.read()

    def finish(self) -> None:
        """See HttpStream.finish."""
        if self.stream is not None:
            self.stream.finish()

    def abort(self) -> None:
        """See HttpStream.abort."""
        if self.stream is not None:
            self.stream.abort()


def is_event_stream(content_type: bytes) -> bool:
    """Whether a `Content-Type` says so, whatever its case and parameters (RFC 9110, 8.3.1)."""
    if content_type in (EVENT_STREAM, b"application/json"):  # as nearly everybody spells them
        return content_type == EVENT_STREAM
    return content_type.partition(b";")[0].strip().lower() == EVENT_STREAM


def idle_timeout_s(keep_alive: bytes) -> int | None:
    """After what time a server closes an idle connection, in whole seconds rounded down, as its `Keep-Alive` field says
    (RFC 2068, 19.7.1.1: `timeout=5, max=100`); None when it does not say."""
    found = _TIMEOUT.search(keep_alive)
    return None if found is None else int(found[1])
