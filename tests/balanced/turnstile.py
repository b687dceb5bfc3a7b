"""Sends each HTTP request to another gateway than the one before: what no balancer promises and any may do.

    with turnstile(ports) as way: ... way.url ... way.passed

Real clients go through it, each request on a connection of its own. With `is_breaking` it also ends each event stream
that can be resumed once its first event is through, so that its client has to resume it, on yet another replica.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

SEED = 4
START_S = 5.0
CHUNK_BYTES = 65_536
HEAD_BYTES = 65_536
END = b"\r\n\r\n"
CALL, ANSWER, RETRY, RESUME, STREAM = "call", "answer", "retry", "resume", "stream"


@dataclass(frozen=True)
class Passed:
    """One request."""

    kind: str
    """CALL, ANSWER (to a question), RETRY (of a call that asked), RESUME, STREAM (another GET), or the HTTP method."""
    replica: int
    """Which of the gateways it was sent to."""


class Turnstile:
    """It. `passed` is what has gone through, in order."""

    def __init__(self, ports: list[int], *, is_breaking: bool) -> None:
        self.url = ""
        self.passed: list[Passed] = []
        self.broken = 0
        """Streams that were ended before their time."""
        self._ports = ports
        self._is_breaking = is_breaking
        self._random = random.Random(SEED)
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()

    def run(self, started: threading.Event) -> None:
        """Serve until `stop`; for a thread of its own."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    def stop(self) -> None:
        """End it, from any thread."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=HEAD_BYTES)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await self._over.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._pass(reader, writer)
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        head = await reader.readuntil(END)
        fields = _fields(head)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        method = head.split(b" ", 1)[0].decode()
        passed = Passed(_kind(method, fields, body), self._next())
        self.passed.append(passed)
        there, to_there = await asyncio.open_connection("127.0.0.1", self._ports[passed.replica])
        # HTTP/1.0: one request, and an answer that ends where its connection does.
        line, _, rest = head.partition(b"\r\n")
        to_there.write(line.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n" + rest + body)
        leaving = asyncio.get_running_loop().create_task(_left(reader, to_there))
        try:
            answer = await there.readuntil(END)
            writer.write(answer)
            is_stream = _fields(answer).get(b"content-type", b"").startswith(b"text/event-stream")
            if self._is_breaking and is_stream and passed.kind != RESUME:
                event = await there.readuntil(b"\n\n")
                writer.write(event)
                if b"id:" in event:
                    self.broken += 1
                    return
            while chunk := await there.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        finally:
            leaving.cancel()
            to_there.close()

    def _next(self) -> int:
        """Never the replica of the request before."""
        last = self.passed[-1].replica if self.passed else None
        return self._random.choice([number for number in range(len(self._ports)) if number != last])


async def _left(reader: asyncio.StreamReader, to_there: asyncio.StreamWriter) -> None:
    """A client that leaves is gone for the gateway as well."""
    with suppress(OSError):
        await reader.read(1)
    to_there.close()


def _fields(head: bytes) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


def _kind(method: str, fields: dict[bytes, bytes], body: bytes) -> str:
    if method == "GET":
        return RESUME if b"last-event-id" in fields else STREAM
    if method != "POST":
        return method
    message = json.loads(body)
    if "method" not in message:
        return ANSWER
    return RETRY if "inputResponses" in message.get("params", {}) else CALL


@contextmanager
def turnstile(ports: list[int], *, is_breaking: bool = False) -> Iterator[Turnstile]:
    """A turnstile before these gateways, in a thread of its own."""
    way = Turnstile(ports, is_breaking=is_breaking)
    started = threading.Event()
    thread = threading.Thread(target=way.run, args=(started,))
    thread.start()
    try:
        assert started.wait(START_S), "it did not start"
        yield way
    finally:
        way.stop()
        thread.join(START_S)
