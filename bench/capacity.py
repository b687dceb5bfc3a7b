"""How many clients one machine holds: handshake sessions with open GET streams, against 1..n gateway processes.

For each row: memory per session (resident, proportional, and what the kernel adds), CPU while nothing happens, and the
latency of calls at a fixed rate meanwhile. Prints one Markdown table and writes the samples as JSON.

    python -m bench.capacity --sessions 2000 --processes 1
    python -m bench.capacity --sessions 15000 --processes 1,2 --targets gatewright,fastmcp

`--sessions` is per process. Clients are processes of `bench.holder`, at most 18,000 sessions each, each from a
loopback address of its own. `--tool echo_json` lets every session make one call first, so that it has a backend session
too. `--store redis` starts a redis-server and runs `serve --workers N` on it, behind one port; without it N gateways
have a port each, as if each were a machine of its own.
"""

import argparse
import contextlib
import datetime
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import psutil

from bench import measure, report
from bench.calls import echo
from bench.holder import Held
from bench.openloop import Pace
from bench.targets import ROOT, announcing

_MAX_HELD = 18_000
"""Sessions of one client process: a process may have 20,000 descriptors on common machines."""
_WARM_UP_CALLS_S = 2
_SETTLE_S = 3.0
_SETTLE_SHARED_S = 80.0
"""A store is told a minute later that a session was used."""
_CALL_BYTES = 400
_CONFIG = """
listen: 127.0.0.1:0
admin: null
store: {store}
log: {{level: warning}}
sessions: {{max_sessions: 1000000}}
backends:
  stub: {{url: "{stub}{path}", max_connections: {connections}}}
"""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    targets: tuple[str, ...]
    sessions: int
    processes: tuple[int, ...]
    rate: float
    rest_s: float
    load_s: int
    tool: str
    has_streams: bool
    store: str
    backend_streams: int
    out: str


@dataclass
class Row:
    """One target with so many processes; memory is in bytes over all its processes, CPU in shares of one core."""

    target: str
    processes: int
    sessions: int
    open: int = 0
    """Of the sessions, those that opened."""
    failed: int = 0
    opened_per_s: float = 0.0
    rss_before: int = 0
    rss_after: int = 0
    pss_before: int = 0
    pss_after: int = 0
    kernel_growth: int = 0
    """Slab and socket buffers of both ends, as the whole machine counts them."""
    cpu_at_rest: float = 0.0
    stream_bytes: int = 0
    """What the streams brought while nothing happened: their keep-alive comments."""
    closed: int = 0
    store_growth: int = 0
    """Memory of the Redis, in bytes."""
    store_commands_at_rest: float = 0.0
    """Commands per second that the Redis carries out while nothing happens."""
    alone: list[Pace] = field(default_factory=list)
    beside: list[Pace] = field(default_factory=list)

    @property
    def rss_per_session(self) -> float:
        return (self.rss_after - self.rss_before) / max(1, self.open)

    @property
    def pss_per_session(self) -> float:
        return (self.pss_after - self.pss_before) / max(1, self.open)

    @property
    def kernel_per_connection(self) -> float:
        """Of one end: both ends of a loopback connection are on this machine."""
        return self.kernel_growth / max(1, self.open) / 2


@dataclass(frozen=True)
class Running:
    """A target that runs: where it is called, its processes, and its store."""

    urls: tuple[str, ...]
    processes: tuple[psutil.Process, ...]
    store: "RedisServer | None" = None


class RedisServer:
    """A redis-server on a free port, with nothing kept on disk."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(directory),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        deadline = time.monotonic() + 10
        while not self.info():
            if time.monotonic() > deadline:
                raise RuntimeError("redis-server does not answer")
            time.sleep(0.05)

    def info(self) -> dict[str, str]:
        """What it says of itself."""
        command = ["redis-cli", "-p", str(self.port), "info"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return dict(line.split(":", 1) for line in said.splitlines() if ":" in line)

    def memory(self) -> int:
        """Bytes in use."""
        return int(self.info()["used_memory"])

    def commands(self) -> int:
        """Commands carried out so far; looking is one of them."""
        return int(self.info()["total_commands_processed"])


class Clients:
    """The processes that hold the sessions."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._held: list[subprocess.Popen[str]] = []

    def open(self, urls: tuple[str, ...], sessions: int, options: list[str]) -> list[Held]:
        """Open so many sessions, spread over the urls. Raises RuntimeError when a client process fails."""
        parts = max(len(urls), math.ceil(sessions / _MAX_HELD))
        for number in range(parts):
            share = sessions // parts + (number < sessions % parts)
            command = [sys.executable, "-m", "bench.holder", urls[number % len(urls)], str(share), *options]
            command += ["--source", f"127.0.0.{2 + number}"]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._stack.callback(_end, process)
            self._held.append(process)
        return [_read(process) for process in self._held]

    def ask(self) -> list[Held]:
        """The state of all."""
        for process in self._held:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [_read(process) for process in self._held]


