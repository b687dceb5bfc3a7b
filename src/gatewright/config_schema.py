"""The JSON Schema of the configuration file, for editors.

Contract: pure; derived from the settings classes, so it cannot lag behind them. It describes what a *file* may hold:
`${...}` where a number or a switch stands, `HOST:PORT` for an address, and `mcpServers` or `servers` in the words of
MCP clients instead of `backends`. The loader knows more than a schema can say and has the last word.
"""

from copy import deepcopy
from typing import Any

from pydantic import TypeAdapter

from gatewright.backend.settings import BackendSettings
from gatewright.config import Config
from gatewright.config_clients import CLIENT_KEYS

_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def schema() -> dict[str, Any]:
    """A schema in the 2020-12 dialect. A new object each time."""
    whole = TypeAdapter(Config).json_schema(mode="validation")
    client = TypeAdapter(BackendSettings).json_schema(mode="validation")
    client["properties"] |= {key: {"description": "as in the client it comes from"} for key in sorted(CLIENT_KEYS)}
    client["properties"].pop("type", None)  # every client has spellings of its own
    client["properties"]["type"] = {"type": "string"}
    whole["$defs"]["ClientServer"] = client
    properties = whole["properties"]
    properties["$schema"] = {"type": "string"}
    for section in ("mcpServers", "servers"):
        properties[section] = {
            "description": "The backends, in the words of MCP clients. One of backends, mcpServers and servers.",
            "type": "object",
            "additionalProperties": {"$ref": "#/$defs/ClientServer"},
        }
    names = {"pattern": "^[A-Za-z0-9_-]{1,64}$"}
    for section in ("backends", "mcpServers", "servers"):
        properties[section]["propertyNames"] = names
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Gatewright configuration"}
    return {**_with_variables(whole), **head}


def _with_variables(node: Any) -> Any:
    """Let `${...}` stand for every number, switch and choice; texts take it anyway."""
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in ("integer", "number", "boolean") or ("enum" in node or "const" in node):
        kept = {key: node[key] for key in ("description", "default", "title") if key in node}
        rule = {key: value for key, value in node.items() if key not in kept}
        return {**kept, "anyOf": [rule, deepcopy(_VARIABLE)]}
    return {key: _with_variables(value) for key, value in node.items()}
