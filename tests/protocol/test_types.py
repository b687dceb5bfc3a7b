"""The wire types agree with the official SDK's, in every revision the SDK knows; and unknown members survive `keep`."""

from __future__ import annotations

import json
import types as python_types
import typing
from collections.abc import Mapping
from typing import Any

import mcp_types
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp_types import jsonrpc as sdk_jsonrpc
from mcp_types import methods as sdk
from mcp_types import version as sdk_version
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from gatewright.errors import ProtocolError
from gatewright.protocol import methods, modern, revisions, types

REVISIONS = sdk_version.KNOWN_PROTOCOL_VERSIONS
CAPABILITIES = ("params", "_meta", modern.CAPABILITIES_KEY)

# Where in the SDK's maps each type stands: the map, the method, and the members that lead to it.
PLACES: list[tuple[type[types.Wire], Mapping[tuple[str, str], Any], str, tuple[str, ...]]] = [
    (types.Implementation, sdk.CLIENT_REQUESTS, "initialize", ("params", "clientInfo")),
    (types.Implementation, sdk.SERVER_RESULTS, "initialize", ("serverInfo",)),
    (types.Implementation, sdk.CLIENT_REQUESTS, "subscriptions/listen", ("params", "_meta", modern.INFO_KEY)),
    (types.Implementation, sdk.SERVER_RESULTS, "server/discover", ("_meta", modern.SERVER_INFO_KEY)),
    (types.ClientCapabilities, sdk.CLIENT_REQUESTS, "initialize", ("params", "capabilities")),
    (types.ClientCapabilities, sdk.CLIENT_REQUESTS, "subscriptions/listen", CAPABILITIES),
    (types.RootsCapability, sdk.CLIENT_REQUESTS, "initialize", ("params", "capabilities", "roots")),
    (types.SamplingCapability, sdk.CLIENT_REQUESTS, "initialize", ("params", "capabilities", "sampling")),
    (types.SamplingCapability, sdk.CLIENT_REQUESTS, "subscriptions/listen", (*CAPABILITIES, "sampling")),
    (types.ElicitationCapability, sdk.CLIENT_REQUESTS, "initialize", ("params", "capabilities", "elicitation")),
    (types.ElicitationCapability, sdk.CLIENT_REQUESTS, "subscriptions/listen", (*CAPABILITIES, "elicitation")),
    (types.ServerCapabilities, sdk.SERVER_RESULTS, "initialize", ("capabilities",)),
    (types.ServerCapabilities, sdk.SERVER_RESULTS, "server/discover", ("capabilities",)),
    (types.ListCapability, sdk.SERVER_RESULTS, "initialize", ("capabilities", "tools")),
    (types.ListCapability, sdk.SERVER_RESULTS, "server/discover", ("capabilities", "prompts")),
    (types.ResourcesCapability, sdk.SERVER_RESULTS, "initialize", ("capabilities", "resources")),
    (types.ResourcesCapability, sdk.SERVER_RESULTS, "server/discover", ("capabilities", "resources")),
    (types.InitializeParams, sdk.CLIENT_REQUESTS, "initialize", ("params",)),
    (types.ListParams, sdk.CLIENT_REQUESTS, "tools/list", ("params",)),
    (types.ListParams, sdk.CLIENT_REQUESTS, "prompts/list", ("params",)),
    (types.ListParams, sdk.CLIENT_REQUESTS, "resources/list", ("params",)),
    (types.ListParams, sdk.CLIENT_REQUESTS, "resources/templates/list", ("params",)),
    (types.CallToolParams, sdk.CLIENT_REQUESTS, "tools/call", ("params",)),
    (types.GetPromptParams, sdk.CLIENT_REQUESTS, "prompts/get", ("params",)),
    (types.ReadResourceParams, sdk.CLIENT_REQUESTS, "resources/read", ("params",)),
    (types.SubscribeParams, sdk.CLIENT_REQUESTS, "resources/subscribe", ("params",)),
    (types.SubscribeParams, sdk.CLIENT_REQUESTS, "resources/unsubscribe", ("params",)),
    (types.SetLevelParams, sdk.CLIENT_REQUESTS, "logging/setLevel", ("params",)),
    (types.SubscriptionFilter, sdk.CLIENT_REQUESTS, "subscriptions/listen", ("params", "notifications")),
    (types.ListenParams, sdk.CLIENT_REQUESTS, "subscriptions/listen", ("params",)),
    (types.AcknowledgedParams, sdk.SERVER_NOTIFICATIONS, methods.ACKNOWLEDGED, ("params",)),
    (types.ProgressParams, sdk.SERVER_NOTIFICATIONS, methods.PROGRESS, ("params",)),
    (types.CancelledParams, sdk.SERVER_NOTIFICATIONS, methods.CANCELLED, ("params",)),
    (types.CancelledParams, sdk.CLIENT_NOTIFICATIONS, methods.CANCELLED, ("params",)),
    (types.LogParams, sdk.SERVER_NOTIFICATIONS, methods.LOG_MESSAGE, ("params",)),
    (types.ResourceUpdatedParams, sdk.SERVER_NOTIFICATIONS, methods.RESOURCE_UPDATED, ("params",)),
    (types.ElicitationCompleteParams, sdk.SERVER_NOTIFICATIONS, "notifications/elicitation/complete", ("params",)),
    (types.Tool, sdk.SERVER_RESULTS, "tools/list", ("tools",)),
    (types.ToolAnnotations, sdk.SERVER_RESULTS, "tools/list", ("tools", "annotations")),
    (types.Prompt, sdk.SERVER_RESULTS, "prompts/list", ("prompts",)),
    (types.Resource, sdk.SERVER_RESULTS, "resources/list", ("resources",)),
    (types.ResourceTemplate, sdk.SERVER_RESULTS, "resources/templates/list", ("resourceTemplates",)),
    (types.AnyResult, sdk.SERVER_RESULTS, "ping", ()),
    (types.ListToolsResult, sdk.SERVER_RESULTS, "tools/list", ()),
    (types.ListPromptsResult, sdk.SERVER_RESULTS, "prompts/list", ()),
    (types.ListResourcesResult, sdk.SERVER_RESULTS, "resources/list", ()),
    (types.ListResourceTemplatesResult, sdk.SERVER_RESULTS, "resources/templates/list", ()),
    (types.InitializeResult, sdk.SERVER_RESULTS, "initialize", ()),
    (types.DiscoverResult, sdk.SERVER_RESULTS, "server/discover", ()),
    (types.InputRequiredResult, sdk.SERVER_RESULTS, "tools/call", ()),
    (types.InputRequest, sdk.SERVER_RESULTS, "tools/call", ("inputRequests",)),
    (types.ListenResult, sdk.SERVER_RESULTS, "subscriptions/listen", ()),
]
BASES = {types.Wire, types.Params, types.RetriedParams, types.Item, types.CacheableResult, types.ListResult}
ERROR_DATA = {types.UnsupportedVersionData, types.MissingCapabilityData, types.UrlElicitationRequiredData}


