"""What a process that runs a gateway does with itself, without running one."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys

import pytest

from gatewright.app import Gateway
from gatewright.cli.process import GC_THRESHOLDS, explained, settle_garbage, stopping_on_signals
from gatewright.cli.report import FAILED
from gatewright.config import Config
from gatewright.errors import BackendError
from gatewright.inbound.settings import Listen


def test_what_went_wrong_is_one_line_with_advice() -> None:
    """However many groups it comes in; a bug is raised as it is."""
    taken = OSError(errno.EADDRINUSE, "in use")
    taken.filename = "127.0.0.1:1"
    told = explained(ExceptionGroup("one", [ExceptionGroup("two", [taken])]), Listen())
    assert (told.exit_code, str(told)) == (
        FAILED,
        "gatewright: the address 127.0.0.1:1 is taken: stop what listens there, or choose another with --listen",
    )
    assert "cannot listen on 127.0.0.1:8080" in str(explained(OSError(errno.EACCES, "no"), Listen()))
    assert str(explained(BackendError("gone"), Listen())) == "gatewright: gone"
    with pytest.raises(KeyError):
        explained(KeyError("a bug"), Listen())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_too_early_is_kept(number: signal.Signals) -> None:
    """And what was there before is put back."""
    before = signal.getsignal(number)
    with stopping_on_signals(Gateway(Config())) as signals:
        signals.arm()
        os.kill(os.getpid(), number)
        assert signals._is_asked
        signals.arm()
    assert signal.getsignal(number) is before


def test_garbage_is_settled_once_for_what_lives_on() -> None:
    """What is there is not looked at again."""
    before = gc.get_threshold()
    try:
        settle_garbage()
        assert gc.get_threshold() == GC_THRESHOLDS
        assert gc.get_freeze_count() > 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_memory_of_large_bodies_is_kept_for_the_next() -> None:
    """After the first few, one more takes no page from the system that was not given back to it."""
    code = (
        "import resource\n"
        "from gatewright.cli.process import keep_memory\n"
        "keep_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def bodies():\n"
        "    before = faults()\n"
        "    for _ in range(100): [bytes(100_000) for _ in range(4)]\n"
        "    return faults() - before\n"
        "bodies()\n"
        "print(bodies())\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert int(told.stdout) < 400  # 10,000 when every body is mapped anew
