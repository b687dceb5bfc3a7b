"""Rolling restarts under load: how many requests fail when replicas are stopped one after the other behind a balancer.

Three gateways stand behind a real nginx or HAProxy (the files of `deploy/`, plain round robin, keep-alive on both
sides). Calls of the modern era leave at a constant rate, some of them slow, some answered as event streams; beside them
stand subscriptions. In each round every replica gets SIGTERM in turn, has to exit with 0, and is started again on its
port. Every answer is checked. A subscription that ends without its result counts as broken; one that ends with it opens
the next one. Exits 1 when anything failed, 2 when a program is missing.

    python -m bench.drain --balancer nginx --rounds 20
"""

import argparse
import asyncio
import contextlib
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from bench.answers import digest
from bench.balancers import BALANCERS, Missing
from bench.calls import Call, messages, modern
from bench.client import Connection
from bench.targets import announcing

_REPLICAS = 3
_HANG_S = 30.0
_EXIT_S = 40.0
_SHOWN_FAULTS = 10
_PAUSE_S = 1.0
_SLOW_SHARE = 0.2
_MAX_SLOW_MS = 1_500.0
_SETTLE_S = {"nginx": 2.2, "haproxy": 1.2}
"""Until a replica that is back is used again: nginx's fail_timeout, HAProxy's check interval."""
_GATEWAY = """
listen: 127.0.0.1:{port}
admin: null
log: {{level: error}}
drain_delay_s: {delay_s}
drain_idle_s: {idle_s}
backends:
  stub: {{url: "{stub}/mcp"}}
"""
_DELAY_AND_IDLE_S = {"nginx": (0.0, 5.0), "haproxy": (2.0, 1.0)}
"""drain_delay_s and drain_idle_s as docs/deployment.md has them. nginx goes on to the next replica by itself when one
refuses, but may send on a kept connection; HAProxy sees `/readyz` fail and sends nothing any more."""


@dataclass
class Tally:
    """What was seen; `faults` holds the first few in words."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    drains_s: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(self.counts[kind] for kind in ("failed calls", "broken streams", "bad exits"))

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < _SHOWN_FAULTS:
            self.faults.append(f"{kind}: {text}")


class Clients:
    """Calls at a constant rate and standing subscriptions, all through the balancer."""

    def __init__(self, url: str, tally: Tally, seed: int) -> None:
        self._url = url
        self._tally = tally
        self._chance = random.Random(seed)
        self._idle: list[Connection] = []
        self.is_over = False

    async def call(self, rate: float, group: asyncio.TaskGroup) -> None:
        """Send calls until it is over, each when it is due, whatever became of the ones before."""
        began, sent = time.monotonic(), 0
        while not self.is_over:
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
            sent += 1
            group.create_task(self._one())

    async def listen(self) -> None:
        """Hold one subscription after the other."""
        call = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        connection: Connection | None = None
        while not self.is_over:
            try:
                connection = await Connection.open(f"{self._url}/mcp")
                answer = await connection.send(call)
                said = messages(answer.content_type, answer.body) if answer.status == 200 else []
                if not said or "result" not in said[-1]:
                    raise ConnectionError(f"{answer.status}: {answer.body[-300:]!r}")
                self._tally.counts["streams ended by their result"] += 1
            except OSError as error:
                self._tally.fault("broken streams", f"{type(error).__name__}: {error}")
                await asyncio.sleep(_PAUSE_S)
            finally:
                if connection is not None:
                    connection.abort()

    def close(self) -> None:
        """Leave."""
        for connection in self._idle:
            connection.abort()

    async def _one(self) -> None:
        secret, nonce = secrets.token_hex(8), secrets.token_hex(8)
        slow = self._chance.random() < _SLOW_SHARE
        delay_ms = self._chance.uniform(0, _MAX_SLOW_MS) if slow else 0.0
        arguments = {"secret": secret, "nonce": nonce, "delay_ms": delay_ms}
        call = modern("tools/call", {"name": "digest", "arguments": arguments}, progress_token=nonce)
        began = time.monotonic()
        problem = await self._problem(call, digest(secret, nonce))
        if problem:
            self._tally.fault("failed calls", problem)
            return
        self._tally.counts["calls"] += 1
        self._tally.latencies_s.append(time.monotonic() - began - delay_ms / 1000)

    async def _problem(self, call: Call, expected: str) -> str:
        """Why the answer is wrong, "" when it is right. The connection is kept if the balancer keeps it."""
        try:
            async with asyncio.timeout(_HANG_S):
                connection = await self._connected()
                answer = await connection.send(call)
        except (OSError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"
        if connection.is_open:
            self._idle.append(connection)
        return Call(call.headers, call.body, text=expected).problem(answer.status, answer.content_type, answer.body)

    async def _connected(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return await Connection.open(f"{self._url}/mcp/stub")


class Replica:
    """One gateway on a port of its own, which it keeps over its restarts."""

    def __init__(self, stub: str, config: Path, waits_s: tuple[float, float], stack: contextlib.ExitStack) -> None:
        self._stub = stub
        self._config = config
        self._waits_s = waits_s
        self._stack = stack
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, on the port it had if it had one; returns once it listens."""
        delay_s, idle_s = self._waits_s
        self._config.write_text(_GATEWAY.format(port=self.port, stub=self._stub, delay_s=delay_s, idle_s=idle_s))
        command = [str(Path(sys.executable).parent / "gatewright"), "serve", str(self._config)]
        line, self.process = self._stack.enter_context(announcing(*command, program=""))
        self.port = int(line.rpartition(":")[2])

    async def restart(self, tally: Tally) -> None:
        """SIGTERM, its end, and the next one in its place."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(self.process.wait, _EXIT_S)
        except psutil.TimeoutExpired:
            tally.fault("bad exits", f"still there after {_EXIT_S:.0f} s")
            self.process.kill()
            status = 0
        tally.drains_s.append(time.monotonic() - began)
        if status not in (0, None):  # None: somebody else has waited for it
            tally.fault("bad exits", f"exit status {status}")
        await asyncio.to_thread(self.start)


async def roll(url: str, replicas: list[Replica], plan: "Plan") -> Tally:
    """Restart every replica in turn, `plan.rounds` times, under load."""
    tally = Tally()
    clients = Clients(url, tally, plan.seed)
    async with asyncio.TaskGroup() as group:
        listeners = [group.create_task(clients.listen()) for _ in range(plan.streams)]
        calling = group.create_task(clients.call(plan.rate, group))
        await asyncio.sleep(plan.settle_s)
        for _ in range(plan.rounds):
            for replica in replicas:
                await replica.restart(tally)
                await asyncio.sleep(plan.settle_s)
        clients.is_over = True
        await calling
        for listener in listeners:
            listener.cancel()
    clients.close()
    return tally


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    balancer: str
    rounds: int
    rate: float
    streams: int
    seed: int

    @property
    def settle_s(self) -> float:
        return _SETTLE_S[self.balancer]


@contextlib.contextmanager
def stage(plan: Plan) -> Iterator[tuple[str, list[Replica]]]:
    """A stub, three gateways before it, the balancer before them; all ended at the end."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        stub, _ = stack.enter_context(announcing("-m", "bench.stub", "--port", "0"))
        waits_s = _DELAY_AND_IDLE_S[plan.balancer]
        files = [directory / f"gateway-{number}.yaml" for number in range(_REPLICAS)]
        replicas = [Replica(stub, file, waits_s, stack) for file in files]
        balancer = BALANCERS[plan.balancer]([replica.port for replica in replicas], directory)
        yield stack.enter_context(balancer), replicas