def models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in an annotation: through unions, lists, dicts, Annotated and aliases."""
    if isinstance(annotation, TypeAliasType):
        return models(annotation.__value__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models(part)]


def models_at(kind: type[types.Wire], root: Any, path: tuple[str, ...]) -> list[type[BaseModel]]:
    """What the SDK has at a place. Where results are a union, the question and its parts are the InputRequired one."""
    found = models(root)
    if len(found) > 1:
        is_wanted = kind in (types.InputRequiredResult, types.InputRequest)
        found = [model for model in found if (model.__name__ == "InputRequiredResult") == is_wanted]
    for member in path:
        fields = {field.alias or name: field for model in found for name, field in model.model_fields.items()}
        found = models(fields[member].annotation)
    return found


CASES = [
    pytest.param(kind, revision, model, id=f"{kind.__name__}-{revision}-{method}-{model.__name__}")
    for kind, table, method, path in PLACES
    for revision in REVISIONS
    if (method, revision) in table and kind.FIRST <= revision <= kind.LAST
    for model in models_at(kind, table[method, revision], path)
]


def members(kind: type[types.Wire], revision: str) -> set[str]:
    """The wire names that a revision defines, by `since`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = set()
    for field, wire in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        marks = [mark.extra for mark in getattr(hints[field], "__metadata__", ()) if isinstance(mark, msgspec.Meta)]
        if all(mark["since"] <= revision <= mark["until"] for mark in marks if mark):
            names.add(wire)
    return names


