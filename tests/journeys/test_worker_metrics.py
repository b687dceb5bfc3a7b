"""`gatewright serve --workers 2` with a real Redis, scraped: one answer for all its processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from cli.commands import line_of, running
from journeys.test_metrics import Samples, scrape
from stores.redis_servers import redis_server

BOUND_S = 15.0


def test_two_workers_are_one_gateway(tmp_path: Path, free_tcp_port: int) -> None:
    """Both are in the sum. When one is killed nothing that was counted is lost, and its restart is told."""
    last = 0.0

    def until(is_so: Callable[[Samples], bool]) -> Samples:
        """The first scrape in which it is so; the CPU time of all never shrinks."""
        nonlocal last
        deadline = time.monotonic() + BOUND_S
        while time.monotonic() < deadline:
            found = scrape(free_tcp_port)
            assert found["process_cpu_seconds_total"] >= last
            last = found["process_cpu_seconds_total"]
            if is_so(found):
                return found
            signal.sigtimedwait((), 0.02)
        raise AssertionError("it did not come true in time")

    with redis_server(tmp_path) as server:
        file = tmp_path / "gatewright.yaml"
        settings = {"listen": "127.0.0.1:0", "admin": f"127.0.0.1:{free_tcp_port}", "store": server.url, "workers": 2}
        file.write_text(json.dumps({**settings, "drain_idle_s": 0, "log": {"format": "json"}}))
        with running("serve", str(file)) as child:
            line_of(child)
            found = until(lambda it: it["gatewright_workers"] == 2)
            assert found["gatewright_ready"] == 2
            assert "gatewright_worker_restarts_total" not in found
            assert scrape(free_tcp_port, "/metrics?worker=worker-1")["gatewright_workers"] == 1
            second = max(psutil.Process(child.pid).children(), key=lambda one: one.create_time())
            os.kill(second.pid, signal.SIGKILL)
            until(lambda it: it.get("gatewright_worker_restarts_total") == 1 and it["gatewright_workers"] == 2)
