"""The client's side of the journeys: HTTP/1.1 over a socket, byte by byte, and the two eras of MCP upon it.

Nothing of the gateway is used here, so that what it says is read by somebody else. Every wait is bounded by `BOUND_S`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from itertools import count
from typing import Any, TypeVar, cast

import httptools

T = TypeVar("T")
Json = dict[str, Any]
BOUND_S = 5.0
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
ACCEPT = "application/json, text/event-stream"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
NAMED |= dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId")


async def soon(waiting: Awaitable[T], bound_s: float = BOUND_S) -> T:
    """The result, within the bound."""
    async with asyncio.timeout(bound_s):
        return await waiting


class Answer:
    """One HTTP response as it arrives."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._buffer = b""
        self.headers: dict[str, str] = {}
        self.status = 0
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.comments = 0
        self.last_id = ""
        """Of the events that were read."""
        self.is_complete = False

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def body(self) -> bytes:
        """All of it. Raises ConnectionError when it does not end as it should."""
        parts = [self._buffer]
        while (chunk := await soon(self._chunks.get())) is not None:
            parts.append(chunk)
        if not self.is_complete:
            raise ConnectionError("the response broke off")
        return b"".join(parts)

    async def json(self) -> Json:
        """The body as an object."""
        found = json.loads(await self.body())
        assert isinstance(found, dict)
        return found

    async def event(self, bound_s: float = BOUND_S) -> Json | None:
        """The next message of the stream, None when it has ended."""
        async with asyncio.timeout(bound_s):
            while True:
                while b"\n\n" not in self._buffer:
                    chunk = await self._chunks.get()
                    if chunk is None:
                        assert not self._buffer.strip(), self._buffer
                        if not self.is_complete:
                            raise ConnectionError("the stream broke off")
                        return None
                    self._buffer += chunk
                text, self._buffer = self._buffer.split(b"\n\n", 1)
                self.comments += sum(line.startswith(b":") for line in text.split(b"\n"))
                for line in text.split(b"\n"):
                    if line.startswith(b"id:"):
                        self.last_id = line[3:].strip().decode()
                data = b"\n".join(
                    line[5:].removeprefix(b" ") for line in text.split(b"\n") if line.startswith(b"data:")
                )
                if data:
                    found = json.loads(data)
                    assert isinstance(found, dict)
                    return found

    async def messages(self) -> AsyncIterator[Json]:
        """Every message, whichever form the response has."""
        if not self.is_stream:
            body = await self.body()
            if body:
                yield json.loads(body)
            return
        while (message := await self.event()) is not None:
            yield message

    async def last(self) -> Json:
        """The final message."""
        *_, final = [message async for message in self.messages()]
        return final

    def put(self, chunk: bytes | None) -> None:
        self._chunks.put_nowait(chunk)

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self._wire.close()


