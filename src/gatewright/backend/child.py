"""One child process and its three pipes, from birth to the last trace of its process group.

`Child` is the wire of a `PipeLink`: messages are lines on its standard input and output. Whatever ends it, the same
things follow: its group is signalled, the process is reaped, what it still had to say is read, the exchanges on it
fail with the reason, and the group is watched until it is empty (SIGKILL after the grace). All of that is driven by
callbacks and timers, so that no task can be cancelled half-way through it. Never a shell, never the gateway's whole
environment. Source: 2026-07-28 basic/transports/stdio, "Shutdown" and "Unexpected Termination".
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Final, final

import structlog
from typing_extensions import override

from gatewright.backend.guard import Guard
from gatewright.backend.lines import Lines, Remarks
from gatewright.backend.pipe import PipeLink, Wire
from gatewright.backend.settings import BackendSettings
from gatewright.errors import ProtocolError

_LAST_WORDS_S: Final = 0.25
"""After the exit or a closed pipe, how long the rest may take to arrive: a grandchild may hold the pipes for ever."""
_LOOK_S: Final = 0.02
"""How often a dying process group is looked at, and a living child where the system has no pidfd."""
_MAX_GARBAGE_RUN: Final = 1000
"""Lines in a row that are no message. A banner has dozens; a program that prints thousands speaks something else."""
_REMARK_BYTES: Final = 64 << 10
_REMARK_PAUSE_S: Final = 0.1
"""After so many bytes of standard error it is left alone for so long: a flood slows its writer down, not us."""
_REMARKS_LOGGED: Final = 100
"""Lines of standard error logged one by one; then one in a hundred. The tail has the newest in any case."""
_MAX_WORDS: Final = 200
"""Characters of the last line of standard error that an error message repeats."""
_MIN_SECRET: Final = 6
"""Shorter values of `env` (`1`, `true`) are no secrets and would mask half of every line."""


class _Pipe(asyncio.Protocol):
    """One end of one pipe: calls back with data, and once with the end."""

    def __init__(self, took: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._took = took
        self._ended = ended
        self.is_over = False
        self.is_paused = False
        self._waiters: list[asyncio.Future[None]] = []

    @override
    def data_received(self, data: bytes) -> None:
        self._took(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self.resume_writing()
        self._ended()

    @override
    def pause_writing(self) -> None:
        self.is_paused = True

    @override
    def resume_writing(self) -> None:
        self.is_paused = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def room(self) -> None:
        """Until the transport's buffer is below its mark again, or the pipe is gone."""
        while self.is_paused and not self.is_over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


