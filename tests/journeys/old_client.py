"""A client of the 2024-11-05 transport, event by event: one stream to hear, one POST per message to speak."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from typing_extensions import override

from journeys.wire import Answer, Client, Json, soon


class Stream:
    """The events of one response, with their names."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.comments = 0
        self.last_line = b""
        """What followed the last event."""
        self._buffer = b""

    async def next(self) -> tuple[str, bytes] | None:
        """The next event's name and data, None when the stream has ended. Raises ConnectionError when it was cut."""
        while True:
            while b"\n\n" not in self._buffer:
                chunk = await self.answer._chunks.get()
                if chunk is None:
                    self.last_line = self._buffer
                    if not self.answer.is_complete:
                        raise ConnectionError("the stream broke off")
                    return None
                self._buffer += chunk
            text, self._buffer = self._buffer.split(b"\n\n", 1)
            fields: dict[bytes, bytes] = {}
            for line in text.split(b"\n"):
                name, _, value = line.partition(b":")
                if not name:
                    self.comments += 1
                elif name in fields:
                    raise AssertionError(f"{name!r} stands twice: {text!r}")
                else:
                    fields[name] = value.removeprefix(b" ")
            if b"data" in fields:
                return fields.get(b"event", b"").decode(), fields[b"data"]


class OldClient(Client):
    """One stream and its session."""

    def __init__(
        self,
        port: int,
        path: str = "/sse",
        capabilities: Json | None = None,
        revision: str = "2024-11-05",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(port, path)
        self._capabilities = capabilities or {}
        self._revision = revision
        self._own_headers = headers or {}
        self._waiting: dict[Any, asyncio.Future[Json]] = {}
        self._changed = asyncio.Event()
        self.endpoint = ""
        self.heard: list[Json] = []
        """Everything but the answers to requests."""
        self.introduction: Json = {}
        self.is_ended = False
        self.stream: Stream

    @override
    def headers(self, message: Json) -> dict[str, str]:
        return self._own_headers

    async def connect(self) -> OldClient:
        """Open the stream and learn where to POST."""
        fields = {"Accept": "text/event-stream", **self._own_headers}
        answer = await (await self.wire()).send("GET", self.path, fields)
        assert (answer.status, answer.is_stream) == (200, True), answer.status
        self.stream = Stream(answer)
        first = await soon(self.stream.next())
        assert first is not None
        assert first[0] == "endpoint"
        self.endpoint = first[1].decode()
        return self

    async def listen(self) -> None:
        """Take what comes until the end."""
        try:
            while (event := await self.stream.next()) is not None:
                assert event[0] == "message", event
                message = json.loads(event[1])
                waiting = self._waiting.pop(message["id"], None) if "method" not in message else None
                if waiting is not None:
                    waiting.set_result(message)
                else:
                    self.heard.append(message)
                self._changed.set()
        finally:
            self.is_ended = True
            self._changed.set()
            for waiting in self._waiting.values():
                waiting.cancel()

    async def introduce(self) -> OldClient:
        """Shake hands."""
        params = {
            "protocolVersion": self._revision,
            "capabilities": self._capabilities,
            "clientInfo": {"name": "old", "version": "1"},
        }
        self.introduction = await self.result("initialize", params)
        assert (await self.tell("notifications/initialized")).status == 202
        return self

    @override
    async def begin(self, message: Json | list[Json], headers: dict[str, str] | None = None) -> Answer:
        fields = {"Content-Type": "application/json", **self._own_headers, **(headers or {})}
        return (await self.wire()).begin("POST", self.endpoint, fields, json.dumps(message).encode())

    def expect(self, request_id: Any) -> asyncio.Future[Json]:
        """The answer that will come to that request."""
        waiting: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = waiting
        return waiting

    @override
    async def ask(self, method: str, params: Json | None = None) -> Json:
        message = self.request(method, params)
        return await soon(await self.send(message))

    async def send(self, message: Json) -> asyncio.Future[Json]:
        """POST a request; what will be its answer."""
        waiting = self.expect(message["id"])
        answer = await self.post(message)
        assert (answer.status, await answer.body()) == (202, b"")
        return waiting

    async def tell(self, method: str, params: Json | None = None) -> Answer:
        """Send a notification."""
        return await self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def reply(self, ask: Json, result: Json) -> Answer:
        """Answer a question."""
        return await self.post({"jsonrpc": "2.0", "id": ask["id"], "result": result})

    async def until(self, is_so: Callable[[OldClient], bool]) -> None:
        """Return when it is so, within 5 s."""
        async with asyncio.timeout(5):
            while not is_so(self):
                self._changed.clear()
                await self._changed.wait()

    def of(self, method: str) -> list[Json]:
        """What was heard under that method."""
        return [message for message in self.heard if message.get("method") == method]


@asynccontextmanager
async def connected(port: int, path: str = "/sse", *, introduces: bool = True, **more: Any) -> AsyncIterator[OldClient]:
    """A client with an open stream, and a session unless `introduces` is false; it leaves at the end."""
    client = OldClient(port, path, **more)
    try:
        await client.connect()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(client.listen())
            try:
                yield await client.introduce() if introduces else client
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await listening
    finally:
        client.close()