def shown(plan: Plan, tally: Tally, took_s: float) -> str:
    """The outcome in one paragraph."""
    latencies = sorted(tally.latencies_s) or [float("nan")]
    drains = sorted(tally.drains_s) or [float("nan")]
    return (
        f"{plan.balancer}: {len(tally.drains_s)} restarts in {took_s:.0f} s, {tally.counts['calls']} calls at "
        f"{plan.rate:.0f}/s, {tally.counts['failed calls']} failed; "
        f"{tally.counts['streams ended by their result']} subscriptions ended by their result, "
        f"{tally.counts['broken streams']} broke; {tally.counts['bad exits']} bad exits\n"
        f"  latency beside the tool's own: median {latencies[len(latencies) // 2] * 1000:.1f} ms, "
        f"99 % {latencies[int(len(latencies) * 0.99)] * 1000:.0f} ms, worst {latencies[-1] * 1000:.0f} ms; "
        f"drains: median {drains[len(drains) // 2]:.1f} s, longest {drains[-1]:.1f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Rolling restarts behind nginx and HAProxy, under load.")
    parser.add_argument("--balancer", choices=[*BALANCERS, "both"], default="both")
    parser.add_argument("--rounds", type=int, default=20, help="in each every replica is restarted once")
    parser.add_argument("--rate", type=float, default=300.0, help="calls per second")
    parser.add_argument("--streams", type=int, default=50, help="standing subscriptions")
    parser.add_argument("--seed", type=int, default=1, help="of which calls are slow")
    options = parser.parse_args()
    failed = 0
    for balancer in BALANCERS if options.balancer == "both" else [options.balancer]:
        plan = Plan(balancer, options.rounds, options.rate, options.streams, options.seed)
        began = time.monotonic()
        try:
            with stage(plan) as (url, replicas):
                tally = uvloop.run(roll(url, replicas, plan))
        except Missing as missing:
            print(missing, file=sys.stderr)
            return 2
        print(shown(plan, tally, time.monotonic() - began), flush=True)
        for fault in tally.faults:
            print(f"FAULT {fault}", file=sys.stderr)
        failed += tally.failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
