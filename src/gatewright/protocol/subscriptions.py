"""Subscription filters and tags: `subscriptions/listen` and what comes on its stream.

A filter names change notices by flags and resources by URI; here it is two sets, of notification methods and of URIs.
Source: basic/patterns/subscriptions of 2026-07-28.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET

from gatewright.call import Json, Params
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS
from gatewright.protocol.modern import SUBSCRIPTION_KEY
from gatewright.protocol.types import SubscriptionFilter

MAX_URIS: Final = 1000
"""Resources in one filter: each may cost a subscription upstream."""
_decode: Final = msgspec.json.Decoder(SubscriptionFilter).decode
_FLAGS: Final = {
    "toolsListChanged": "tools_list_changed",
    "promptsListChanged": "prompts_list_changed",
    "resourcesListChanged": "resources_list_changed",
}


def read_filter(value: Json) -> tuple[frozenset[str], frozenset[str]]:
    """The notification methods and URIs that a filter names. Raises InvalidParams."""
    try:
        read = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParams(f"params.notifications is not a subscription filter: {error}") from error
    lists = frozenset(method for method, field in LISTEN_FIELDS.items() if getattr(read, _FLAGS[field]) is True)
    uris = read.resource_subscriptions
    if uris is UNSET or uris is None:
        return lists, frozenset()
    if len(uris) > MAX_URIS:
        raise InvalidParams(f"at most {MAX_URIS} resources in one subscription")
    return lists, frozenset(uris)


def filter_of(lists: frozenset[str], uris: frozenset[str]) -> dict[str, object]:
    """The filter that names these."""
    named: dict[str, object] = {field: True for method, field in LISTEN_FIELDS.items() if method in lists}
    if uris:
        named["resourceSubscriptions"] = sorted(uris)
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
