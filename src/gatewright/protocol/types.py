"""The wire types that a gateway reads or speaks itself, in every revision; what it only carries has no type here.

A type lists the members of all revisions. Where one is not as old as the protocol, `since` and `until` name the first
and the last revision that define it, and `FIRST` and `LAST` those of a whole type: data that tests compare with the
official SDK. An absent member is UNSET; null stands for absent as well, because peers send it, and is falsy like it.

Decoding forgets members that are not listed. So whatever is passed on stays `Raw` inside a type, or is read with
`keep`, which holds the bytes beside the reading: unknown members of tools, capabilities and `_meta` survive.

Never does: methods (`protocol.methods`), validation beyond shape, content blocks, JSON Schemas.

Source: schema/<revision>/schema.ts; the clause of each type is named at it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar, Union, final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gatewright.errors import ProtocolError

T = TypeVar("T")
Maybe: TypeAlias = Union[T, UnsetType, None]  # noqa: UP007 - `|` makes no generic alias at run time
"""A member that may be absent."""
MaybeRaw: TypeAlias = Raw | UnsetType
"""A member that may be absent and is carried as it is, null too (msgspec never fills a `Raw` beside a None)."""
Id: TypeAlias = int | str
"""A request id or progress token (basic/index)."""
Members: TypeAlias = dict[str, Raw]
"""An object whose members are carried as they are."""
LoggingLevel: TypeAlias = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""RFC 5424 severities (server/utilities/logging)."""
CacheScope: TypeAlias = Literal["public", "private"]

_JUNE_2025: Final = "2025-06-18"
_NOVEMBER_2025: Final = "2025-11-25"
_MODERN: Final = "2026-07-28"


def since(first: str, until: str = _MODERN) -> Meta:
    """The revisions that define a member: from `first` to `until`, both included."""
    return Meta(extra={"since": first, "until": until})


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An object on the wire."""

    FIRST: ClassVar[str] = "2024-11-05"
    LAST: ClassVar[str] = _MODERN


@final
class Kept(msgspec.Struct, Generic[T], frozen=True):
    """A value as it was read, and the bytes it was read from, to pass on."""

    value: T
    raw: Raw


def keep(raw: Raw, kind: type[T]) -> Kept[T]:
    """Read `raw` as `kind` and hold on to it. Raises ProtocolError when it is not one."""
    try:
        return Kept(msgspec.json.decode(raw, type=kind), raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a {kind.__name__}: {error}") from error


# --- Who speaks, and what it can do: basic/lifecycle "Initialization"; 2026-07-28 server/discover, basic/index. ---


@final
class Implementation(Wire, frozen=True, kw_only=True):
    """A program's name for itself. Never a reason for anything (S-34)."""

    name: str
    version: str
    title: Annotated[Maybe[str], since(_JUNE_2025)] = UNSET
    description: Annotated[Maybe[str], since(_NOVEMBER_2025)] = UNSET
    icons: Annotated[Maybe[list[Raw]], since(_NOVEMBER_2025)] = UNSET
    website_url: Annotated[Maybe[str], since(_NOVEMBER_2025)] = UNSET


@final
class RootsCapability(Wire, frozen=True, kw_only=True):
    """client/roots. Change notices ended with the handshake."""

    list_changed: Annotated[Maybe[bool], since("2024-11-05", _NOVEMBER_2025)] = UNSET


@final
class SamplingCapability(Wire, frozen=True, kw_only=True):
    """client/sampling: which optional parts of a question it takes."""

    context: Annotated[Maybe[Members], since(_NOVEMBER_2025)] = UNSET
    tools: Annotated[Maybe[Members], since(_NOVEMBER_2025)] = UNSET


@final
class ElicitationCapability(Wire, frozen=True, kw_only=True):
    """client/elicitation: the modes. An empty object means form alone."""

    FIRST: ClassVar[str] = _JUNE_2025
    form: Annotated[Maybe[Members], since(_NOVEMBER_2025)] = UNSET
    url: Annotated[Maybe[Members], since(_NOVEMBER_2025)] = UNSET


