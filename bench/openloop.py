"""An open-loop load generator: calls leave at a fixed rate whether or not earlier ones were answered.

Latency counts from the moment a call was due, so that a stall in the middle is charged to every call that it delayed
(no coordinated omission). Every answer is compared with the expected bytes. One timerfd is all that wakes the
generator: on each tick it reads what came and sends what is due, so that no answer costs the machine a wake-up, and
the generator takes little of the cores that it shares with what it measures. A latency is up to one tick too long for
it. Run it as a process of its own: `python -m bench.openloop`.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import select
import socket
import time
from collections import deque
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from bench.cores import outrank

_CLOCK_MONOTONIC = 1
_DRAIN_S = 10.0
_MIN_TICK_S = 0.0002
_MAX_TICK_S = 0.001
"""How often the generator wakes up: at a high rate a few calls may leave together, at a low one it still reads."""
_READ_BYTES = 262_144


class Pace(msgspec.Struct, frozen=True):
    """What an open-loop run saw; latencies in microseconds from the due time."""

    calls: int
    wrong: int
    unanswered: int
    rate: float
    p50_us: float
    p99_us: float
    p999_us: float
    outranks: bool = False
    """Whether the generator might run before the machine's own work; then its target may too (see `bench.cores`)."""


class _Lane:
    """One connection, one call at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=_DRAIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._is_complete = False
        self.due = 0.0

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        self._is_complete = True

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body, if what is there completes the answer. Raises ConnectionError when the target left."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            if not data:
                raise ConnectionError("the target closed a connection")
        self._parser.feed_data(data)
        if not self._is_complete:
            return None
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._is_complete = False
        return self._parser.get_status_code(), body


class _Driver:
    """Hands due calls to free lanes, oldest first, and keeps the latencies."""

    def __init__(self, lanes: list[_Lane], request: bytes, expected: bytes) -> None:
        self._request = request
        self._expected = expected
        self._lanes = {lane.socket.fileno(): lane for lane in lanes}
        self._free = list(lanes)
        self._overdue: deque[float] = deque()
        self._arrivals = select.epoll()
        for descriptor in self._lanes:
            self._arrivals.register(descriptor, select.EPOLLIN)
        self.latencies: list[float] = []
        self.wrong = 0
        self.issued = 0

    def send(self, due: float) -> None:
        """A call is due: it leaves now if a connection is free."""
        self.issued += 1
        self._overdue.append(due)
        self._start()

    def receive(self, timeout_s: float) -> None:
        """Take the answers that came."""
        for descriptor, _ in self._arrivals.poll(timeout_s):
            lane = self._lanes[descriptor]
            answer = lane.receive()
            if answer is None:
                continue
            self.latencies.append(time.perf_counter() - lane.due)
            if answer[0] != 200 or self._expected not in answer[1]:
                self.wrong += 1
            self._free.append(lane)
            self._start()

    def _start(self) -> None:
        if self._overdue and self._free:
            lane = self._free.pop()
            lane.due = self._overdue.popleft()
            lane.socket.sendall(self._request)

    def close(self) -> None:
        self._arrivals.close()
        for lane in self._lanes.values():
            lane.socket.close()


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Interval(ctypes.Structure):
    _fields_ = (("every", _Timespec), ("first", _Timespec))


def _ticking(interval_s: float) -> int:
    """A timerfd that expires every `interval_s`; reading it waits for that."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
    step = _Timespec(int(interval_s), int(interval_s % 1 * 1e9))
    if descriptor < 0 or libc.timerfd_settime(descriptor, 0, ctypes.byref(_Interval(step, step)), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return cast(int, descriptor)


def drive(url: str, request: bytes, expected: bytes, rate: float, duration_s: float, lanes: int) -> Pace:
    """Send `rate * duration_s` calls, evenly spaced; `expected` must occur in every answer."""
    total = max(1, int(rate * duration_s))
    parts = urlsplit(url)
    driver = _Driver([_Lane(parts.hostname or "", parts.port or 80) for _ in range(lanes)], request, expected)
    with contextlib.closing(driver):
        # One call on each connection first, so that the connections behind the target are open too.
        for _ in range(lanes):
            driver.send(time.perf_counter())
        deadline = time.perf_counter() + _DRAIN_S
        while len(driver.latencies) < lanes and time.perf_counter() < deadline:
            driver.receive(deadline - time.perf_counter())
        driver.latencies.clear()
        driver.issued = 0
        _run(driver, rate, total, duration_s)
    return _pace(driver, total, rate)


def _run(driver: _Driver, rate: float, total: int, duration_s: float) -> None:
    """Tick until all calls are answered, or too late."""
    interval_s = 1 / rate
    descriptor = _ticking(min(max(interval_s, _MIN_TICK_S), _MAX_TICK_S))
    start = now = time.perf_counter()
    while len(driver.latencies) < total and now < start + duration_s + _DRAIN_S:
        os.read(descriptor, 8)
        driver.receive(0)
        now = time.perf_counter()
        due = min(total, int((now - start) / interval_s))
        while driver.issued < due:
            driver.send(start + (driver.issued + 1) * interval_s)
    os.close(descriptor)


def _pace(driver: _Driver, total: int, rate: float) -> Pace:
    latencies = sorted(driver.latencies) or [float("inf")]

    def percentile(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1e6

    unanswered = total - len(driver.latencies)
    return Pace(
        len(driver.latencies), driver.wrong, unanswered, rate, percentile(0.5), percentile(0.99), percentile(0.999)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Open-loop load on one URL; prints one JSON object.")
    parser.add_argument("url")
    parser.add_argument("request", type=Path, help="a file with the whole HTTP request")
    parser.add_argument("expected", type=Path, help="a file with bytes that every answer must hold")
    parser.add_argument("--rate", type=float, required=True, help="calls per second")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--cores", help="run on these (comma-separated numbers), before all that is not measured")
    options = parser.parse_args()
    outranks = False
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
        outranks = outrank(0)
    request, expected = options.request.read_bytes(), options.expected.read_bytes()
    # A collection in the generator would be charged to the target.
    gc.disable()
    seen = drive(options.url, request, expected, options.rate, options.duration, options.connections)
    print(msgspec.json.encode(msgspec.structs.replace(seen, outranks=outranks)).decode())


if __name__ == "__main__":
    main()
