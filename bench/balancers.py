"""Real balancers in front of gateways, nginx and HAProxy with the very files that `deploy/` recommends; and a Redis.

A file is used as it is but for the addresses: the names of the three replicas become loopback ports, and so does the
port that it listens on. Each balancer is a process of its own, ended by its own pid. Raises Missing when the program is
not installed.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.targets import ROOT, await_port

STOP_TIMEOUT_S = 10.0
_PACKAGES = {"nginx": "nginx-light"}
_NGINX = """
daemon off;
worker_processes 1;
{user}
error_log {directory}/nginx-error.log warn;
pid {directory}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  {log}
  keepalive_requests 100000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  include {directory}/gatewright.conf;
}}
"""


class Missing(RuntimeError):
    """A program is not installed; the text says how to get it."""


def program_of(name: str) -> str:
    """Where a program is. Raises Missing."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{name} is not installed; on Debian or Ubuntu: apt-get install {_PACKAGES.get(name, name)}")
    return found


@contextlib.contextmanager
def nginx(replicas: Sequence[int], directory: Path, *, port: int = 0, log: str = "access_log off;") -> Iterator[str]:
    """`deploy/nginx.conf` before gateways on these loopback ports; yields its URL. It listens on `port`, or on any that
    is free; `log` is what it is told about its own log."""
    with free_port() as free:
        port = port or free
    text = _addressed("nginx.conf", replicas).replace("listen 8000", f"listen 127.0.0.1:{port}")
    (directory / "gatewright.conf").write_text(text)
    config = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(directory=directory, user=user, log=log))
    program = program_of("nginx")
    command = [program, "-p", str(directory), "-e", str(directory / "nginx-error.log"), "-c", str(config)]
    with _running(command, directory / "nginx-error.log", port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def haproxy(replicas: Sequence[int], directory: Path) -> Iterator[str]:
    """`deploy/haproxy.cfg` before gateways on these loopback ports; yields its URL."""
    with free_port() as port:
        text = _addressed("haproxy.cfg", replicas).replace("bind :8000", f"bind 127.0.0.1:{port}")
    config = directory / "haproxy.cfg"
    config.write_text(text)
    with _running([program_of("haproxy"), "-db", "-f", str(config)], directory / "haproxy.log", port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A Redis that keeps nothing; yields its URL."""
    with free_port() as port:
        command = [program_of("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with _running([*command, "--dir", str(directory)], directory / "redis.log", port):
        yield f"redis://127.0.0.1:{port}/0"


BALANCERS: dict[str, Callable[[Sequence[int], Path], contextlib.AbstractContextManager[str]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
}


def _addressed(file: str, replicas: Sequence[int]) -> str:
    text = (ROOT / "deploy" / file).read_text()
    for number, port in enumerate(replicas, 1):
        text, count = re.subn(rf"gatewright-{number}:8080\b", f"127.0.0.1:{port}", text)
        if count != 1:
            raise ValueError(f"deploy/{file} does not name gatewright-{number}:8080 once")
    return text


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Neither can report a port of its choice, so a free one is picked first and given to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        yield free.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        await_port(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