class Wire(asyncio.Protocol):
    """One client connection, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self.stray = b""
        """What came although nothing was asked: bytes of another answer, or too many of one."""
        self.is_open = False

    @classmethod
    async def open(cls, port: int) -> Wire:
        """A connection to the loopback port."""
        _, wire = await soon(asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port))
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.stray += data
        else:
            self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._end()

    def on_message_begin(self) -> None:
        self._parser = self._parser  # a response begins: its headers follow

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None:
            self._answer.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()
            if not self._answer.started.done():
                self._answer.started.set_result(None)

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.put(body)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.is_complete = True
            answer.put(None)
        if not self._parser.should_keep_alive():
            self.close()

    def begin(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Send a request without waiting for anything."""
        answer = self._answer = Answer(self)
        self._parser = httptools.HttpResponseParser(self)
        fields = {"Host": "127.0.0.1", **headers}
        if body or method == "POST":
            fields["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._transport.write(head.encode("latin-1") + b"\r\n" + body)
        return answer

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Send a request and wait for the head of its response."""
        answer = self.begin(method, path, headers, body)
        await soon(answer.started)
        return answer

    def pause(self) -> None:
        """Read no more: a slow reader."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def close(self) -> None:
        """Leave at once."""
        self.is_open = False
        if not self._transport.is_closing():
            self._transport.abort()

    def _end(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            if not answer.started.done():
                answer.started.set_exception(ConnectionError("closed without an answer"))
                answer.started.exception()
            answer.put(None)


class Client:
    """What both eras have in common: requests to one path, each on a connection of its own."""

    def __init__(self, port: int, path: str = "/mcp") -> None:
        self.port = port
        self.path = path
        self._ids = count(1)
        self._wires: list[Wire] = []

    def headers(self, message: Json) -> dict[str, str]:
        raise NotImplementedError

    def completed(self, message: Json) -> Json:
        """The message with what its era puts into every one."""
        return message

    def request(self, method: str, params: Json | None = None, *, request_id: int | str | None = None) -> Json:
        """A request with an id of its own."""
        own = next(self._ids) if request_id is None else request_id
        message = {"jsonrpc": "2.0", "id": own, "method": method}
        if params is not None:
            message["params"] = params
        return self.completed(message)

    async def wire(self) -> Wire:
        """A fresh connection."""
        wire = await Wire.open(self.port)
        self._wires.append(wire)
        return wire

    async def post(self, message: Json | list[Json], headers: dict[str, str] | None = None) -> Answer:
        """POST it; returns once the response has begun."""
        return await soon(self._started(await self.begin(message, headers)))

    async def begin(self, message: Json | list[Json], headers: dict[str, str] | None = None) -> Answer:
        """POST it; returns at once."""
        first = message[0] if isinstance(message, list) else message
        fields = {"Content-Type": "application/json", "Accept": ACCEPT, **self.headers(first), **(headers or {})}
        return (await self.wire()).begin("POST", self.path, fields, json.dumps(message).encode())

    async def ask(self, method: str, params: Json | None = None) -> Json:
        """The final message that answers a request."""
        return await (await self.post(self.request(method, params))).last()

    async def result(self, method: str, params: Json | None = None) -> Json:
        """Its result."""
        answer = await self.ask(method, params)
        assert "result" in answer, answer
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    async def tool(self, name: str, /, **arguments: Any) -> Json:
        """The result of a tool as the object in its first text."""
        result = await self.result("tools/call", {"name": name, "arguments": arguments})
        found = json.loads(result["content"][0]["text"])
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """Leave with every connection."""
        for wire in self._wires:
            if wire.is_open:
                wire.close()

    @staticmethod
    async def _started(answer: Answer) -> Answer:
        await answer.started
        return answer


class ModernClient(Client):
    """A client of the modern era."""

    def __init__(
        self, port: int, path: str = "/mcp", capabilities: Json | None = None, log_level: str | None = None
    ) -> None:
        super().__init__(port, path)
        self._capabilities = capabilities or {}
        self._log_level = log_level

    def completed(self, message: Json) -> Json:
        params = dict(message.get("params", {}))
        meta = {
            META + "protocolVersion": MODERN,
            META + "clientInfo": {"name": "traveller", "version": "1"},
            META + "clientCapabilities": self._capabilities,
            **params.get("_meta", {}),
        }
        if self._log_level is not None:
            meta[META + "logLevel"] = self._log_level
        return {**message, "params": {**params, "_meta": meta}}

    def headers(self, message: Json) -> dict[str, str]:
        found = {"MCP-Protocol-Version": MODERN, "Mcp-Method": message.get("method", "")}
        field = NAMED.get(message.get("method", ""))
        if field is not None:
            found["Mcp-Name"] = message["params"][field]
        return found


class HandshakeClient(Client):
    """A client of the handshake era, with its session."""

    def __init__(
        self, port: int, path: str = "/mcp", capabilities: Json | None = None, revision: str = "2025-11-25"
    ) -> None:
        super().__init__(port, path)
        self._capabilities = capabilities or {}
        self._revision = revision
        self.session = ""
        self.introduction: Json = {}

    def headers(self, message: Json) -> dict[str, str]:
        if not self.session:
            return {}
        return {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": self._revision}

    async def open(self) -> HandshakeClient:
        """Shake hands."""
        params = {
            "protocolVersion": self._revision,
            "capabilities": self._capabilities,
            "clientInfo": {"name": "traveller", "version": "1"},
        }
        answer = await self.post(self.request("initialize", params))
        self.introduction = (await answer.json())["result"]
        self.session = answer.headers["mcp-session-id"]
        assert (await self.tell("notifications/initialized")).status == 202
        return self

    async def tell(self, method: str, params: Json | None = None) -> Answer:
        """Send a notification."""
        return await self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def reply(self, ask: Json, result: Json) -> Answer:
        """Answer a question."""
        return await self.post({"jsonrpc": "2.0", "id": ask["id"], "result": result})

    async def listen(self) -> Answer:
        """The standing stream."""
        fields = {"Accept": "text/event-stream", **self.headers({})}
        return await (await self.wire()).send("GET", self.path, fields)

    async def end(self) -> int:
        """End the session; the status of the answer."""
        return (await (await self.wire()).send("DELETE", self.path, self.headers({}))).status
