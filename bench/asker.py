"""A handshake backend that asks: `ask` puts a question on the call's stream and answers with what was said to it.

HTTP/1.1 on httptools, in the process that drives the bench, so that it can be looked at. A question carries the call's
`nonce`; the call's result is `nonce:answer`, so that one right result exists per caller. Not a conforming server:
headers are not read, framing and the body are all it needs.
"""

import asyncio
import secrets
from typing import Any, cast

import httptools
import msgspec

from bench.answers import HANDSHAKE_REVISION

_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_TOOLS = {"tools": [{"name": "ask", "inputSchema": {"type": "object"}}]}
_INITIALIZED = {
    "protocolVersion": HANDSHAKE_REVISION,
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "bench-asker", "version": "1.0"},
}


class Asker:
    """The backend: what it has seen, and its open calls by the id of their question."""

    def __init__(self) -> None:
        self.port = 0
        self.sessions = 0
        self.calls = 0
        self.cancelled = 0
        self.open: dict[int, tuple[_Wire, Any, str]] = {}
        self.unknown_answers = 0
        self._server: asyncio.Server | None = None
        self._wires: set[_Wire] = set()
        self._next = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def connections(self) -> int:
        return len(self._wires)

    async def start(self) -> None:
        """Listen on a free loopback port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Wire(self, self._wires), "127.0.0.1", 0, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for wire in list(self._wires):
            wire.close()

    def take(self, wire: "_Wire", method: str, body: bytes) -> None:
        """One HTTP request."""
        if method == "DELETE":
            self.sessions -= 1
            wire.respond({}, status=b"200 OK")
            return
        if method != "POST":
            wire.respond({}, status=b"405 Method Not Allowed")
            return
        message: dict[str, Any] = msgspec.json.decode(body)
        if "method" not in message:
            self._answered(message)
            wire.write(_ACCEPTED)
        elif "id" not in message:
            self.cancelled += message["method"] == "notifications/cancelled"
            wire.write(_ACCEPTED)
        else:
            self._serve(wire, message)

    def _serve(self, wire: "_Wire", message: dict[str, Any]) -> None:
        method, request_id = message["method"], message["id"]
        if "io.modelcontextprotocol/protocolVersion" in message.get("params", {}).get("_meta", {}):
            wire.respond(_error(request_id, -32600, "Bad Request: Unsupported protocol version"), b"400 Bad Request")
        elif method == "initialize":
            self.sessions += 1
            wire.respond({"jsonrpc": "2.0", "id": request_id, "result": _INITIALIZED}, session=secrets.token_hex(8))
        elif method == "tools/list":
            wire.respond({"jsonrpc": "2.0", "id": request_id, "result": _TOOLS})
        elif method == "tools/call":
            self._ask(wire, request_id, message["params"]["arguments"]["nonce"])
        else:
            wire.respond(_error(request_id, -32601, "Method not found"))

    def _ask(self, wire: "_Wire", request_id: Any, nonce: str) -> None:
        self.calls += 1
        self._next += 1
        self.open[self._next] = (wire, request_id, nonce)
        params = {"mode": "form", "message": nonce, "requestedSchema": {"type": "object", "properties": {}}}
        question = {"jsonrpc": "2.0", "id": self._next, "method": "elicitation/create", "params": params}
        wire.write(_STREAM + _event(question))

    def _answered(self, message: dict[str, Any]) -> None:
        wire, request_id, nonce = self.open.pop(message["id"], (None, None, ""))
        if wire is None:
            self.unknown_answers += 1
            return
        said = message.get("result", {}).get("content", {}).get("said", "nothing")
        result = {"content": [{"type": "text", "text": f"{nonce}:{said}"}]}
        wire.write(_event({"jsonrpc": "2.0", "id": request_id, "result": result}) + b"0\r\n\r\n")


class _Wire(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, asker: Asker, wires: "set[_Wire]") -> None:
        self._asker = asker
        self._wires = wires
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._wires.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wires.discard(self)
        gone = [key for key, (wire, _, _) in self._asker.open.items() if wire is self]
        for key in gone:
            del self._asker.open[key]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._asker.take(self, self._parser.get_method().decode(), self._body)

    def respond(self, message: dict[str, Any], status: bytes = b"200 OK", session: str = "") -> None:
        body = msgspec.json.encode(message) if message else b""
        extra = b"mcp-session-id: " + session.encode() + b"\r\n" if session else b""
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
        self.write(head % (status, len(body), extra) + body)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def _event(message: dict[str, Any]) -> bytes:
    data = b"event: message\ndata: " + msgspec.json.encode(message) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)
