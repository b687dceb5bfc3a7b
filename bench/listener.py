"""A handshake client with a standing stream through a balancer, resumed wherever it broke off, and every notice judged.

The stream is read on a bare connection that holds one unfinished event at most. When it ends or cannot be had it is
opened again after a moment, with the last event id that was seen. Nothing is raised: what goes wrong is counted.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from bench.callers import Tally
from bench.calls import session_headers
from bench.herald import NOTICE

_OPEN_S = 30.0
_MAX_EVENT_BYTES = 1 << 16
_PAUSE_S = (0.1, 1.0)
"""Before it is opened again, at random: 700 clients do not come back in the same millisecond."""


@dataclass
class Heard:
    """What one client has heard."""

    numbers: set[int] = field(default_factory=set)
    is_listening: bool = False


class Listener:
    """One client with a session and a standing stream."""

    def __init__(self, url: str, number: int, session: str, tally: Tally) -> None:
        self.number = number
        self.heard = Heard()
        self.newest_at = 0.0
        """When the last notice came."""
        self._url = url
        self._session = session
        self._tally = tally
        self._last_id = ""
        self._chance = random.Random(number)

    async def listen(self) -> None:
        """Hold the stream until cancelled."""
        while True:
            stream: _Stream | None = None
            try:
                async with asyncio.timeout(_OPEN_S):
                    stream = await self._opened()
                    status = await stream.status
                self._tally.counts["streams opened"] += status == 200
                if status == 200:
                    self.heard.is_listening = True
                    await stream.ended
                else:
                    self._refused(status)
            except (OSError, TimeoutError) as error:
                self._tally.counts[f"streams not had: {type(error).__name__}"] += 1
            finally:
                self.heard.is_listening = False
                if stream is not None:
                    stream.abort()
            await asyncio.sleep(self._chance.uniform(*_PAUSE_S))

    async def _opened(self) -> "_Stream":
        parts = urlsplit(self._url)
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(
            lambda: _Stream(self.take, loop), parts.hostname or "", parts.port or 80
        )
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in session_headers(self._session).items()]
        if self._last_id:
            lines.append(f"Last-Event-ID: {self._last_id}")
        stream.write("\r\n".join([*lines, "", ""]).encode())
        return stream

    def _refused(self, status: int) -> None:
        """Gone is the one thing that a session or an event must not be; a balancer's 502 passes."""
        if status in (400, 404):
            self._tally.fault("sessions lost" if status == 404 else "resumes refused", f"{status} to {self._last_id!r}")
            self._last_id = ""
        else:
            self._tally.counts[f"streams refused: {status}"] += 1

    def take(self, event_id: str, data: bytes) -> None:
        """One event."""
        self._last_id = event_id or self._last_id
        if not data:
            return
        message = msgspec.json.decode(data)
        if message.get("method") != NOTICE:
            return
        client, _, number = message["params"]["uri"].partition(":")
        if client != str(self.number):
            self._tally.fault("notices to the wrong session", f"{client}'s came to {self.number}")
        elif int(number) in self.heard.numbers:
            self._tally.fault("notices heard twice", f"{number} of {client}, the second time as {event_id}")
        else:
            self.heard.numbers.add(int(number))
            self.newest_at = time.monotonic()
            self._tally.counts["notices heard"] += 1


class _Stream(asyncio.Protocol):
    """The connection of one standing stream."""

    def __init__(self, take: Callable[[str, bytes], None], loop: asyncio.AbstractEventLoop) -> None:
        self._take = take
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = b""
        self.status: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(ConnectionError("closed without an answer"))
            self.status.exception()  # seen: whoever asked may be gone
        self._end()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_headers_complete(self) -> None:
        if not self.status.done():
            self.status.set_result(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        *events, self._buffer = (self._buffer + body).split(b"\n\n")
        for event in events:
            lines = event.split(b"\n")
            event_id = next((line[3:].strip().decode() for line in lines if line.startswith(b"id:")), "")
            self._take(event_id, b"\n".join(line[5:].lstrip() for line in lines if line.startswith(b"data:")))
        if len(self._buffer) > _MAX_EVENT_BYTES:
            self.abort()

    def on_message_complete(self) -> None:
        self._end()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
