"""What a call costs inside the process: the whole gateway between clients and the stub backend, without a wire.

`Wireless` is uvloop with connections that are two protocols in one process, each handed what the other writes; the
gateway runs on it unchanged. So neither the kernel nor the other core is part of the figure. With `--instructions`
(valgrind; Debian: `apt-get install valgrind`) it is the same to some thousandths whatever else the machine does: the
one to compare two versions by. What client and stub themselves cost is measured alone and taken off.

    python -m bench.inside --cases modern-json,handshake-json
    python -m bench.inside --instructions
"""

import argparse
import asyncio
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import structlog
import uvloop

from bench.calls import Call
from bench.cases import CASES, Case
from bench.client import Connection, open_session
from bench.stub import StubProtocol
from bench.targets import ROOT
from gatewright.app import Gateway, Ready
from gatewright.cli.process import keep_memory, settle_garbage
from gatewright.config import parse

_NAMES = ("modern-json", "modern-sse", "handshake-json", "handshake-sse", "modern-json-100k", "modern-big")
_CLIENTS = 32
_WARM_UP_CALLS = 3_000
_RUNS = 40
_CALLS = 2_000
_COUNTED_CALLS = 1_000
_READ_BYTES = 65_536
"""What one read brings at the most: a larger body comes in several."""
_STUB_PORT = 9
_CONFIG = """
listen: 127.0.0.1:0
admin: null
log: {{level: error}}
backends: {{{name}: {{url: "{stub}/{name}"}}}}
"""
_COLLECTED = re.compile(r"Collected : (\d+)")


class Wire(asyncio.Transport):
    """One end of a connection within the process: what is written is read by the other end's protocol, in a later turn
    of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.reader: Any = None

    def write(self, data: Any) -> None:
        for start in range(0, len(data), _READ_BYTES):
            self._loop.call_soon(self.reader.data_received, data[start : start + _READ_BYTES])

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Both ends go with the process."""

    abort = close


class Wireless(uvloop.Loop):
    """A loop on which a connection to the stub's port, or to the gateway's own, never leaves the process."""

    accept: Callable[[], asyncio.Protocol] | None = None
    """Makes the protocol of the last server that was created: the gateway's listener."""

    async def create_server(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        self.accept = protocol_factory
        return await super().create_server(protocol_factory, *arguments, **options)

    async def create_connection(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        near = protocol_factory()
        is_stub = arguments[1] == _STUB_PORT
        far = StubProtocol(self) if is_stub or self.accept is None else self.accept()
        transport, other = Wire(self), Wire(self)
        transport.reader, other.reader = far, near
        far.connection_made(other)
        near.connection_made(transport)
        return transport, near


async def prepared(url: str, case: Case) -> tuple[list[Connection], Call]:
    """Connections, and the call that each of them repeats."""
    connections = [await Connection.open(url) for _ in range(_CLIENTS)]
    session = await open_session(connections[0]) if case.era == "handshake" else ""
    call = case.call(session)
    answer = await connections[0].send(call)
    problem = call.problem(answer.status, answer.content_type, answer.body)
    if problem:
        raise RuntimeError(problem)
    return connections, call


async def press(connections: list[Connection], call: Call, count: int) -> None:
    """So many calls, as many at once as there are connections."""

    async def repeat(connection: Connection) -> None:
        for _ in range(count // _CLIENTS):
            await connection.send(call)

    await asyncio.gather(*(repeat(connection) for connection in connections))


async def cost(url: str, case: Case, *, is_counted: bool) -> float:
    """CPU per call in microseconds, the best of many runs; 0 while valgrind counts one run instead."""
    connections, call = await prepared(url, case)
    await press(connections, call, _WARM_UP_CALLS)
    settle_garbage()
    if is_counted:
        for switch in ("on", "off"):
            subprocess.run(["callgrind_control", "-i", switch, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)
            if switch == "on":
                await press(connections, call, _COUNTED_CALLS)
        return 0.0
    taken = []
    for _ in range(_RUNS):
        began = time.process_time()
        await press(connections, call, _CALLS)
        taken.append((time.process_time() - began) / _CALLS * 1e6)
    return min(taken)


async def measured(case: Case, *, through: bool, is_counted: bool) -> None:
    """Print the cost of a call through a gateway, or of client and stub alone, and end the process: nothing in it is
    worth an orderly end."""
    stub = f"http://127.0.0.1:{_STUB_PORT}"
    async with asyncio.TaskGroup() as tasks:
        url = f"{stub}/{case.backend}"
        if through:
            config = parse(_CONFIG.format(name=case.backend, stub=stub), file="bench", environ={}, folder=ROOT).config
            ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
            tasks.create_task(Gateway(config).run(on_ready=ready.set_result))
            url = f"{(await ready).url}/mcp/{case.backend}"
        print(await cost(url, case, is_counted=is_counted), flush=True)
        os._exit(0)


def instructions(case: str, *, through: bool) -> float:
    """Instructions per call, in thousands."""
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, "-m", "bench.inside", "--one", case, "--counted", *([] if through else ["--alone"])]
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        run = subprocess.run([*valgrind, *own], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return int(_COLLECTED.findall(run.stderr)[-1]) / _COUNTED_CALLS / 1_000


def seconds(case: str, *, through: bool) -> float:
    """Microseconds of CPU per call, in a process of its own."""
    own = [sys.executable, "-m", "bench.inside", "--one", case, *([] if through else ["--alone"])]
    return float(subprocess.run(own, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(_NAMES))
    parser.add_argument("--instructions", action="store_true", help="count them, by valgrind")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = {case.name: case for case in CASES}
    if options.one:
        keep_memory()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        with asyncio.Runner(loop_factory=Wireless) as runner:
            runner.run(measured(cases[options.one], through=not options.alone, is_counted=options.counted))
    if options.instructions and shutil.which("valgrind") is None:
        print(
            "bench.inside --instructions needs valgrind. On Debian or Ubuntu: apt-get install valgrind", file=sys.stderr
        )
        return 1
    take, unit = (instructions, "thousand instructions") if options.instructions else (seconds, "us of CPU")
    print(f"| case | {unit} per call in the gateway | client and stub |\n|---|--:|--:|")
    for name in options.cases.split(","):
        alone = take(name, through=False)
        print(f"| {cases[name].title} | {take(name, through=True) - alone:,.1f} | {alone:,.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
