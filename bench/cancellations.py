"""Random cancellations on two gateways with a real Redis and a real backend: no answer may be another one's, and
nothing may stay behind.

Clients of both eras call `digest` through both gateways and cancel at a random moment of the call: a handshake client
by `notifications/cancelled`, through the gateway that runs the call or through the other one, or it cuts the
connection, with and without saying so; a modern client by cutting the connection. Sessions are opened and ended all the
time, and standing streams too, and both are cut half-way as well. Every answer that comes all the same is compared with
HMAC-SHA256(secret, nonce), every progress notice with the nonce. Afterwards all sessions are ended, and sockets
(/proc), tasks, connections to the backend and to the Redis, and what `/metrics` says of sessions, streams, calls in
flight and parked calls must be back at the start.

    python -m bench.cancellations --cancellations 100000

Exits 1 on a wrong answer, an error, a hang or a leak, 2 when a program is missing.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import redis as redis_client
import uvloop

from bench.answers import digest
from bench.balancers import Missing, free_port, redis
from bench.calls import Call, cancelled, handshake, initialize, messages, modern, session_headers
from bench.client import Answer, Connection, open_session
from bench.herald import Herald
from bench.inspected import Process, inspected

_PROGRESS_TOKEN = "the-same-for-all"
_MAX_DELAY_MS = 20.0
_HANG_S = 30.0
_SETTLE_S = 60.0
_LOOK_S = 0.5
_SHOWN_FAULTS = 10
_IDLE_S = 12.0
"""Sessions whose client never learned their id end by themselves, after so long."""
_WARM_UP = 2_000
"""Cancellations before the start is looked at: what is opened once and kept is open by then."""
_KEPT_S = 3.0
"""Connections to the backend that nobody uses are closed by then."""
_AT_REST = {"mcp_active_sessions": 0, "mcp_open_streams": 0, "keys of sessions in Redis": 0}
_TURNS = {
    "answered": 0.20,
    "told": 0.22,
    "told through the other": 0.16,
    "cut": 0.12,
    "cut and told": 0.10,
    "modern, cut": 0.14,
    "stream cut": 0.03,
    "initialize cut": 0.02,
    "session renewed": 0.01,
}
_GAUGES = ("mcp_active_sessions", "mcp_open_streams", "mcp_calls_in_flight", "mcp_parked_calls",
           "gatewright_client_connections")  # fmt: skip
_CONFIG = """
listen: 127.0.0.1:0
admin: 127.0.0.1:{admin}
store: {store}
log: {{level: error}}
sessions: {{idle_s: {idle_s}}}
backends:
  stub: {{url: "{herald}/{number}", keep_alive_s: 1, max_connections: 256}}
