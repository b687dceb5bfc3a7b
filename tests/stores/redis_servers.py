"""Real Redis servers on free loopback ports, with nothing kept on disk: plain, TLS, behind a Sentinel, a Cluster."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server")
CLI = shutil.which("redis-cli")
START_S = 10.0


def needs_redis() -> None:
    """Skip where there is no server or no client library."""
    pytest.importorskip("redis")
    if BINARY is None or CLI is None:
        pytest.skip("redis-server is not installed")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RedisServer:
    """One server process, which a test may stop, pause and start again on the same port."""

    def __init__(self, folder: Path, *options: str, is_sentinel: bool = False, port: int = 0) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self._is_sentinel = is_sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.tls: list[str] = []

    @property
    def url(self) -> str:
        """How a gateway reaches it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert BINARY is not None
        kind = "sentinel" if self._is_sentinel else "server"
        command = [BINARY]
        if self._is_sentinel:
            command += [str(self._folder / "sentinel.conf"), "--sentinel"]
        port = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        command += [*port, "--bind", "127.0.0.1", "--dir", str(self._folder)]
        if not self._is_sentinel:
            command += ["--save", "", "--appendonly", "no"]
        log = (self._folder / f"{kind}-{self.port}.log").open("wb")
        self._process = subprocess.Popen([*command, *self._options, *self.tls], stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_S
        while "PONG" not in self.cli("PING"):
            assert time.monotonic() < deadline, f"{kind} did not start"
            time.sleep(0.02)

    def cli(self, *words: str) -> str:
        """What redis-cli says."""
        assert CLI is not None
        tls = ["--tls", "--cacert", self.tls[self.tls.index("--tls-ca-cert-file") + 1]] if self.tls else []
        command = [CLI, "-h", "127.0.0.1", "-p", str(self.port), *tls, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """Let it neither answer nor break off."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """One plain server."""
    needs_redis()
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[RedisServer, Path]]:
    """A server that speaks TLS only, and the file of the authority to trust."""
    needs_redis()
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = [*made.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    server = RedisServer(folder)
    files = ("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert))
    server.tls = [*files, "--tls-auth-clients", "no"]
    try:
        server.start()
        yield server, cert
    finally:
        server.kill()


@contextmanager
def sentinel(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and the Sentinel that watches both as `mymaster`: one voice is enough for a failover."""
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(folder))
        second = RedisServer(folder, "--replicaof", f"127.0.0.1 {master.port}")
        stack.callback(second.kill)
        second.start()
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
        )
        watcher = RedisServer(folder, is_sentinel=True)
        stack.callback(watcher.kill)
        watcher.start()
        deadline = time.monotonic() + START_S
        while "slaves=1" not in watcher.cli("INFO", "sentinel") or "master_link_status:up" not in second.cli("INFO"):
            assert time.monotonic() < deadline, "the Sentinel did not find the replica"
            time.sleep(0.05)
        yield watcher, master, second


@contextmanager
def cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots."""
    needs_redis()
    with ExitStack() as stack:
        nodes = []
        for number in range(3):
            own = folder / f"node{number}"
            own.mkdir()
            port = free_port()
            while port > 55_000:  # the bus listens on this port and 10,000
                port = free_port()
            node = RedisServer(own, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", port=port)
            stack.callback(node.kill)
            node.start()
            nodes.append(node)
        assert CLI is not None
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        command = [CLI, "--cluster", "create", *places, "--cluster-replicas", "0", "--cluster-yes"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        deadline = time.monotonic() + START_S
        while not all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in nodes):
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.05)
        yield nodes


async def briefly() -> None:
    """Let what was started run."""
    await asyncio.sleep(0)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
