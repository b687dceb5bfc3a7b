"""Replicas killed under load: what fails, what comes back and when, when one of three gets SIGKILL behind nginx.

Three gateways on a real Redis stand behind a real nginx (`deploy/nginx.conf`, plain round robin). Handshake clients are
opened once: each has a session and a standing stream, on which the backend says a numbered notice every few seconds;
beside that calls leave at a constant rate, some of them slow. In each round one replica is killed, and started again
on its port once every client has heard something that was said after the kill.

    python -m bench.loss --rounds 20 --sessions 2000 --rate 300

A kill hits gateways at work, not ones that still recover from the last one: it waits, for ten seconds at most, until
what is said is heard within a second again. What is owed is every notice that a living replica took from the backend,
but those of the last second before a kill: what a replica was told and had no time to write down dies with it. A call
may fail if it was under way at the kill and never reached the backend by another replica than the dead one. Prints a
line for each round and a table of what was to be shown; exits 1 when any of it is broken, 2 when a program is missing.
The driver bounds itself: calls under way, bytes of a stream, its own memory, and the time of the whole run.
"""

import argparse
import asyncio
import bisect
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from bench.balancers import Missing, nginx, redis
from bench.callers import Attempt, Clients, Tally
from bench.herald import Herald
from bench.listener import Listener
from bench.replicas import Replica

_REPLICAS = 3
_BACK_S = 30.0
_LAST_S = 1.0
"""What was said in so much time before a kill is not owed."""
_PROMPT_S = 0.9
_CALM_S = 10.0
"""How long a kill waits until all that was said before the last `_PROMPT_S` was heard."""
_KILL_S = 1.0
"""After a kill a balancer may still send something to who was killed."""
_FAILED_BY_S = 5.0
_SETTLE_S = 2.2
"""Until a replica that is back is used again: nginx's fail_timeout."""
_TICK_S = 0.02
_LOOK_S = 0.05
_ROUND_MOST_S = 60.0
_OPEN_MOST_S = 180.0
_MAX_RSS_BYTES = 1 << 30
_GATEWAY = """
listen: 127.0.0.1:{port}
admin: null
store: {store}
log: {{level: error}}
backends:
  stub: {{url: "{herald}/{number}", max_connections: 4096}}
"""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    rounds: int
    sessions: int
    rate: float
    every_s: float
    seed: int

    @property
    def most_s(self) -> float:
        """How long all of it may take."""
        return _OPEN_MOST_S + self.rounds * _ROUND_MOST_S


@dataclass(frozen=True)
class Kill:
    """A replica that was killed, and when."""

    victim: int
    at: float


@dataclass
class Outcome:
    """What a run has seen."""

    tally: Tally = field(default_factory=Tally)
    kills: list[Kill] = field(default_factory=list)
    back_s: list[list[float]] = field(default_factory=list)
    """By round, and client: from the kill to the first notice that was said after it."""
    opened_anew: int = 0
    carried_out_twice: int = 0
    owed: int = 0
    missing: int = 0
    last: int = 0
    """Notices said right before a kill, and how many of those never came."""
    lost_last: int = 0
    peak_rss_bytes: int = 0

    def lines(self) -> list[tuple[str, str, bool]]:
        """What was to be shown: in words, what was seen, and whether it holds."""
        counts = self.tally.counts
        back = sorted(seconds for of_round in self.back_s for seconds in of_round) or [float("nan")]
        failed = counts["failed calls"] + counts["calls not made"]
        made = counts["calls"] + counts["expected failures"] + failed + counts["wrong answers"]
        lost = counts["sessions lost"] + counts["resumes refused"]
        rows = [
            ("sessions unknown, or streams that cannot be resumed", lost, ""),
            ("backend sessions opened anew", self.opened_anew, ""),
            ("calls failed that were not under way on the dead replica", failed, f" of {made:,}"),
            ("calls carried out twice", self.carried_out_twice, f" of {made:,}"),
            ("wrong answers", counts["wrong answers"], f" of {made:,}"),
            ("notices to the wrong session", counts["notices to the wrong session"], ""),
            ("notices heard twice", counts["notices heard twice"], f" of {counts['notices heard']:,}"),
            ("notices missing", self.missing, f" of {self.owed:,} owed"),
        ]
        lines = [(name, f"{count:,}{of}", count == 0) for name, count, of in rows]
        slowest = f"slowest {back[-1]:.1f} s, median {back[len(back) // 2]:.1f} s"
        lines.append((f"streams back, with news, within {_BACK_S:.0f} s", slowest, back[-1] <= _BACK_S))
        lines.append(("anything else", f"{len(self.tally.faults)} faults", not self.tally.faults))
        return lines


