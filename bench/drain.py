"""Rolling restarts under load: how many requests fail when replicas are stopped one after the other behind a balancer.

Three gateways stand behind a real nginx or HAProxy (the files of `deploy/`, plain round robin, keep-alive on both
sides). Calls of the modern era leave at a constant rate, some of them slow, some answered as event streams; beside them
stand streams (`bench.callers`). In each round every replica gets SIGTERM in turn, has to exit with 0, and is started
again on its port. With `--sessions` every other call is of the handshake era, in sessions that live in a real Redis and
are opened once; with `--workers` each replica is a supervisor with so many processes. Exits 1 when anything failed, 2
when a program is missing.

    python -m bench.drain --balancer nginx --rounds 20
    python -m bench.drain --balancer haproxy --rounds 20 --sessions 200
    python -m bench.drain --balancer nginx --rounds 20 --sessions 200 --workers 2
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from bench.balancers import BALANCERS, Missing, redis
from bench.callers import Clients, Tally
from bench.replicas import Replica
from bench.targets import announcing

_REPLICAS = 3
_EXIT_S = 40.0
_SETTLE_S = {"nginx": 2.2, "haproxy": 1.2}
"""Until a replica that is back is used again: nginx's fail_timeout, HAProxy's check interval."""
_GATEWAY = """
listen: 127.0.0.1:{port}
admin: null
store: {store}
workers: {workers}
log: {{level: error}}
drain_delay_s: {delay_s}
drain_idle_s: {idle_s}
backends:
  stub: {{url: "{stub}/mcp"}}
"""
_DELAY_AND_IDLE_S = {"nginx": (0.0, 5.0), "haproxy": (2.0, 1.0)}
"""drain_delay_s and drain_idle_s as docs/deployment.md has them. nginx goes on to the next replica by itself when one
refuses, but may send on a kept connection; HAProxy sees `/readyz` fail and sends nothing any more."""


async def restart(replica: Replica, tally: Tally) -> None:
    """SIGTERM, its end, and the next one in its place."""
    began = time.monotonic()
    try:
        status = await asyncio.to_thread(replica.terminate, _EXIT_S)
    except psutil.TimeoutExpired:
        tally.fault("bad exits", f"still there after {_EXIT_S:.0f} s")
        replica.kill()
        status = 0
    tally.drains_s.append(time.monotonic() - began)
    if status:
        tally.fault("bad exits", f"exit status {status}")
    await asyncio.to_thread(replica.start)


async def roll(url: str, replicas: list[Replica], stub: psutil.Process, plan: "Plan") -> Tally:
    """Restart every replica in turn, `plan.rounds` times, under load. Raises RuntimeError when the stub has died."""
    tally = Tally()
    clients = Clients(url, tally, plan.seed)
    await clients.open(plan.sessions)
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(clients.listen()) for _ in range(plan.streams)]
        streams += [group.create_task(clients.stand(session)) for session in clients.standing(plan.streams)]
        calling = group.create_task(clients.call(plan.rate, group))
        await asyncio.sleep(plan.settle_s)
        for _ in range(plan.rounds):
            for replica in replicas:
                await restart(replica, tally)
                await asyncio.sleep(plan.settle_s)
                if stub.status() == psutil.STATUS_ZOMBIE:
                    raise RuntimeError(f"the stub behind the gateways has died ({stub.wait()}): this run says nothing")
        clients.is_over = True
        await calling
        for stream in streams:
            stream.cancel()
    clients.close()
    return tally


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    balancer: str
    rounds: int
    rate: float
    streams: int
    sessions: int
    workers: int
    seed: int

    @property
    def settle_s(self) -> float:
        return _SETTLE_S[self.balancer]


@contextlib.contextmanager
def stage(plan: Plan) -> Iterator[tuple[str, list[Replica], psutil.Process]]:
    """A stub, three gateways before it, the balancer before them; all ended at the end."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        stub, process = stack.enter_context(announcing("-m", "bench.stub", "--port", "0"))
        store = stack.enter_context(redis(directory)) if plan.sessions or plan.workers > 1 else "memory"
        files = [directory / f"gateway-{number}.yaml" for number in range(_REPLICAS)]
        delay_s, idle_s = _DELAY_AND_IDLE_S[plan.balancer]
        settings = {"stub": stub, "store": store, "workers": plan.workers, "delay_s": delay_s, "idle_s": idle_s}
        replicas = [Replica(_GATEWAY, settings, file, stack) for file in files]
        balancer = BALANCERS[plan.balancer]([replica.port for replica in replicas], directory)
        yield stack.enter_context(balancer), replicas, process


def shown(plan: Plan, tally: Tally, took_s: float) -> str:
    """The outcome in one paragraph."""
    latencies = sorted(tally.latencies_s) or [float("nan")]
    drains = sorted(tally.drains_s) or [float("nan")]
    return (
        f"{plan.balancer}, {plan.workers} to a replica: {len(tally.drains_s)} restarts in {took_s:.0f} s, "
        f"{tally.counts['calls']} calls at "
        f"{plan.rate:.0f}/s ({tally.counts['handshake calls']} in {plan.sessions} sessions), "
        f"{tally.counts['failed calls']} failed; {tally.counts['streams ended well']} streams ended as they should, "
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
    parser.add_argument("--streams", type=int, default=50, help="standing streams of each era")
    parser.add_argument("--sessions", type=int, default=0, help="handshake sessions; they need redis-server")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of a replica; more than one need redis-server"
    )
    parser.add_argument("--seed", type=int, default=1, help="of which calls are slow")
    options = parser.parse_args()
    failed = 0
    for balancer in BALANCERS if options.balancer == "both" else [options.balancer]:
        load = (options.rounds, options.rate, options.streams, options.sessions, options.workers, options.seed)
        plan = Plan(balancer, *load)
        began = time.monotonic()
        try:
            with stage(plan) as (url, replicas, stub):
                tally = uvloop.run(roll(url, replicas, stub, plan))
        except Missing as missing:
            print(missing, file=sys.stderr)
            return 2
        print(shown(plan, tally, time.monotonic() - began), flush=True)
        for fault in tally.faults:
            print(f"FAULT {fault}", file=sys.stderr)
        failed += len(tally.faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
