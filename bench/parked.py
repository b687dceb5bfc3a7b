"""Parked calls: modern clients, a handshake backend that asks, and answers that come in any order, much later.

1,000 calls at once on one gateway process, each answered by its own caller only, in random order; several rounds. The
question carries the call's nonce, the answer is HMAC-SHA256(secret, nonce), and the backend gives both back, so that
one right result exists per caller. Afterwards the gateway's sockets (/proc), its tasks and its backend sessions must be
back at the start. States what a parked call costs in memory. Exits 1 on a wrong or missing answer, a leak or a hang.

    scripts/bench parked [--calls 1000] [--rounds 3] [--deadline 120]
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.answers import digest
from bench.asker import Asker
from bench.calls import Call, messages, modern
from bench.client import Connection
from bench.inspected import Process, State, inspected

_AT_ONCE = 64
"""Connections that the callers share out: a parked call needs none."""
_CALL_S = 30.0
_SETTLE_S = 20.0
_KEEP_ALIVE_S = 1.0
_ABLE = {"elicitation": {"form": {}}}
_MAX_GROWTH = 1.25
"""Of the memory at the peak of a round, from the first to the last: more is a leak."""
_CONFIG = """
listen: 127.0.0.1:0
admin: null
log: {{level: warning}}
backends:
  asker:
    url: "{url}"
    keep_alive_s: {keep_alive_s}
    max_connections: {calls}
    max_parked: {calls}
    max_parked_per_caller: {calls}
"""


@dataclass
class Outcome:
    """What a run has seen."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    start: State | None = None
    peaks: list[State] = field(default_factory=list)
    rests: list[State] = field(default_factory=list)
    park_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < 10:
            self.faults.append(f"{kind}: {text}")


class Caller:
    """One caller: its secret, its nonce, and the state that stands for its parked call."""

    def __init__(self, url: str, outcome: Outcome) -> None:
        self._url = url
        self._outcome = outcome
        self._secret = secrets.token_hex(16)
        self._nonce = secrets.token_hex(8)
        self._retry: dict[str, Any] = {}

    async def ask(self) -> None:
        """Make the call: it must come back as this caller's own question."""
        result = await self._send({})
        try:
            [(key, question)] = result["inputRequests"].items()
            if question["params"]["message"] != self._nonce:
                self._outcome.fault("wrong questions", str(question)[:300])
            answer = {"action": "accept", "content": {"said": digest(self._secret, self._nonce)}}
            self._retry = {"inputResponses": {key: answer}, "requestState": result["requestState"]}
            self._outcome.counts["parked"] += 1
        except (KeyError, ValueError) as error:
            self._outcome.fault("errors", f"no question: {error!r}: {str(result)[:300]}")

    async def answer(self) -> None:
        """Answer it: the result must be this caller's."""
        if not self._retry:
            return
        result = await self._send(self._retry)
        texts = [part.get("text") for part in result.get("content", ())]
        if texts == [f"{self._nonce}:{digest(self._secret, self._nonce)}"]:
            self._outcome.counts["right answers"] += 1
        else:
            self._outcome.fault("wrong answers", str(result)[:300])

    async def _send(self, retry: dict[str, Any]) -> dict[str, Any]:
        """The result of one request on a connection of its own, {} and a fault when there is none."""
        call = _call(self._nonce, retry)
        connection = await asyncio.wait_for(Connection.open(self._url), _CALL_S)
        try:
            answer = await asyncio.wait_for(connection.send(call), _CALL_S)
            final = messages(answer.content_type, answer.body)[-1]
            if "result" in final:
                return dict(final["result"])
            self._outcome.fault("errors", f"status {answer.status}: {answer.body[:300]!r}")
        except TimeoutError:
            self._outcome.fault("hangs", f"no answer within {_CALL_S:.0f} s")
        except (ConnectionError, msgspec.DecodeError, IndexError) as error:
            self._outcome.fault("errors", f"{type(error).__name__}: {error}")
        finally:
            connection.abort()
        return {}


def _call(nonce: str, retry: dict[str, Any]) -> Call:
    """`ask` as a client that can be asked makes it."""
    plain = modern("tools/call", {"name": "ask", "arguments": {"nonce": nonce}, **retry})
    message = msgspec.json.decode(plain.body)
    message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = _ABLE
    return Call(plain.headers, msgspec.json.encode(message))


async def _share(work: list[Callable[[], Any]]) -> float:
    """Do it all, `_AT_ONCE` at a time; the seconds it took."""
    since = time.monotonic()
    waiting = iter(work)

    async def worker() -> None:
        for one in waiting:
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    return time.monotonic() - since


async def _rest(process: Process, asker: Asker, like: State | None) -> State:
    """The gateway when it has nothing left to close, or after _SETTLE_S as it is then."""
    deadline = time.monotonic() + _SETTLE_S
    before = await process.state()
    while True:
        await asyncio.sleep(_KEEP_ALIVE_S)
        state = await process.state()
        is_still = (state.tasks, state.sockets) == (before.tasks, before.sockets) and not asker.connections
        if (is_still and like is None) or (like and state.tasks <= like.tasks and state.sockets <= like.sockets):
            return state
        if time.monotonic() > deadline:
            return state
        before = state


