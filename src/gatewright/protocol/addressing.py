"""What a request addresses: the name in its parameters, read and rewritten.

A tool or prompt is named in `name`, a resource in `uri`, a task in `taskId`, and a completion by its `ref` (a prompt's
name or a resource template's URI). A member that differs from a known one in case alone, and a `ref` that names a
member twice, are refused: the backend's parser might read the other one. Source: server/{tools,prompts,resources},
server/utilities/completion of every revision; SEP-2663; CVE-2026-27896.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

from gatewright.call import Params
from gatewright.errors import InvalidParams, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.depth import reject_duplicates
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
MEMBERS: Final = frozenset(
    {
        "_meta",
        "argument",
        "arguments",
        "context",
        "inputResponses",
        "name",
        "ref",
        "requestState",
        "task",
        "taskId",
        "uri",
    }
)
"""The members of addressed requests' parameters, in every revision."""
_FOLDED: Final = frozenset(name.casefold() for name in MEMBERS)


def name_of(method: Method, params: Params) -> str | None:
    """The name a request addresses, None when its method has none. Raises InvalidParams when it is missing."""
    field = method.name_field
    if field is None:
        return None
    if not MEMBERS.issuperset(params):
        _refuse_lookalikes(params)
    value = params.get(field)
    if value is None:
        raise InvalidParams(f"{method.name} needs params.{field}")
    if field == "ref":
        return _ref_name(_ref(params))
    try:
        return _decode_text(value)
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams(f"params.{field} is not what {method.name} takes: {error}") from error


def space_of(method: Method, params: Params) -> Space:
    """Which names the request's name is among. Raises InvalidParams where `name_of` would."""
    if method.name_field == "ref":
        return "prompts" if _ref(params).type == "ref/prompt" else "resources"
    if method.name_field == "uri":
        return "resources"
    return "tools" if method.capability == "tools" else "prompts"


def renamed(method: Method, params: Params, name: str) -> Params:
    """`params` addressing `name` instead; the rest as it was. Raises InvalidParams where `name_of` would."""
    field = method.name_field
    if field is None:
        return params
    if field != "ref":
        return {**params, field: jsonrpc.raw(name)}
    space = space_of(method, params)
    ref = jsonrpc.members(params["ref"])
    ref["uri" if space == "resources" else "name"] = jsonrpc.raw(name)
    return {**params, "ref": jsonrpc.raw(ref)}


def _ref(params: Params) -> _Ref:
    value = params.get("ref")
    if value is None:
        raise InvalidParams("completion/complete needs params.ref")
    try:
        reject_duplicates(value)
        return _decode_ref(value)
    except (ProtocolError, *jsonrpc.UNREADABLE) as error:
        raise InvalidParams(f"params.ref is not what completion/complete takes: {error}") from error


def _refuse_lookalikes(params: Params) -> None:
    for member in params:
        if member not in MEMBERS and member.casefold() in _FOLDED:
            raise InvalidParams(f"params.{member[:40]} differs from a known member in case alone")


def _ref_name(ref: _Ref) -> str:
    name = ref.name if ref.type == "ref/prompt" else ref.uri
    if name is None:
        raise InvalidParams('params.ref must be {"type": "ref/prompt", "name"} or {"type": "ref/resource", "uri"}')
    return name
