"""Starts and ends what is measured: the stub, nginx, the gateway and the FastMCP proxies, each on a free loopback port.

Every process belongs to an ExitStack that ends it by its own pid. A target answers two questions: the URL of the
endpoint that reaches a backend (None when it cannot carry it), and the processes whose CPU counts as "the middle".
The children that are themselves backends (stdio) never count.
"""

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psutil

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_STDIO_BACKEND = [sys.executable, "-m", "bench.stub", "--stdio"]
_HTTP_PATHS = {
    "both": "/mcp",
    "modern": "/modern",
    "handshake": "/handshake",
    "modern-500": "/modern-500",
    "handshake-500": "/handshake-500",
}

_NGINX_CONFIG = """
daemon off;
worker_processes 1;
{user}
error_log {directory}/error.log warn;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 100000000;
  client_max_body_size 8m;
  client_body_buffer_size 256k;
  upstream stub {{
    server {upstream};
    keepalive 64;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://stub;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffers 16 64k;
      proxy_busy_buffers_size 128k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""

_GATEWAY_CONFIG = """
listen: 127.0.0.1:0
admin: null
log: {level: warning}
backends:
"""


class Target(Protocol):
    """Something that answers at a URL; `processes` are the ones in the middle (none for `direct`)."""

    @property
    def name(self) -> str: ...

    def url(self, backend: str) -> str | None: ...

    def processes(self, backend: str) -> list[psutil.Process]: ...


class Direct:
    """The backend itself; an in-process object is served by the official SDK."""

    name = "direct"

    def __init__(self, stub: str, stack: contextlib.ExitStack) -> None:
        self._stub = stub
        self._stack = stack
        self._inprocess: str | None = None

    def url(self, backend: str) -> str | None:
        if backend == "inprocess":
            if self._inprocess is None:
                self._inprocess, _ = self._stack.enter_context(announcing("-m", "bench.inprocess"))
            return self._inprocess
        path = _HTTP_PATHS.get(backend)
        return self._stub + path if path else None

    def processes(self, backend: str) -> list[psutil.Process]:
        return []


class Nginx:
    """`proxy_pass` with upstream keep-alive and one worker: the floor, it knows nothing of MCP."""

    name = "nginx"

    def __init__(self, stub: str, directory: Path, stack: contextlib.ExitStack) -> None:
        self._url, self._process = stack.enter_context(_nginx(stub.removeprefix("http://"), directory))

    def url(self, backend: str) -> str | None:
        path = _HTTP_PATHS.get(backend)
        return self._url + path if path else None

    def processes(self, backend: str) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


class Gateway:
    """One `gatewright serve` process with the backends that are asked for; the stdio child serves all callers."""

    name = "gatewright"

    def __init__(
        self, stub: str, backends: set[str], directory: Path, stack: contextlib.ExitStack, store: str = "memory"
    ) -> None:
        config = directory / "gatewright.yaml"
        known = {name: f'{{url: "{stub}{path}"}}' for name, path in _HTTP_PATHS.items()}
        program, *arguments = _STDIO_BACKEND
        child = f'command: "{program}", args: {arguments}, env: {{PYTHONPATH: "{ROOT}"}}, stateless: true'
        known["stdio"] = f"{{{child}}}"
        known["inprocess"] = '{python: "bench.inprocess:server"}'
        lines = [f"  {name}: {known[name]}\n" for name in sorted(backends)]
        config.write_text(f"store: {store}\n" + _GATEWAY_CONFIG + "".join(lines))
        command = [str(Path(sys.executable).parent / "gatewright"), "serve", str(config)]
        line, process = stack.enter_context(announcing(*command, program=""))
        self.base = line.rpartition(" ")[2]
        self.process = process

    def url(self, backend: str) -> str | None:
        return f"{self.base}/mcp/{backend}"

    def processes(self, backend: str) -> list[psutil.Process]:
        return [self.process, *(child for child in self.process.children(recursive=True) if not _is_backend(child))]


class FastMCP:
    """One proxy process per backend, since a FastMCP proxy serves one; started when first needed."""

    name = "fastmcp"

    def __init__(self, stub: str, stack: contextlib.ExitStack) -> None:
        self._stub = stub
        self._stack = stack
        self._started: dict[str, tuple[str, psutil.Process]] = {}

    def url(self, backend: str) -> str | None:
        if backend == "inprocess":
            return None
        if backend not in self._started:
            place = "stdio:" + " ".join(_STDIO_BACKEND) if backend == "stdio" else self._stub + _HTTP_PATHS[backend]
            started = announcing("-m", "bench.fastmcp_proxy", place)
            self._started[backend] = self._stack.enter_context(started)
        return self._started[backend][0]

    def processes(self, backend: str) -> list[psutil.Process]:
        process = self._started[backend][1]
        return [process, *(child for child in process.children(recursive=True) if not _is_backend(child))]


@contextlib.contextmanager
def announcing(*arguments: str, program: str = sys.executable) -> Iterator[tuple[str, psutil.Process]]:
    """Run a program whose first line on stdout says where it listens; yields that line and the process."""
    command = [program, *arguments] if program else list(arguments)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        yield _first_line(process), psutil.Process(process.pid)
    finally:
        _end(process)


def _first_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT_S):
            raise TimeoutError(f"{process.args!r} did not say where it listens within {START_TIMEOUT_S:.0f} s")
    line = process.stdout.readline().decode().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()} before it listened")
    return line


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _nginx(upstream: str, directory: Path) -> Iterator[tuple[str, psutil.Process]]:
    """nginx cannot report a port of its choice, so a free one is picked first and given to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX_CONFIG.format(directory=directory, port=port, upstream=upstream, user=user))
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"
    command = [program, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_port(process, port, directory / "error.log")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        _end(process)


def await_port(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Return when the process listens there. Raises RuntimeError with the end of its log when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            told = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{process.args!r} does not listen on 127.0.0.1:{port}: {told}")
        time.sleep(0.02)


def _is_backend(process: psutil.Process) -> bool:
    try:
        return "bench.stub" in process.cmdline()
    except psutil.NoSuchProcess:
        return True