async def press(process: Process, asker: Asker, *, calls: int, rounds: int, seed: int) -> Outcome:
    """Park, answer and look, round after round."""
    outcome = Outcome()
    chance = random.Random(seed)
    url = f"{process.url}/mcp/asker"
    first = Caller(url, outcome)
    await first.ask()
    await first.answer()
    outcome.start = await _rest(process, asker, None)
    sessions = asker.sessions
    for _ in range(rounds):
        callers = [Caller(url, outcome) for _ in range(calls)]
        outcome.park_s.append(await _share([caller.ask for caller in callers]))
        outcome.peaks.append(await process.state())
        if len(asker.open) != calls:
            outcome.fault("errors", f"{len(asker.open)} calls are open at the backend instead of {calls}")
        chance.shuffle(callers)
        outcome.answer_s.append(await _share([caller.answer for caller in callers]))
        outcome.rests.append(await _rest(process, asker, outcome.start))
    if asker.sessions != sessions:
        outcome.fault("leaked sessions", f"{asker.sessions} backend sessions instead of {sessions}")
    _judge(outcome, asker, calls * rounds + 1)
    return outcome


def _judge(outcome: Outcome, asker: Asker, calls: int) -> None:
    """Add the faults that show only at the end."""
    start, last = outcome.start, outcome.rests[-1]
    assert start is not None
    if outcome.counts["right answers"] != calls:
        outcome.fault("missing", f"{outcome.counts['right answers']} right answers to {calls} calls")
    if last.tasks > start.tasks:
        outcome.fault("leaked tasks", f"{start.tasks} at the start, {last.tasks} at the end")
    if last.sockets > start.sockets:
        outcome.fault("leaked sockets", f"{start.sockets} at the start, {last.sockets} at the end")
    if asker.calls != calls or asker.cancelled or asker.unknown_answers or asker.open:
        seen = f"{asker.calls} calls, {asker.cancelled} cancelled, {asker.unknown_answers} answers to nothing"
        outcome.fault("errors", f"the backend saw {seen}, {len(asker.open)} still open")
    if outcome.peaks[-1].rss_bytes > outcome.peaks[0].rss_bytes * _MAX_GROWTH:
        peaks = ", ".join(f"{peak.rss_bytes / 1e6:.1f}" for peak in outcome.peaks)
        outcome.fault("leaked memory", f"MB at the peak of each round: {peaks}")


async def run(*, calls: int, rounds: int, deadline_s: float, seed: int) -> Outcome:
    """Start the backend and the gateway, press them, end them; a run past `deadline_s` counts as a hang."""
    asker = Asker()
    await asker.start()
    outcome = Outcome()
    try:
        with tempfile.TemporaryDirectory(prefix="gatewright-bench-") as directory:
            file = Path(directory) / "gatewright.yaml"
            file.write_text(_CONFIG.format(url=asker.url, keep_alive_s=_KEEP_ALIVE_S, calls=calls + _AT_ONCE))
            async with inspected(file) as process, asyncio.timeout(deadline_s):
                return await press(process, asker, calls=calls, rounds=rounds, seed=seed)
    except TimeoutError:
        outcome.fault("hangs", f"not done within {deadline_s:.0f} s")
        return outcome
    finally:
        asker.stop()


def report(outcome: Outcome, calls: int) -> None:
    """Print what was seen."""
    for kind in ("right answers", "wrong answers", "wrong questions", "errors", "hangs"):
        print(f"{outcome.counts[kind]:>9}  {kind}")
    if outcome.start is None:
        return
    states = [("start", outcome.start)]
    for number, (peak, rest) in enumerate(zip(outcome.peaks, outcome.rests, strict=False), 1):
        states += [(f"parked {number}", peak), (f"after {number}", rest)]
    print(f"{'':>12} {'tasks':>7} {'sockets':>8} {'memory':>10}")
    for name, state in states:
        print(f"{name:>12} {state.tasks:>7} {state.sockets:>8} {state.rss_bytes / 1e6:>7.1f} MB")
    per_call = [(peak.rss_bytes - outcome.start.rss_bytes) / calls / 1024 for peak in outcome.peaks]
    print(f"{per_call[0]:.1f} KiB per parked call (first round), its stream to the backend included")
    parked, answered = calls / max(outcome.park_s), calls / max(outcome.answer_s)
    print(f"{parked:.0f} calls parked per second, {answered:.0f} answered per second (slowest round)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Parked calls: none wrong, none left behind.")
    parser.add_argument("--calls", type=int, default=1000, help="parked at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline", type=float, default=120.0, help="seconds for the whole run")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which they are answered")
    options = parser.parse_args()
    running = run(calls=options.calls, rounds=options.rounds, deadline_s=options.deadline, seed=options.seed)
    outcome = uvloop.run(running)
    print(f"{options.calls} parked calls at once, {options.rounds} rounds, answered in random order")
    report(outcome, options.calls)
    for fault in outcome.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
