"""The parent of several worker processes: starts them, starts anew what crashed, passes signals on, waits for the end.

Contract: a small process without an event loop or a thread, so that it can fork workers at any time and nothing of
theirs can stop it. Each worker is a fork of it: what was read and checked at the start holds for every later one, and
one that is started anew serves within a fraction of a second. A worker that cannot start at all ends the whole; one
that crashes later is started again after a pause that grows while it goes on crashing. One that lives but gives no
sign of it, its event loop being stuck, is asked where it is, killed, and started again like that. SIGTERM, SIGINT and
SIGHUP end it in order: every worker gets the same (for SIGHUP, SIGTERM) and has time to drain. A worker whose parent is
gone (SIGKILL, the OOM killer) gets SIGTERM from the kernel, so that none is left behind. Linux: prctl(2),
PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn, TypeAlias, final

import structlog

from gatewright.cli.pulse import Pulses
from gatewright.cli.report import FAILED, CommandError

PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG."""
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WHERE: Final = signal.SIGUSR2
"""Lets a worker write to stderr where each of its threads is, whatever it is doing."""
WHERE_S: Final = 0.5
"""What it has for that before it is killed."""
READY: Final = b"+"
WRONG: Final = b"-"
MAX_REPORT_BYTES: Final = 65_536
"""Of what one worker says: an address, or why it failed. A pipe holds as much."""
log = structlog.get_logger("gatewright.workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long a worker that crashed is left alone before it is started again, in seconds."""

    first_s: float = 0.1
    """After a first crash: nearly at once, as its share of the clients waits."""
    longest_s: float = 15.0
    settled_s: float = 30.0
    """One that served this long begins with the first pause again."""
    start_s: float = 60.0
    """One that does not serve after this is killed and counts as crashed."""
    silent_s: float = 30.0
    """One that served and does not turn its event loop for this long is killed and counts as crashed."""

    def after(self, crashes: int) -> float:
        """After so many crashes in a row."""
        return float(min(self.longest_s, self.first_s * 2 ** min(crashes - 1, 20)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a worker is given."""

    number: int
    ready: Callable[[str], None]
    """To be called when it serves, with a text for the supervisor's `on_ready`."""
    beat: Callable[[], None]
    """From then on to be called every `beat_s`, by what must never be held up."""
    beat_s: float


Work: TypeAlias = Callable[[Place], None]
"""What the worker in that place does until it is told to stop. Raises CommandError when it cannot."""


@dataclass(slots=True)
class _Worker:
    """One place, and the process that is in it now."""

    number: int
    pid: int = 0
    """0: none."""
    report: int = -1
    """Where its process says that it serves, or why not; -1 when nothing more can come."""
    said: bytes = b""
    is_ready: bool = False
    started_at: float = 0.0
    crashes: int = 0
    """In a row."""
    due_at: float = 0.0
    """When it is started again, while there is none."""
    asked_at: float | None = None
    """When it was asked where it is, as it gives no sign of life."""
    is_killed: bool = False
    """It is about to end: that takes a moment."""


@final
class Supervisor:
    """Runs `count` workers until told to stop. `stop_s` is how long they may take to end then; `on_restart` is told how
    often one that crashed was started anew."""

    def __init__(
        self,
        count: int,
        work: Work,
        *,
        stop_s: float,
        on_ready: Callable[[str], None],
        on_restart: Callable[[int], None] = lambda restarts: None,
        pauses: Pauses | None = None,
    ) -> None:
        self._work = work
        self._stop_s = stop_s
        self._on_ready = on_ready
        self._on_restart = on_restart
        self._restarts = 0
        self._pauses = pauses or Pauses()
        self._pulses = Pulses(count, self._pauses.silent_s)
        self._workers = [_Worker(number) for number in range(count)]
        self._asked: list[int] = []
        self._kill_at: float | None = None
        self._has_served = False
        self._failure: CommandError | None = None
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Start them, and return when all have ended after a signal. Raises CommandError when they cannot serve."""
        # Nothing here makes cycles, and a collection here or in a worker would copy the pages that all of them share.
        gc.collect()
        gc.freeze()
        gc.disable()
        with self._watching():
            for worker in self._workers:
                self._start(worker)
            while self._kill_at is None or any(worker.pid for worker in self._workers):
                self._wait()
                self._reap()
                self._look()
        if self._failure is not None:
            raise self._failure

    # Signals.

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Hear signals inside the block, by a byte on a pipe that `_wait` waits for."""
        before = {number: signal.signal(number, self._heard) for number in (*STOPPING, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._waker)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._asked.append(number)

    def _stop(self, number: int = signal.SIGTERM) -> None:
        """Tell every worker to drain; with SIGINT, and when it is told again, to hurry."""
        is_hurried = number == signal.SIGINT or self._kill_at is not None
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._stop_s
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, signal.SIGINT if is_hurried else signal.SIGTERM)

    # One turn: wait, see who ended, do what is due.

    def _wait(self) -> None:
        """Return when something happened or is due."""
        moments = [worker.due_at for worker in self._workers if not worker.pid and self._kill_at is None]
        moments += [
            worker.started_at + self._pauses.start_s for worker in self._workers if worker.pid and not worker.is_ready
        ]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for worker in self._workers:
            if worker.report >= 0:
                poll.register(worker.report, select.POLLIN)
        longest_s = self._pulses.pause_s
        pause_s = max(0.0, min(longest_s, min(moments) - time.monotonic())) if moments else longest_s
        found = [descriptor for descriptor, _ in poll.poll(pause_s * 1000 + 1)]
        if self._wake in found:
            os.read(self._wake, 4096)
        for worker in self._workers:
            if worker.report in found:
                self._read(worker)

    def _read(self, worker: _Worker) -> None:
        """What a worker says of itself."""
        data = os.read(worker.report, MAX_REPORT_BYTES)
        worker.said += data
        if not data or len(worker.said) > MAX_REPORT_BYTES:
            os.close(worker.report)
            worker.report = -1
        elif worker.said.startswith(READY) and worker.said.endswith(b"\n") and not worker.is_ready:
            self._served(worker)

    def _served(self, worker: _Worker) -> None:
        worker.is_ready = True
        self._pulses.forget(worker.number)
        if worker.crashes:
            log.info("worker serves again", worker=worker.number, pid=worker.pid)
            self._restarts += 1
            self._on_restart(self._restarts)
        if not self._has_served and all(one.is_ready for one in self._workers):
            self._has_served = True
            self._on_ready(worker.said[1:-1].decode())

    def _reap(self) -> None:
        """See which workers have ended."""
        for worker in self._workers:
            if worker.pid:
                ended, status = os.waitpid(worker.pid, os.WNOHANG)
                if ended:
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        while worker.report >= 0:
            self._read(worker)  # its last words; its end of the pipe is closed
        pid, worker.pid = worker.pid, 0
        has_started, worker.is_ready = worker.is_ready, False
        if self._kill_at is not None:
            return
        now = time.monotonic()
        reason = worker.said[1:].decode(errors="replace") if worker.said.startswith(WRONG) else _manner(code)
        if not self._has_served and not has_started:
            log.error("a worker cannot start: giving up", worker=worker.number, pid=pid, reason=reason)
            is_known = worker.said.startswith(WRONG)
            self._failure = CommandError(
                reason if is_known else f"gatewright: worker {worker.number} cannot start: {reason}",
                code if is_known and code > 0 else FAILED,
            )
            self._stop()
            return
        has_settled = has_started and now - worker.started_at > self._pauses.settled_s
        worker.crashes = 1 if has_settled else worker.crashes + 1
        pause_s = self._pauses.after(worker.crashes)
        worker.due_at = now + pause_s
        log.error("worker ended", worker=worker.number, pid=pid, reason=reason, starts_again_in_s=round(pause_s, 1))

    def _look(self) -> None:
        """Do what was asked and what is due."""
        while self._asked:
            number = self._asked.pop(0)
            log.info("stopping", signal=signal.Signals(number).name)
            self._stop(number)
        now = time.monotonic()
        self._pulses.look(now)
        for worker in self._workers:
            if not worker.pid:
                if self._kill_at is None and now >= worker.due_at:
                    self._start(worker)
            elif reason := self._hopeless(worker, now):
                log.error("worker killed", worker=worker.number, pid=worker.pid, reason=reason)
                os.kill(worker.pid, signal.SIGKILL)
                worker.is_killed = True
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + 1.0  # SIGKILL takes a moment

    def _hopeless(self, worker: _Worker, now: float) -> str:
        """Why a worker is to be killed now, empty if it is not."""
        if worker.is_killed:
            return ""
        if self._kill_at is not None and now >= self._kill_at:
            return "it did not end in time"
        if not worker.is_ready:
            has_time = self._kill_at is not None or now <= worker.started_at + self._pauses.start_s
            return "" if has_time else "it does not begin to serve"
        if not self._pulses.is_silent(worker.number):
            worker.asked_at = None
        elif worker.asked_at is None:
            worker.asked_at = now
            os.kill(worker.pid, WHERE)
        elif now >= worker.asked_at + WHERE_S:
            return f"its event loop did not turn for {self._pauses.silent_s:g} s"
        return ""

    # Processes.

    def _start(self, worker: _Worker) -> None:
        """Fork a worker. Signals are held back until both sides have the handlers that are theirs."""
        report, reporter = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (*STOPPING, signal.SIGCHLD))
        pid = os.fork()
        if not pid:
            self._become(self._place(worker.number, reporter), parent, reporter, held)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.close(reporter)
        worker.pid, worker.report, worker.said, worker.is_ready = pid, report, b"", False
        worker.started_at, worker.asked_at, worker.is_killed = time.monotonic(), None, False

    def _place(self, number: int, reporter: int) -> Place:
        def ready(text: str) -> None:
            os.write(reporter, READY + text.encode() + b"\n")

        return Place(number=number, ready=ready, beat=lambda: self._pulses.beat(number), beat_s=self._pulses.pause_s)

    def _become(self, place: Place, parent: int, reporter: int, held: set[int | signal.Signals]) -> NoReturn:
        """The worker's side of the fork. It never returns into what the supervisor was doing."""
        code = FAILED
        try:
            self._part(parent, held)
            self._work(place)
            code = 0
        except CommandError as error:
            os.write(reporter, WRONG + str(error).encode()[: MAX_REPORT_BYTES - 1])
            code = error.exit_code
        except BaseException as error:  # noqa: BLE001 - the outermost edge of this process: a bug ends it, and says so
            traceback.print_exc()
            os.write(reporter, WRONG + f"gatewright: {type(error).__name__}: {error}".encode()[: MAX_REPORT_BYTES - 1])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _part(self, parent: int, held: set[int | signal.Signals]) -> None:
        """Let go of what is the supervisor's: its handlers, its pipes, its terminal's signals, which it passes on."""
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        for descriptor in (self._wake, self._waker, *(one.report for one in self._workers if one.report >= 0)):
            os.close(descriptor)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(FAILED)
        faulthandler.register(WHERE)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        gc.enable()


def _manner(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
