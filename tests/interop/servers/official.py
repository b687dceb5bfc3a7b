"""The interop fixture: an official-SDK server with every feature the clients of this folder exercise.

Run it: `python official.py http|sse|stdio --label NAME [--era both|handshake|modern]`. Over HTTP the first line on
standard output is `interop: listening on http://127.0.0.1:PORT`; the endpoint is `/mcp`. `--era handshake` answers a
modern request as an SDK of 2025 did, `--era modern` refuses the handshake as the 2026-07-28 clauses say; `sse` is the
transport of 2024-11-05 and speaks that revision only, its endpoint is `/sse`. What changes is told to every session
that may hear of it. Resource addresses carry the label, so that several of these servers can stand behind one endpoint.
It never reaches out to a network.
"""

from __future__ import annotations

import argparse
import json
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.runner import serve_loop
from mcp.server.session import ServerSession
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

PAGE = 3
NAMES = ["ada", "alan", "grace"]
PANEL_META = {"ui": {"resourceUri": "ui://panel"}, "example.org/kept": {"deep": [1, None, "é"]}}
BLOB = "AAEC/w=="
CANCEL_WAIT_S = 5.0
STEP_S = 0.02  # a step does something, so that notices seldom share a read with the answer

Context = ServerRequestContext[Any]
ToolOutcome = types.CallToolResult | types.InputRequiredResult
ToolFunction = Callable[["Fixture", Context, types.CallToolRequestParams], Awaitable[ToolOutcome]]


def schema(required: str = "", **properties: str) -> dict[str, Any]:
    """An object schema from `name="type"` pairs; `required` lists names separated by spaces."""
    described = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": described, "required": required.split()}


def text(value: str, structured: dict[str, Any] | None = None) -> types.CallToolResult:
    """A tool result with one text block and, when given, structured content."""
    return types.CallToolResult(content=[types.TextContent(text=value)], structured_content=structured)


def is_modern(ctx: Context) -> bool:
    """Whether this request came in the era without a back-channel."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


class Fixture:
    """The state behind one server: tools added at run time, subscriptions, calls waiting to be cancelled."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bus = InMemorySubscriptionBus()
        self.grown: list[str] = []
        self.sessions: dict[str, ServerSession] = {}
        self.subscribed: dict[str, set[str]] = {}
        self.cancelled: dict[str, anyio.Event] = {}

    def uri(self, path: str) -> str:
        """The address of a resource of this server."""
        return f"note://{self.label}/{path}"

    def remember(self, ctx: Context) -> str:
        """Keep the handshake session of a request, so that it hears of changes; its key, empty for a modern one."""
        if is_modern(ctx):
            return ""
        request = ctx.request
        key = "" if request is None else request.headers.get("mcp-session-id") or request.query_params.get("session_id")
        self.sessions[key or "only"] = ctx.session
        return key or "only"

    async def tell(self, notification: types.ServerNotification, uri: str | None = None) -> None:
        """Tell every handshake session, or those that subscribed to `uri`."""
        for key, session in list(self.sessions.items()):
            if uri is not None and uri not in self.subscribed.get(key, ()):
                continue
            try:
                await session.send_notification(notification)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                del self.sessions[key]

    def cancellation(self, key: str) -> anyio.Event:
        """The event set when the `wait` call with this key was cancelled."""
        return self.cancelled.setdefault(key, anyio.Event())


