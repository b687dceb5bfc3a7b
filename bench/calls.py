"""The requests the benches send and the check that an answer is the right one, in both eras, without any I/O.

A `Call` is one POST, or the GET of a stream: headers, body, and what the answer must hold. Every request uses the
JSON-RPC id 1, as a well-known client does. `messages` reads the JSON-RPC messages out of a JSON or an SSE answer.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from bench.answers import BIG_TEXT_BYTES, HANDSHAKE_REVISION, MANY_TOOLS, MODERN_REVISION

REQUEST_ID = 1
CLIENT_NAME = "bench"
_CLIENT_INFO = {"name": CLIENT_NAME, "version": "1.0"}
_MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN_REVISION,
    "io.modelcontextprotocol/clientInfo": _CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_ACCEPT = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Call:
    """One request: `headers` without Host and Content-Length; `text` is the text or the number of tools expected."""

    headers: dict[str, str]
    body: bytes
    text: str = ""
    tools: int = 0
    method: str = "POST"

    def encode(self, authority: str, path: str) -> bytes:
        """The whole HTTP/1.1 request for a keep-alive connection; `authority` is host:port."""
        lines = [f"{self.method} {path} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body

    def problem(self, status: int, content_type: str, body: bytes) -> str:
        """Why this answer is wrong, or "" when it is right."""
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        replies = [message for message in messages(content_type, body) if "method" not in message]
        if len(replies) != 1:
            return f"{len(replies)} final answers in {body[:200]!r}"
        reply = replies[0]
        if reply.get("id") != REQUEST_ID or "result" not in reply:
            return f"not a result for this id: {msgspec.json.encode(reply)[:200]!r}"
        result = reply["result"]
        if self.tools:
            found = len(result.get("tools", ()))
            return "" if found == self.tools else f"{found} tools instead of {self.tools}"
        texts = [part.get("text") for part in result.get("content", ())]
        return "" if texts == [self.text] and not result.get("isError") else f"wrong content {str(texts)[:200]}"


def messages(content_type: str, body: bytes) -> list[dict[str, Any]]:
    """The JSON-RPC messages of an answer, in order; an SSE event without data (a comment, a prime) holds none."""
    if not content_type.startswith("text/event-stream"):
        return [msgspec.json.decode(body)] if body else []
    found = []
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data:
            found.append(msgspec.json.decode(data))
    return found


def modern(method: str, params: dict[str, Any] | None = None, *, progress_token: str = "") -> Call:
    """A 2026-07-28 request with its mirrored headers."""
    params = dict(params or {})
    params["_meta"] = {**_MODERN_META, "progressToken": progress_token} if progress_token else _MODERN_META
    headers = {**_ACCEPT, "MCP-Protocol-Version": MODERN_REVISION, "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    return _request(headers, method, params)


def handshake(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    session: str = "",
    progress_token: str = "",
    request_id: int = REQUEST_ID,
) -> Call:
    """A 2025-11-25 request in a session that `initialize` made."""
    params = dict(params or {})
    if progress_token:
        params["_meta"] = {"progressToken": progress_token}
    return _request({**_ACCEPT, **session_headers(session)}, method, params, request_id)


def session_headers(session: str) -> dict[str, str]:
    """What every handshake request after `initialize` carries; a stateless server hands out no session id."""
    headers = {"MCP-Protocol-Version": HANDSHAKE_REVISION}
    return {**headers, "Mcp-Session-Id": session} if session else headers


def initialize() -> Call:
    params = {"protocolVersion": HANDSHAKE_REVISION, "capabilities": {}, "clientInfo": _CLIENT_INFO}
    return _request(dict(_ACCEPT), "initialize", params)


def initialized(session: str) -> Call:
    body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    return Call({**_ACCEPT, **session_headers(session)}, msgspec.json.encode(body))


def cancelled(session: str, request_id: int = REQUEST_ID) -> Call:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    return Call({**_ACCEPT, **session_headers(session)}, msgspec.json.encode(body))


def echo(era: str, session: str, tool: str, body_bytes: int) -> Call:
    """A call of an echo tool whose whole body has `body_bytes` bytes, so that every era carries the same load."""
    empty = _tool_call(era, session, tool, {"text": ""})
    text = "x" * max(1, body_bytes - len(empty.body))
    call = _tool_call(era, session, tool, {"text": text})
    return Call(call.headers, call.body, text=text)


def big(era: str, session: str, tool: str) -> Call:
    """A small call of a tool that answers with 100 KB."""
    call = _tool_call(era, session, tool, {})
    return Call(call.headers, call.body, text="x" * BIG_TEXT_BYTES)


def list_tools(era: str, session: str) -> Call:
    call = modern("tools/list") if era == "modern" else handshake("tools/list", session=session)
    return Call(call.headers, call.body, tools=MANY_TOOLS)


def _tool_call(era: str, session: str, tool: str, arguments: dict[str, Any]) -> Call:
    params = {"name": tool, "arguments": arguments}
    return modern("tools/call", params) if era == "modern" else handshake("tools/call", params, session=session)


def _request(headers: dict[str, str], method: str, params: dict[str, Any], request_id: int = REQUEST_ID) -> Call:
    body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return Call(headers, msgspec.json.encode(body))
