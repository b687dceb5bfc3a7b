"""`RealProcess`: first lines, bounded waits, ends by id, groups left empty."""

from __future__ import annotations

import signal
import sys

import psutil
import pytest

from interop.processes import ProcessError, RealProcess, running

OBEDIENT = "import sys, time; print('ready on 1'); sys.stderr.write('noted\\n'); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(f'child {child.pid}'); time.sleep(60)"
)


def test_first_line_is_returned_without_its_prefix() -> None:
    """A server's address is what follows the agreed words."""
    with running([sys.executable, "-c", OBEDIENT]) as process:
        assert process.wait_line("ready on ") == "1"
    assert process.returncode == -signal.SIGTERM


def test_process_that_ends_early_fails_at_once_with_its_output() -> None:
    """The message carries the status and what the process wrote."""
    with (
        running([sys.executable, "-c", "raise SystemExit('broken on purpose')"]) as process,
        pytest.raises(ProcessError, match="broken on purpose"),
    ):
        process.wait_line("ready")


def test_deaf_process_is_killed_after_the_bound() -> None:
    """A process that ignores SIGTERM costs a bounded time and shows as killed."""
    process = RealProcess([sys.executable, "-c", DEAF])
    process.wait_line("ready")
    assert process.stop(timeout_s=0.3) == -signal.SIGKILL


def test_children_left_behind_are_ended_with_their_group() -> None:
    """What a process started goes when it goes."""
    process = RealProcess([sys.executable, "-c", PARENT])
    child = psutil.Process(int(process.wait_line("child ")))
    process.stop()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_waiting_for_an_end_is_bounded() -> None:
    """A run that does not end is ended, and says what it wrote."""
    process = RealProcess([sys.executable, "-c", OBEDIENT])
    process.wait_line("ready")
    with pytest.raises(ProcessError, match="noted"):
        process.wait(timeout_s=0.2)
    assert process.returncode is not None
