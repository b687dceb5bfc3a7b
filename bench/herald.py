"""A handshake backend that knows what it said: numbered notices in every session, and which calls it carried out.

HTTP/1.1 on httptools, in the process that drives the bench. Each gateway reaches it under a path of its own, `/mcp/0`,
`/mcp/1` and so on, so that it knows which of them carries a stream or a call. A session belongs to the client whose
number its calls begin their secret with. A notice goes out on the newest stream of its session, on one only, and only
while there is one: what is said to nobody is not said. Not a conforming server: framing, the session id and the body
are all it reads.
"""

import asyncio
import secrets
import time
from collections import Counter
from typing import Any, cast

import httptools
import msgspec

from bench.answers import HANDSHAKE_REVISION, digest
from bench.calls import CLIENT_NAME

NOTICE = "notifications/resources/updated"
_TOOLS = {"tools": [{"name": "digest", "inputSchema": {"type": "object"}}]}
_INITIALIZED = {
    "protocolVersion": HANDSHAKE_REVISION,
    "capabilities": {"tools": {}, "resources": {}},
    "serverInfo": {"name": "bench-herald", "version": "1.0"},
}
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class Herald:
    """The backend, and all that it has seen."""

    def __init__(self) -> None:
        self.port = 0
        self.opened = 0
        """Backend sessions that were opened for clients; those of the gateways' own are not among them."""
        self.carried_out: Counter[str] = Counter()
        """How often each call ran, by its nonce."""
        self.carrier: dict[str, str] = {}
        """The gateway that each call came through, by its nonce."""
        self.said: dict[int, list[float]] = {}
        """When each client's notices were said; their numbers are the places in the list."""
        self.cancelled = 0
        self.wires: set[_Wire] = set()
        self.sessions: dict[str, list[_Wire]] = {}
        """Their standing streams, the newest last."""
        self._session_of: dict[int, str] = {}
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is reached; the number of the gateway follows."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        """Listen on a free loopback port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Wire(self), "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for wire in list(self.wires):
            wire.close()

    def say(self, client: int) -> bool:
        """Say the next notice to that client. False when nobody listens."""
        session = self._session_of.get(client, "")
        streams = self.sessions.get(session, ())
        if not streams:
            return False
        said = self.said.setdefault(client, [])
        params = {"uri": f"{client}:{len(said)}"}
        streams[-1].write(_event({"jsonrpc": "2.0", "method": NOTICE, "params": params}))
        said.append(time.monotonic())
        return True

    def is_heard(self, client: int) -> bool:
        """Whether a gateway listens for that client."""
        return bool(self.sessions.get(self._session_of.get(client, "")))

    def lost(self, gateway: str) -> None:
        """That gateway is being killed: nothing is said to it any more, whether or not its sockets know."""
        for wire in self.wires:
            if wire.gateway == gateway:
                self._forget(wire)

    def take(self, wire: "_Wire", method: str, session: str, body: bytes) -> None:
        """One HTTP request."""
        if method == "DELETE":
            self.sessions.pop(session, None)
            wire.respond(b"")
        elif session and session not in self.sessions:
            wire.respond(b"", b"404 Not Found")
        elif method == "GET":
            self.sessions[session].append(wire)
            wire.session = session
            wire.write(_STREAM)
        else:
            self._post(wire, session, msgspec.json.decode(body))

    def gone(self, wire: "_Wire") -> None:
        """A connection has closed."""
        self.wires.discard(wire)
        self._forget(wire)

    def _forget(self, wire: "_Wire") -> None:
        streams = self.sessions.get(wire.session, [])
        if wire in streams:
            streams.remove(wire)

    def _post(self, wire: "_Wire", session: str, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if "id" not in message or "method" not in message:
            self.cancelled += message.get("method") == "notifications/cancelled"
            wire.write(_ACCEPTED)
            return
        request_id, method = message["id"], message["method"]
        if "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {}):
            wire.respond(_error(request_id, -32600, "Bad Request: Unsupported protocol version"), b"400 Bad Request")
        elif method == "initialize":
            self.opened += params["clientInfo"]["name"] == CLIENT_NAME
            opened = secrets.token_hex(12)
            self.sessions[opened] = []
            wire.respond(_result(request_id, _INITIALIZED), session=opened)
        elif method == "tools/list":
            wire.respond(_result(request_id, _TOOLS))
        elif method == "tools/call":
            self._call(wire, session, request_id, params)
        else:
            wire.respond(_error(request_id, -32601, "Method not found"))

    def _call(self, wire: "_Wire", session: str, request_id: Any, params: dict[str, Any]) -> None:
        given = params["arguments"]
        secret, nonce = given["secret"], given["nonce"]
        client = secret.partition(".")[0]
        if client.isdecimal():
            self._session_of[int(client)] = session
        self.carried_out[nonce] += 1
        self.carrier[nonce] = wire.gateway
        text = {"type": "text", "text": digest(secret, nonce)}
        body = _result(request_id, {"content": [text], "isError": False})
        token = params.get("_meta", {}).get("progressToken")
        wire.answer_later(body, given.get("delay_ms", 0.0) / 1000, b"" if token is None else _progress(token, nonce))


class _Wire(asyncio.Protocol):
    """One connection of a gateway. At most one answer is under way, and it dies with the connection."""

    def __init__(self, herald: Herald) -> None:
        self._herald = herald
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        self._session = ""
        self._pending: asyncio.TimerHandle | None = None
        self.gateway = ""
        self.session = ""
        """Whose standing stream it is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._herald.wires.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._herald.gone(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._session = ""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-session-id":
            self._session = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.gateway = self._url.rpartition(b"/")[2].decode()
        self._herald.take(self, self._parser.get_method().decode(), self._session, self._body)

    def answer_later(self, body: bytes, delay_s: float, progress: bytes) -> None:
        """The answer after that time: a stream when something is said before it."""
        if progress and delay_s:
            self.write(_STREAM + progress)
            tail = _data(body) + b"0\r\n\r\n"
        else:
            tail = _response(body)
        if delay_s:
            self._pending = asyncio.get_running_loop().call_later(delay_s, self.write, tail)
        else:
            self.write(tail)

    def respond(self, body: bytes, status: bytes = b"200 OK", session: str = "") -> None:
        self.write(_response(body, status, session))

    def write(self, data: bytes) -> None:
        """What comes too late is dropped: uvloop raises for a transport that is closed."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()


def _response(body: bytes, status: bytes = b"200 OK", session: str = "") -> bytes:
    extra = b"mcp-session-id: " + session.encode() + b"\r\n" if session else b""
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, len(body), extra) + body


def _result(request_id: Any, result: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def _error(request_id: Any, code: int, message: str) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}})


def _progress(token: Any, nonce: str) -> bytes:
    params = {"progressToken": token, "progress": 1, "message": nonce}
    return _event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def _event(message: dict[str, Any]) -> bytes:
    return _data(msgspec.json.encode(message))


def _data(body: bytes) -> bytes:
    data = b"data: " + body + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)