"""


@dataclass
class Tally:
    """What was seen; `faults` holds the first few in words."""

    wanted: int
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < _SHOWN_FAULTS:
            self.faults.append(f"{kind}: {text}")

    @property
    def is_enough(self) -> bool:
        return self.counts["cancellations"] >= self.wanted


@dataclass
class Outcome:
    """What a run has seen."""

    tally: Tally
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    rss_bytes: list[int] = field(default_factory=list)
    """Of both gateways, at the start and right after the last cancellation."""
    took_s: float = 0.0


class Client:
    """One simulated user of both eras: a secret, a session, and a connection to each gateway."""

    def __init__(self, gateways: list[str], tally: Tally, chance: random.Random) -> None:
        self._urls = [f"{url}/mcp/stub" for url in gateways]
        self._tally = tally
        self._chance = chance
        self._secret = secrets.token_hex(16)
        self._session = ""
        self._number = 0
        self._connections: list[Connection | None] = [None] * len(gateways)

    async def work(self) -> None:
        """Call and cancel until there were enough cancellations; ends after its own first hang."""
        try:
            await self._renew(self._some())
            while not self._tally.is_enough and not self._tally.counts["hangs"]:
                (turn,) = self._chance.choices(list(_TURNS), list(_TURNS.values()))
                async with asyncio.timeout(_HANG_S):
                    await self._turn(turn)
            await self._end(self._some())
        except TimeoutError:
            self._tally.fault("hangs", f"no answer within {_HANG_S:.0f} s")
        except (OSError, ExceptionGroup) as error:
            self._tally.fault("errors", f"{type(error).__name__}: {error}")
        finally:
            for connection in self._connections:
                if connection is not None:
                    connection.abort()

    async def _turn(self, turn: str) -> None:
        self._tally.counts[turn] += 1
        self._tally.counts["cancellations"] += turn not in ("answered", "session renewed")
        at = self._some()
        if turn == "session renewed":
            await self._end(self._some())
            await self._renew(at)
        elif turn == "initialize cut":
            await self._cut(at, initialize())
        elif turn == "stream cut":
            headers = {"Accept": "text/event-stream", **session_headers(self._session)}
            await self._cut(at, Call(headers, b"", method="GET"))
        else:
            await self._call(turn, at)

    async def _call(self, turn: str, at: int) -> None:
        """One call, and what becomes of it."""
        self._number += 1
        nonce, number = secrets.token_hex(8), self._number
        delay_ms = self._chance.uniform(0, _MAX_DELAY_MS) if self._chance.random() < 0.8 else 0.0
        params = {"name": "digest", "arguments": {"secret": self._secret, "nonce": nonce, "delay_ms": delay_ms}}
        token = _PROGRESS_TOKEN if self._chance.random() < 0.5 else ""
        if turn == "modern, cut":
            await self._cut(at, modern("tools/call", params, progress_token=token))
            return
        call = handshake("tools/call", params, session=self._session, progress_token=token, request_id=number)
        if turn.startswith("cut"):
            await self._cut(at, call)
            if turn == "cut and told":
                await self._tell(at, number)
            return
        connection = await self._connected(at)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(connection.send(call))
            if turn != "answered":
                await asyncio.sleep(self._chance.uniform(0, _MAX_DELAY_MS / 1000))
                await self._tell(1 - at if turn.endswith("other") else at, number, is_aside=True)
        self._judge(sending.result(), nonce, number, may_be_owed_nothing=turn != "answered")

    async def _cut(self, at: int, call: Call) -> None:
        """Send it and cut the connection at a random moment."""
        connection = await self._connected(at)
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(connection.send(call), self._chance.uniform(0, _MAX_DELAY_MS / 1000))
        connection.abort()

    async def _tell(self, at: int, number: int, *, is_aside: bool = False) -> None:
        """Cancel a call, beside the connection that waits for its answer where that is the same."""
        connection = await Connection.open(self._urls[at]) if is_aside else await self._connected(at)
        answer = await connection.send(cancelled(self._session, number))
        if is_aside:
            connection.abort()
        if answer.status != 202:
            self._tally.fault("errors", f"a cancel was answered {answer.status}: {answer.body[:200]!r}")

    async def _renew(self, at: int) -> None:
        self._session = await open_session(await self._connected(at))

    async def _end(self, at: int) -> None:
        answer = await (await self._connected(at)).send(Call(session_headers(self._session), b"", method="DELETE"))
        if answer.status != 204:
            self._tally.fault("errors", f"DELETE was answered {answer.status}: {answer.body[:200]!r}")

    def _judge(self, answer: Answer, nonce: str, number: int, *, may_be_owed_nothing: bool) -> None:
        """An answer is this call's own; one that was cancelled may have none."""
        tally = self._tally
        try:
            said = messages(answer.content_type, answer.body)
        except ValueError as error:
            tally.fault("errors", f"{error}: {answer.body[:300]!r}")
            return
        for notice in (one for one in said if "method" in one):
            tally.counts["progress notices"] += 1
            if notice["params"].get("message") != nonce or notice["params"]["progressToken"] != _PROGRESS_TOKEN:
                tally.fault("mismatches", f"a foreign notice: {notice!r}")
        finals = [one for one in said if "method" not in one]
        if not finals and may_be_owed_nothing and answer.status in (200, 202):
            tally.counts["not answered"] += 1
        elif len(finals) != 1 or "result" not in finals[0] or answer.status != 200:
            tally.fault("errors", f"status {answer.status}: {answer.body[:300]!r}")
        elif finals[0]["id"] != number or finals[0]["result"]["content"][0]["text"] != digest(self._secret, nonce):
            tally.fault("mismatches", f"call {number}: {answer.body[:300]!r}")
        else:
            tally.counts["right answers"] += 1

    def _some(self) -> int:
        return self._chance.randrange(len(self._urls))

    async def _connected(self, at: int) -> Connection:
        connection = self._connections[at]
        if connection is None or not connection.is_open:
            connection = self._connections[at] = await Connection.open(self._urls[at])
        return connection


