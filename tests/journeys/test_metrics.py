"""What a running gateway tells Prometheus: a process of its own, scraped over HTTP, read by Prometheus' own library."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from gatewright.app import Gateway, Ready
from gatewright.config import Config
from gatewright.inbound.settings import Listen
from gatewright.telemetry.board import Board
from journeys.old_client import OldClient
from journeys.travel import HERE
from journeys.wire import HandshakeClient, ModernClient, soon

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client reads what is scraped")
pytestmark = pytest.mark.anyio
Samples = dict[str, float]


def scrape(port: int, path: str = "/metrics") -> Samples:
    """Every sample, under its name and label values: `mcp_open_streams get`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        assert response.getheader("content-type", "").startswith("text/plain; version=0.0.4")
        text = response.read().decode()
    finally:
        connection.close()
    families = list(parser.text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.type in ("counter", "gauge", "histogram") and family.documentation for family in families)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def until(port: int, is_so: Callable[[Samples], bool]) -> Samples:
    """The first scrape in which it is so, within 5 s."""
    async with asyncio.timeout(5):
        while not is_so(found := await asyncio.to_thread(scrape, port)):
            await asyncio.sleep(0)
    return found


async def listened(port: int) -> None:
    """Return when the control plane listens, which may be a moment after the data plane does."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return await writer.wait_closed()


@asynccontextmanager
async def serving(folder: Path, admin: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`gatewright serve` before a child of the handshake era; its port."""
    box = {
        "command": sys.executable,
        "args": ["-I", "-S", str(HERE / "toolbox.py"), "box", "handshake"],
        "stop_grace_s": 0.5,
        "restart_backoff_s": 0.001,
    }
    file = folder / "gatewright.yaml"
    written = {"listen": "127.0.0.1:0", "admin": f"127.0.0.1:{admin}", "drain_s": 1, "backends": {"box": box}}
    file.write_text(yaml.safe_dump(written))
    command = [str(Path(sys.executable).parent / "gatewright"), "serve", str(file)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        while b"listening on" not in (line := await soon(process.stdout.readline(), 20)):
            assert line, "the gateway did not start"
        await listened(admin)
        yield process, int(line.split()[-1].rpartition(b":")[2])
    finally:
        if process.returncode is None:
            process.terminate()
        await soon(process.wait(), 10)


async def test_what_stands_is_measured(tmp_path: Path, free_tcp_port: int) -> None:
    """Sessions, streams of every kind and connections: there while they are, gone when they are."""
    async with serving(tmp_path, free_tcp_port) as (process, port):
        idle = await asyncio.to_thread(scrape, free_tcp_port)
        assert idle["mcp_active_sessions"] == 0
        assert idle["gatewright_ready"] == idle["gatewright_workers"] == 1
        session = await HandshakeClient(port).open()
        standing = await session.listen()
        old = await OldClient(port).connect()
        modern = ModernClient(port)
        listening = await modern.post(
            modern.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        )
        assert await listening.event() is not None
        found = await asyncio.to_thread(scrape, free_tcp_port)
        assert found["mcp_active_sessions"] == 1
        assert [found[f"mcp_open_streams {kind}"] for kind in ("get", "sse", "listen")] == [1, 1, 1]
        assert found["gatewright_client_connections"] >= 3
        assert 0 < found["process_resident_memory_bytes"] < 1 << 30
        assert 3 < found["process_open_fds"] < found["process_max_fds"]
        assert found["process_cpu_seconds_total"] > 0
        assert found["gatewright_store_round_trips_total"] == found["gatewright_refused_connections_total"] == 0
        standing.close()
        listening.close()
        old.close()
        assert await session.end() == 204
        await until(
            free_tcp_port,
            lambda it: not it["mcp_active_sessions"] and not any(it[f"mcp_open_streams {one}"] for one in KINDS),
        )
        process.send_signal(signal.SIGTERM)
        assert await soon(process.wait(), 10) == 0


KINDS = ("get", "sse", "listen")


async def test_a_child_that_dies_is_counted(tmp_path: Path, free_tcp_port: int) -> None:
    """Once for each death, and it is answered for again after."""
    async with serving(tmp_path, free_tcp_port) as (process, port):
        modern = ModernClient(port, "/mcp/box")
        before = await asyncio.to_thread(scrape, free_tcp_port)
        assert before["gatewright_child_restarts_total box"] == 0
        assert await modern.tool("echo", text="hello") == {"label": "box", "text": "hello"}
        children = psutil.Process(process.pid).children(recursive=True)
        (child,) = (one for one in children if any("toolbox.py" in word for word in one.cmdline()))
        child.kill()
        await until(free_tcp_port, lambda it: it["gatewright_child_restarts_total box"] == 1)
        assert await modern.tool("echo", text="again") == {"label": "box", "text": "again"}


async def test_a_parked_call_is_measured(tmp_path: Path, free_tcp_port: int) -> None:
    """While a modern client is expected to answer a handshake backend."""
    async with serving(tmp_path, free_tcp_port) as (_, port):
        modern = ModernClient(port, "/mcp/box", {"elicitation": {}})
        question = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?"}}
        asked = await modern.result("tools/call", {"name": "ask", "arguments": question})
        assert asked["resultType"] == "input_required"
        assert (await asyncio.to_thread(scrape, free_tcp_port))["mcp_parked_calls box"] == 1


async def test_calls_are_counted_by_outcome(tmp_path: Path, free_tcp_port: int) -> None:
    """Under method, backend and outcome, in both eras; a method that nobody knows is one of the others."""
    async with serving(tmp_path, free_tcp_port) as (_, port):
        modern, session = ModernClient(port, "/mcp/box"), await HandshakeClient(port, "/mcp/box").open()
        for client in (modern, session):
            await client.tool("echo", text="hello")
        await modern.ask("tools/call", {"name": "nobody", "arguments": {}})
        for number in range(3):
            await modern.ask(f"made/up{number}")
        found = await asyncio.to_thread(scrape, free_tcp_port)
        assert found["mcp_call_duration_seconds_count tools/call box result"] == 2
        assert found["mcp_call_duration_seconds_bucket tools/call box result +Inf"] == 2
        assert found["mcp_call_duration_seconds_sum tools/call box result"] < 5
        assert found["mcp_call_duration_seconds_count tools/call box failure"] == 1
        others = [value for name, value in found.items() if name.startswith("mcp_call_duration_seconds_count other ")]
        assert sum(others) == 3
        assert not any("made/up" in name for name in found)


async def test_workers_answer_as_one(tmp_path: Path) -> None:
    """Two gateways that share a board, as the workers of one do: either is asked for both."""
    async with standing_in(tmp_path, "worker-0") as one, standing_in(tmp_path, "worker-1") as two:
        clients = [await HandshakeClient(port).open() for port, _ in (one, two, two)]
        for _, admin in (one, two):
            found = await until(admin, lambda it: it["mcp_active_sessions"] == 3)
            assert found["gatewright_workers"] == found["gatewright_ready"] == 2
            alone = await asyncio.to_thread(scrape, admin, "/metrics?worker=worker-1")
            assert (alone["mcp_active_sessions"], alone["gatewright_workers"]) == (2, 1)
            assert found["process_open_fds"] > alone["process_open_fds"]
        for client in clients:
            client.close()


@asynccontextmanager
async def standing_in(folder: Path, name: str) -> AsyncIterator[tuple[int, int]]:
    """A gateway in this process in the place of a worker; its port, and that of its control plane."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = free.getsockname()[1]
    config = Config(listen=Listen(port=0), admin=Listen(port=admin), drain_s=0.5, drain_idle_s=0.0)
    gateway = Gateway(config, board=Board(folder, name))
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(on_ready=ready.set_result))
        port = int((await soon(ready)).url.rpartition(":")[2])
        await listened(admin)
        try:
            yield port, admin
        finally:
            gateway.stop()


WORKER = """
import asyncio, sys
from pathlib import Path
from gatewright.app import Gateway
from gatewright.cli.logs import configure
from gatewright.config import Config
from gatewright.inbound.settings import Listen
from gatewright.telemetry.board import Board
folder, name, admin = sys.argv[1:]
config = Config(listen=Listen(port=0), admin=Listen(port=int(admin)), drain_s=0.5, drain_idle_s=0.0)
configure(config.log)
gateway = Gateway(config, board=Board(Path(folder), name))
asyncio.run(gateway.run(on_ready=lambda ready: print("ready", flush=True)))
"""


@asynccontextmanager
async def working(folder: Path, name: str, admin: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as a process of its own, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(folder), name, str(admin), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await soon(process.stdout.readline(), 20) == b"ready\n"
        await listened(admin)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_no_counter_goes_backward_when_workers_are_killed(
    tmp_path: Path, free_tcp_port_factory: Callable[[], int]
) -> None:
    """`kill -9`, and another one in its place, three times: what was counted before is still in the sum."""
    own, other = free_tcp_port_factory(), free_tcp_port_factory()
    last = 0.0

    async def look(is_so: Callable[[Samples], bool]) -> None:
        nonlocal last

        def goes_on(found: Samples) -> bool:
            nonlocal last
            assert found["process_cpu_seconds_total"] >= last
            last = found["process_cpu_seconds_total"]
            return is_so(found)

        await until(own, goes_on)

    async with working(tmp_path, "worker-0", own):
        for _ in range(3):
            async with working(tmp_path, "worker-1", other):
                before = last
                found = await asyncio.to_thread(scrape, other)
                assert found["process_cpu_seconds_total"] > before
                await look(lambda it: it["gatewright_workers"] == 2)
                last = max(last, found["process_cpu_seconds_total"])
            await look(lambda it: True)
