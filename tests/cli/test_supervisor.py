"""The supervisor with real processes: starts, crashes, signals, and its own death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli.commands import WAIT_S, environment, line_of
from cli.speaking import TESTS, gone, is_alive
from cli.supervised import CANNOT
from gatewright.cli.supervisor import Pauses


@contextmanager
def supervised(
    *ways: str, count: int = 2, stop_s: float = 20.0, start_s: float = 20.0, silent_s: float = 30.0
) -> Iterator[subprocess.Popen[str]]:
    """The supervisor beside the test, killed at the end if it still runs; its workers end with it."""
    bounds = map(str, (count, stop_s, start_s, silent_s))
    command = [sys.executable, "-m", "cli.supervised", *bounds, *ways]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])))),
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=WAIT_S)


def started(child: subprocess.Popen[str], count: int = 2) -> dict[int, int]:
    """The processes of all workers, by number, once all serve: that is said once, and not before."""
    found = {}
    for _ in range(count):
        word, number, pid = line_of(child).split()
        assert word == "worker"
        found[int(number)] = int(pid)
    assert line_of(child).startswith("serving ready ")
    assert sorted(found) == list(range(count))
    return found


def replaced(child: subprocess.Popen[str], number: int) -> int:
    """The process of a worker that was started anew."""
    word, again, pid = line_of(child).split()
    assert (word, int(again)) == ("worker", number)
    return int(pid)


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGTERM")]
)
def test_a_signal_drains_every_worker_and_is_success(number: signal.Signals, told: str) -> None:
    """Each is told to stop once, and nobody is started again."""
    with supervised(count=3) as child:
        pids = started(child, 3)
        child.send_signal(number)
        out, _ = child.communicate(timeout=WAIT_S)
        assert sorted(out.splitlines()) == [f"ended 0 {told}", f"ended 1 {told}", f"ended 2 {told}", "over"]
        assert child.returncode == 0
        assert not any(is_alive(pid) for pid in pids.values())


def test_a_killed_worker_is_back_and_the_others_did_not_notice() -> None:
    """In another process, under the same number, again and again."""
    with supervised() as child:
        pids = started(child)
        for _ in range(3):
            os.kill(pids[1], signal.SIGKILL)
            again = replaced(child, 1)
            assert again != pids[1]
            pids[1] = again
        assert is_alive(pids[0])
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert out.splitlines().count("over") == 1
        assert err.count("it was ended by SIGKILL") == 3


def test_one_that_crashes_again_and_again_is_left_alone_for_longer_each_time() -> None:
    """The other one serves on, and it still can be ended."""
    with supervised("1:crash") as child:
        said = [line_of(child) for _ in range(8)]
        assert sum(line.startswith("worker 1") for line in said) >= 5
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert "ended 0 SIGTERM" in out
        assert "starts_again_in_s=0.2" in err or '"starts_again_in_s":0.2' in err


@pytest.mark.parametrize(("way", "code"), [("cannot", 2), ("bug", 1), ("mute", 1)])
def test_one_that_cannot_start_at_all_ends_everything(way: str, code: int) -> None:
    """With its own words and exit code where it has some; the others are ended, and it is never said to serve."""
    with supervised(f"1:{way}", start_s=1.0) as child:
        out, _ = child.communicate(timeout=WAIT_S)
    said = out.splitlines()
    reason = {
        "cannot": CANNOT,
        "bug": "gatewright: ValueError: a bug",
        "mute": "gatewright: worker 1 cannot start: it was ended by SIGKILL",
    }[way]
    assert f"failed {reason}" in said
    assert child.returncode == code
    assert not any(line.startswith("serving") for line in said)


def test_who_does_not_end_in_time_is_killed() -> None:
    """And the end is an orderly one all the same."""
    with supervised("1:deaf", stop_s=0.3) as child:
        pids = started(child)
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert sorted(out.splitlines()) == ["ended 0 SIGTERM", "over"]
        assert "did not end in time" in err
        assert not is_alive(pids[1])


def test_a_stuck_worker_is_asked_where_it_is_and_replaced() -> None:
    """It lives, and would for ever: the log says what it was doing. Its neighbour did not notice."""
    with supervised("1:stuck", silent_s=1.0) as child:
        pids = started(child)
        again = replaced(child, 1)
        assert gone(pids[1])
        assert is_alive(pids[0])
        assert again != pids[1]
        child.kill()
        _, err = child.communicate(timeout=WAIT_S)
        assert err.count("its event loop did not turn for 1 s") == 1
        assert "supervised.py" in err
        assert "in work" in err


def test_a_stopped_worker_is_replaced() -> None:
    """SIGSTOP: it can say nothing any more, and only SIGKILL ends it."""
    with supervised(silent_s=1.0) as child:
        pids = started(child)
        os.kill(pids[0], signal.SIGSTOP)
        assert replaced(child, 0) != pids[0]
        assert gone(pids[0])
        assert is_alive(pids[1])
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert out.splitlines().count("over") == 1
        assert err.count("worker killed") == 1


def test_a_worker_that_is_stuck_as_it_drains_holds_nobody_up() -> None:
    """It is killed as at any other time, long before it would have to have ended, and not started again."""
    with supervised("1:deaf", "0:stuck-when-told", stop_s=60.0, silent_s=1.0) as child:
        pids = started(child)
        os.kill(pids[1], signal.SIGSTOP)
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert out.splitlines() == ["over"]
        assert err.count("its event loop did not turn") == 2


def test_a_supervisor_that_was_stopped_itself_blames_nobody() -> None:
    """It was not there to hear the signs of life."""
    with supervised(silent_s=1.0) as child:
        pids = started(child)
        for pid in (child.pid, *pids.values()):
            os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            signal.sigtimedwait((), 0.1)
        child.send_signal(signal.SIGCONT)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
        child.terminate()
        out, err = child.communicate(timeout=WAIT_S)
        assert sorted(out.splitlines()) == ["ended 0 SIGTERM", "ended 1 SIGTERM", "over"]
        assert "killed" not in err


def test_a_second_signal_tells_them_to_hurry() -> None:
    """As Ctrl-C twice does with one process."""
    with supervised("1:stubborn") as child:
        started(child)
        child.terminate()
        assert line_of(child) == "ended 0 SIGTERM"
        child.terminate()
        assert line_of(child) == "ended 1 SIGTERM+SIGINT"
        assert line_of(child) == "over"


def test_workers_end_when_the_supervisor_is_killed() -> None:
    """In order, as if it had told them."""
    with supervised() as child:
        pids = started(child)
        child.kill()
        assert {line_of(child), line_of(child)} == {"ended 0 SIGTERM", "ended 1 SIGTERM"}
        assert all(gone(pid) for pid in pids.values())


def test_pauses_grow_to_a_bound() -> None:
    """From nearly nothing."""
    pauses = Pauses(first_s=0.1, longest_s=15.0)
    assert [pauses.after(crashes) for crashes in (1, 2, 3, 8, 9, 1_000)] == [0.1, 0.2, 0.4, 12.8, 15.0, 15.0]


def test_a_supervisor_with_nothing_to_do_does_nothing() -> None:
    """It sleeps: no CPU in a second of rest."""
    with supervised() as child:
        started(child)
        before = _cpu_s(child.pid)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            signal.sigtimedwait((), 0.1)
        assert _cpu_s(child.pid) - before < 0.02


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