class Stage:
    """What runs, and how it stands."""

    def __init__(self, processes: list[Process], admins: list[int], herald: Herald, store: str) -> None:
        self.processes = processes
        self._admins = admins
        self._herald = herald
        self._redis = redis_client.Redis.from_url(store)

    async def state(self) -> dict[str, int]:
        """Everything that must come back to where it was."""
        found: Counter[str] = Counter()
        for process, admin in zip(self.processes, self._admins, strict=True):
            state = await process.state()
            found.update({"tasks": state.tasks, "sockets": state.sockets})
            gauges = await _gauges(admin)
            found.update({name: round(gauges[name]) for name in _GAUGES})
        found["connections to the backend"] = len(self._herald.wires)
        found["backend sessions"] = len(self._herald.sessions)
        found["connections to Redis"] = int(self._redis.info("clients")["connected_clients"])
        found["keys of sessions in Redis"] = sum(1 for _ in self._redis.scan_iter("*:s", count=1_000))
        return dict(found)

    async def rss_bytes(self) -> int:
        """The resident memory of all gateways."""
        return sum([(await process.state()).rss_bytes for process in self.processes])

    async def settled(self, start: dict[str, int]) -> dict[str, int]:
        """The state once nothing is above the start, or when the time is over."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            state = await self.state()
            if all(state[name] <= start[name] for name in start) or time.monotonic() > deadline:
                return state
            await asyncio.sleep(_LOOK_S)


async def _gauges(port: int) -> dict[str, float]:
    """What `/metrics` says, summed over labels."""
    connection = await Connection.open(f"http://127.0.0.1:{port}/metrics")
    answer = await connection.send(Call({}, b"", method="GET"))
    connection.abort()
    found: dict[str, float] = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            family = name.partition("{")[0]
            found[family] = found.get(family, 0.0) + float(value)
    return found


@contextlib.asynccontextmanager
async def stage(herald: Herald) -> AsyncIterator[Stage]:
    """A Redis, and two gateways before the herald; all ended at the end."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        store = stack.enter_context(redis(directory))
        processes, admins = [], []
        for number in range(2):
            with free_port() as admin:
                admins.append(admin)
            file = directory / f"gateway-{number}.yaml"
            file.write_text(_CONFIG.format(admin=admin, store=store, idle_s=_IDLE_S, herald=herald.url, number=number))
            processes.append(await stack.enter_async_context(inspected(file)))
        yield Stage(processes, admins, herald, store)


async def press(stage: Stage, *, cancellations: int, clients: int, deadline_s: float, seed: int) -> Outcome:
    """Warm up, look, cancel until there were enough, look again."""
    outcome = Outcome(Tally(cancellations))
    gateways = [process.url for process in stage.processes]
    await _work(gateways, Tally(_WARM_UP), clients, deadline_s, seed)
    await stage.settled(_AT_REST)
    await asyncio.sleep(_KEPT_S)
    outcome.start = await stage.state()
    outcome.rss_bytes.append(await stage.rss_bytes())
    began = time.monotonic()
    await _work(gateways, outcome.tally, clients, deadline_s, seed + clients)
    outcome.took_s = time.monotonic() - began
    outcome.rss_bytes.append(await stage.rss_bytes())
    outcome.end = await stage.settled(outcome.start)
    for name, count in outcome.start.items():
        if outcome.end[name] > count:
            outcome.tally.fault("leaks", f"{name}: {count} at the start, {outcome.end[name]} at the end")
    return outcome


async def _work(gateways: list[str], tally: Tally, clients: int, deadline_s: float, seed: int) -> None:
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(Client(gateways, tally, random.Random(seed + number)).work())
    except TimeoutError:
        tally.fault("hangs", f"only {tally.counts['cancellations']} cancellations within {deadline_s:.0f} s")


async def measure(*, cancellations: int, clients: int, deadline_s: float, seed: int) -> Outcome:
    """Start everything, press it, end everything. Raises Missing."""
    herald = Herald()
    await herald.start()
    try:
        async with stage(herald) as running:
            return await press(running, cancellations=cancellations, clients=clients, deadline_s=deadline_s, seed=seed)
    finally:
        herald.stop()


def shown(outcome: Outcome, clients: int) -> str:
    """The outcome as tables."""
    tally = outcome.tally
    made = tally.counts["cancellations"]
    lines = [f"{made:,} cancellations by {clients} clients in {outcome.took_s:.0f} s", ""]
    for kind in (
        "mismatches",
        "errors",
        "hangs",
        "leaks",
        "right answers",
        "not answered",
        "progress notices",
        *_TURNS,
    ):
        lines.append(f"{tally.counts[kind]:>9,}  {kind}")
    lines += ["", "| of both gateways | at the start | at the end |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {outcome.end.get(name)} |" for name, count in outcome.start.items()]
    lines.append("| resident memory | " + " | ".join(f"{rss / 2**20:.0f} MiB" for rss in outcome.rss_bytes) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random cancellations: no answer of another's, nothing left behind.")
    parser.add_argument("--cancellations", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--deadline", type=float, default=900.0, help="seconds for all of them")
    parser.add_argument("--seed", type=int, default=1, help="of what is cancelled when")
    options = parser.parse_args()
    running = measure(
        cancellations=options.cancellations,
        clients=options.clients,
        deadline_s=options.deadline,
        seed=options.seed,
    )
    try:
        outcome = uvloop.run(running)
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    print(shown(outcome, options.clients))
    for fault in outcome.tally.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if outcome.tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