def test_every_type_has_its_counterpart_in_the_sdk() -> None:
    """No type of ours goes unchecked, and every revision meets some."""
    ours = {kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, types.Wire)}
    assert ours - BASES - ERROR_DATA == {case.values[0] for case in CASES}
    assert {case.values[1] for case in CASES} == set(REVISIONS)


@pytest.mark.parametrize(("kind", "revision", "model"), CASES)
def test_members_have_the_names_of_the_sdk(kind: type[types.Wire], revision: str, model: type[BaseModel]) -> None:
    """Exactly, where the SDK has the revision's own types; it reads every handshake revision as the last one."""
    theirs = {field.alias or name for name, field in model.model_fields.items()} - {"jsonrpc", "id"}
    surface = revisions.LATEST_HANDSHAKE.name if revision in revisions.HANDSHAKE else revision
    assert members(kind, surface) == theirs
    assert members(kind, revision) <= theirs | members(kind, surface)


@pytest.mark.parametrize(("kind", "table", "method", "path"), PLACES)
def test_a_message_exists_in_the_revisions_of_the_sdk(
    kind: type[types.Wire], table: Mapping[tuple[str, str], Any], method: str, path: tuple[str, ...]
) -> None:
    """`FIRST` and `LAST` of what is a whole message are where the SDK begins and ends to know it."""
    if path not in ((), ("params",)) or kind in (types.InputRequiredResult, types.AnyResult):
        return
    assert [r for r in REVISIONS if (method, r) in table] == [r for r in REVISIONS if kind.FIRST <= r <= kind.LAST]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(0, 2**53),
    float: st.floats(0, 1),
    bool: st.booleans(),
    type(None): st.none(),
    Any: JSON,
    object: JSON,
}