class Loss:
    """One run."""

    def __init__(self, plan: Plan, url: str, herald: Herald, replicas: list[Replica]) -> None:
        self._plan = plan
        self._url = url
        self._herald = herald
        self._replicas = replicas
        self.outcome = Outcome()
        self._tally = self.outcome.tally
        self._clients = Clients(url, self._tally, plan.seed, has_modern=False, is_expected=self._is_expected)
        self._listeners: list[Listener] = []

    async def run(self) -> None:
        """All rounds. A run past its time, or past its memory, is a fault like any other."""
        running = asyncio.timeout(self._plan.most_s)
        try:
            async with running, asyncio.TaskGroup() as group:
                await self._open()
                opened = self._herald.opened
                tasks = [group.create_task(listener.listen()) for listener in self._listeners]
                tasks.append(group.create_task(self._watch(running)))
                await self._all_listen()
                saying = group.create_task(self._say())
                calling = group.create_task(self._clients.call(self._plan.rate, group))
                await asyncio.sleep(_SETTLE_S)
                for number in range(self._plan.rounds):
                    await self._round(number)
                self._clients.is_over = True
                await calling
                saying.cancel()
                await self._all_heard()
                self.outcome.opened_anew = self._herald.opened - opened
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            self._tally.fault("out of bounds", "it took too long, or too much memory")
        self._clients.close()
        self._judge()

    async def _open(self) -> None:
        """The sessions, one call in each, and a client for each."""
        await self._clients.open(self._plan.sessions)
        await self._clients.greet()
        sessions = enumerate(self._clients.sessions)
        url = f"{self._url}/mcp/stub"
        self._listeners = [Listener(url, number, session, self._tally) for number, session in sessions]

    async def _all_listen(self) -> None:
        while not all(one.heard.is_listening and self._herald.is_heard(one.number) for one in self._listeners):
            await asyncio.sleep(_LOOK_S)

    async def _say(self) -> None:
        """A notice to every client in turn, to each one every `every_s`."""
        due = 0.0
        number = 0
        while True:
            await asyncio.sleep(_TICK_S)
            due += len(self._listeners) * _TICK_S / self._plan.every_s
            while due >= 1:
                due -= 1
                number = (number + 1) % len(self._listeners)
                self._tally.counts["notices said to nobody"] += not self._herald.say(number)

    async def _watch(self, run: asyncio.Timeout) -> None:
        """End the run when the driver itself grows without an end."""
        me = psutil.Process()
        while True:
            rss = me.memory_info().rss
            self.outcome.peak_rss_bytes = max(self.outcome.peak_rss_bytes, rss)
            if rss > _MAX_RSS_BYTES:
                run.reschedule(0.0)
            await asyncio.sleep(1)

    async def _round(self, number: int) -> None:
        await self._calm()
        victim = number % len(self._replicas)
        replica = self._replicas[victim]
        kill = Kill(victim, time.monotonic())
        self.outcome.kills.append(kill)
        before = self._tally.counts.copy()
        self._herald.lost(str(victim))
        await asyncio.to_thread(replica.kill)
        back = await self._back(kill)
        self.outcome.back_s.append(back)
        await asyncio.to_thread(replica.start)
        await asyncio.sleep(_SETTLE_S)
        seen = self._tally.counts - before
        print(
            f"round {number + 1:>2}: killed {victim}, {seen['streams opened']:>5,} streams reopened, all back after "
            f"{max(back):.1f} s; {seen['calls']:,} calls, {seen['expected failures']} in flight failed, "
            f"{seen['failed calls']} others; {seen['notices heard']:,} notices heard",
            flush=True,
        )

    async def _calm(self) -> None:
        """Return once everybody hears promptly, or nobody can hope for it any more."""
        deadline = time.monotonic() + _CALM_S
        while any(self._is_behind(one, time.monotonic()) for one in self._listeners):
            if time.monotonic() > deadline:
                self._tally.counts["kills of busy gateways"] += 1
                return
            await asyncio.sleep(_LOOK_S)

    def _is_behind(self, listener: Listener, now: float) -> bool:
        said = self._herald.said.get(listener.number, [])
        recent = range(bisect.bisect(said, now - 2 * self._plan.every_s), bisect.bisect(said, now - _PROMPT_S))
        return any(number not in listener.heard.numbers and not self._is_last(said[number]) for number in recent)

    async def _back(self, kill: Kill) -> list[float]:
        """How long each client took to hear something that was said after the kill. One that does not within the bound
        took that long and one second."""
        waiting = self._listeners
        took: list[float] = []
        while waiting and time.monotonic() < kill.at + _BACK_S + 1:
            await asyncio.sleep(_LOOK_S)
            still = [one for one in waiting if not self._is_back(one, kill)]
            took += [time.monotonic() - kill.at] * (len(waiting) - len(still))
            waiting = still
        for one in waiting[:3]:
            what = f"{one.number} listens: {one.heard.is_listening}, is heard: {self._herald.is_heard(one.number)}"
            self._tally.fault("streams not back", what)
        return took + [_BACK_S + 1] * len(waiting)

    def _is_back(self, listener: Listener, kill: Kill) -> bool:
        said = self._herald.said.get(listener.number, [])
        first = bisect.bisect(said, kill.at)
        return any(number in listener.heard.numbers for number in range(first, len(said)))

    async def _all_heard(self) -> None:
        """Return when everything that is owed was heard, or nobody can hope for it any more."""
        deadline = time.monotonic() + _BACK_S
        while time.monotonic() < deadline and any(self._owed_and_missing(one)[1] for one in self._listeners):
            await asyncio.sleep(_LOOK_S)

    def _owed_and_missing(self, listener: Listener) -> tuple[int, list[int]]:
        said = self._herald.said.get(listener.number, [])
        owed = [number for number, at in enumerate(said) if not self._is_last(at)]
        return len(owed), [number for number in owed if number not in listener.heard.numbers]

    def _is_last(self, at: float) -> bool:
        """Whether that was right before a kill."""
        return any(kill.at - _LAST_S <= at <= kill.at for kill in self.outcome.kills)

    def _is_expected(self, attempt: Attempt) -> bool:
        """Whether a call that has no answer was under way on a replica when that was killed."""
        carrier = self._herald.carrier.get(attempt.nonce)
        return any(
            attempt.began <= kill.at + _KILL_S
            and kill.at <= attempt.ended <= kill.at + _FAILED_BY_S
            and carrier in (None, str(kill.victim))
            for kill in self.outcome.kills[-1:]
        )

    def _judge(self) -> None:
        outcome = self.outcome
        outcome.carried_out_twice = sum(count > 1 for count in self._herald.carried_out.values())
        for listener in self._listeners:
            owed, missing = self._owed_and_missing(listener)
            outcome.owed += owed
            outcome.missing += len(missing)
            said = self._herald.said.get(listener.number, [])
            last = [number for number, at in enumerate(said) if self._is_last(at)]
            outcome.last += len(last)
            outcome.lost_last += sum(number not in listener.heard.numbers for number in last)
            for number in missing[:1]:
                since = ", ".join(f"{said[number] - kill.at:+.2f}" for kill in outcome.kills)
                self._tally.fault("notices missing", f"{number} of {listener.number}, said {since} s from the kills")


