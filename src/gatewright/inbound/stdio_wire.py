"""Standard input and output as one wire of lines to a host: framing, back-pressure, the end of either side.

Contract: knows no JSON. A line beyond the bound is skipped and reported as None, and the next one is read as ever.
While the host does not read, nothing more is read from it and whoever sends waits: neither side can make this process
grow. Pipes and sockets are polled; anything else (a terminal, a file, one socket for both ways) is copied from or to a
pipe by a thread, because it cannot be polled or must not be made non-blocking. Source: basic/transports/stdio of
2026-07-28, basic/transports "stdio" of 2024-11-05 to 2025-11-25.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Final, final

from typing_extensions import override

from gatewright.backend.lines import Lines
from gatewright.errors import ProtocolError

BUFFER_BYTES: Final = 256 << 10
"""Written and not yet taken by the host. Beyond it senders wait and nothing is read."""
FLUSH_S: Final = 1.0
"""How long the last lines may take to be read by a host that is closing."""
_PIECE_BYTES: Final = 64 << 10

Took = Callable[[bytes | None], None]
"""Told of each line from the host, without its end; None for one that was too long."""


@final
class HostLines:
    """Cuts what the host writes into lines; one that is too long is left out, wherever it was cut in pieces."""

    __slots__ = ("_is_skipping", "_lines")

    def __init__(self, max_line_bytes: int) -> None:
        self._lines = Lines(max_line_bytes)
        self._is_skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that `data` completes; None for each that exceeds the bound."""
        start = 0
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            piece = data[start:end]
            start = end
            is_last = piece.endswith(b"\n")
            if self._is_skipping:
                self._is_skipping = not is_last
                continue
            try:
                yield from self._lines.feed(piece)
            except ProtocolError:
                self._is_skipping = not is_last
                yield None


class _Source(asyncio.Protocol):
    """What comes from the host."""

    def __init__(self, wire: StdioWire) -> None:
        self._wire = wire

    @override
    def data_received(self, data: bytes) -> None:
        self._wire.heard(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.source_ended()


class _Sink(asyncio.Protocol):
    """What goes to the host."""

    def __init__(self, wire: StdioWire) -> None:
        self._wire = wire

    @override
    def pause_writing(self) -> None:
        self._wire.hold(True)

    @override
    def resume_writing(self) -> None:
        self._wire.hold(False)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.sink_ended()


@final
class StdioWire:
    """The wire to the host. `on_end` is called when nothing more will come from it, and again when it has left."""

    def __init__(self, max_line_bytes: int, took: Took, on_end: Callable[[], None]) -> None:
        self._lines = HostLines(max_line_bytes)
        self._took = took
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._source: asyncio.ReadTransport | None = None
        self._sink: asyncio.WriteTransport | None = None
        self._copier: Thread | None = None
        self._is_paused = False
        self._is_over = False
        self._room: list[asyncio.Future[None]] = []
        self._sink_closed = asyncio.Event()
        self.is_gone = False
        """Nobody reads what is written any more."""

    async def open(self, source_fd: int, sink_fd: int) -> None:
        """Take over both descriptors; they are closed with the wire. Raises OSError."""
        is_one = os.path.samestat(os.fstat(source_fd), os.fstat(sink_fd))
        if is_one or not _is_pollable(sink_fd):
            sink_fd, self._copier = _copied_to(sink_fd)
        if is_one or not _is_pollable(source_fd):
            source_fd = _copied_from(source_fd)
        # The sink first: the first line may want an answer.
        self._sink, _ = await self._loop.connect_write_pipe(lambda: _Sink(self), os.fdopen(sink_fd, "wb", 0))
        self._sink.set_write_buffer_limits(high=BUFFER_BYTES)
        self._source, _ = await self._loop.connect_read_pipe(lambda: _Source(self), os.fdopen(source_fd, "rb", 0))

    def write(self, message: bytes) -> None:
        """Send one message now, whatever waits: for short answers to what was just read. Nothing once the host left."""
        if self.is_gone or self._sink is None or self._sink.is_closing():
            return
        # A line break between tokens is lawful JSON but would end the message here; none can stand inside a string.
        # Text-mode readers end a line at a lone CR as well.
        if b"\n" in message or b"\r" in message:
            message = message.replace(b"\n", b" ").replace(b"\r", b" ")
        self._sink.write(message + b"\n")

    async def send(self, message: bytes) -> None:
        """Send one message; return when the host takes more, or left."""
        while self._is_paused and not self.is_gone:
            await self._wait()
        self.write(message)
        while self._is_paused and not self.is_gone:
            await self._wait()

    def stop_reading(self) -> None:
        """Take nothing more from the host."""
        self._end()
        if self._source is not None:
            self._source.close()

    async def close(self) -> None:
        """Send what is written, within FLUSH_S, and close both ways."""
        self.stop_reading()
        if self._sink is None:
            return
        if not self._sink_closed.is_set():
            self._sink.close()
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._sink_closed.wait()
            except TimeoutError:
                self._sink.abort()
                self.sink_ended()
        if self._copier is not None:
            await asyncio.to_thread(self._copier.join, FLUSH_S)

    # --- for the transports

    def heard(self, data: bytes) -> None:
        """The host wrote something."""
        for line in self._lines.feed(data):
            if self._is_over:
                return
            self._took(line)

    def source_ended(self) -> None:
        """The host closed our input. What has no line end is a line too: cut off in the middle it would be no JSON."""
        self.heard(b"\n")
        self._end()

    def sink_ended(self) -> None:
        """The host closed our output: it has left."""
        self.is_gone = True
        self._sink_closed.set()
        self._wake()
        self._is_over = True
        self._on_end()

    def hold(self, is_paused: bool, /) -> None:
        """The host reads too slowly, or has caught up."""
        self._is_paused = is_paused
        if not is_paused:
            self._wake()
        if self._source is not None and not self._source.is_closing():
            if is_paused:
                self._source.pause_reading()
            else:
                self._source.resume_reading()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._room:
                self._room.remove(waiter)

    def _wake(self) -> None:
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end()


def _is_pollable(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _copied_from(fd: int) -> int:
    """A pipe that brings what is read from `fd`."""
    source, sink = os.pipe()
    Thread(target=_copy, args=(fd, sink), name="stdin", daemon=True).start()
    return source


def _copied_to(fd: int) -> tuple[int, Thread]:
    """A pipe whose content is written to `fd`, and who does it."""
    source, sink = os.pipe()
    copier = Thread(target=_copy, args=(source, fd), name="stdout", daemon=True)
    copier.start()
    return sink, copier


def _copy(source: int, sink: int) -> None:
    """Copy until either side ends; then close both."""
    with os.fdopen(source, "rb", 0) as reader, os.fdopen(sink, "wb", 0) as writer:
        try:
            while data := reader.read(_PIECE_BYTES):
                while data:
                    data = data[writer.write(data) or 0 :]
        except OSError:
            return
