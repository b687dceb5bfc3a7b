"""Isolation under load: every answer must belong to its asker, whatever its neighbours do.

200 concurrent clients, each with a secret of its own, call `digest` through the gateway; every JSON-RPC id is 1, every
progress token is the same, answers come as JSON or SSE at random, in both eras, over HTTP and stdio backends and across
eras. Some calls are abandoned half-way (the connection is cut; a handshake client may also send
`notifications/cancelled`). The backend answers HMAC-SHA256(secret, nonce), so that one right answer exists per call.
Exits 1 on a wrong answer, a foreign progress notice, an error or a hang. The test suite runs it with fewer answers.
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
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.answers import digest
from bench.calls import Call, cancelled, handshake, messages, modern
from bench.client import Answer, Connection, open_session
from bench.targets import Gateway, announcing

_PROGRESS_TOKEN = "the-same-for-all"
_MAX_DELAY_MS = 20.0
_CANCEL_SHARE = 0.08
_HANG_S = 30.0
_SHOWN_FAULTS = 10
# Who talks to what: (era of the client, backend), dealt out to the clients in turns.
_MIX = (
    ("modern", "both"),
    ("handshake", "both"),
    ("modern", "modern"),
    ("handshake", "handshake"),
    ("modern", "handshake"),
    ("handshake", "modern"),
    ("modern", "stdio"),
    ("handshake", "stdio"),
)


@dataclass
class Tally:
    """What was seen; `faults` holds the first few in words, `counts["wrong"]` and the like hold all."""

    wanted: int
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        return self.counts["answers"] >= self.wanted

    @property
    def is_clean(self) -> bool:
        return not any(self.counts[kind] for kind in ("wrong", "foreign progress", "errors", "hangs", "broken"))

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < _SHOWN_FAULTS:
            self.faults.append(f"{kind}: {text}")


class Client:
    """One simulated user: its own secret, its own connection, its own session where the era has them."""

    def __init__(self, url: str, era: str, tally: Tally, chance: random.Random) -> None:
        self._url = url
        self._era = era
        self._tally = tally
        self._chance = chance
        self._secret = secrets.token_hex(16)
        self._session = ""
        self._connection: Connection | None = None

    async def work(self) -> None:
        """Call until the tally has enough answers; ends early after its own first hang."""
        try:
            if self._era == "handshake":
                self._session = await asyncio.wait_for(open_session(await self._connected()), _HANG_S)
            while not self._tally.is_enough and not self._tally.counts["hangs"]:
                await self._turn()
        except (OSError, TimeoutError) as error:
            self._tally.fault("broken", f"{self._era} client of {self._url}: {type(error).__name__}: {error}")
        finally:
            if self._connection is not None:
                self._connection.abort()

    async def _turn(self) -> None:
        nonce = secrets.token_hex(8)
        delay_ms = self._chance.uniform(0, _MAX_DELAY_MS) if self._chance.random() < 0.5 else 0.0
        arguments = {"secret": self._secret, "nonce": nonce, "delay_ms": delay_ms}
        params = {"name": "digest", "arguments": arguments}
        if self._era == "modern":
            call = modern("tools/call", params, progress_token=_PROGRESS_TOKEN)
        else:
            call = handshake("tools/call", params, session=self._session, progress_token=_PROGRESS_TOKEN)
        if self._chance.random() < _CANCEL_SHARE:
            await self._abandon(call)
        else:
            await self._ask(call, nonce)

    async def _ask(self, call: Call, nonce: str) -> None:
        connection = await self._connected()
        try:
            answer = await asyncio.wait_for(connection.send(call), _HANG_S)
        except TimeoutError:
            connection.abort()
            self._tally.fault("hangs", f"no answer within {_HANG_S:.0f} s from {self._url}")
            return
        except ConnectionError as error:
            self._tally.fault("errors", f"{self._url}: {error}")
            return
        self._judge(answer, nonce)

    async def _abandon(self, call: Call) -> None:
        """Cut the connection at a random moment of the call, at times after saying so."""
        connection = await self._connected()
        wait_s = self._chance.uniform(0, _MAX_DELAY_MS / 1000)
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(connection.send(call), wait_s)
        connection.abort()
        self._tally.counts["abandoned"] += 1
        if self._era == "handshake" and self._chance.random() < 0.5:
            await asyncio.wait_for((await self._connected()).send(cancelled(self._session)), _HANG_S)
            self._tally.counts["cancelled by notice"] += 1

    def _judge(self, answer: Answer, nonce: str) -> None:
        tally = self._tally
        where = f"{self._era} client of {self._url}"
        if answer.status != 200:
            tally.fault("errors", f"{where}: status {answer.status}: {answer.body[:300]!r}")
            return
        try:
            *notices, reply = messages(answer.content_type, answer.body)
            text = reply["result"]["content"][0]["text"] if "result" in reply else None
        except (ValueError, LookupError, TypeError) as error:
            tally.fault("errors", f"{where}: {type(error).__name__}: {error}: {answer.body[:300]!r}")
            return
        if text is None:
            tally.fault("errors", f"{where}: {answer.body[:300]!r}")
            return
        tally.counts["answers"] += 1
        tally.counts[f"{self._era}, {'SSE' if answer.content_type.startswith('text/event') else 'JSON'}"] += 1
        if text != digest(self._secret, nonce) or reply.get("id") != 1:
            tally.fault("wrong", f"{where}: {answer.body[:300]!r}")
        for notice in notices:
            params = notice.get("params", {})
            tally.counts["progress notices"] += 1
            if params.get("message") != nonce or params.get("progressToken") != _PROGRESS_TOKEN:
                tally.fault("foreign progress", f"{where}: {notice!r}")

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.is_open:
            self._connection = await asyncio.wait_for(Connection.open(self._url), _HANG_S)
        return self._connection


async def press(base: str, *, answers: int, clients: int, deadline_s: float, seed: int) -> Tally:
    """Drive the gateway at `base` until `answers` were checked; a run past `deadline_s` counts as a hang."""
    tally = Tally(answers)
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for index in range(clients):
                era, backend = _MIX[index % len(_MIX)]
                client = Client(f"{base}/mcp/{backend}", era, tally, random.Random(seed + index))
                group.create_task(client.work())
    except TimeoutError:
        tally.fault("hangs", f"only {tally.counts['answers']} of {answers} answers within {deadline_s:.0f} s")
    return tally


def measure(*, answers: int, clients: int, deadline_s: float, seed: int) -> Tally:
    """Start a stub and a gateway, press them, end them."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        stub, _ = stack.enter_context(announcing("-m", "bench.stub", "--port", "0"))
        gateway = Gateway(stub, {backend for _, backend in _MIX}, directory, stack)
        pressing = press(gateway.base, answers=answers, clients=clients, deadline_s=deadline_s, seed=seed)
        return uvloop.run(pressing)


def main() -> int:
    parser = argparse.ArgumentParser(description="Every answer belongs to its asker, under load and cancellations.")
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--deadline", type=float, default=600.0, help="seconds for the whole run")
    parser.add_argument("--seed", type=int, default=1, help="of the random delays and cancellations")
    options = parser.parse_args()
    began = time.monotonic()
    tally = measure(answers=options.answers, clients=options.clients, deadline_s=options.deadline, seed=options.seed)
    print(f"{options.clients} clients, every id 1, {time.monotonic() - began:.1f} s")
    for kind in ("answers", "wrong", "foreign progress", "errors", "hangs", "broken", "abandoned"):
        print(f"{tally.counts.pop(kind, 0):>9}  {kind}")
    for kind, count in sorted(tally.counts.items()):
        print(f"{count:>9}  {kind}")
    for fault in tally.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 0 if not tally.faults and options.answers else 1


if __name__ == "__main__":
    sys.exit(main())