@final
class ClientCapabilities(Wire, frozen=True, kw_only=True):
    """What a client can be asked."""

    experimental: Maybe[Members] = UNSET
    roots: Maybe[RootsCapability] = UNSET
    sampling: Maybe[SamplingCapability] = UNSET
    elicitation: Annotated[Maybe[ElicitationCapability], since(_JUNE_2025)] = UNSET
    tasks: Annotated[Maybe[Members], since(_NOVEMBER_2025, _NOVEMBER_2025)] = UNSET
    extensions: Annotated[Maybe[Members], since(_MODERN)] = UNSET


@final
class ListCapability(Wire, frozen=True, kw_only=True):
    """server/tools, server/prompts: a list that may announce changes."""

    list_changed: Maybe[bool] = UNSET


@final
class ResourcesCapability(Wire, frozen=True, kw_only=True):
    """server/resources."""

    list_changed: Maybe[bool] = UNSET
    subscribe: Maybe[bool] = UNSET


@final
class ServerCapabilities(Wire, frozen=True, kw_only=True):
    """What a server offers."""

    experimental: Maybe[Members] = UNSET
    logging: Maybe[Members] = UNSET
    completions: Annotated[Maybe[Members], since("2025-03-26")] = UNSET
    prompts: Maybe[ListCapability] = UNSET
    resources: Maybe[ResourcesCapability] = UNSET
    tools: Maybe[ListCapability] = UNSET
    tasks: Annotated[Maybe[Members], since(_NOVEMBER_2025, _NOVEMBER_2025)] = UNSET
    extensions: Annotated[Maybe[Members], since(_MODERN)] = UNSET


# --- Parameters. ---


class Params(Wire, frozen=True, kw_only=True):
    """Any parameters (basic/index). `_meta` is required of modern requests; the ladder sees to that."""

    meta: Maybe[Members] = msgspec.field(default=UNSET, name="_meta")


@final
class InitializeParams(Params, frozen=True, kw_only=True):
    """basic/lifecycle. Capabilities and identity are carried to backends, so they stay as they came."""

    LAST: ClassVar[str] = _NOVEMBER_2025
    protocol_version: str
    capabilities: Raw
    client_info: Raw


@final
class ListParams(Params, frozen=True, kw_only=True):
    """server/utilities/pagination; any list request."""

    cursor: Maybe[str] = UNSET