def _read(process: "subprocess.Popen[str]") -> Held:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a client process ended with {process.wait()}")
    return msgspec.json.decode(line, type=Held)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@contextlib.contextmanager
def _gateways(count: int, stub: str, plan: Plan, directory: Path) -> Iterator[Running]:
    """`serve --workers` behind one port with a shared store, else so many gateways with a port each."""
    config = directory / "gatewright.yaml"
    command = [str(Path(sys.executable).parent / "gatewright"), "serve", str(config)]
    with contextlib.ExitStack() as stack:
        redis, store = None, plan.store
        if store == "redis":
            redis = RedisServer(directory, stack)
            store = f"redis://127.0.0.1:{redis.port}/0"
            command += ["--workers", str(count)]
            count = 1
        path = "/streaming" if plan.backend_streams else "/mcp"
        config.write_text(_CONFIG.format(stub=stub, store=store, path=path, connections=max(64, plan.backend_streams)))
        started = [stack.enter_context(announcing(*command, program="")) for _ in range(count)]
        urls = tuple(line.rpartition(" ")[2] + "/mcp/stub" for line, _ in started)
        parents = [process for _, process in started]
        yield Running(urls, (*parents, *(child for one in parents for child in one.children(recursive=True))), redis)


@contextlib.contextmanager
def _fastmcp(count: int) -> Iterator[Running]:
    """So many FastMCP servers, the backend itself."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(announcing("-m", "bench.fastmcp_server")) for _ in range(count)]
        yield Running(tuple(line for line, _ in started), tuple(process for _, process in started))


def run(plan: Plan, target: str, count: int, backend: tuple[str, psutil.Process], directory: Path) -> Row:
    """One row. Raises RuntimeError when it means nothing."""
    url, stub = backend
    row = Row(target, count, plan.sessions * count)
    with contextlib.ExitStack() as stack:
        opened = _gateways(count, url, plan, directory) if target == "gatewright" else _fastmcp(count)
        running = stack.enter_context(opened)
        _calls(plan, running, directory, _WARM_UP_CALLS_S)
        row.alone = _calls(plan, running, directory, plan.load_s)
        row.rss_before, row.pss_before = _memory(running)
        kernel, stored = _kernel(), running.store.memory() if running.store else 0
        clients = Clients(stack)
        options = ["--tool", plan.tool] + ([] if plan.has_streams else ["--no-streams"])
        held = clients.open(running.urls, row.sessions, options)
        row.open = sum(one.open for one in held)
        row.failed = sum(one.failed for one in held)
        row.opened_per_s = row.sessions / max(0.01, *(one.seconds for one in held))
        _say(f"{target} x{count}: {row.open} open at {row.opened_per_s:.0f}/s")
        _rest(plan, running, clients, row)
        row.rss_after, row.pss_after = _memory(running)
        row.kernel_growth = _kernel() - kernel
        if running.store:
            row.store_growth = running.store.memory() - stored
        row.beside = _calls(plan, running, directory, plan.load_s)
        row.closed = sum(one.closed for one in clients.ask())
        if not stub.is_running() or stub.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError("the backend ended while it was needed: somebody else killed it")
    return row


def _rest(plan: Plan, running: Running, clients: Clients, row: Row) -> None:
    """Let it rest, and see what that costs."""
    time.sleep(_SETTLE_SHARED_S if running.store else _SETTLE_S)  # what opening left to do is done
    before, cpu, start = clients.ask(), _cpu_s(running), time.monotonic()
    commands = running.store.commands() if running.store else 0
    time.sleep(plan.rest_s)
    if running.store:
        row.store_commands_at_rest = (running.store.commands() - commands) / (time.monotonic() - start)
    row.cpu_at_rest = (_cpu_s(running) - cpu) / (time.monotonic() - start)
    row.stream_bytes = sum(one.stream_bytes for one in clients.ask()) - sum(one.stream_bytes for one in before)


def _calls(plan: Plan, running: Running, directory: Path, duration_s: int) -> list[Pace]:
    """The rate shared out over the urls, by a load process for each, one after the other where there are several
    gateways: a second load generator would take the processor from what is measured."""
    paces = []
    for url in running.urls:
        # Without a session: one that answers many calls of the same id at once is not what every server has.
        call = echo("modern", "", "echo_json", _CALL_BYTES)
        paces.append(measure.pace(url, call, directory, rate=plan.rate, duration_s=duration_s))
    return paces


def _memory(running: Running) -> tuple[int, int]:
    infos = [process.memory_full_info() for process in running.processes]
    return sum(info.rss for info in infos), sum(info.pss for info in infos)


def _kernel() -> int:
    """Bytes of slab and of TCP buffers in the whole machine."""
    slab = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:"))
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(slab.split()[1]) * 1024 + int(tcp.split()[-1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(running: Running) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in running.processes)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| target | processes | sessions with a stream | RSS before | RSS per session | PSS per session | kernel per "
        "connection | opened | CPU at rest | p50 · p99 alone | p50 · p99 beside | failed, closed | Redis per session, "
        "commands at rest |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.target, str(row.processes), f"{row.sessions:,}", f"{row.rss_before / 2**20:.0f} MiB"]
        cells += [
            f"{size / 1024:.1f} KiB" for size in (row.rss_per_session, row.pss_per_session, row.kernel_per_connection)
        ]
        cells += [f"{row.opened_per_s:,.0f}/s", f"{row.cpu_at_rest:.1%} of a core"]
        cells += [_latency(row.alone), _latency(row.beside), f"{row.failed}, {row.closed}"]
        stored = f"{row.store_growth / max(1, row.sessions) / 1024:.1f} KiB, {row.store_commands_at_rest:.1f}/s"
        cells += [stored if row.store_growth else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latency(paces: list[Pace]) -> str:
    """The worst of several, in ms; errors where there are any."""
    if not paces:
        return "-"
    wrong = sum(one.wrong + one.unanswered for one in paces)
    text = f"{max(one.p50_us for one in paces) / 1000:.1f} · {max(one.p99_us for one in paces) / 1000:.1f} ms"
    return f"{text}, {wrong} errors" if wrong else text


def _write(plan: Plan, rows: list[Row]) -> Path:
    name = datetime.datetime.now(datetime.UTC).strftime("capacity-%Y%m%dT%H%M%SZ.json")
    path = Path(plan.out) if plan.out else Path(__file__).parent / "results" / name
    document = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": report.machine(),
        "plan": asdict(plan),
        "rows": [
            {
                **msgspec.to_builtins(row),
                "rss_per_session": row.rss_per_session,
                "pss_per_session": row.pss_per_session,
                "kernel_per_connection": row.kernel_per_connection,
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return path


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=2_000, help="per process (default 2000)")
    parser.add_argument("--processes", default="1", help="comma-separated counts, a row for each")
    parser.add_argument("--targets", default="gatewright", help="gatewright, fastmcp")
    parser.add_argument("--rate", type=float, default=200, help="calls per second meanwhile (default 200)")
    parser.add_argument("--rest", type=float, default=30, help="seconds in which nothing happens (default 30)")
    parser.add_argument("--load", type=int, default=20, help="seconds of calls (default 20)")
    parser.add_argument("--tool", default="", help="each session calls this tool once: echo_json")
    parser.add_argument(
        "--store", default="memory", choices=("memory", "redis"), help="redis: several workers, one port"
    )
    parser.add_argument(
        "--backend-streams",
        type=int,
        default=0,
        help="the backend offers streams too, and may have so many connections",
    )
    parser.add_argument("--no-streams", action="store_true", help="sessions only: no stream, no connection")
    parser.add_argument("--out", default="", help="where the samples go (default bench/results)")
    options = parser.parse_args()
    targets = tuple(options.targets.split(","))
    if unknown := set(targets) - {"gatewright", "fastmcp"}:
        parser.error(f"unknown targets {sorted(unknown)}")
    if not 0 < options.sessions <= _MAX_HELD:
        parser.error(f"one process holds at most {_MAX_HELD} sessions here")
    processes = tuple(int(count) for count in options.processes.split(","))
    return Plan(
        targets=targets,
        sessions=options.sessions,
        processes=processes,
        rate=options.rate,
        rest_s=options.rest,
        load_s=options.load,
        tool=options.tool,
        has_streams=not options.no_streams,
        store=options.store,
        backend_streams=options.backend_streams,
        out=options.out,
    )


def main() -> int:
    plan = _plan()
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-capacity-")))
        url, stub = stack.enter_context(announcing("-m", "bench.stub", "--port", "0"))
        with contextlib.suppress(KeyboardInterrupt):
            for target in plan.targets:
                rows += [run(plan, target, count, (url, stub), directory) for count in plan.processes]
    path = _write(plan, rows)
    machine = report.machine()
    print(table(rows))
    print(f"\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}. Samples: {path}")
    return 0 if rows and not any(row.failed or row.closed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
