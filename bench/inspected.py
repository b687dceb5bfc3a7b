"""Gateway processes that tell how they stand: their tasks by themselves, sockets and memory by /proc.

    python -m bench.inspected FILE

is such a process: a gateway with that configuration, which prints its address, and for each line on its input the
number of its tasks. Ended by its own pid.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from bench.targets import ROOT
from gatewright import config
from gatewright.app import Gateway, Ready
from gatewright.cli.logs import configure

_SAY_S = 30.0
_STOP_S = 20.0


@dataclass(frozen=True)
class State:
    """A gateway at one moment."""

    tasks: int
    sockets: int
    rss_bytes: int


class Process:
    """A gateway process under test."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url = url
        self._process = process
        self._seen = psutil.Process(process.pid)

    async def state(self) -> State:
        """How it stands. Its tasks are counted by itself."""
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None
        assert writer is not None
        writer.write(b"tasks\n")
        tasks = int(await asyncio.wait_for(reader.readline(), _SAY_S))
        sockets = 0
        folder = f"/proc/{self._process.pid}/fd"
        for name in os.listdir(folder):
            try:
                sockets += os.readlink(f"{folder}/{name}").startswith("socket:")
            except FileNotFoundError:
                continue
        return State(tasks, sockets, self._seen.memory_info().rss)


@asynccontextmanager
async def inspected(file: Path) -> AsyncIterator[Process]:
    """Start one with that configuration, and end it."""
    command = [sys.executable, "-m", "bench.inspected", str(file)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _SAY_S)
        yield Process(process, line.decode().strip())
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    """Be the gateway under test, with a say about its tasks."""
    loaded = config.load(Path(sys.argv[1]), os.environ)
    configure(loaded.log)
    gate = Gateway(loaded)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def tell() -> None:
            while await reader.readline():
                print(len(asyncio.all_tasks()), flush=True)

        def ready(where: Ready) -> None:
            print(where.url, flush=True)

        async with asyncio.TaskGroup() as group:
            telling = group.create_task(tell())
            await gate.run(on_ready=ready)
            telling.cancel()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