@contextlib.contextmanager
def stage(herald: Herald) -> Iterator[tuple[str, list[Replica]]]:
    """A Redis, three gateways before the herald, nginx before them; all ended at the end."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        store = stack.enter_context(redis(directory))
        replicas = [
            Replica(
                _GATEWAY,
                {"herald": herald.url, "store": store, "number": number},
                directory / f"gateway-{number}.yaml",
                stack,
            )
            for number in range(_REPLICAS)
        ]
        yield stack.enter_context(nginx([replica.port for replica in replicas], directory)), replicas


async def measure(plan: Plan) -> Outcome:
    """Start everything, run all rounds, end everything. Raises Missing."""
    herald = Herald()
    await herald.start()
    try:
        with contextlib.ExitStack() as stack:
            url, replicas = await asyncio.to_thread(stack.enter_context, stage(herald))
            loss = Loss(plan, url, herald, replicas)
            await loss.run()
            for replica in replicas:  # nobody is left for whom they would drain
                await asyncio.to_thread(replica.kill)
            return loss.outcome
    finally:
        herald.stop()


def shown(plan: Plan, outcome: Outcome, took_s: float) -> str:
    """The outcome as a table."""
    counts = outcome.tally.counts
    latencies = sorted(outcome.tally.latencies_s) or [float("nan")]
    lines = ["", "| to be shown | seen | |", "|---|---|---|"]
    lines += [f"| {name} | {seen} | {'ok' if holds else '**BROKEN**'} |" for name, seen, holds in outcome.lines()]
    lines += [
        "",
        f"{len(outcome.kills)} kills in {took_s:.0f} s; {plan.sessions:,} sessions with a stream; {counts['calls']:,} "
        f"calls at {plan.rate:.0f}/s, {counts['expected failures']} failed that were under way on the dead replica; "
        f"latency median {latencies[len(latencies) // 2] * 1000:.1f} ms, "
        f"99 % {latencies[int(len(latencies) * 0.99)] * 1000:.0f} ms, worst {latencies[-1] * 1000:.0f} ms",
        f"{counts['streams opened']:,} streams opened; {counts['notices said to nobody']:,} notices not said, as no "
        f"replica listened; of {outcome.last:,} said in the last {_LAST_S * 1000:.0f} ms before a kill "
        f"{outcome.lost_last:,} were lost; {counts['kills of busy gateways']} kills of gateways not recovered in "
        f"{_CALM_S:.0f} s; the driver took {outcome.peak_rss_bytes / 2**20:.0f} MiB",
    ]
    odd = {kind: count for kind, count in sorted(counts.items()) if kind.startswith(("streams not", "streams ref"))}
    return "\n".join([*lines, *(f"{count:,} {kind}" for kind, count in odd.items())])


def main() -> int:
    parser = argparse.ArgumentParser(description="One of three replicas is killed, again and again, under load.")
    parser.add_argument("--rounds", type=int, default=20, help="in each one replica is killed")
    parser.add_argument("--sessions", type=int, default=2_000, help="each with a standing stream")
    parser.add_argument("--rate", type=float, default=300.0, help="calls per second")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between the notices of one session")
    parser.add_argument("--seed", type=int, default=1, help="of which calls are slow")
    options = parser.parse_args()
    plan = Plan(options.rounds, options.sessions, options.rate, options.every, options.seed)
    began = time.monotonic()
    try:
        outcome = uvloop.run(measure(plan))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    print(shown(plan, outcome, time.monotonic() - began), flush=True)
    for fault in outcome.tally.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 0 if all(holds for _, _, holds in outcome.lines()) else 1


if __name__ == "__main__":
    sys.exit(main())
