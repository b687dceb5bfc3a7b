"""Subscription filters and tags: `subscriptions/listen` and what comes on its stream.

A filter names change notices by flags, resources by URI and tasks by id; here it is three sets, of notification
methods, URIs and ids. Source: basic/patterns/subscriptions of 2026-07-28; for tasks SEP-2663.
"""

from __future__ import annotations

from typing import Final, final

import msgspec
from msgspec import UNSET

from gatewright.call import Json, Params
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS
from gatewright.protocol.modern import SUBSCRIPTION_KEY
from gatewright.protocol.types import SubscriptionFilter

MAX_URIS: Final = 1000
"""Resources, or tasks, in one filter: each may cost a subscription upstream."""
MAX_URI_CHARS: Final = 8_192
"""Of a resource that is subscribed to: it is kept as long as the subscription, here, upstream and in the store."""


@final
class _TaskFilter(msgspec.Struct, gc=False):
    """What the tasks extension adds to a filter."""

    taskIds: list[str] | None = None


_decode: Final = msgspec.json.Decoder(SubscriptionFilter).decode
_decode_tasks: Final = msgspec.json.Decoder(_TaskFilter).decode
_FLAGS: Final = {
    "toolsListChanged": "tools_list_changed",
    "promptsListChanged": "prompts_list_changed",
    "resourcesListChanged": "resources_list_changed",
}


def read_filter(value: Json) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The notification methods, URIs and tasks that a filter names. Raises InvalidParams."""
    try:
        read = _decode(value)
        tasks = frozenset(_decode_tasks(value).taskIds or ())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParams(f"params.notifications is not a subscription filter: {error}") from error
    lists = frozenset(method for method, field in LISTEN_FIELDS.items() if getattr(read, _FLAGS[field]) is True)
    uris = read.resource_subscriptions
    if uris is UNSET or uris is None:
        uris = []
    if len(uris) > MAX_URIS or len(tasks) > MAX_URIS:
        raise InvalidParams(f"at most {MAX_URIS} resources and as many tasks in one subscription")
    if any(len(uri) > MAX_URI_CHARS for uri in uris):
        raise InvalidParams(f"at most {MAX_URI_CHARS} characters in a URI that is subscribed to")
    return lists, frozenset(uris), tasks


def filter_of(lists: frozenset[str], uris: frozenset[str], tasks: frozenset[str] = frozenset()) -> dict[str, object]:
    """The filter that names these."""
    named: dict[str, object] = {field: True for method, field in LISTEN_FIELDS.items() if method in lists}
    if uris:
        named["resourceSubscriptions"] = sorted(uris)
    if tasks:
        named["taskIds"] = sorted(tasks)
    return named


def untagged(params: Params) -> Params:
    """Notification parameters without the subscription id of the hop they came over."""
    if "_meta" not in params:
        return params
    meta = jsonrpc.members(params["_meta"])
    meta.pop(SUBSCRIPTION_KEY, None)
    kept = {key: value for key, value in params.items() if key != "_meta"}
    if meta:
        kept["_meta"] = jsonrpc.raw(meta)
    return kept


def tagged(value: Json, request_id: jsonrpc.Id) -> bytes:
    """An object whose `_meta` names the subscription by the id of the request that opened it."""
    members = jsonrpc.members(value)
    meta = jsonrpc.members(members["_meta"]) if "_meta" in members else {}
    meta[SUBSCRIPTION_KEY] = jsonrpc.raw(request_id)
    return jsonrpc.encode({**members, "_meta": meta})
