"""Standard input and output kept for the protocol alone, and standard error that never holds up the process.

Contract: after `claimed`, what anything in this process prints goes to standard error and what anything reads is empty;
only who has the returned descriptors speaks with the host. Call it before anything else can print. `Unhurried` writes
text from a thread and drops what a reader that stalls leaves no room for. Source: basic/transports "stdio" (the server
MUST NOT write anything to its stdout that is not a valid MCP message).
"""

from __future__ import annotations

import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from io import TextIOBase
from queue import Empty, Full, Queue
from threading import Thread
from typing import final

from typing_extensions import override

from gatewright.cli.report import FAILED, CommandError

MAX_WAITING = 1_000
"""Log lines on their way to standard error. What comes beyond is dropped: hosts exist that never read it."""
FLUSH_S = 0.5
"""How long the last lines may take at the end."""


def claimed() -> tuple[int, int]:
    """The host's two descriptors, from it and to it, under numbers of their own; nothing inherits them.

    Raises `CommandError` when there is no standard input or output.
    """
    try:
        source, sink = (fcntl(fd, F_DUPFD_CLOEXEC, 3) for fd in (0, 1))  # never a closed one of the first three
    except OSError:
        raise CommandError("gatewright: standard input and output are closed; a host must start this", FAILED) from None
    null = os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:  # closed by who started us: otherwise the next file opened would become it
        os.dup2(null, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    return source, sink


@final
class Unhurried(TextIOBase):
    """A text stream that takes every write at once; a thread carries it to the descriptor `fd`, below the file objects
    of Python: those would wait for it at the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: Queue[str | None] = Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = Thread(target=self._carry, name="stderr", daemon=True)
        self._thread.start()

    @override
    def write(self, text: str, /) -> int:
        try:
            self._lines.put_nowait(text)
        except Full:
            self._dropped += 1
        return len(text)

    @override
    def isatty(self) -> bool:
        return os.isatty(self._fd)

    @override
    def close(self) -> None:
        """Carry what waits, within FLUSH_S."""
        if self.closed:
            return
        super().close()
        try:
            self._lines.put(None, timeout=FLUSH_S)
        except Full:
            return
        self._thread.join(FLUSH_S)

    def _carry(self) -> None:
        try:
            while (text := self._lines.get()) is not None:
                text += self._waiting()
                dropped, self._dropped = self._dropped, 0
                if dropped:
                    text += f"({dropped} more lines were dropped: standard error was not read)\n"
                data = text.encode(errors="backslashreplace")
                while data:
                    data = data[os.write(self._fd, data) :]
        except OSError:  # nobody will read it
            return

    def _waiting(self) -> str:
        """What else waits, up to the end mark, which is put back."""
        parts: list[str] = []
        try:
            while (text := self._lines.get_nowait()) is not None:
                parts.append(text)
        except Empty:
            return "".join(parts)
        self._lines.put(None)
        return "".join(parts)
