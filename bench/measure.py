"""One measurement of one case through one target: load, CPU of the middle, memory, and how much others disturbed it.

CPU is user plus system time of the processes in the middle, divided by the calls that wrk completed. `others` is the
share of the whole machine that was busy with anything but wrk, the stub and the target: a figure taken beside a busy
neighbour says so.
"""

import asyncio
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil

from bench import wrk
from bench.calls import Call
from bench.cases import Case
from bench.client import Connection, open_session
from bench.openloop import Pace
from bench.targets import ROOT, Target

_ANSWER_TIMEOUT_S = 20.0
_VERIFIED_ANSWERS = 5
CALM = 0.15
"""The share of the machine that others may use in a sample that counts as undisturbed."""
_CALM_WAIT_S = 5.0


@dataclass(frozen=True)
class Sample:
    """One run; `cpu_us` per call and `rss_bytes` are None where there is no middle."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    requests: int
    cpu_us: float | None
    rss_bytes: int | None
    others: float


async def prepare(url: str, case: Case) -> Call:
    """Make the session that the case needs and check some answers; raises RuntimeError with the first problem."""
    connection = await Connection.open(url)
    try:
        session = await open_session(connection) if case.era == "handshake" else ""
        call = case.call(session)
        for _ in range(_VERIFIED_ANSWERS):
            if not connection.is_open:
                connection = await Connection.open(url)
            answer = await asyncio.wait_for(connection.send(call), _ANSWER_TIMEOUT_S)
            problem = call.problem(answer.status, answer.content_type, answer.body)
            if problem:
                raise RuntimeError(problem)
    finally:
        connection.abort()
    return call


def count_wrong(url: str, call: Call, directory: Path) -> int:
    """Load for one second while every answer is read; also warms the target up."""
    return wrk.press(url, call, directory, duration_s=1, check=True).errors


def sample(
    target: Target, case: Case, url: str, call: Call, directory: Path, stub: psutil.Process, *, duration_s: int
) -> Sample:
    """Measure once. `stub` is the backend's process, needed to tell our own load from that of others."""
    middle = target.processes(case.backend)
    machine, ours, cpu = _busy_s(), _ours_s(stub), _cpu_s(middle)
    load = wrk.press(url, call, directory, duration_s=duration_s)
    cpu = _cpu_s(middle) - cpu
    busy = _busy_s() - machine - (_ours_s(stub) - ours) - cpu
    seconds = load.duration_us / 1e6
    return Sample(
        calls_per_s=load.calls_per_s,
        p50_ms=load.p50_us / 1000,
        p99_ms=load.p99_us / 1000,
        errors=load.errors,
        requests=load.requests,
        cpu_us=cpu / load.requests * 1e6 if middle and load.requests else None,
        rss_bytes=sum(process.memory_info().rss for process in middle) if middle else None,
        others=max(0.0, busy / seconds / (psutil.cpu_count() or 1)),
    )


def pace(url: str, call: Call, directory: Path, *, rate: float, duration_s: int, cores: set[int] | None = None) -> Pace:
    """Open-loop load at `rate` calls per second, from a process of its own on `cores` (None: any). Raises RuntimeError
    when it fails."""
    parts = urlsplit(url)
    request, expected = directory / "paced.request", directory / "paced.expected"
    request.write_bytes(call.encode(parts.netloc, parts.path))
    expected.write_bytes(msgspec.json.encode(call.text))
    command = [sys.executable, "-m", "bench.openloop", url, str(request), str(expected)]
    command += ["--rate", str(rate), "--duration", str(duration_s), "--connections", str(wrk.CONNECTIONS)]
    if cores is not None:
        command += ["--cores", ",".join(map(str, sorted(cores)))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=duration_s + 60, check=False)
    if done.returncode:
        raise RuntimeError(f"the open-loop driver failed: {done.stderr[-300:]}")
    return msgspec.json.decode(done.stdout, type=Pace)


def await_calm() -> None:
    """Wait for a moment in which the machine has nothing else to do, but not for long."""
    deadline = time.monotonic() + _CALM_WAIT_S
    while time.monotonic() < deadline:
        before = _busy_s()
        time.sleep(0.25)
        if (_busy_s() - before) / 0.25 / (psutil.cpu_count() or 1) <= CALM:
            return


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _ours_s(stub: psutil.Process) -> float:
    """The load generator (children that have ended) and the backends, in-process ones excepted."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [stub, *(child for child in psutil.Process().children(recursive=True) if "--stdio" in _cmdline(child))]
    return children.ru_utime + children.ru_stime + _cpu_s(running)


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