class RetriedParams(Params, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/mrtr: a request that an InputRequiredResult may answer."""

    input_responses: Annotated[Maybe[Members], since(_MODERN)] = UNSET
    request_state: Annotated[Maybe[str], since(_MODERN)] = UNSET


@final
class CallToolParams(RetriedParams, frozen=True, kw_only=True):
    """server/tools."""

    name: str
    arguments: MaybeRaw = UNSET
    task: Annotated[MaybeRaw, since(_NOVEMBER_2025, _NOVEMBER_2025)] = UNSET


@final
class GetPromptParams(RetriedParams, frozen=True, kw_only=True):
    """server/prompts."""

    name: str
    arguments: Maybe[dict[str, str]] = UNSET


@final
class ReadResourceParams(RetriedParams, frozen=True, kw_only=True):
    """server/resources."""

    uri: str


@final
class SubscribeParams(Params, frozen=True, kw_only=True):
    """server/resources: subscribing and unsubscribing."""

    LAST: ClassVar[str] = _NOVEMBER_2025
    uri: str


@final
class SetLevelParams(Params, frozen=True, kw_only=True):
    """server/utilities/logging; modern clients say it in `_meta`."""

    LAST: ClassVar[str] = _NOVEMBER_2025
    level: LoggingLevel


@final
class SubscriptionFilter(Wire, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/subscriptions: the change notices that a stream carries."""

    FIRST: ClassVar[str] = _MODERN
    tools_list_changed: Maybe[bool] = UNSET
    prompts_list_changed: Maybe[bool] = UNSET
    resources_list_changed: Maybe[bool] = UNSET
    resource_subscriptions: Maybe[list[str]] = UNSET


@final
class ListenParams(Params, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/subscriptions: what a client asks to hear."""

    FIRST: ClassVar[str] = _MODERN
    notifications: SubscriptionFilter


@final
class AcknowledgedParams(Params, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/subscriptions: what it will hear; the first message of a stream."""

    FIRST: ClassVar[str] = _MODERN
    notifications: SubscriptionFilter


@final
class ProgressParams(Params, frozen=True, kw_only=True):
    """basic/patterns/progress (basic/utilities/progress before)."""

    progress_token: Id
    progress: int | float
    total: Maybe[int | float] = UNSET
    message: Annotated[Maybe[str], since("2025-03-26")] = UNSET


@final
class CancelledParams(Params, frozen=True, kw_only=True):
    """basic/patterns/cancellation. 2025-11-25 lets the id out for tasks."""

    request_id: Maybe[Id] = UNSET
    reason: Maybe[str] = UNSET


@final
class LogParams(Params, frozen=True, kw_only=True):
    """server/utilities/logging. `data` is required, but the official Python SDK leaves a null out."""

    level: LoggingLevel
    data: MaybeRaw = UNSET
    logger: Maybe[str] = UNSET


@final
class ResourceUpdatedParams(Params, frozen=True, kw_only=True):
    """server/resources."""

    uri: str


@final
class ElicitationCompleteParams(Wire, frozen=True, kw_only=True):
    """2025-11-25 client/elicitation: a URL elicitation ended out of band."""

    FIRST: ClassVar[str] = _NOVEMBER_2025
    LAST: ClassVar[str] = _NOVEMBER_2025
    elicitation_id: str


# --- What lists hold. Read with `keep`: a listing passes items on whole. ---


@final
class ToolAnnotations(Wire, frozen=True, kw_only=True):
    """server/tools. Claims of the server, never a permission (S-82)."""

    FIRST: ClassVar[str] = "2025-03-26"
    title: Maybe[str] = UNSET
    read_only_hint: Maybe[bool] = UNSET
    destructive_hint: Maybe[bool] = UNSET
    idempotent_hint: Maybe[bool] = UNSET
    open_world_hint: Maybe[bool] = UNSET


class Item(Wire, frozen=True, kw_only=True):
    """What tools, prompts, resources and templates have in common."""

    name: str
    description: Maybe[str] = UNSET
    title: Annotated[Maybe[str], since(_JUNE_2025)] = UNSET
    icons: Annotated[Maybe[list[Raw]], since(_NOVEMBER_2025)] = UNSET
    meta: Annotated[Maybe[Members], since(_JUNE_2025)] = msgspec.field(default=UNSET, name="_meta")


@final
class Tool(Item, frozen=True, kw_only=True):
    """server/tools."""

    input_schema: Raw
    output_schema: Annotated[MaybeRaw, since(_JUNE_2025)] = UNSET
    annotations: Annotated[Maybe[ToolAnnotations], since("2025-03-26")] = UNSET
    execution: Annotated[MaybeRaw, since(_NOVEMBER_2025, _NOVEMBER_2025)] = UNSET


@final
class Prompt(Item, frozen=True, kw_only=True):
    """server/prompts."""

    arguments: Maybe[list[Raw]] = UNSET


@final
class Resource(Item, frozen=True, kw_only=True):
    """server/resources. `size` is in bytes."""

    uri: str
    mime_type: Maybe[str] = UNSET
    size: Maybe[int] = UNSET
    annotations: MaybeRaw = UNSET


@final
class ResourceTemplate(Item, frozen=True, kw_only=True):
    """server/resources, "Resource Templates" (RFC 6570)."""

    uri_template: str
    mime_type: Maybe[str] = UNSET
    annotations: MaybeRaw = UNSET


# --- Results. ---


class AnyResult(Wire, frozen=True, kw_only=True):
    """basic/index. An absent `resultType` means "complete" (S-36)."""

    meta: Maybe[Members] = msgspec.field(default=UNSET, name="_meta")
    result_type: Annotated[Maybe[str], since(_MODERN)] = UNSET


class CacheableResult(AnyResult, frozen=True, kw_only=True):
    """2026-07-28 server/utilities/caching; `ttl_ms` counts from when the result was received."""

    ttl_ms: Annotated[Maybe[int], since(_MODERN)] = UNSET
    cache_scope: Annotated[Maybe[CacheScope], since(_MODERN)] = UNSET


class ListResult(CacheableResult, frozen=True, kw_only=True):
    """server/utilities/pagination. A cursor is opaque, and `""` is one (S-83)."""

    next_cursor: Maybe[str] = UNSET


@final
class ListToolsResult(ListResult, frozen=True, kw_only=True):
    """server/tools; each item a `Tool`."""

    tools: list[Raw]


@final
class ListPromptsResult(ListResult, frozen=True, kw_only=True):
    """server/prompts; each item a `Prompt`."""

    prompts: list[Raw]


@final
class ListResourcesResult(ListResult, frozen=True, kw_only=True):
    """server/resources; each item a `Resource`."""

    resources: list[Raw]


@final
class ListResourceTemplatesResult(ListResult, frozen=True, kw_only=True):
    """server/resources; each item a `ResourceTemplate`."""

    resource_templates: list[Raw]


@final
class InitializeResult(AnyResult, frozen=True, kw_only=True):
    """basic/lifecycle."""

    LAST: ClassVar[str] = _NOVEMBER_2025
    protocol_version: str
    capabilities: Raw
    server_info: Raw
    instructions: Maybe[str] = UNSET


@final
class DiscoverResult(CacheableResult, frozen=True, kw_only=True):
    """2026-07-28 server/discover."""

    FIRST: ClassVar[str] = _MODERN
    supported_versions: list[str]
    capabilities: Raw
    instructions: Maybe[str] = UNSET


@final
class InputRequest(Wire, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/mrtr: one question (elicitation, sampling or roots)."""

    FIRST: ClassVar[str] = _MODERN
    method: str
    params: MaybeRaw = UNSET


@final
class InputRequiredResult(AnyResult, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/mrtr: the questions by the server's keys, and its opaque state."""

    FIRST: ClassVar[str] = _MODERN
    input_requests: Maybe[dict[str, InputRequest]] = UNSET
    request_state: Maybe[str] = UNSET


@final
class ListenResult(AnyResult, frozen=True, kw_only=True):
    """2026-07-28 basic/patterns/subscriptions: the stream is over."""

    FIRST: ClassVar[str] = _MODERN


# --- Error codes: basic/index "Error Codes" of 2026-07-28, and the two that it retired. ---

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
RESOURCE_NOT_FOUND: Final = -32002
"""Handshake revisions only, and a SHOULD there; a modern server answers INVALID_PARAMS."""
URL_ELICITATION_REQUIRED: Final = -32042
"""2025-11-25 only."""


@final
class UnsupportedVersionData(Wire, frozen=True, kw_only=True):
    """2026-07-28 basic/versioning: the `data` of UNSUPPORTED_VERSION."""

    FIRST: ClassVar[str] = _MODERN
    supported: list[str]
    requested: str


@final
class MissingCapabilityData(Wire, frozen=True, kw_only=True):
    """2026-07-28 basic/index: the `data` of MISSING_CAPABILITY."""

    FIRST: ClassVar[str] = _MODERN
    required_capabilities: Raw


@final
class UrlElicitationRequiredData(Wire, frozen=True, kw_only=True):
    """2025-11-25 client/elicitation: the `data` of URL_ELICITATION_REQUIRED, each an `elicitation/create` params."""

    FIRST: ClassVar[str] = _NOVEMBER_2025
    LAST: ClassVar[str] = _NOVEMBER_2025
    elicitations: list[Raw]
