"""What the stub backend says, without any I/O: one decoded JSON-RPC message in, one `Reply` out.

Shared by the HTTP and the stdio stub so that every transport is measured with the same answers. It is deliberately as
cheap as a Python MCP server can be: results are spliced bytes, arguments are decoded once, nothing is validated that a
call does not need. It never keeps anything between two messages.

Tools: `echo_json`, `echo_sse` (the argument `text` comes back), `big_json`, `big_sse` (a result of 100 KB) and `digest`
(HMAC-SHA256 of `nonce` under `secret`, after `delay_ms`, as JSON or SSE at random): the isolation bench checks every
answer against its asker with it. Inert tools fill `tools/list` up to 500 on the faces that have so many.
"""

import hashlib
import hmac
import random
from typing import NamedTuple

import msgspec

HANDSHAKE_REVISION = "2025-11-25"
MODERN_REVISION = "2026-07-28"
TOOLS = ("echo_json", "echo_sse", "big_json", "big_sse", "digest")
FEW_TOOLS = len(TOOLS)
MANY_TOOLS = 500
BIG_TEXT_BYTES = 100_000

_BIG_TEXT = msgspec.Raw(msgspec.json.encode("x" * BIG_TEXT_BYTES))
_SERVER_INFO = b'{"name":"bench-stub","version":"1.0"}'
_META = b'"_meta":{"io.modelcontextprotocol/serverInfo":' + _SERVER_INFO + b"}"


class _Arguments(msgspec.Struct):
    """The union of what the tools take; `text` stays raw so that 100 KB are copied, not decoded."""

    text: msgspec.Raw = msgspec.Raw(b'""')
    secret: str = ""
    nonce: str = ""
    delay_ms: float = 0.0


class _Meta(msgspec.Struct):
    revision: str = msgspec.field(default="", name="io.modelcontextprotocol/protocolVersion")
    progress_token: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="progressToken")


class _Params(msgspec.Struct):
    name: str = ""
    arguments: _Arguments = msgspec.field(default_factory=_Arguments)
    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")
    request_id: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="requestId")


class Message(msgspec.Struct):
    """One inbound JSON-RPC message; `id` is empty for a notification, `method` is empty for a response."""

    method: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    params: _Params = msgspec.field(default_factory=_Params)


class Face(NamedTuple):
    """One endpoint of the stub: the eras it speaks and how many tools it lists."""

    modern: bool = True
    handshake: bool = True
    tool_count: int = FEW_TOOLS


class Reply(NamedTuple):
    """The answer to one request: `progress` (may be empty) is sent at once, `body` after `delay_s` seconds."""

    body: bytes
    status: int = 200
    as_sse: bool = False
    progress: bytes = b""
    delay_s: float = 0.0
    opens_session: bool = False


decode = msgspec.json.Decoder(Message).decode


def answer(message: Message, face: Face) -> Reply:
    """Answer one request as a server of the face's eras; unknown methods and eras get the error their era asks for."""
    revision = message.params.meta.revision
    if revision:
        if not face.modern:
            return _error(message, -32600, b"Bad Request: Unsupported protocol version", status=400)
        if revision != MODERN_REVISION:
            return _unsupported(message, revision)
    elif not face.handshake:
        return _unsupported(message, HANDSHAKE_REVISION)
    method = message.method
    if method == "tools/call":
        return _call(message, is_modern=bool(revision))
    if method == "tools/list":
        return _result(message, (_MODERN_LISTS if revision else _HANDSHAKE_LISTS)[face.tool_count])
    if method == "server/discover" and revision:
        return _result(message, _DISCOVERED)
    if method == "initialize" and not revision:
        return Reply(_envelope(message, _INITIALIZED), opens_session=True)
    if method == "ping" and not revision:
        return _result(message, b"{}")
    return _error(message, -32601, b"Method not found", status=404 if revision else 200)


def digest(secret: str, nonce: str) -> str:
    """The one right answer to a `digest` call: hexadecimal HMAC-SHA256 of the nonce under the asker's secret."""
    return hmac.new(secret.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def _call(message: Message, *, is_modern: bool) -> Reply:
    name = message.params.name
    arguments = message.params.arguments
    if name in ("echo_json", "echo_sse"):
        return Reply(_envelope(message, _text(arguments.text, is_modern)), as_sse=name == "echo_sse")
    if name in ("big_json", "big_sse"):
        return Reply(_envelope(message, _text(_BIG_TEXT, is_modern)), as_sse=name == "big_sse")
    if name != "digest":
        return _error(message, -32602, b"Unknown tool")
    as_sse = random.random() < 0.5
    token = message.params.meta.progress_token
    progress = _progress(token, arguments.nonce) if as_sse and bytes(token) else b""
    text = msgspec.Raw(b'"' + digest(arguments.secret, arguments.nonce).encode() + b'"')
    body = _envelope(message, _text(text, is_modern))
    return Reply(body, as_sse=as_sse, progress=progress, delay_s=arguments.delay_ms / 1000)


def _progress(token: msgspec.Raw, nonce: str) -> bytes:
    """A progress notification that carries the asker's nonce, so that a notice to the wrong client shows."""
    return (
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'
        + bytes(token)
        + b',"progress":1,"message":'
        + msgspec.json.encode(nonce)
        + b"}}"
    )


def _text(text: msgspec.Raw, is_modern: bool) -> bytes:
    tail = b'}],"isError":false,"resultType":"complete",' + _META + b"}" if is_modern else b'}],"isError":false}'
    return b'{"content":[{"type":"text","text":' + text + tail


def _envelope(message: Message, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + message.id + b',"result":' + result + b"}"


def _result(message: Message, result: bytes) -> Reply:
    return Reply(_envelope(message, result))


def _error(message: Message, code: int, text: bytes, *, status: int = 200, data: bytes = b"null") -> Reply:
    error = b'{"code":%d,"message":"%b","data":%b}' % (code, text, data)
    request_id = bytes(message.id) or b"null"
    return Reply(b'{"jsonrpc":"2.0","id":' + request_id + b',"error":' + error + b"}", status=status)


def _unsupported(message: Message, requested: str) -> Reply:
    data = msgspec.json.encode({"supported": [MODERN_REVISION], "requested": requested})
    return _error(message, -32022, b"Unsupported protocol version", status=400, data=data)


def _tools(count: int) -> bytes:
    """A list of tools as JSON, about 200 bytes each, the inert ones last."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    names = [*TOOLS, *(f"inert_{index:03d}" for index in range(count - FEW_TOOLS))]
    described = "One of the tools of the stub backend, described at a length that real servers use as well."
    return msgspec.json.encode([{"name": name, "description": described, "inputSchema": schema} for name in names])


# No freshness is promised, as the official SDK does by default: a list must travel the whole way each time.
_LIST_TAIL = b',"resultType":"complete","ttlMs":0,"cacheScope":"private",' + _META + b"}"
_HANDSHAKE_LISTS = {count: b'{"tools":' + _tools(count) + b"}" for count in (FEW_TOOLS, MANY_TOOLS)}
_MODERN_LISTS = {count: b'{"tools":' + _tools(count) + _LIST_TAIL for count in (FEW_TOOLS, MANY_TOOLS)}
_DISCOVERED = (
    b'{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"resultType":"complete","ttlMs":0,'
    b'"cacheScope":"private",' + _META + b"}"
)
_INITIALIZED = b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":' + _SERVER_INFO + b"}"
