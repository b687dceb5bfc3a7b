"""What a request addresses: the name in its parameters, read and rewritten.

A tool or prompt is named in `name`, a resource in `uri`, and a completion by its `ref` (a prompt's name or a
resource template's URI). Source: server/{tools,prompts,resources}, server/utilities/completion of every revision.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

from gatewright.call import Params
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import Method

Space = Literal["tools", "prompts", "resources"]
"""Which names a name is among: tools and prompts are prefixed on the shared route, resource URIs are not."""


@final
class _Ref(msgspec.Struct, gc=False):
    """A completion's reference (server/utilities/completion)."""

    type: str
    name: str | None = None
    uri: str | None = None


_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_ref: Final = msgspec.json.Decoder(_Ref).decode


def name_of(method: Method, params: Params) -> str | None:
    """The name a request addresses, None when its method has none. Raises InvalidParams when it is missing."""
    field = method.name_field
    if field is None:
        return None
    value = params.get(field)
    if value is None:
        raise InvalidParams(f"{method.name} needs params.{field}")
    try:
        if field == "ref":
            return _ref_name(_decode_ref(value))
        return _decode_text(value)
    except msgspec.DecodeError as error:
        raise InvalidParams(f"params.{field} is not what {method.name} takes: {error}") from error


def space_of(method: Method, params: Params) -> Space:
    """Which names the request's name is among."""
    if method.name_field == "ref":
        return "prompts" if _decode_ref(params["ref"]).type == "ref/prompt" else "resources"
    if method.name_field == "uri":
        return "resources"
    return "tools" if method.capability == "tools" else "prompts"


def renamed(method: Method, params: Params, name: str) -> Params:
    """`params` addressing `name` instead; the rest as it was."""
    field = method.name_field
    if field is None:
        return params
    if field != "ref":
        return {**params, field: jsonrpc.raw(name)}
    ref = jsonrpc.members(params["ref"])
    ref["uri" if space_of(method, params) == "resources" else "name"] = jsonrpc.raw(name)
    return {**params, "ref": jsonrpc.raw(ref)}


def _ref_name(ref: _Ref) -> str:
    name = ref.name if ref.type == "ref/prompt" else ref.uri
    if name is None:
        raise InvalidParams('params.ref must be {"type": "ref/prompt", "name"} or {"type": "ref/resource", "uri"}')
    return name
