"""Tools that answer at once: each kind of content block, errors, and schemas that must survive untouched."""

from __future__ import annotations

from typing import Any

import mcp_types as types

from conformance.everything.exchange import Exchange, ToolError
from conformance.everything.media import PNG_BASE64, WAV_BASE64

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}

REGION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "description": "Also sent as Mcp-Param-Region", "x-mcp-header": "Region"},
    },
}

# Word for word what the scenario json-schema-2020-12 looks for (SEP-1613, SEP-2106).
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def text(value: str) -> types.TextContent:
    """A text block."""
    return types.TextContent(type="text", text=value)


def image() -> types.ImageContent:
    """A PNG block."""
    return types.ImageContent(type="image", data=PNG_BASE64, mime_type="image/png")


def embedded(uri: str, mime_type: str, body: str) -> types.EmbeddedResource:
    """A text resource inside a content block."""
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=body)
    return types.EmbeddedResource(type="resource", resource=contents)


async def simple_text(_: Exchange) -> types.CallToolResult:
    """Answers with one text block."""
    return types.CallToolResult(content=[text("This is a simple text response for testing.")])


async def image_content(_: Exchange) -> types.CallToolResult:
    """Answers with one image block."""
    return types.CallToolResult(content=[image()])


async def audio_content(_: Exchange) -> types.CallToolResult:
    """Answers with one audio block."""
    return types.CallToolResult(content=[types.AudioContent(type="audio", data=WAV_BASE64, mime_type="audio/wav")])


async def embedded_resource(_: Exchange) -> types.CallToolResult:
    """Answers with one embedded resource."""
    body = "This is an embedded resource content."
    return types.CallToolResult(content=[embedded("test://embedded-resource", "text/plain", body)])


async def multiple_content_types(_: Exchange) -> types.CallToolResult:
    """Answers with text, an image and an embedded resource."""
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return types.CallToolResult(content=[text("Multiple content types test:"), image(), resource])


async def error_handling(_: Exchange) -> types.CallToolResult:
    """Always fails, as a tool result."""
    raise ToolError("This tool intentionally returns an error for testing")


async def x_mcp_header(exchange: Exchange) -> types.CallToolResult:
    """Answers with the argument that a client also mirrors into a header (SEP-2243)."""
    return types.CallToolResult(content=[text(f"region={exchange.arguments.get('region', '<none>')}")])


async def json_schema_2020_12(exchange: Exchange) -> types.CallToolResult:
    """Answers with its argument names; what matters is its input schema."""
    return types.CallToolResult(content=[text(",".join(sorted(exchange.arguments)))])
