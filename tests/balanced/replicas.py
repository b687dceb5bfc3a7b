"""Three real gateways on one real Redis, for tests that are not asynchronous; and a real nginx before them.

    with balanced({"box": {"url": url}}, tmp_path) as (url, served): ...
    with replicas({"box": {"url": url}}, tmp_path) as ports: ...

Skips where nginx or Redis is not installed. Every process is ended by its own id.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench.balancers import Missing, nginx

from interop.processes import RealProcess, running
from stores.redis_servers import free_port, redis_server

NUMBER = 3
GATEWAY = Path(sys.executable).parent / "gatewright"
LISTENING = "gatewright: listening on "
# Written when a request has been served. The time is that of its begin, give or take a millisecond.
_LOG = r"""log_format served escape=json
    '{"replica":"$upstream_addr","session":"$http_mcp_session_id","ended_s":$msec,"took_s":$request_time}';
  access_log %s served;"""


@contextmanager
def replicas(backends: Mapping[str, Any], directory: Path, **config: Any) -> Iterator[list[int]]:
    """Gateways before these backends; yields their ports. `config` is more of the configuration file."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(directory))
        file = directory / "gatewright.json"
        settings = {"listen": "127.0.0.1:0", "admin": None, "drain_s": 2, "drain_idle_s": 0, "store": redis.url}
        file.write_text(json.dumps({**settings, "backends": dict(backends), **config}))
        started: list[RealProcess] = []
        stack.callback(_keep_logs, started, directory)
        for number in range(NUMBER):
            started.append(stack.enter_context(running([GATEWAY, "serve", file], name=f"replica {number}")))
        yield [int(process.wait_line(LISTENING).rpartition(":")[2]) for process in started]


def _keep_logs(started: list[RealProcess], directory: Path) -> None:
    for number, process in enumerate(started):
        (directory / f"replica-{number}.log").write_text(process.report())


@dataclass(frozen=True)
class Served:
    """One request that nginx has passed on."""

    replica: str
    """Its address; several, separated by commas, when nginx went on to another one."""
    session: str
    began_s: float


@contextmanager
def balanced(backends: Mapping[str, Any], directory: Path) -> Iterator[tuple[str, Callable[[], list[Served]]]]:
    """The replicas behind the nginx of `deploy/nginx.conf`; yields its URL, and what tells which requests it has passed
    on, in the order in which they began."""
    log = directory / "served.jsonl"

    def served() -> list[Served]:
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        found = [Served(one["replica"], one["session"], one["ended_s"] - one["took_s"]) for one in entries]
        return sorted(found, key=lambda one: one.began_s)

    port = free_port()
    listen = {"host": "127.0.0.1", "port": 0, "allowed_origins": [f"http://127.0.0.1:{port}"]}
    with ExitStack() as stack:
        ports = stack.enter_context(replicas(backends, directory, listen=listen))
        try:
            url = stack.enter_context(nginx(ports, directory, port=port, log=_LOG % log))
        except Missing as missing:
            pytest.skip(str(missing))
        yield url, served


def by_session(served: list[Served]) -> dict[str, list[str]]:
    """The replicas that each session's requests came to, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in served:
        if one.session:
            found[one.session].append(one.replica)
    return found