def instances(annotation: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """JSON values that an annotation of the SDK's models allows."""
    if annotation in SCALARS:
        return SCALARS[annotation]
    if isinstance(annotation, TypeAliasType):
        return JSON if "JSON" in annotation.__name__ else instances(annotation.__value__, depth)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return instances(args[0], depth)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(instances(args[0], depth), max_size=0 if depth > 3 else 2)
    if origin is dict:
        return st.dictionaries(TEXT, instances(args[1], depth), max_size=0 if depth > 3 else 2)
    if origin in (typing.Union, python_types.UnionType):
        return st.one_of([instances(part, depth) for part in args])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return objects(annotation, depth)
    return JSON


def objects(model: type[BaseModel], depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that a model of the SDK takes."""
    required, optional = {}, {}
    for name, field in model.model_fields.items():
        if field.is_required():
            required[field.alias or name] = instances(field.annotation, depth + 1)
        elif depth < 4:
            optional[field.alias or name] = instances(field.annotation, depth + 1)
    return st.fixed_dictionaries(required, optional=optional)


def named(value: Any, annotation: Any) -> Any:
    """A JSON value less the members that our types do not name: decoding forgets those, by contract."""
    if isinstance(annotation, type) and issubclass(annotation, types.Wire):
        hints = typing.get_type_hints(annotation)
        fields = dict(zip(annotation.__struct_encode_fields__, annotation.__struct_fields__, strict=True))
        return {name: named(part, hints[fields[name]]) for name, part in value.items() if name in fields}
    for part in typing.get_args(annotation):
        if typing.get_origin(annotation) is dict:
            value = {name: named(inner, part) for name, inner in value.items()}
        elif typing.get_origin(part) is dict or (isinstance(part, type) and issubclass(part, types.Wire)):
            value = named(value, part)
    return value


# The SDK reads every handshake revision with one set of models: each pair is tried once.
PAIRS = {(case.values[0], case.values[2]): case.id for case in CASES}


@pytest.mark.parametrize(("kind", "model"), PAIRS, ids=PAIRS.values())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_the_sdk_writes_we_read_and_write_alike(
    kind: type[types.Wire], model: type[BaseModel], data: st.DataObject
) -> None:
    """Any instance of the SDK's type, dumped as it sends it; and what we write, the SDK reads as the same."""
    instance = model.model_validate(data.draw(objects(model, 0)))
    dumped = instance.model_dump(mode="json", by_alias=True, exclude_none=True)
    written = msgspec.json.encode(msgspec.json.decode(json.dumps(dumped), type=kind))
    assert json.loads(written) == named(dumped, kind)
    if kind is types.LogParams and "data" not in dumped:
        return  # The SDK leaves out a null that it then cannot do without: it does not read its own dump.
    again = model.model_validate({**dumped, **json.loads(written)})
    assert again.model_dump(mode="json", by_alias=True, exclude_none=True) == {**dumped, **named(dumped, kind)}


@pytest.mark.parametrize("kind", sorted({case.values[0] for case in CASES}, key=lambda kind: kind.__name__))
def test_an_optional_member_may_be_null_or_absent(kind: type[types.Wire]) -> None:
    """Peers that dump every field send null for what they do not have."""
    samples: dict[str, Any] = {
        "progress": 1,
        "requestId": 1,
        "progressToken": 1,
        "level": "info",
        "supportedVersions": [],
    }
    samples |= {
        name: {} for name in ("notifications", "data", "capabilities", "clientInfo", "serverInfo", "inputSchema")
    }
    samples |= {name: [] for name in ("tools", "prompts", "resources", "resourceTemplates")}
    required = {
        field.encode_name: samples.get(field.encode_name, "x")
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    nulls = dict.fromkeys(kind.__struct_encode_fields__) | required
    assert json.loads(msgspec.json.encode(msgspec.json.decode(json.dumps(required), type=kind))) == required
    read = msgspec.json.decode(json.dumps(nulls), type=kind)
    optional = [getattr(read, field.name) for field in msgspec.structs.fields(kind) if not field.required]
    assert all(value in (None, msgspec.Raw(b"null")) for value in optional)


def test_what_is_kept_passes_on_whole() -> None:
    """The reading knows the revision's members, the bytes everything."""
    raw = msgspec.Raw(b'{"name":"a","inputSchema":{},"x-new":[1, 2],"_meta":{"ui/resourceUri":"ui://x"}}')
    kept = types.keep(raw, types.Tool)
    assert kept.value.name == "a"
    assert kept.raw is raw
    listed = types.keep(msgspec.Raw(b'{"tools":[' + bytes(raw) + b'],"nextCursor":""}'), types.ListToolsResult)
    assert bytes(listed.value.tools[0]) == bytes(raw)
    assert listed.value.next_cursor == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"name":1,"inputSchema":{}}',
        b'{"name":"a"}',
        b"{",
        b'{"name":"\xff"}',
        b"[" * 5000,
    ],
)
def test_what_is_not_the_type_raises_a_protocol_error(raw: bytes) -> None:
    """Whatever the bytes are."""
    with pytest.raises(ProtocolError):
        types.keep(msgspec.Raw(raw), types.Tool)


@given(raw=st.binary(max_size=40) | JSON.map(json.dumps).map(str.encode), index=st.integers(0, len(CASES) - 1))
def test_garbage_gives_only_protocol_errors(raw: bytes, index: int) -> None:
    """For every type."""
    kind = CASES[index].values[0]
    assert isinstance(kind, type)
    try:
        kept = types.keep(msgspec.Raw(raw), kind)
    except ProtocolError:
        return
    assert isinstance(kept.value, kind)


