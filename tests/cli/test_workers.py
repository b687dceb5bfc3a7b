"""`gatewright serve --workers` as real processes: one address, one log, crashes and ends, with a real Redis."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from cli.commands import line_of, run, running, stop
from cli.speaking import gone
from gatewright.backend.settings import BackendSettings
from gatewright.cli import snippets
from gatewright.cli.workers import stop_s
from gatewright.config import Config
from stores.redis_servers import redis_server

CALLS = 60
STUCK = """
import time
from gatewright.demo_servers.server import Server, Tool

async def hang(arguments, progress):
    time.sleep(3600)

tool = Tool(name="hang", title="Hang", description="Never comes back.", properties={}, run=hang)
server = Server(name="stuck", title="Stuck", version="1", instructions="", tools=[tool])
"""


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that they share."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def file(tmp_path: Path, redis_url: str) -> Path:
    """A configuration with a real child behind it."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("hello\n")
    args = ["-m", "gatewright.demo_servers.files", str(tmp_path / "files")]
    backends = {"files": {"command": sys.executable, "args": args}}
    path = tmp_path / "gatewright.yaml"
    settings = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "store": redis_url, "workers": 2, "drain_idle_s": 0}
    path.write_text(json.dumps({**settings, "log": {"format": "json"}, "backends": backends}))
    return path


class Running:
    """A gateway with workers, and what a test does to it."""

    def __init__(self, child: Any) -> None:
        self.child = child
        self.url = line_of(child).rpartition(" ")[2]
        self.parent = psutil.Process(child.pid)

    def workers(self) -> list[int]:
        """Their process ids, oldest first."""
        return [one.pid for one in sorted(self.parent.children(), key=lambda one: one.create_time())]

    def connected(self) -> HTTPConnection:
        """A connection to one of them."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        connection.connect()
        return connection

    def ask(self, connection: HTTPConnection | None = None, tool: str = "files.read") -> bool:
        """One call, over a connection of its own if it is given none; whether it was answered."""
        if connection is None:
            with closing(self.connected()) as own:
                return self.ask(own, tool)
        told = snippets.plain_call(f"{self.url}/mcp", tool, {"name": "a.txt"} if tool == "files.read" else {})
        connection.request("POST", "/mcp", told.body, told.headers)
        return "result" in json.loads(connection.getresponse().read())

    def until(self, is_so: Callable[[], bool], bound_s: float = 10.0) -> None:
        """Return when it is so."""
        deadline = time.monotonic() + bound_s
        while not is_so():
            assert time.monotonic() < deadline, "it did not come true in time"
            signal.sigtimedwait((), 0.02)


@contextmanager
def gateway(file: Path, **environ: str) -> Iterator[Running]:
    """Started, and ended with the test."""
    with running("serve", str(file), **environ) as child:
        yield Running(child)


def test_one_address_is_served_by_all_and_said_once(file: Path) -> None:
    """The table follows as ever; the log is one, each line with its worker's number; the end is an orderly one."""
    with gateway(file) as up:
        assert line_of(up.child).split()[0] == "/mcp"
        assert len(up.workers()) == 2
        assert all(up.ask() for _ in range(20))
        pids = up.workers()
        code, out, err = stop(up.child)
        assert (code, "listening" in out) == (0, False)
        numbers = {json.loads(line).get("worker") for line in err.splitlines()}
        assert {0, 1} <= numbers
        assert all(gone(pid) for pid in pids)


def test_a_killed_worker_is_back_in_a_moment_and_its_neighbour_serves_on(file: Path) -> None:
    """Calls on new connections fail only where they were in flight; the address is never refused for long."""
    with gateway(file) as up:
        assert up.ask()
        victim, neighbour = up.workers()
        failed = 0
        os.kill(victim, signal.SIGKILL)
        for _ in range(CALLS):
            try:
                assert up.ask()
            except (OSError, HTTPException):
                failed += 1
        up.until(lambda: len(up.workers()) == 2 and victim not in up.workers())
        assert neighbour in up.workers()
        assert failed <= 2
        assert up.ask()


