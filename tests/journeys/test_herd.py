"""More clients than there is room for, all at once: who is served is served, everybody else is told when to come back,
and a probe is always answered."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from journeys.wire import Json, Wire, soon

pytestmark = pytest.mark.anyio
PLACES = 500
CROWD = 3_000
REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
DESCRIPTORS = 1_024


class Served:
    """A gateway process with few descriptors."""

    def __init__(self, process: psutil.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def probe(self, path: str = "/livez") -> tuple[int, Json]:
        """What a probe on a connection of its own is answered."""
        with socket.socket() as sock:
            head = await spoken(sock, self.port, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return int(head[9:12]), json.loads(head.split(b"\r\n\r\n")[1])


async def spoken(sock: socket.socket, port: int, request: bytes) -> bytes:
    """The answer to a request that is sent in the moment the connection is made, as long as it is short. Raises
    ConnectionError."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with suppress(BlockingIOError):
        sock.connect(("127.0.0.1", port))
    try:
        sock.send(request)
    except BlockingIOError:  # the kernel's queue is full: not connected yet
        await soon(loop.sock_connect(sock, ("127.0.0.1", port)), 30)
        await soon(loop.sock_sendall(sock, request), 30)
    answer = await soon(loop.sock_recv(sock, 65_536), 30)
    if not answer:
        raise ConnectionError("closed without an answer")
    return answer


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """`gatewright serve` under `ulimit -n`, without backends."""
    file = folder / "gatewright.yaml"
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "drain_idle_s": 0, **settings}))
    program = str(Path(sys.executable).parent / "gatewright")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh", program, "serve", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        while b"listening on" not in (line := await soon(process.stdout.readline(), 20)):
            assert line, "the gateway did not start"
        yield Served(psutil.Process(process.pid), int(line.split()[-1].rpartition(b":")[2]))
        process.terminate()
        assert await soon(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """The crowd is in this process: it needs more than a shell's 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 1_000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors; ulimit -Hn is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Many clients, each with a connection of its own that it keeps while it is served. They speak as soon as they are
    connected, as clients on many machines do: not each after all of them are."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socks: list[socket.socket] = []
        self.statuses: Counter[int] = Counter()
        """0: the connection was closed without an answer."""
        self.told: Counter[int] = Counter()

    async def come(self, size: int) -> None:
        """All at once, each with one request."""
        async with asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(self._one())

    def leave(self) -> None:
        """All at once."""
        for sock in self._socks:
            sock.close()

    async def _one(self) -> None:
        sock = socket.socket()
        self._socks.append(sock)
        try:
            head = await spoken(sock, self._port, REQUEST)
        except ConnectionError:
            self.statuses[0] += 1
            return
        self.statuses[int(head[9:12])] += 1
        if told := re.search(rb"\r\nRetry-After: (\d+)\r\n", head):
            self.told[int(told[1])] += 1


async def test_a_storm_is_shed_politely(tmp_path: Path) -> None:
    """3,000 clients come to 500 places: 500 are served, each of the others is told when to come back, not all at the
    same time; probes are answered meanwhile; when the crowd has left there is room again."""
    async with serving(tmp_path, limits={"max_connections": PLACES}) as served:
        crowd = Crowd(served.port)
        probes = 0
        async with asyncio.TaskGroup() as group:
            storm = group.create_task(crowd.come(CROWD))
            while not storm.done():
                assert await served.probe() == (200, {"status": "ok"})
                assert served.process.num_fds() < DESCRIPTORS
                probes += 1
        assert probes
        await crowd.come(probes)  # one of them may have had a place while others came
        assert crowd.statuses[404] == PLACES
        assert crowd.statuses[0] <= CROWD / 100, "spoke so late that its answer was there before its request"
        assert crowd.statuses[503] == CROWD + probes - PLACES - crowd.statuses[0]
        assert set(crowd.told) == set(range(1, 11))
        assert max(crowd.told.values()) < sum(crowd.told.values()) / 5
        assert await served.probe() == (200, {"status": "ok"})
        assert (await served.probe("/readyz"))[1]["status"] == "overloaded"
        crowd.leave()
        while (await served.probe("/readyz"))[0] != 200:
            assert served.process.is_running()
        again = Crowd(served.port)
        await again.come(1)
        assert again.statuses == {404: 1}
        again.leave()


async def test_who_says_nothing_keeps_no_probe_out(tmp_path: Path) -> None:
    """3,000 connections without a word, beyond every place: the process stays below its descriptors, and `/livez` is
    answered each time."""
    async with serving(tmp_path, limits={"max_connections": PLACES}) as served:
        silent: list[Wire] = []
        for count in range(1, CROWD + 1):
            silent.append(await Wire.open(served.port))
            if count % 300 == 0:
                assert await served.probe() == (200, {"status": "ok"})
                assert served.process.num_fds() < DESCRIPTORS
        for wire in silent:
            wire.close()


async def test_places_follow_from_the_descriptors(tmp_path: Path) -> None:
    """Nothing configured, and room for fewer than come: no accept fails, and half of the descriptors are places."""
    async with serving(tmp_path) as served:
        crowd = Crowd(served.port)
        await crowd.come(DESCRIPTORS + 200)
        assert crowd.statuses[404] >= DESCRIPTORS // 2
        assert crowd.statuses[503] == DESCRIPTORS + 200 - crowd.statuses[404]
        assert served.process.num_fds() < DESCRIPTORS
        assert await served.probe() == (200, {"status": "ok"})
        crowd.leave()


async def test_a_process_without_descriptors_does_not_spin(tmp_path: Path) -> None:
    """Should something else take them all: who comes is turned away at once, at no cost, and served again later."""
    async with serving(tmp_path) as served:
        pid = served.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (served.process.num_fds(), hard))
        crowd = Crowd(served.port)
        before = served.process.cpu_times()
        await crowd.come(200)
        after = served.process.cpu_times()
        assert crowd.statuses[0] > 150, "the few others had descriptors that were free in between"
        assert after.user + after.system - before.user - before.system < 0.5
        crowd.leave()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert await served.probe() == (200, {"status": "ok"})
