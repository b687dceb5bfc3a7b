"""The fixture's prompts, resources, templates and completions."""

from __future__ import annotations

import json
import re

import mcp_types as types
from mcp.shared.exceptions import MCPError

from conformance.everything.asking_tools import input_prompt
from conformance.everything.content_tools import embedded, image, text
from conformance.everything.exchange import Exchange
from conformance.everything.media import PNG_BASE64
from conformance.everything.stream_tools import WATCHED_URI

RESOURCE_NOT_FOUND = -32002  # Handshake revisions only; 2026-07-28 moved it to -32602 (SEP-2164).

PromptReply = types.GetPromptResult | types.InputRequiredResult

_TEMPLATE = re.compile(r"test://template/([^/]+)/data")
_COMPLETIONS = {"arg1": ["alpha", "beta", "gamma"], "arg2": ["one", "two"], "id": ["123", "124", "200"]}

RESOURCES = [
    types.Resource(
        uri="test://static-text", name="static-text", description="A static text resource", mime_type="text/plain"
    ),
    types.Resource(
        uri="test://static-binary", name="static-binary", description="A static image", mime_type="image/png"
    ),
    types.Resource(
        uri=WATCHED_URI, name="watched-resource", description="A resource to subscribe to", mime_type="text/plain"
    ),
]
TEMPLATES = [
    types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="A resource made from its id",
        mime_type="application/json",
    )
]


def prompts(*, with_dynamic: bool) -> list[types.Prompt]:
    """What `prompts/list` answers."""
    listed = [
        types.Prompt(name="test_simple_prompt", description="A prompt without arguments", arguments=[]),
        types.Prompt(
            name="test_prompt_with_arguments",
            description="A prompt with two arguments",
            arguments=[
                types.PromptArgument(name="arg1", description="First test argument", required=True),
                types.PromptArgument(name="arg2", description="Second test argument", required=True),
            ],
        ),
        types.Prompt(
            name="test_prompt_with_embedded_resource",
            description="A prompt that embeds a resource",
            arguments=[types.PromptArgument(name="resourceUri", description="What to embed", required=True)],
        ),
        types.Prompt(name="test_prompt_with_image", description="A prompt with an image", arguments=[]),
        types.Prompt(name="test_input_required_result_prompt", description="A prompt that asks first", arguments=[]),
    ]
    if with_dynamic:
        listed.append(types.Prompt(name="test_dynamic_prompt", description="Comes and goes", arguments=[]))
    return listed


async def render(exchange: Exchange) -> PromptReply:
    """What `prompts/get` answers. Raises `MCPError` -32602 for an unknown name or a missing argument."""
    name, arguments = exchange.params.name, exchange.arguments
    blocks: list[types.ContentBlock]
    match name:
        case "test_simple_prompt":
            blocks = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            _need(arguments, "arg1", "arg2")
            blocks = [text(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'")]
        case "test_prompt_with_embedded_resource":
            _need(arguments, "resourceUri")
            body = "Embedded resource content for testing."
            resource = embedded(arguments["resourceUri"], "text/plain", body)
            blocks = [resource, text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            blocks = [image(), text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            return await input_prompt(exchange)
        case "test_dynamic_prompt" if exchange.world.has_dynamic_prompt:
            blocks = [text("dynamic")]
        case _:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {name}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block) for block in blocks])


def _need(arguments: dict[str, str], *names: str) -> None:
    missing = [name for name in names if name not in arguments]
    if missing:
        raise MCPError(code=types.INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}")


def read(uri: str, *, is_modern: bool) -> types.ReadResourceResult:
    """What `resources/read` answers. Raises `MCPError` with the era's code for an unknown URI."""
    contents: types.TextResourceContents | types.BlobResourceContents
    if uri == "test://static-text":
        body = "This is the content of the static text resource."
        contents = types.TextResourceContents(uri=uri, mime_type="text/plain", text=body)
    elif uri == "test://static-binary":
        contents = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG_BASE64)
    elif uri == WATCHED_URI:
        contents = types.TextResourceContents(uri=uri, mime_type="text/plain", text="Watched resource content")
    elif matched := _TEMPLATE.fullmatch(uri):
        values = {"id": matched[1], "templateTest": True, "data": f"Data for ID: {matched[1]}"}
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(values))
    else:
        code = types.INVALID_PARAMS if is_modern else RESOURCE_NOT_FOUND
        raise MCPError(code=code, message="Resource not found", data={"uri": uri})
    return types.ReadResourceResult(contents=[contents])


def complete(params: types.CompleteRequestParams) -> types.CompleteResult:
    """What `completion/complete` answers: the known values that begin with what was typed."""
    known = _COMPLETIONS.get(params.argument.name, [])
    values = [value for value in known if value.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))