def test_a_worker_that_hangs_is_replaced_and_its_neighbour_serves_on(file: Path) -> None:
    """It is alive, but its loop does not turn: who is connected to it waits for `watchdog_s`, and nobody else."""
    file.write_text(json.dumps({**json.loads(file.read_text()), "watchdog_s": 1}))
    with gateway(file) as up, ExitStack() as kept:
        stuck, neighbour = up.workers()
        connections = [kept.enter_context(closing(up.connected())) for _ in range(16)]
        assert all(up.ask(one) for one in connections)
        ports = {one.raddr.port for one in psutil.Process(neighbour).net_connections() if one.raddr}
        served = [one for one in connections if one.sock.getsockname()[1] in ports]
        assert served
        os.kill(stuck, signal.SIGSTOP)
        while stuck in up.workers():
            assert all(up.ask(one) for one in served)
        up.until(lambda: len(up.workers()) == 2)
        assert neighbour in up.workers()
        assert all(up.ask(one) for one in served)
        assert up.ask()
        _, _, err = stop(up.child)
        assert err.count("its event loop did not turn for 1 s") == 1


def test_a_server_that_never_comes_back_is_named_in_the_log(tmp_path: Path, redis_url: str) -> None:
    """A server in this process that never comes back holds up the loop: the log says where."""
    (tmp_path / "stuck.py").write_text(STUCK)
    path = tmp_path / "gatewright.yaml"
    backends = {"stuck": {"python": "stuck:server"}}
    settings = {"listen": "127.0.0.1:0", "admin": None, "store": redis_url, "workers": 2, "watchdog_s": 1}
    path.write_text(json.dumps({**settings, "log": {"format": "json"}, "backends": backends}))
    with gateway(path, PYTHONPATH=str(tmp_path)) as up:
        before = up.workers()
        with suppress(OSError, HTTPException):
            up.ask(tool="stuck.hang")
        up.until(lambda: len(set(before) & set(up.workers())) == 1 and len(up.workers()) == 2)
        _, _, err = stop(up.child)
        assert err.count("its event loop did not turn for 1 s") == 1
        assert 'stuck.py", line' in err


def test_workers_end_when_their_supervisor_is_killed(file: Path) -> None:
    """None is left behind on the address, which can be bound again, nor what they shared."""
    places = file.parent / "tmp"
    places.mkdir()
    with gateway(file, TMPDIR=str(places)) as up:
        assert len(list(places.iterdir())) == 1
        pids = up.workers()
        children = [one.pid for one in up.parent.children(recursive=True)]
        up.child.kill()
        assert all(gone(pid) for pid in {*pids, *children})
        assert list(places.iterdir()) == []
        parts = urlsplit(up.url)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((parts.hostname, parts.port))


def test_a_taken_address_is_said_before_a_worker_starts(file: Path) -> None:
    """Exit code 1 and one line, also when another gateway of this user has it."""
    with gateway(file) as up:
        address = urlsplit(up.url).netloc
        ended = run("serve", str(file), "--listen", address)
        assert ended.returncode == 1
        assert ended.stderr.splitlines() == [
            f"gatewright: the address {address} is taken: stop what listens there, or choose another with --listen"
        ]


def test_without_a_shared_store_nothing_is_bound(tmp_path: Path) -> None:
    """Exit code 2, and what to do."""
    file = tmp_path / "g.yaml"
    file.write_text("listen: 127.0.0.1:0\nadmin: null\n")
    ended = run("serve", str(file), "--workers", "2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "workers: 2 processes need a store that they share: set store to redis://HOST:PORT/DB" in ended.stderr


def test_workers_get_as_long_to_end_as_the_configuration_lets_them_take() -> None:
    """Their drain, and children that ignore it."""
    child = BackendSettings(command="server", stop_grace_s=10.0)
    config = Config(drain_delay_s=1.0, drain_s=2.0, drain_idle_s=3.0)
    assert stop_s(config) == 11.0
    assert stop_s(replace(config, backends={"child": child})) == 41.0