async def echo(_: Fixture, __: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with the text that came in."""
    return text(str((params.arguments or {})["text"]))


async def add(_: Fixture, __: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with a sum, as text and as structured content."""
    arguments = params.arguments or {}
    total = arguments["a"] + arguments["b"]
    return text(str(total), {"sum": total})


async def bulk(_: Fixture, __: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with many kibibytes of text and a mark at the end."""
    return text("x" * 1024 * int((params.arguments or {})["kib"]) + "<end>")


async def gallery(fixture: Fixture, _: Context, __: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with one block of every kind of content."""
    embedded = types.TextResourceContents(uri=fixture.uri("static/0"), text="embedded")
    return types.CallToolResult(
        content=[
            types.TextContent(text="gallery"),
            types.ImageContent(data=BLOB, mime_type="image/png"),
            types.AudioContent(data=BLOB, mime_type="audio/wav"),
            types.EmbeddedResource(resource=embedded),
            types.ResourceLink(uri=fixture.uri("static/1"), name="linked"),
        ]
    )


async def regional(_: Fixture, __: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with an argument that modern clients also send as the header `Mcp-Param-Region`."""
    return text(f"region={(params.arguments or {})['region']}")


async def fail(_: Fixture, __: Context, ___: types.CallToolRequestParams) -> ToolOutcome:
    """Answer with a tool error (a result, not a JSON-RPC error)."""
    return types.CallToolResult(content=[types.TextContent(text="failed on purpose")], is_error=True)


async def slow(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Report progress once per step, then answer."""
    steps = int((params.arguments or {})["steps"])
    for step in range(1, steps + 1):
        await ctx.session.report_progress(step, steps, f"step {step}")
        await anyio.sleep(STEP_S)
    return text(f"{steps} steps done")


async def log(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Log the text at warning level on the stream of this call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await ctx.session.send_log_message(
            "warning", str((params.arguments or {})["text"]), logger="fixture", related_request_id=ctx.request_id
        )
    return text("logged")


async def wait(fixture: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Say by progress that the call started, then wait until it is cancelled."""
    event = fixture.cancellation(str((params.arguments or {})["key"]))
    try:
        await ctx.session.report_progress(1, 2, "waiting")
        await anyio.sleep_forever()
    finally:
        event.set()
    raise AssertionError("unreachable")


async def was_cancelled(fixture: Fixture, _: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Answer `cancelled` once the `wait` call with this key was cancelled, `running` after five seconds."""
    with anyio.move_on_after(CANCEL_WAIT_S):
        await fixture.cancellation(str((params.arguments or {})["key"])).wait()
        return text("cancelled")
    return text("running")


async def grow(fixture: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Add a tool and announce the change to everybody, each in the way of its era."""
    fixture.grown.append(str((params.arguments or {})["name"]))
    fixture.remember(ctx)
    await fixture.tell(types.ToolListChangedNotification())
    await fixture.bus.publish(ToolsListChanged())
    return text("grown")


async def touch(fixture: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Announce that a resource changed, to whoever subscribed to it."""
    uri = str((params.arguments or {})["uri"])
    fixture.remember(ctx)
    update = types.ResourceUpdatedNotificationParams(uri=uri)
    await fixture.tell(types.ResourceUpdatedNotification(params=update), uri)
    await fixture.bus.publish(ResourceUpdated(uri=uri))
    return text("touched")


def elicitation(message: str, **properties: str) -> types.ElicitRequest:
    """A form with one required field per `name="type"` pair."""
    form = schema(" ".join(properties), **properties)
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=form))


def visit(message: str) -> types.ElicitRequest:
    """A page that the user is to open (2025-11-25 and later)."""
    url = "https://example.com/sign-in"
    return types.ElicitRequest(params=types.ElicitRequestURLParams(message=message, url=url, elicitation_id="visit-1"))


async def put(ctx: Context, question: types.InputRequest) -> types.InputResponse:
    """Put one question to a handshake client on the stream of the running call."""
    answers: dict[str, type[types.InputResponse]] = {
        "elicitation/create": types.ElicitResult,
        "sampling/createMessage": types.CreateMessageResult,
        "roots/list": types.ListRootsResult,
    }
    metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
    return await ctx.session.send_request(question, answers[question.method], metadata=metadata)


def read_answer(answer: types.InputResponse) -> str:
    """What the client answered, as one line."""
    match answer:
        case types.ElicitResult(action="accept", content=None):
            return "accepted"
        case types.ElicitResult(action="accept", content=content):
            return ",".join(f"{key}={value}" for key, value in sorted((content or {}).items()))
        case types.ElicitResult(action=action):
            return action
        case types.CreateMessageResult(content=types.TextContent(text=said), model=model):
            return f"{model}:{said}"
        case types.ListRootsResult(roots=roots):
            return ",".join(str(root.uri) for root in roots)
    return f"unexpected {type(answer).__name__}"


async def interview(
    ctx: Context, params: types.InputResponseRequestParams, questions: list[types.InputRequest]
) -> str | types.InputRequiredResult:
    """Ask the questions one round after another and return all the answers, or the next round's result.

    A handshake client is asked by requests, a modern client by `InputRequired` results whose state carries the answers
    so far: a round is only reached when the client (and whoever stands between) gave the state back unchanged.
    """
    if not is_modern(ctx):
        return " | ".join([read_answer(await put(ctx, question)) for question in questions])
    state = params.request_state or ""
    done = state.split(" | ") if state else []
    if params.input_responses:
        done.append(read_answer(params.input_responses[f"q{len(done)}"]))
    if len(done) == len(questions):
        return " | ".join(done)
    return types.InputRequiredResult(
        input_requests={f"q{len(done)}": questions[len(done)]}, request_state=" | ".join(done) or None
    )


async def told(ctx: Context, params: types.CallToolRequestParams, questions: list[types.InputRequest]) -> ToolOutcome:
    """An interview inside a tool call."""
    said = await interview(ctx, params, questions)
    return text(said) if isinstance(said, str) else said


async def ask_name(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Ask the user for a name."""
    return await told(ctx, params, [elicitation("Who are you?", name="string")])


async def ask_twice(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Ask the user two questions, the second after the first was answered."""
    first, second = elicitation("Who are you?", name="string"), elicitation("Sure?", confirm="boolean")
    return await told(ctx, params, [first, second])


async def ask_url(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Ask the user to open a page."""
    return await told(ctx, params, [visit("Sign in, please.")])


async def ask_model(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Ask the client's model to say something."""
    prompt = types.SamplingMessage(role="user", content=types.TextContent(text="Say something."))
    sampling = types.CreateMessageRequestParams(messages=[prompt], max_tokens=20)
    return await told(ctx, params, [types.CreateMessageRequest(params=sampling)])


async def ask_roots(_: Fixture, ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
    """Ask the client for its roots."""
    return await told(ctx, params, [types.ListRootsRequest()])


REGION = {"region": {"type": "string", "x-mcp-header": "Region"}}
TOOLS: dict[str, tuple[dict[str, Any], ToolFunction]] = {
    "echo": (schema("text", text="string"), echo),
    "add": (schema("a b", a="integer", b="integer"), add),
    "bulk": (schema("kib", kib="integer"), bulk),
    "gallery": (schema(), gallery),
    "regional": ({"type": "object", "properties": REGION, "required": ["region"]}, regional),
    "fail": (schema(), fail),
    "slow": (schema("steps", steps="integer"), slow),
    "log": (schema("text", text="string"), log),
    "wait": (schema("key", key="string"), wait),
    "was_cancelled": (schema("key", key="string"), was_cancelled),
    "grow": (schema("name", name="string"), grow),
    "touch": (schema("uri", uri="string"), touch),
    "ask_name": (schema(), ask_name),
    "ask_twice": (schema(), ask_twice),
    "ask_url": (schema(), ask_url),
    "ask_model": (schema(), ask_model),
    "ask_roots": (schema(), ask_roots),
}


class FixtureServer(Server[Any]):
    """The SDK's server, declaring `listChanged` to handshake clients too (by default the SDK declares none)."""

    @override
    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK's, with change notices on."""
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(changes, experimental_capabilities, extensions)


def build_tools(fixture: Fixture) -> dict[str, Any]:
    """The handlers of tools/list and tools/call."""

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools = [
            types.Tool(name=name, description=function.__doc__, input_schema=input_schema)
            for name, (input_schema, function) in TOOLS.items()
        ]
        tools[0].meta = PANEL_META
        tools[1].output_schema = schema("sum", sum="integer")
        tools += [types.Tool(name=name, input_schema=schema()) for name in fixture.grown]
        return types.ListToolsResult(tools=tools)

    async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> ToolOutcome:
        if params.name in fixture.grown:
            return text(f"I am {params.name}")
        if params.name not in TOOLS:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        return await TOOLS[params.name][1](fixture, ctx, params)

    return {"on_list_tools": list_tools, "on_call_tool": call_tool}


def build_resources(fixture: Fixture) -> dict[str, Any]:
    """The handlers of the resources methods: seven pages' worth of notes, a blob, a template, subscriptions."""
    notes = [fixture.uri(f"static/{number}") for number in range(7)]
    template = fixture.uri("items/{id}")

    async def list_resources(_: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        start = int(params.cursor) if params and params.cursor else 0
        everything = [*notes, fixture.uri("blob"), fixture.uri("asking")]
        page = [types.Resource(uri=uri, name=uri.rpartition("/")[2]) for uri in everything[start : start + PAGE]]
        following = str(start + PAGE) if start + PAGE < len(everything) else None
        return types.ListResourcesResult(resources=page, next_cursor=following, ttl_ms=1_000, cache_scope="public")

    async def list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        found = [types.ResourceTemplate(uri_template=template, name="items")]
        return types.ListResourceTemplatesResult(resource_templates=found)

    async def read(
        ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        uri = str(params.uri)
        if uri == fixture.uri("asking"):
            said = await interview(ctx, params, [elicitation("For whom?", name="string")])
            if not isinstance(said, str):
                return said
            return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, text=f"note for {said}")])
        if uri == fixture.uri("blob"):
            blob = types.BlobResourceContents(uri=uri, blob=BLOB, mime_type="application/octet-stream")
            return types.ReadResourceResult(contents=[blob])
        if uri not in notes and not uri.startswith(fixture.uri("items/")):
            code = types.INVALID_PARAMS if is_modern(ctx) else -32002
            raise MCPError(code=code, message="Resource not found", data={"uri": uri})
        content = types.TextResourceContents(uri=uri, text=f"note {uri.rpartition('/')[2]} of {fixture.label}")
        return types.ReadResourceResult(contents=[content])

    async def subscribe(ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        fixture.subscribed.setdefault(fixture.remember(ctx), set()).add(str(params.uri))
        return types.EmptyResult()

    async def unsubscribe(ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        fixture.subscribed.setdefault(fixture.remember(ctx), set()).discard(str(params.uri))
        return types.EmptyResult()

    return {
        "on_list_resources": list_resources,
        "on_list_resource_templates": list_templates,
        "on_read_resource": read,
        "on_subscribe_resource": subscribe,
        "on_unsubscribe_resource": unsubscribe,
        "on_subscriptions_listen": ListenHandler(fixture.bus),
    }


def build_prompts() -> dict[str, Any]:
    """The handlers of the prompts methods, completion and the log level."""

    async def list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        who = types.PromptArgument(name="who", required=True)
        prompts = [types.Prompt(name="greeting", arguments=[who]), types.Prompt(name="asking")]
        return types.ListPromptsResult(prompts=prompts)

    async def get_prompt(
        ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        if params.name == "asking":
            said = await interview(ctx, params, [elicitation("Greet whom?", name="string")])
            if not isinstance(said, str):
                return said
        elif params.name == "greeting":
            said = (params.arguments or {})["who"]
        else:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
        content = types.TextContent(text=f"Greet {said}.")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])

    async def complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        found = [name for name in NAMES if name.startswith(params.argument.value)]
        return types.CompleteResult(completion=types.Completion(values=found, total=len(found), has_more=False))

    async def set_level(_: Context, __: types.SetLevelRequestParams) -> types.EmptyResult:
        return types.EmptyResult()

    return {
        "on_list_prompts": list_prompts,
        "on_get_prompt": get_prompt,
        "on_completion": complete,
        "on_set_logging_level": set_level,
    }


def build_server(label: str) -> FixtureServer:
    """Build the server object; its request state is sealed, so that a changed state is refused."""
    fixture = Fixture(label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logging/setLevel is deprecated in 2026-07-28 and alive in the handshake era
        server = FixtureServer(
            f"interop-{label}", version="1.0", **build_tools(fixture), **build_resources(fixture), **build_prompts()
        )

    async def initialized(ctx: Context, _: types.NotificationParams) -> None:
        fixture.remember(ctx)

    server.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
    return server


class HandshakeOnly:
    """Answer a modern request over HTTP as an SDK of 2025 did: 400 and a plain error, no list of versions in data."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        version = Request(scope).headers.get("mcp-protocol-version") if scope["type"] == "http" else None
        if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
            await self.app(scope, receive, send)
            return
        served = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
        message = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {served}"
        body = {"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": message}}
        await JSONResponse(body, 400)(scope, receive, send)


class ModernOnly:
    """Refuse what belongs to the handshake: GET and DELETE with 405, a POST without a modern version with -32022."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        version = request.headers.get("mcp-protocol-version")
        if request.method != "POST":
            await Response(status_code=405, headers={"allow": "POST"})(scope, receive, send)
        elif version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
            data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version or ""}
            error = {"code": types.UNSUPPORTED_PROTOCOL_VERSION, "message": "Unsupported version", "data": data}
            await JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Aged:
    """Makes every `initialize` one that asks for 2024-11-05, so that the SDK speaks no later revision."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = json.loads(await Request(scope, receive).body())
        if body.get("method") == "initialize":
            body["params"]["protocolVersion"] = "2024-11-05"
        encoded = json.dumps(body).encode()

        async def again() -> Message:
            return {"type": "http.request", "body": encoded, "more_body": False}

        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        aged = {**scope, "headers": [*headers, (b"content-length", str(len(encoded)).encode())]}
        await self.app(aged, again, send)


def sse_app(server: FixtureServer) -> ASGIApp:
    """The transport of 2024-11-05: a stream at `/sse`, messages posted to where its first event says."""
    transport = SseServerTransport("/messages/")

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/sse":
            async with transport.connect_sse(scope, receive, send) as (read, write):
                await serve_loop(server, read, write, lifespan_state={})
        elif scope["type"] == "http":
            await transport.handle_post_message(scope, receive, send)

    return Aged(serve)


async def refuse_handshake(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Server middleware of a modern-only server on a wire without headers."""
    if ctx.method == "initialize":
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": (ctx.params or {}).get("protocolVersion")}
        raise MCPError(code=types.UNSUPPORTED_PROTOCOL_VERSION, message="Unsupported version", data=data)
    return await call_next(ctx)


async def serve_http(server: FixtureServer, era: str) -> None:
    """Serve Streamable HTTP."""
    app: ASGIApp = server.streamable_http_app(streamable_http_path="/mcp")
    await listen({"both": lambda inner: inner, "handshake": HandshakeOnly, "modern": ModernOnly}[era](app))


async def serve_sse(server: FixtureServer, _: str) -> None:
    """Serve HTTP+SSE."""
    await listen(sse_app(server), lifespan=False)


async def listen(app: ASGIApp, *, lifespan: bool = True) -> None:
    """Serve on a free loopback port and print its address."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # without it asyncio leaves Nagle on: 40 ms a call
    listener.bind(("127.0.0.1", 0))
    print(f"interop: listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, lifespan="on" if lifespan else "off")
    await uvicorn.Server(config).serve(sockets=[listener])


async def serve_stdio(server: FixtureServer, era: str) -> None:
    """Serve one client on standard input and output."""
    if era == "modern":
        server.middleware.append(refuse_handshake)
    async with stdio_server() as (read, write):
        if era == "handshake":
            await serve_loop(server, read, write, lifespan_state={})
        else:
            await server.run(read, write, server.create_initialization_options())


def main() -> None:
    """Parse the arguments and serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["http", "sse", "stdio"])
    parser.add_argument("--label", required=True)
    parser.add_argument("--era", choices=["both", "handshake", "modern"], default="both")
    arguments = parser.parse_args()
    serve = {"http": serve_http, "sse": serve_sse, "stdio": serve_stdio}
    anyio.run(serve[arguments.transport], build_server(arguments.label), arguments.era)


if __name__ == "__main__":
    main()
