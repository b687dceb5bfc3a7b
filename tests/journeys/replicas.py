"""Several real `gatewright serve` processes on one real Redis.

async with replicas(tmp_path, {"box": host.url}) as there:
    client = await there.client(0, capabilities)
    client.port = there[1].port  # from here on it is served by another replica
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from cli.commands import COMMAND, environment
from journeys.wire import Client, HandshakeClient, Json, ModernClient, soon
from stores.redis_servers import RedisServer, redis_server

START_S = 20.0


class Replica:
    """One gateway process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.log: list[str] = []

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self, within_s: float = 20.0) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()


class Replicas:
    """All of them, and their Redis."""

    def __init__(self, folder: Path, redis: RedisServer, config: Json) -> None:
        self.redis = redis
        self._folder = folder
        self._config = config
        self._numbers = count()
        self._replicas: list[Replica] = []
        self._readers: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []
        self.serving: list[int] = []
        """Ports that a balancer would send requests to."""

    def __len__(self) -> int:
        return len(self._replicas)

    def __getitem__(self, number: int) -> Replica:
        return self._replicas[number]

    async def start(self, **more: Any) -> Replica:
        """One more."""
        path = self._folder / f"gateway{next(self._numbers)}.json"
        path.write_text(json.dumps({**self._config, **more}))
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "serve", str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(PYTHONFAULTHANDLER="1"),
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        if "listening on" not in line:
            assert process.stderr is not None
            raise AssertionError(f"it did not start: {(await process.stderr.read()).decode()}")
        replica = Replica(process, int(line.rpartition(":")[2]))
        for stream in (process.stdout, process.stderr):
            self._readers.append(asyncio.get_running_loop().create_task(_drained(stream, replica)))
        self._replicas.append(replica)
        self.serving.append(replica.port)
        return replica

    async def handshake(self, number: int, capabilities: Json | None = None, **more: Any) -> HandshakeClient:
        """A client with a session that it opened on that replica."""
        client = HandshakeClient(self[number].port, more.pop("path", "/mcp/box"), capabilities, **more)
        self._clients.append(client)
        return await client.open()

    def modern(self, number: int, capabilities: Json | None = None, path: str = "/mcp/box") -> ModernClient:
        """A client of the modern era."""
        client = ModernClient(self[number].port, path, capabilities)
        self._clients.append(client)
        return client

    def at(self, client: Client, number: int) -> None:
        """From here on the client is served by that replica."""
        client.port = self[number].port

    async def aclose(self) -> None:
        """End them all, and say what they logged when one failed to end in order."""
        for client in self._clients:
            client.close()
        for replica in self._replicas:
            if replica.process.returncode is None:
                replica.signal(signal.SIGCONT)
                replica.signal(signal.SIGTERM)
        stuck: list[Replica] = []
        for replica in self._replicas:
            try:
                await replica.ended(10.0)
            except TimeoutError:
                stuck.append(replica)
                replica.signal(signal.SIGABRT)  # it says where it is
                await replica.process.wait()
        for reader in self._readers:
            await reader
        assert not stuck, "replicas did not end: " + "\n".join("\n".join(one.log) for one in stuck)


async def _drained(stream: asyncio.StreamReader, replica: Replica) -> None:
    while line := await stream.readline():
        replica.log.append(line.decode().rstrip())


@asynccontextmanager
async def replicas(
    folder: Path, backends: Mapping[str, Json], number: int = 2, **config: Any
) -> AsyncIterator[Replicas]:
    """That many replicas before these backends, until the end. `config` is more of the configuration file."""
    with redis_server(folder) as redis:
        settings = {
            "listen": "127.0.0.1:0",
            "admin": None,
            "drain_s": 2,
            "store": {"url": redis.url, "dead_after_s": 2},
            "backends": dict(backends),
            **config,
        }
        there = Replicas(folder, redis, settings)
        try:
            await asyncio.gather(*(there.start() for _ in range(number)))
            yield there
        finally:
            try:
                await there.aclose()
            finally:
                if sys.exc_info()[0] is not None:
                    for one in there._replicas:
                        print("\n".join(one.log[-40:]))


async def eventually(condition: Any, within_s: float = 5.0) -> None:
    """Until an awaited condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


__all__ = ["Replica", "Replicas", "eventually", "replicas", "soon"]
