"""A small MCP server: tools, resources and prompts over any line of messages.

Contract: speaks the handshake era (2025-03-26 to 2025-11-25) and the modern one (2026-07-28) on the same connection,
told apart by each message. `serve_messages` is what `python:` backends offer: it reads JSON-RPC messages as bytes, one
per item and without line ends, hands answers to `send`, and returns when the messages end; calls run side by side
and `notifications/cancelled` stops one. It knows nothing of HTTP, of files or of the gateway.
Source: basic/index, basic/versioning, server/* of revision 2026-07-28; basic/lifecycle of 2025-11-25.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import orjson

Json: TypeAlias = dict[str, Any]
Id: TypeAlias = str | int
Send: TypeAlias = Callable[[bytes], None]

MODERN = ("2026-07-28",)
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26")

_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_SERVER_KEY = "io.modelcontextprotocol/serverInfo"

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_UNSUPPORTED_VERSION, _NO_RESOURCE_HANDSHAKE = -32022, -32002
_STATIC_TTL_MS = 3_600_000  # the tools of a server that runs do not change
_MAX_RUNNING = 256  # calls side by side on one connection


class RefusalError(Exception):
    """Becomes a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message} | ({} if data is None else {"data": data})


class ToolError(Exception):
    """A tool cannot do what was asked; the text is for the model, which may try again."""


class UnknownResourceError(Exception):
    """There is nothing at that URI."""


class Progress(Protocol):
    """Reports how far a call is; does nothing when the client did not ask for progress."""

    def __call__(self, done: float, total: float, message: str, /) -> None: ...