def test_error_codes_and_their_data_are_those_of_the_sdk() -> None:
    """By name, and the two data objects the SDK knows by their members."""
    assert types.PARSE_ERROR == sdk_jsonrpc.PARSE_ERROR
    assert types.INVALID_REQUEST == sdk_jsonrpc.INVALID_REQUEST
    assert types.METHOD_NOT_FOUND == sdk_jsonrpc.METHOD_NOT_FOUND
    assert types.INVALID_PARAMS == sdk_jsonrpc.INVALID_PARAMS
    assert types.INTERNAL_ERROR == sdk_jsonrpc.INTERNAL_ERROR
    assert types.HEADER_MISMATCH == sdk_jsonrpc.HEADER_MISMATCH
    assert types.MISSING_CAPABILITY == sdk_jsonrpc.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert types.UNSUPPORTED_VERSION == sdk_jsonrpc.UNSUPPORTED_PROTOCOL_VERSION
    assert types.URL_ELICITATION_REQUIRED == sdk_jsonrpc.URL_ELICITATION_REQUIRED
    for kind, model in (
        (types.UnsupportedVersionData, mcp_types.UnsupportedProtocolVersionErrorData),
        (types.MissingCapabilityData, mcp_types.MissingRequiredClientCapabilityErrorData),
        (types.UrlElicitationRequiredData, mcp_types.ElicitationRequiredErrorData),
    ):
        assert set(kind.__struct_encode_fields__) == {f.alias or n for n, f in model.model_fields.items()}


def test_levels_and_reserved_meta_members_are_those_of_the_sdk() -> None:
    """Names that both sides must spell alike."""
    assert set(typing.get_args(types.LoggingLevel)) == set(typing.get_args(mcp_types.LoggingLevel))
    assert typing.get_args(types.LoggingLevel) == modern.LOG_LEVELS
    assert modern.VERSION_KEY == mcp_types.PROTOCOL_VERSION_META_KEY
    assert modern.INFO_KEY == mcp_types.CLIENT_INFO_META_KEY
    assert modern.CAPABILITIES_KEY == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert modern.LOG_LEVEL_KEY == mcp_types.LOG_LEVEL_META_KEY
    assert modern.SERVER_INFO_KEY == mcp_types.SERVER_INFO_META_KEY


def test_the_revisions_are_those_of_the_sdk() -> None:
    """All of them, in the same eras."""
    assert set(revisions.ALL) == set(REVISIONS)
    assert set(revisions.HANDSHAKE) == set(sdk_version.HANDSHAKE_PROTOCOL_VERSIONS)
    assert set(revisions.MODERN) == set(sdk_version.MODERN_PROTOCOL_VERSIONS)
    assert revisions.LATEST_HANDSHAKE.name == sdk_version.LATEST_HANDSHAKE_VERSION


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_method_table_is_that_of_the_sdk(revision: str) -> None:
    """Requests, notifications and questions of every revision; what is cacheable and what may be asked. Of tasks it
    knows nothing."""
    era = revisions.ALL[revision].era
    assert {row.name for row in methods.METHODS.values() if era in row.eras and row.kind != "task"} == {
        method for method, r in sdk.CLIENT_REQUESTS if r == revision
    }
    asked = {method for method, r in sdk.SERVER_REQUESTS if r == revision} - {"ping"}
    assert asked <= set(methods.ASKS)
    assert ("elicitation/create" in asked) == (era == "handshake" and revisions.ALL[revision].has_elicitation)
    told = {method for method, r in sdk.SERVER_NOTIFICATIONS if r == revision}
    known = {*methods.LIST_CHANGED, methods.RESOURCE_UPDATED, methods.PROGRESS, methods.CANCELLED, methods.LOG_MESSAGE}
    assert told - known <= {methods.ACKNOWLEDGED, "notifications/elicitation/complete"}
    assert known <= told
    rows = methods.METHODS.values()
    assert {row.name for row in rows if row.is_cacheable} == sdk.CACHEABLE_METHODS
    assert {row.name for row in rows if row.may_ask} == sdk.INPUT_REQUIRED_METHODS
