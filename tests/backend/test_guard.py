"""The guard: what it is told to watch is ended when its teller is gone, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from gatewright.backend.guard import Guard

WAIT_S = 5.0


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Makes processes that lead groups of their own; ended after the test."""
    made: list[subprocess.Popen[bytes]] = []

    def make() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait()


def guards() -> list[psutil.Process]:
    """The guard processes that are children of this one."""
    found = []
    for child in psutil.Process().children():
        if child.status() != psutil.STATUS_ZOMBIE and "groups=" in " ".join(child.cmdline()):
            found.append(child)
    return found


def test_no_guard_without_children() -> None:
    """Nothing is started until there is something to guard."""
    guard = Guard("x")
    guard.discard(1)
    guard.close()
    assert guards() == []


def test_one_guard_for_all_groups(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    """The guard is a small process of its own session; it ends with the last group, without touching any."""
    guard = Guard("x")
    processes = [sleeper(), sleeper()]
    for process in processes:
        guard.add(process.pid)
    (one,) = guards()
    assert os.getsid(one.pid) == one.pid
    assert one.memory_info().rss < 8 << 20
    guard.close()
    assert guards() == [one]
    for process in processes:
        guard.discard(process.pid)
    guard.close()
    assert guards() == []
    assert [process.poll() for process in processes] == [None, None]


def test_the_end_of_the_pipe_ends_what_is_left(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    """When the pipe closes, the groups that are left get SIGTERM; one that was discarded does not."""
    guard = Guard("x")
    left, discarded = sleeper(), sleeper()
    guard.add(left.pid)
    guard.add(discarded.pid)
    guard.discard(discarded.pid)
    process = guard._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert left.wait(WAIT_S) == -signal.SIGTERM
    process.wait(WAIT_S)
    assert discarded.poll() is None


def test_a_dead_guard_is_replaced(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    """Somebody killed the guard: the next child starts another, which knows all groups."""
    guard = Guard("x")
    first, second = sleeper(), sleeper()
    guard.add(first.pid)
    (one,) = guards()
    one.kill()
    one.wait(WAIT_S)
    guard.add(second.pid)
    (other,) = guards()
    assert other.pid != one.pid
    process = guard._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert first.wait(WAIT_S) == second.wait(WAIT_S) == -signal.SIGTERM
    process.wait(WAIT_S)
