"""Wires the tools, prompts and resources into one server of the official SDK (its low-level API, both eras)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from conformance.everything import asking_tools, content_tools, library, stream_tools
from conformance.everything.content_tools import NO_ARGUMENTS
from conformance.everything.exchange import Exchange, ToolError, World

NAME = "everything"
# One minute for what seldom changes (and is announced when it does), nothing for the contents of resources.
LISTED = CacheHint(ttl_ms=60_000, scope="public")
READ = CacheHint(ttl_ms=0, scope="private")
# Fixed, so that two processes of the fixture accept each other's state.
STATE_KEY = b"everything fixture: request state, not a secret"

ToolReply = types.CallToolResult | types.InputRequiredResult
ToolHandler = Callable[[Exchange], Awaitable[ToolReply]]
Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class ToolSpec:
    """A tool: its handler (whose docstring describes it) and its input schema."""

    handler: ToolHandler
    schema: dict[str, Any]

    def listed(self, name: str) -> types.Tool:
        """The tool as `tools/list` shows it."""
        return types.Tool(name=name, description=inspect.getdoc(self.handler), input_schema=self.schema)


# The first one must be callable without arguments: http-header-validation calls whatever is listed first.
TOOLS: dict[str, ToolSpec] = {
    "test_simple_text": ToolSpec(content_tools.simple_text, NO_ARGUMENTS),
    "test_image_content": ToolSpec(content_tools.image_content, NO_ARGUMENTS),
    "test_audio_content": ToolSpec(content_tools.audio_content, NO_ARGUMENTS),
    "test_embedded_resource": ToolSpec(content_tools.embedded_resource, NO_ARGUMENTS),
    "test_multiple_content_types": ToolSpec(content_tools.multiple_content_types, NO_ARGUMENTS),
    "test_error_handling": ToolSpec(content_tools.error_handling, NO_ARGUMENTS),
    "test_x_mcp_header": ToolSpec(content_tools.x_mcp_header, content_tools.REGION_SCHEMA),
    "json_schema_2020_12_tool": ToolSpec(content_tools.json_schema_2020_12, content_tools.SCHEMA_2020_12),
    "test_tool_with_logging": ToolSpec(stream_tools.tool_with_logging, NO_ARGUMENTS),
    "test_logging_tool": ToolSpec(stream_tools.logging_tool, NO_ARGUMENTS),
    "test_tool_with_progress": ToolSpec(stream_tools.tool_with_progress, NO_ARGUMENTS),
    "test_reconnection": ToolSpec(stream_tools.reconnection, NO_ARGUMENTS),
    "test_trigger_tool_change": ToolSpec(stream_tools.trigger_tool_change, NO_ARGUMENTS),
    "test_trigger_prompt_change": ToolSpec(stream_tools.trigger_prompt_change, NO_ARGUMENTS),
    "test_trigger_resource_update": ToolSpec(stream_tools.trigger_resource_update, NO_ARGUMENTS),
    "test_sampling": ToolSpec(asking_tools.sampling, asking_tools.PROMPT_SCHEMA),
    "test_elicitation": ToolSpec(asking_tools.elicitation, asking_tools.MESSAGE_SCHEMA),
    "test_elicitation_sep1034_defaults": ToolSpec(asking_tools.elicitation_defaults, NO_ARGUMENTS),
    "test_elicitation_sep1330_enums": ToolSpec(asking_tools.elicitation_enums, NO_ARGUMENTS),
    "test_streaming_elicitation": ToolSpec(asking_tools.streaming_elicitation, NO_ARGUMENTS),
    "test_missing_capability": ToolSpec(asking_tools.missing_capability, NO_ARGUMENTS),
    "test_input_required_result_elicitation": ToolSpec(asking_tools.input_elicitation, NO_ARGUMENTS),
    "test_input_required_result_sampling": ToolSpec(asking_tools.input_sampling, NO_ARGUMENTS),
    "test_input_required_result_list_roots": ToolSpec(asking_tools.input_list_roots, NO_ARGUMENTS),
    "test_input_required_result_request_state": ToolSpec(asking_tools.input_request_state, NO_ARGUMENTS),
    "test_input_required_result_multiple_inputs": ToolSpec(asking_tools.input_multiple, NO_ARGUMENTS),
    "test_input_required_result_multi_round": ToolSpec(asking_tools.input_multi_round, NO_ARGUMENTS),
    "test_input_required_result_tampered_state": ToolSpec(asking_tools.input_tampered_state, NO_ARGUMENTS),
    "test_input_required_result_capabilities": ToolSpec(asking_tools.input_capabilities, NO_ARGUMENTS),
}
DYNAMIC_TOOL = ("test_dynamic_tool", ToolSpec(stream_tools.dynamic_tool, NO_ARGUMENTS))


class EverythingServer(Server[dict[str, Any]]):
    """The fixture. One instance serves any number of connections of either era."""

    def __init__(self) -> None:
        self.world = World()
        super().__init__(
            NAME,
            version="1.0.0",
            instructions="Exercises every feature of the protocol.",
            cache_hints={
                "tools/list": LISTED,
                "prompts/list": LISTED,
                "resources/list": LISTED,
                "resources/templates/list": LISTED,
                "resources/read": READ,
                "server/discover": LISTED,
            },
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=ListenHandler(self.world.bus),
            on_completion=self._complete,
        )
        # Not a constructor argument: there it warns that 2026-07-28 deprecates what older clients still need.
        self.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        self.add_notification_handler("notifications/initialized", types.NotificationParams, self._initialized)
        self.middleware.append(RequestStateBoundary(RequestStateSecurity(keys=[STATE_KEY]), default_audience=NAME))

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK's, with every `listChanged` declared: the triggers send those notifications."""
        options = notification_options or NotificationOptions(
            prompts_changed=True, resources_changed=True, tools_changed=True
        )
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    def _tools(self) -> dict[str, ToolSpec]:
        return TOOLS | dict([DYNAMIC_TOOL]) if self.world.has_dynamic_tool else TOOLS

    async def _list_tools(self, ctx: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        self._remember(ctx)
        return types.ListToolsResult(tools=[spec.listed(name) for name, spec in self._tools().items()])

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> ToolReply:
        self._remember(ctx)
        spec = self._tools().get(params.name)
        if spec is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        missing = [name for name in spec.schema.get("required", ()) if name not in (params.arguments or {})]
        if missing:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}")
        try:
            return await spec.handler(Exchange(ctx, params, self.world))
        except ToolError as failure:
            return types.CallToolResult(content=[content_tools.text(str(failure))], is_error=True)

    async def _list_prompts(self, ctx: Context, _: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        self._remember(ctx)
        return types.ListPromptsResult(prompts=library.prompts(with_dynamic=self.world.has_dynamic_prompt))

    async def _get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> library.PromptReply:
        self._remember(ctx)
        try:
            return await library.render(Exchange(ctx, params, self.world))
        except ToolError as failure:
            raise MCPError(code=types.INVALID_REQUEST, message=str(failure)) from failure

    async def _list_resources(self, ctx: Context, _: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        self._remember(ctx)
        return types.ListResourcesResult(resources=library.RESOURCES)

    async def _list_templates(
        self, ctx: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        self._remember(ctx)
        return types.ListResourceTemplatesResult(resource_templates=library.TEMPLATES)

    async def _read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        self._remember(ctx)
        return library.read(str(params.uri), is_modern=ctx.protocol_version in MODERN_PROTOCOL_VERSIONS)

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        self.world.session_of(ctx).watched_uris.add(str(params.uri))
        return types.EmptyResult()

    async def _unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self.world.session_of(ctx).watched_uris.discard(str(params.uri))
        return types.EmptyResult()

    async def _set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self.world.session_of(ctx).log_level = params.level
        return types.EmptyResult()

    async def _complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        self._remember(ctx)
        return library.complete(params)

    async def _initialized(self, ctx: Context, _: types.NotificationParams) -> None:
        self._remember(ctx)

    def _remember(self, ctx: Context) -> None:
        """A handshake session that has begun hears of later changes."""
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            self.world.session_of(ctx)