@final
class Child(Wire):
    """A running program. Whoever started it sets `link` and then runs `open`, before anything else.

    `on_end(child, reason, was_asked)` is called when its link has failed, `on_gone(child)` when its whole group is
    gone; each once, in this order.
    """

    link: PipeLink

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        process: subprocess.Popen[bytes],
        *,
        guard: Guard,
        on_end: Callable[[Child, str, bool], None],
        on_gone: Callable[[Child], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.was_stopped = False
        """Whether its end was our wish."""
        self._settings = settings
        self._process = process
        self._guard = guard
        self._on_end = on_end
        self._on_gone = on_gone
        self._log = structlog.get_logger(__name__).bind(backend=name, pid=self.pid)
        self._lines = Lines(settings.max_line_bytes)
        secrets = [value.reveal() for value in settings.env.values()]
        self._remarks = Remarks(hidden=tuple(text for text in secrets if len(text) >= _MIN_SECRET))
        self._remark_count = 0
        self._garbage_run = 0
        self._is_opening = True
        self._is_held = False
        self._condemnation = ""
        self._exited = False
        self._is_ended = False
        self._is_group_gone = False
        self._gone = asyncio.Event()
        self._last_words: asyncio.TimerHandle | None = None
        self._reminders: tuple[asyncio.TimerHandle, ...] = ()
        self._input = _Pipe(lambda _: None, self._wind_down)
        self._output = _Pipe(self._read, self._wind_down)
        self._errors = _Pipe(self._remark, self._wind_down)
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.ReadTransport | None = None
        self._stderr: asyncio.ReadTransport | None = None

    async def open(self) -> OSError | None:
        """Take over the pipes. Returns what went wrong; the child is on its way out then.

        Run it as a task of its own and never cancel it: uvloop closes the descriptor of a pipe whose connecting was
        cancelled, and the file object that still names it would later close somebody else's.
        """
        process, loop = self._process, self._loop
        self._guard.add(self.pid)
        self._log.info("child_started", command=self._settings.command)
        self._watch()
        try:
            self._stdin, _ = await loop.connect_write_pipe(lambda: self._input, process.stdin)
            self._stdout, _ = await loop.connect_read_pipe(lambda: self._output, process.stdout)
            self._stderr, _ = await loop.connect_read_pipe(lambda: self._errors, process.stderr)
        except OSError as error:
            self._is_opening = False
            self._condemn(f"could not be connected ({error})")
            return error
        self._is_opening = False
        if self._is_ended:
            self._let_go()
        return None

    def stderr_tail(self) -> tuple[str, ...]:
        """The newest lines that it wrote to standard error, cleaned, oldest first."""
        return self._remarks.tail()

    # --- the wire

    @override
    def write(self, message: bytes) -> bool:
        if self._stdin is None or self._stdin.is_closing() or self._exited:
            return False
        self._stdin.write(message + b"\n")
        return True

    @override
    async def drain(self) -> None:
        if self._input.is_paused:
            await self._input.room()

    @override
    def hold(self, is_held: bool, /) -> None:
        self._is_held = is_held
        if self._stdout is None or self._output.is_over or self._stdout.is_closing():
            return
        if is_held:
            self._stdout.pause_reading()
        else:
            self._stdout.resume_reading()

    @override
    async def close(self) -> None:
        self.stop()
        try:
            await self._gone.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise

    def stop(self) -> None:
        """Close its standard input; SIGTERM and then SIGKILL follow to the whole group, each after the grace."""
        if self.was_stopped:
            return
        self.was_stopped = True
        if self._stdin is not None:
            self._stdin.close()
        if not self._exited:
            grace_s, later = self._settings.stop_grace_s, self._loop.call_later
            self._reminders = (
                later(grace_s, self._insist, signal.SIGTERM),
                later(2 * grace_s, self._insist, signal.SIGKILL),
            )

    def _insist(self, number: signal.Signals) -> None:
        self._log.info("child_signalled", signal=number.name)
        self._signal(number)

    # --- what it says

    def _read(self, data: bytes) -> None:
        try:
            lines = self._lines.feed(data)
        except ProtocolError as error:
            self._condemn(f"printed {error} (max_line_bytes)")
            return
        feed = self.link.feed
        for line in lines:
            if feed(line):
                self._garbage_run = 0
            else:
                self._garbage_run += 1
                if self._garbage_run >= _MAX_GARBAGE_RUN:
                    self._condemn(f"printed {_MAX_GARBAGE_RUN} lines in a row that are not MCP messages")
                    return

    def _remark(self, data: bytes) -> None:
        for text in self._remarks.feed(data):
            self._log_remark(text)
        if len(data) >= _REMARK_BYTES // 4 and self._stderr is not None and not self._stderr.is_closing():
            self._stderr.pause_reading()
            self._loop.call_later(_REMARK_PAUSE_S * len(data) / _REMARK_BYTES, self._listen_again)

    def _listen_again(self) -> None:
        if self._stderr is not None and not self._errors.is_over and not self._stderr.is_closing():
            self._stderr.resume_reading()

    def _log_remark(self, text: str) -> None:
        self._remark_count += 1
        if self._remark_count <= _REMARKS_LOGGED:
            self._log.info("child_stderr", text=text)
        elif self._remark_count % _REMARKS_LOGGED == 0:
            self._log.info("child_stderr", text=text, lines_so_far=self._remark_count)

    # --- its end

    def _watch(self) -> None:
        """Call `_reap` when it has exited."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            self._poll()
            return
        self._loop.add_reader(pidfd, self._reap, pidfd)

    def _poll(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(_LOOK_S, self._poll)
        else:
            self._reap(-1)

    def _reap(self, pidfd: int) -> None:
        if pidfd >= 0:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        # What it left behind has lost its server. Signalled before the number is free for others to use.
        self._signal(signal.SIGTERM)
        self._process.wait()
        self._exited = True
        for reminder in self._reminders:
            reminder.cancel()
        self._sweep(self._loop.time() + self._settings.stop_grace_s, is_killed=False)
        self._wind_down()

    def _sweep(self, deadline_s: float, is_killed: bool) -> None:
        """Look until the group is empty; SIGKILL what is left of it at the deadline."""
        if self._is_group_alive():
            now_s = self._loop.time()
            if now_s < deadline_s:
                self._loop.call_later(_LOOK_S, self._sweep, deadline_s, is_killed)
                return
            if not is_killed:
                self._log.info("child_group_killed")
                self._signal(signal.SIGKILL)
                self._loop.call_later(_LOOK_S, self._sweep, now_s + self._settings.stop_grace_s, True)
                return
            self._log.error("child_group_unkillable")
        self._is_group_gone = True
        self._guard.discard(self.pid)
        self._leave()

    def _is_group_alive(self) -> bool:
        try:
            # As the first process of a container we inherit its orphans, and must bury them.
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if not self._is_group_gone:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def _condemn(self, reason: str) -> None:
        """It broke a bound: no grace."""
        self._condemnation = reason
        self._signal(signal.SIGKILL)
        self._end()

    def _wind_down(self) -> None:
        """Something of it ended: the process, or a pipe. Hear the rest, but not for long."""
        if self._is_ended or not (self._exited or (not self.was_stopped and self._is_mute())):
            return
        if self._exited and self._output.is_over and self._errors.is_over:
            self._end()
        elif self._last_words is None:
            self._last_words = self._loop.call_later(_LAST_WORDS_S, self._expire)

    def _is_mute(self) -> bool:
        return self._input.is_over or self._output.is_over

    def _expire(self) -> None:
        if self._is_held and not self._output.is_over:
            self._last_words = self._loop.call_later(_LAST_WORDS_S, self._expire)
        else:
            self._end()

    def _end(self) -> None:
        """Nothing more is heard of it: tell everybody why, and let go of the pipes."""
        if self._is_ended:
            return
        self._is_ended = True
        if self._last_words is not None:
            self._last_words.cancel()
        for text in self._remarks.finish():
            self._log_remark(text)
        reason = self._explain()
        self._log.info("child_ended", reason=reason, stray_messages=self.link.strays, garbage=self.link.garbage)
        self.link.fail(reason)
        self._on_end(self, reason, self.was_stopped)
        self.stop()
        self._let_go()
        self._leave()

    def _let_go(self) -> None:
        """Close the pipes, through whatever owns them by now."""
        if self._is_opening:
            return
        process = self._process
        if self._stdin is not None:
            # asyncio's transport breaks when it is aborted after it has begun to close with nothing left to write.
            if not self._stdin.is_closing() or self._stdin.get_write_buffer_size():
                self._stdin.abort()
        elif process.stdin is not None:
            process.stdin.close()
        for transport, stream in ((self._stdout, process.stdout), (self._stderr, process.stderr)):
            if transport is not None:
                transport.close()
            elif stream is not None:
                stream.close()

    def _leave(self) -> None:
        if self._is_ended and self._is_group_gone and not self._gone.is_set():
            self._gone.set()
            self._on_gone(self)

    def _explain(self) -> str:
        status = self._process.returncode
        if self._condemnation:
            told = f"the child {self._condemnation} and was killed"
        elif self.was_stopped:
            told = "the child was stopped"
        elif status is None:
            told = f"the child closed its standard {'output' if self._output.is_over else 'input'}"
        elif status < 0:
            told = f"the child was killed by {_signal_name(-status)}"
        else:
            told = f"the child exited with status {status}"
        words = "" if self.was_stopped else self._remarks.last()[:_MAX_WORDS]
        return f"{told}; its last words: {words}" if words else told


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
