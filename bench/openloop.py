"""An open-loop load generator: calls leave at a fixed rate whether or not earlier ones were answered.

Latency counts from the moment a call was due, so that a stall in the middle is charged to every call that it delayed
(no coordinated omission). The pace is kept by a timerfd, since event-loop timers only have millisecond precision.
Every answer is compared with the expected bytes. Run it as a process of its own: `python -m bench.openloop`.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import time
from collections import deque
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_DRAIN_S = 10.0
_MIN_TICK_S = 0.0002
"""The driver wakes up this often at most, to leave the processor to what is measured. Two calls may leave together."""


class Pace(msgspec.Struct, frozen=True):
    """What an open-loop run saw; latencies in microseconds from the due time."""

    calls: int
    wrong: int
    unanswered: int
    rate: float
    p50_us: float
    p99_us: float
    p999_us: float


class _Lane(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, driver: "_Driver") -> None:
        self.driver = driver
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._chunks)
        self._chunks.clear()
        self.driver.finish(self, self._parser.get_status_code(), body)


class _Driver:
    """Hands due calls to free lanes, oldest first, and keeps the latencies."""

    def __init__(self, request: bytes, expected: bytes, total: int) -> None:
        self._request = request
        self._expected = expected
        self._total = total
        self._free: list[_Lane] = []
        self._overdue: deque[float] = deque()
        self.latencies: list[float] = []
        self.wrong = 0
        self.issued = 0
        self.done = asyncio.get_running_loop().create_future()

    def add(self, lane: _Lane) -> None:
        self._free.append(lane)

    def due(self, moment: float) -> None:
        self.issued += 1
        if self._free:
            self._start(self._free.pop(), moment)
        else:
            self._overdue.append(moment)

    def finish(self, lane: _Lane, status: int, body: bytes) -> None:
        self.latencies.append(time.perf_counter() - lane.due)
        if status != 200 or self._expected not in body:
            self.wrong += 1
        if self._overdue:
            self._start(lane, self._overdue.popleft())
        else:
            self._free.append(lane)
        if len(self.latencies) == self._total and not self.done.done():
            self.done.set_result(None)

    def _start(self, lane: _Lane, moment: float) -> None:
        lane.due = moment
        lane.transport.write(self._request)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Interval(ctypes.Structure):
    _fields_ = (("every", _Timespec), ("first", _Timespec))


def _ticking(interval_s: float) -> int:
    """A timerfd that expires every `interval_s`."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
    step = _Timespec(int(interval_s), int(interval_s % 1 * 1e9))
    if descriptor < 0 or libc.timerfd_settime(descriptor, 0, ctypes.byref(_Interval(step, step)), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return cast(int, descriptor)


async def drive(url: str, request: bytes, expected: bytes, rate: float, duration_s: float, lanes: int) -> Pace:
    """Send `rate * duration_s` calls, evenly spaced; `expected` must occur in every answer."""
    loop = asyncio.get_running_loop()
    total = max(1, int(rate * duration_s))
    # One call on each connection first, so that the connections behind the target are open too.
    warm_up, driver = _Driver(request, expected, lanes), _Driver(request, expected, total)
    parts = urlsplit(url)
    opened = []
    for _ in range(lanes):
        _, lane = await loop.create_connection(lambda: _Lane(warm_up), parts.hostname or "", parts.port or 80)
        warm_up.add(lane)
        opened.append(lane)
        warm_up.due(time.perf_counter())
    await asyncio.wait_for(warm_up.done, _DRAIN_S)
    for lane in opened:
        lane.driver = driver
        driver.add(lane)
    interval_s = 1 / rate
    descriptor = _ticking(max(interval_s, _MIN_TICK_S))
    start = time.perf_counter()

    def tick() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 8)
        due = min(total, int((time.perf_counter() - start) / interval_s))
        while driver.issued < due:
            driver.due(start + (driver.issued + 1) * interval_s)
        if driver.issued == total:
            loop.remove_reader(descriptor)

    loop.add_reader(descriptor, tick)
    try:
        await asyncio.wait_for(driver.done, duration_s + _DRAIN_S)
    except TimeoutError:
        loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
        for lane in opened:
            lane.transport.abort()
    return _pace(driver, total, rate)


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
    options = parser.parse_args()
    request, expected = options.request.read_bytes(), options.expected.read_bytes()
    # A collection in the generator would be charged to the target.
    gc.disable()
    seen = uvloop.run(drive(options.url, request, expected, options.rate, options.duration, options.connections))
    print(msgspec.json.encode(seen).decode())


if __name__ == "__main__":
    main()
