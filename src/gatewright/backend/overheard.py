"""What a backend says outside exchanges on HTTP: the GET stream of one session.

Held by callbacks: while it is silent there is no task, no reader and no decoder, as thousands of sessions have one
each. A task runs while something comes, and while a stream that broke off is being had again. Source: basic/transports
"Listening for Messages from the Server" of 2025-03-26 to 2025-11-25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, final

import structlog

from gatewright.backend.base import Refused
from gatewright.backend.resume import Resume
from gatewright.errors import BackendError, BackendGarbage, ProtocolError
from gatewright.protocol import sse

if TYPE_CHECKING:
    from gatewright.backend.response import HttpStream
    from gatewright.backend.sinks import Start

log = structlog.get_logger("gatewright.backend.http")


class Overhears(Protocol):
    """The link whose stream it is."""

    @property
    def is_open(self) -> bool:
        """Until it is closed or its session is lost."""

    async def stand(self, headers: bytes) -> HttpStream:
        """The stream, asked for with these header lines. Raises Refused when there is none to be had, BackendError when
        there may be one later."""

    async def hear(self, data: bytes) -> None:
        """One event of it. Raises ProtocolError."""

    def missed(self) -> None:
        """Something may have been lost: the stream broke off and began anew."""


@final
class Overheard:
    """One GET stream, resumed when it breaks, until it is closed or the backend has none."""

    __slots__ = ("_decoder", "_is_over", "_link", "_max_bytes", "_on_over", "_resume", "_start", "_stream", "_task",
                 "_was_open")  # fmt: skip

    def __init__(self, link: Overhears, start: Start, max_event_bytes: int, on_over: Callable[[], None]) -> None:
        """`on_over` is called once, when nothing will be heard any more."""
        self._link = link
        self._start = start
        self._max_bytes = max_event_bytes
        self._on_over = on_over
        self._resume: Resume | None = None
        """What is known of how to resume it: nothing is, for most."""
        self._stream: HttpStream | None = None
        self._decoder: sse.Decoder | None = None
        self._task: asyncio.Task[None] | None = None
        self._was_open = False
        self._is_over = False

    def begin(self) -> None:
        """Ask for it, or go on with it, as something has come."""
        self._task = self._start(self._run())
        if self._task is None:  # the gateway is ending
            self.close()

    def close(self) -> None:
        """Hear no more, whatever is being awaited."""
        if self._is_over:
            return
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        self._leave()
        self._on_over()

    def _leave(self) -> None:
        stream, self._stream, self._decoder = self._stream, None, None
        if stream is not None:
            stream.abort()

    async def _run(self) -> None:
        """Hear until there is silence, or until the end."""
        is_silent = False
        try:
            is_silent = await self._hears()
        finally:
            self._task = None
            if not is_silent:
                self.close()

    async def _hears(self) -> bool:
        """Whether it is silent; False at its end."""
        while self._link.is_open and not self._is_over:
            try:
                stream = self._stream or await self._opened()
                if self._is_silent(stream):
                    return True
                is_ended = not await self._hear(stream)
            except Refused:
                break
            except BackendError as error:
                log.debug("stream broke off", reason=error.message)
                is_ended = True
            if is_ended:
                await self._pause()
        return False

    async def _opened(self) -> HttpStream:
        resume = self._resume
        stream = self._stream = await self._link.stand(b"" if resume is None else resume.header())
        if self._was_open and (resume is None or not resume.is_possible):
            self._link.missed()
        self._was_open = True
        return stream

    def _is_silent(self, stream: HttpStream) -> bool:
        """Whether nothing has come; then what comes next begins a task."""
        if not stream.rest(self.begin):
            return False
        if self._decoder is not None and self._decoder.is_between:
            self._decoder = None
        return True

    async def _hear(self, stream: HttpStream) -> bool:
        """Pass on what has come. False when the stream has ended. Raises BackendGarbage."""
        piece = await stream.read()
        if not piece:
            return False
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = sse.Decoder(max_line_bytes=self._max_bytes, max_event_bytes=self._max_bytes)
        try:
            events = decoder.feed(piece)
            if self._resume is None and (decoder.last_event_id or decoder.retry_ms is not None):
                self._resume = Resume()
            if self._resume is not None:
                self._resume.note(decoder)
            for event in events:
                if event.data and event.event == "message":
                    if self._resume is not None:
                        self._resume.fruitless = 0
                    await self._link.hear(event.data)
        except ProtocolError as error:
            raise BackendGarbage(str(error)) from error
        return True

    async def _pause(self) -> None:
        """It ended, or was not to be had: wait before it is asked for again."""
        self._leave()
        if self._link.is_open:
            resume = self._resume = self._resume or Resume()
            await asyncio.sleep(resume.pause_s())
            resume.fruitless += 1
