"""Real processes for tests: start, read the line that says they listen, end by their own id.

A process runs in a session of its own, so that ending it also ends what it started; its standard output and error are
kept in bounded rings, so that a failure message can quote them. Nothing here waits without a bound, looks a process up
by name, or ends one that it did not start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

FIRST_LINE_TIMEOUT_S = 20.0  # a cold Python or Node start with a large SDK takes 2-3 s on a busy two-core machine
STOP_TIMEOUT_S = 5.0
RING_LINES = 400  # enough to hold a traceback and the requests around it
_LINE_CHARS = 100_000


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the new process: have SIGTERM come when the test run is killed and no fixture can end it (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ProcessError(AssertionError):
    """A process ended, stayed silent or could not be started; the message quotes its output."""


class RealProcess:
    """One started process. `lines` and `errors` are rings of its newest standard output and standard error lines.

    Never reused: after `stop` it is over. All waits are in seconds and bounded.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
        ring_lines: int = RING_LINES,
    ) -> None:
        """Start `argv` with `env` added to this process's environment; `name` is for messages."""
        self.name = name or Path(str(argv[0])).name
        self.lines: deque[str] = deque(maxlen=ring_lines)
        self.errors: deque[str] = deque(maxlen=ring_lines)
        self._news = threading.Condition()
        self._first_lines: list[str] = []  # bounded as well: a line that says "listening" is among the first
        self._process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_end_with_parent,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._readers = [
            threading.Thread(target=self._drain, args=(stream, ring), daemon=True)
            for stream, ring in ((self._process.stdout, self.lines), (self._process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The id of the process, which is also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def _drain(self, stream: Iterator[str] | None, ring: deque[str]) -> None:
        for line in stream or ():
            with self._news:
                ring.append(line.rstrip("\n")[:_LINE_CHARS])
                if ring is self.lines and len(self._first_lines) < RING_LINES:
                    self._first_lines.append(ring[-1])
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_line(self, prefix: str = "", *, timeout_s: float = FIRST_LINE_TIMEOUT_S) -> str:
        """Return the first line of standard output that starts with `prefix`, without the prefix.

        Raises ProcessError when the process ends or `timeout_s` passes first.
        """

        def found() -> str | None:
            return next((line for line in self._first_lines if line.startswith(prefix)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or not self._readers[0].is_alive(), timeout_s)
            line = found()
        if line is None:
            raise ProcessError(f"{self.name}: no line {prefix!r} within {timeout_s} s\n{self.report()}")
        return line.removeprefix(prefix).strip()

    def wait(self, *, timeout_s: float) -> int:
        """Wait for the process to end by itself and return its exit status; ProcessError after `timeout_s`."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            report = self.report()
            self.stop()
            raise ProcessError(f"{self.name}: still running after {timeout_s} s\n{report}") from None
        for reader in self._readers:
            reader.join(STOP_TIMEOUT_S)
        return status

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End the process: SIGTERM, then SIGKILL of its group after `timeout_s`. Returns the exit status.

        The status is negative when a signal ended it; `-signal.SIGKILL` tells a test that SIGTERM was not obeyed.
        """
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        if self._process.poll() is None:
            self._kill_group()
        status = self._process.wait(timeout_s)
        self._kill_group()  # what the process started and left behind; its group id is not reused while a member lives
        for reader in self._readers:
            reader.join(timeout_s)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return status

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def report(self) -> str:
        """Describe the process for a failure message: status, then the newest output and error lines."""
        out = "\n".join(list(self.lines)[-20:])
        err = "\n".join(list(self.errors)[-60:])
        return f"[{self.name} pid {self.pid} status {self.returncode}]\nstdout:\n{out}\nstderr:\n{err}"


@contextlib.contextmanager
def running(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    name: str | None = None,
    ring_lines: int = RING_LINES,
) -> Iterator[RealProcess]:
    """Start a process and end it when the block is left, whatever happened inside."""
    process = RealProcess(argv, env=env, cwd=cwd, name=name, ring_lines=ring_lines)
    try:
        yield process
    finally:
        process.stop()