Run: TypeAlias = Callable[[Json, Progress], Awaitable[str | Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool. `run` gives text, or an object that is sent as structured content and as its JSON text."""

    name: str
    title: str
    description: str
    properties: Json
    required: tuple[str, ...] = ()
    output: Json | None = None
    is_read_only: bool = True
    run: Run

    def describe(self) -> Json:
        schema: Json = {"type": "object", "properties": self.properties, "additionalProperties": False}
        if self.required:
            schema["required"] = list(self.required)
        told: Json = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": schema,
            "annotations": {"readOnlyHint": self.is_read_only, "openWorldHint": False},
        }
        return told | ({"outputSchema": self.output} if self.output else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt; `render` makes the user's message from its arguments."""

    name: str
    title: str
    description: str
    arguments: tuple[Json, ...] = ()
    render: Callable[[Mapping[str, str]], str]

    def describe(self) -> Json:
        told: Json = {"name": self.name, "title": self.title, "description": self.description}
        return told | {"arguments": list(self.arguments)}


class Resources(Protocol):
    """What a server offers to read."""

    def listed(self) -> list[Json]:
        """Every resource: `uri`, `name`, and what else is known."""
        ...

    def templates(self) -> list[Json]:
        """Resource templates (RFC 6570)."""
        ...

    def read(self, uri: str) -> Json:
        """`mimeType` and `text` of one. Raises `UnknownResourceError`."""
        ...


def text_argument(arguments: Json, key: str, default: str | None = None, *, max_chars: int = 16_384) -> str:
    """A text from a tool's arguments. Raises `ToolError` when it is missing, not text, or too long."""
    value = arguments.get(key, default)
    if not isinstance(value, str):
        raise ToolError(f"{key} is required and must be text")
    if len(value) > max_chars:
        raise ToolError(f"{key} is longer than {max_chars} characters")
    return value


def number_argument(arguments: Json, key: str, default: float, *, low: float, high: float) -> float:
    """A number between `low` and `high` from a tool's arguments. Raises `ToolError`."""
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ToolError(f"{key} must be a number from {low:g} to {high:g}")
    return value


class Server:
    """One server; any number of connections may be served at once."""

    def __init__(
        self,
        *,
        name: str,
        title: str,
        version: str,
        instructions: str,
        tools: Sequence[Tool],
        resources: Resources | None = None,
        prompts: Sequence[Prompt] = (),
    ) -> None:
        self.info: Json = {"name": name, "title": title, "version": version}
        self.instructions = instructions
        self.tools = {tool.name: tool for tool in tools}
        self.prompts = {prompt.name: prompt for prompt in prompts}
        self.resources = resources
        self.capabilities: Json = {"tools": {}}
        if resources is not None:
            self.capabilities["resources"] = {}
        if prompts:
            self.capabilities["prompts"] = {}

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Send) -> None:
        """Answer messages until there are no more; calls that still run are then cancelled."""
        connection = _Connection(self, send)
        async with asyncio.TaskGroup() as group:
            async for message in incoming:
                connection.take(message, group)
            connection.close()


@dataclass(slots=True)
class _Connection:
    """What is known of one connection: whether it was initialized, and which calls run."""

    server: Server
    send: Send
    is_initialized: bool = False
    running: dict[Id, asyncio.Task[None]] = field(default_factory=dict)

    def take(self, message: bytes, group: asyncio.TaskGroup) -> None:
        """Start the call in one message, or act on the notification."""
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError:
            self._write({"error": {"code": _PARSE_ERROR, "message": "this is not JSON"}, "id": None})
            return
        if not isinstance(body, dict) or not isinstance(body.get("method"), str):
            # A response or something else: this server asks nothing, so there is nothing it could answer.
            return
        request_id = body.get("id")
        if "id" not in body:
            self._notice(body["method"], body.get("params"))
        elif isinstance(request_id, bool) or not isinstance(request_id, str | int):
            self._fail(None, RefusalError(_INVALID_REQUEST, "id must be text or a whole number"))
        elif request_id in self.running or len(self.running) >= _MAX_RUNNING:
            self._fail(request_id, RefusalError(_INVALID_REQUEST, "this id is in use, or too many calls run"))
        else:
            self.running[request_id] = group.create_task(self._answer(request_id, body["method"], body.get("params")))

    def close(self) -> None:
        for task in self.running.values():
            task.cancel()

    def _notice(self, method: str, params: object) -> None:
        if method == "notifications/cancelled" and isinstance(params, dict):
            wanted = params.get("requestId")
            task = self.running.get(wanted) if isinstance(wanted, str | int) else None
            if task is not None:
                task.cancel()

    async def _answer(self, request_id: Id, method: str, params: object) -> None:
        try:
            result = await self._dispatch(method, params if params is not None else {})
        except RefusalError as refusal:
            self._fail(request_id, refusal)
        else:
            self._write({"id": request_id, "result": result})
        finally:
            self.running.pop(request_id, None)

    def _fail(self, request_id: Id | None, refusal: RefusalError) -> None:
        self._write({"id": request_id, "error": refusal.error})

    def _write(self, message: Json) -> None:
        self.send(orjson.dumps({"jsonrpc": "2.0", **message}))

    async def _dispatch(self, method: str, params: object) -> Json:
        """The result of one request, in the words of the era it was asked in."""
        if not isinstance(params, dict):
            raise RefusalError(_INVALID_PARAMS, "params must be an object")
        meta = params.get("_meta")
        meta = meta if isinstance(meta, dict) else {}
        if _VERSION_KEY in meta or method == "server/discover":
            return await self._modern(method, params, meta)
        if method == "initialize":
            return self._initialize(params)
        if method == "ping":
            return {}
        if not self.is_initialized:
            raise RefusalError(_INVALID_REQUEST, "initialize first, or send the metadata of revision 2026-07-28")
        try:
            result, _ = await self._serve(method, params, meta)
        except UnknownResourceError as error:
            raise RefusalError(_NO_RESOURCE_HANDSHAKE, "resource not found", {"uri": str(error)}) from None
        return result

    def _initialize(self, params: Json) -> Json:
        asked = params.get("protocolVersion")
        self.is_initialized = True
        return {
            "protocolVersion": asked if asked in HANDSHAKE else HANDSHAKE[0],
            "capabilities": self.server.capabilities,
            "serverInfo": self.server.info,
            "instructions": self.server.instructions,
        }

    async def _modern(self, method: str, params: Json, meta: Json) -> Json:
        version = meta.get(_VERSION_KEY)
        if not isinstance(version, str) or not isinstance(meta.get(_CAPABILITIES_KEY), dict):
            raise RefusalError(_INVALID_PARAMS, f"_meta needs {_VERSION_KEY} and {_CAPABILITIES_KEY}")
        if version not in MODERN:
            supported = {"supported": [*MODERN, *HANDSHAKE], "requested": version}
            raise RefusalError(_UNSUPPORTED_VERSION, "Unsupported protocol version", supported)
        if method == "server/discover":
            result: Json = {
                "supportedVersions": list(MODERN),
                "capabilities": self.server.capabilities,
                "instructions": self.server.instructions,
            }
            ttl_ms: int | None = _STATIC_TTL_MS
        else:
            try:
                result, ttl_ms = await self._serve(method, params, meta)
            except UnknownResourceError as error:
                raise RefusalError(_INVALID_PARAMS, "resource not found", {"uri": str(error)}) from None
        caching = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "public"}
        return {"resultType": "complete", **result, **caching, "_meta": {_SERVER_KEY: self.server.info}}

    async def _serve(self, method: str, params: Json, meta: Json) -> tuple[Json, int | None]:
        """What both eras share: the result, and for how many milliseconds it may be kept (None: not at all)."""
        server, resources = self.server, self.server.resources
        match method:
            case "tools/list":
                return {"tools": [tool.describe() for tool in server.tools.values()]}, _STATIC_TTL_MS
            case "tools/call":
                return await self._call(params, meta), None
            case "prompts/list" if server.prompts:
                return {"prompts": [prompt.describe() for prompt in server.prompts.values()]}, _STATIC_TTL_MS
            case "prompts/get" if server.prompts:
                return self._prompt(params), None
            case "resources/list" if resources is not None:
                return {"resources": resources.listed()}, 0
            case "resources/templates/list" if resources is not None:
                return {"resourceTemplates": resources.templates()}, _STATIC_TTL_MS
            case "resources/read" if resources is not None:
                uri = params.get("uri")
                if not isinstance(uri, str):
                    raise RefusalError(_INVALID_PARAMS, "uri must be text")
                return {"contents": [{"uri": uri, **resources.read(uri)}]}, 0
        raise RefusalError(_NO_METHOD, f"no method {method}")

    async def _call(self, params: Json, meta: Json) -> Json:
        tool = self.server.tools.get(str(params.get("name")))
        arguments = params.get("arguments", {})
        if tool is None or not isinstance(arguments, dict):
            raise RefusalError(_INVALID_PARAMS, f"no tool {params.get('name')}" if tool is None else "bad arguments")
        try:
            if unknown := sorted(set(arguments) - set(tool.properties)):
                raise ToolError(f"unknown argument {unknown[0]}; known are {', '.join(tool.properties) or 'none'}")
            answer = await tool.run(arguments, self._progress(meta.get("progressToken")))
        except ToolError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        text = answer if isinstance(answer, str) else orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode()
        structured = {"structuredContent": answer} if isinstance(answer, dict) else {}
        return {"content": [{"type": "text", "text": text}], "isError": False, **structured}

    def _progress(self, token: object) -> Progress:
        def report(done: float, total: float, message: str, /) -> None:
            if isinstance(token, str | int):
                params = {"progressToken": token, "progress": done, "total": total, "message": message}
                self._write({"method": "notifications/progress", "params": params})

        return report

    def _prompt(self, params: Json) -> Json:
        prompt = self.server.prompts.get(str(params.get("name")))
        if prompt is None:
            raise RefusalError(_INVALID_PARAMS, f"no prompt {params.get('name')}")
        given = params.get("arguments", {})
        arguments = {str(key): str(value) for key, value in given.items()} if isinstance(given, dict) else {}
        for declared in prompt.arguments:
            if declared.get("required") and declared["name"] not in arguments:
                raise RefusalError(_INVALID_PARAMS, f"the argument {declared['name']} is required")
        message = {"role": "user", "content": {"type": "text", "text": prompt.render(arguments)}}
        return {"description": prompt.description, "messages": [message]}
