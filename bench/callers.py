"""Clients of both eras that keep calling through a balancer, and check every answer: what `bench.drain` loads with.

Calls leave at a constant rate, whatever became of the ones before, on connections that are kept; some are slow. Streams
stand beside them. A modern client's subscription has to end with its result; a handshake client's standing stream (GET)
has to end whole, and is resumed where it ended, after the time that it was told. A session is opened once and never
again: an answer that it is unknown is a failure. What goes wrong is counted in a `Tally`, never raised.
"""

import asyncio
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.answers import digest
from bench.calls import Call, handshake, messages, modern, session_headers
from bench.client import Connection, open_session

_HANG_S = 30.0
_OPEN_AT_ONCE = 16
_MAX_UNDER_WAY = 2_000
"""Calls that have no answer yet; more would be memory without an end, and measure nothing."""
_SHOWN_FAULTS = 10
_PAUSE_S = 1.0
_SLOW_SHARE = 0.2
_MAX_SLOW_MS = 1_500.0
_RETRY = re.compile(rb"^retry: (\d+)$", re.MULTILINE)
_EVENT_ID = re.compile(rb"^id: (\S+)$", re.MULTILINE)


@dataclass
class Tally:
    """What was seen; `faults` holds the first few in words."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    drains_s: list[float] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < _SHOWN_FAULTS:
            self.faults.append(f"{kind}: {text}")


@dataclass(frozen=True)
class Attempt:
    """A call that was made, and why its answer is wrong: "" when it is right."""

    nonce: str
    began: float
    ended: float
    problem: str


def _never(attempt: Attempt) -> bool:
    """No failure is to be expected."""
    return False


class Clients:
    """Calls at a constant rate and standing streams, all through the balancer. `sessions` of the handshake era are
    opened first, and get every other call, or all if there `has_modern` none; without any all calls are modern.

    `is_expected` says of a call without an answer that it had to fail. A wrong answer is never expected."""

    def __init__(
        self,
        url: str,
        tally: Tally,
        seed: int,
        *,
        has_modern: bool = True,
        is_expected: Callable[[Attempt], bool] = _never,
    ) -> None:
        self._url = url
        self._tally = tally
        self._chance = random.Random(seed)
        self._has_modern = has_modern
        self._is_expected = is_expected
        self._idle: list[Connection] = []
        self._sessions: list[str] = []
        self._under_way = 0
        self.is_over = False

    @property
    def sessions(self) -> list[str]:
        """The ids of the handshake sessions; the secret of a session's calls begins with its place here."""
        return self._sessions

    async def open(self, sessions: int) -> None:
        """Open the handshake sessions, some at a time. Raises ConnectionError."""
        left = iter(range(sessions))

        async def some() -> None:
            for _ in left:
                connection = await self._connected()
                self._sessions.append(await open_session(connection))
                self._idle.append(connection)

        async with asyncio.TaskGroup() as group:
            for _ in range(_OPEN_AT_ONCE):
                group.create_task(some())

    async def greet(self) -> None:
        """One call in every session, some at a time."""
        left = iter(range(len(self._sessions)))

        async def some() -> None:
            for number in left:
                await self._one(number, 0.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(_OPEN_AT_ONCE):
                group.create_task(some())

    async def call(self, rate: float, group: asyncio.TaskGroup) -> None:
        """Send calls until it is over, each when it is due."""
        began, sent = time.monotonic(), 0
        while not self.is_over:
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
            sent += 1
            if self._under_way >= _MAX_UNDER_WAY:
                self._tally.fault("calls not made", f"{_MAX_UNDER_WAY} are under way already")
                continue
            is_modern = not self._sessions or (self._has_modern and sent % 2 == 0)
            number = None if is_modern else self._chance.randrange(len(self._sessions))
            slow = self._chance.random() < _SLOW_SHARE
            group.create_task(self._one(number, self._chance.uniform(0, _MAX_SLOW_MS) if slow else 0.0))

    async def listen(self) -> None:
        """Hold one subscription after the other."""
        call = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})

        def ended(body: bytes, content_type: str) -> None:
            said = messages(content_type, body)
            if not said or "result" not in said[-1]:
                raise ConnectionError(f"no result at the end: {body[-300:]!r}")

        while not self.is_over:
            await self._stand("/mcp", call, ended)

    async def stand(self, session: str) -> None:
        """Hold a session's standing stream, and resume it whenever it ends."""
        headers = {"Accept": "text/event-stream", **session_headers(session)}
        wait_s = 0.0

        def ended(body: bytes, content_type: str) -> None:
            nonlocal wait_s
            ids, retries = _EVENT_ID.findall(body), _RETRY.findall(body)
            if not ids or not retries:
                raise ConnectionError(f"no id and retry time: {body[-300:]!r}")
            headers["Last-Event-ID"] = ids[-1].decode()
            wait_s = int(retries[-1]) / 1000

        while not self.is_over:
            await self._stand("/mcp/stub", Call(headers, b"", method="GET"), ended)
            await asyncio.sleep(wait_s)

    def standing(self, streams: int) -> list[str]:
        """Which sessions have a standing stream."""
        return self._sessions[:streams]

    def close(self) -> None:
        """Leave."""
        for connection in self._idle:
            connection.abort()

    async def _stand(self, path: str, call: Call, ended: Callable[[bytes, str], None]) -> None:
        """One stream from its beginning to its end, which `ended` judges by raising ConnectionError."""
        connection: Connection | None = None
        try:
            connection = await Connection.open(self._url + path)
            answer = await connection.send(call)
            if answer.status != 200:
                raise ConnectionError(f"{call.method} {path} was answered {answer.status}: {answer.body[-300:]!r}")
            ended(answer.body, answer.content_type)
            self._tally.counts["streams ended well"] += 1
        except OSError as error:
            self._tally.fault("broken streams", f"{type(error).__name__}: {error}")
            await asyncio.sleep(_PAUSE_S)
        finally:
            if connection is not None:
                connection.abort()

    async def _one(self, number: int | None, delay_ms: float) -> None:
        """One call of that session, of the modern era without."""
        owner = "modern" if number is None else str(number)
        secret, nonce = f"{owner}.{secrets.token_hex(8)}", secrets.token_hex(8)
        params = {"name": "digest", "arguments": {"secret": secret, "nonce": nonce, "delay_ms": delay_ms}}
        call = (
            modern("tools/call", params, progress_token=nonce)
            if number is None
            else handshake("tools/call", params, session=self._sessions[number], progress_token=nonce)
        )
        began = time.monotonic()
        self._under_way += 1
        try:
            problem, is_answered = await self._problem(call, digest(secret, nonce))
        finally:
            self._under_way -= 1
        ended = time.monotonic()
        if not problem:
            self._tally.counts["calls"] += 1
            self._tally.counts["handshake calls"] += number is not None
            self._tally.latencies_s.append(ended - began - delay_ms / 1000)
        elif not is_answered and self._is_expected(Attempt(nonce, began, ended, problem)):
            self._tally.counts["expected failures"] += 1
        else:
            kind = "wrong answers" if is_answered else "failed calls"
            self._tally.fault(kind, f"{'modern' if number is None else 'handshake'}: {problem}")

    async def _problem(self, call: Call, expected: str) -> tuple[str, bool]:
        """Why the answer is wrong, "" when it is right; and whether there was an answer of the gateway's, with 200.
        The connection is kept if the balancer keeps it."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(_HANG_S):
                connection = await self._connected()
                answer = await connection.send(call)
        except (OSError, TimeoutError) as error:
            if connection is not None:
                connection.abort()
            return f"{type(error).__name__}: {error}", False
        if connection.is_open:
            self._idle.append(connection)
        said = Call(call.headers, call.body, text=expected).problem(answer.status, answer.content_type, answer.body)
        return said, answer.status == 200

    async def _connected(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return await Connection.open(f"{self._url}/mcp/stub")
