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


class Clients:
    """Calls at a constant rate and standing streams, all through the balancer. `sessions` of the handshake era are
    opened first, and get every other call; without any all calls are modern."""

    def __init__(self, url: str, tally: Tally, seed: int) -> None:
        self._url = url
        self._tally = tally
        self._chance = random.Random(seed)
        self._idle: list[Connection] = []
        self._sessions: list[str] = []
        self.is_over = False

    async def open(self, sessions: int) -> None:
        """Open the handshake sessions. Raises ConnectionError."""
        for _ in range(sessions):
            connection = await self._connected()
            self._sessions.append(await open_session(connection))
            self._idle.append(connection)

    async def call(self, rate: float, group: asyncio.TaskGroup) -> None:
        """Send calls until it is over, each when it is due."""
        began, sent = time.monotonic(), 0
        while not self.is_over:
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
            sent += 1
            session = self._chance.choice(self._sessions) if self._sessions and sent % 2 else ""
            group.create_task(self._one(session))

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

    async def _one(self, session: str) -> None:
        secret, nonce = secrets.token_hex(8), secrets.token_hex(8)
        slow = self._chance.random() < _SLOW_SHARE
        delay_ms = self._chance.uniform(0, _MAX_SLOW_MS) if slow else 0.0
        params = {"name": "digest", "arguments": {"secret": secret, "nonce": nonce, "delay_ms": delay_ms}}
        call = (
            handshake("tools/call", params, session=session, progress_token=nonce)
            if session
            else modern("tools/call", params, progress_token=nonce)
        )
        began = time.monotonic()
        problem = await self._problem(call, digest(secret, nonce))
        if problem:
            self._tally.fault("failed calls", f"{'handshake' if session else 'modern'}: {problem}")
            return
        self._tally.counts["calls"] += 1
        self._tally.counts["handshake calls"] += bool(session)
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
