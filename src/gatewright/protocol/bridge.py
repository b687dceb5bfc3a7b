"""Between eras: what a request becomes on its way to a backend, and a result on its way back.

Pure and total: every method of the table and every unknown one has an answer here. Within one era the functions
change only what is a hop's own (progress token, protocol members of `_meta`). Sources: basic/index "General fields",
server/utilities/caching and the changelog of 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gatewright.call import NO_META, Client, Failure, InputRequired, Json, Outcome, Params, Result
from gatewright.errors import ProtocolError
from gatewright.protocol import jsonrpc, tasks
from gatewright.protocol.chain import CHAIN_KEY
from gatewright.protocol.methods import ASKS, Method
from gatewright.protocol.modern import (
    BAGGAGE_KEY,
    CAPABILITIES_KEY,
    INFO_KEY,
    LOG_LEVEL_KEY,
    PROGRESS_KEY,
    RESERVED,
    VERSION_KEY,
)
from gatewright.protocol.revisions import MODERN_2026_07_28, Revision

if TYPE_CHECKING:
    from gatewright.call import Call

ASKS_CAPABILITIES: Final = frozenset(ASKS.values())


@final
class _Head(msgspec.Struct, frozen=True, gc=False):
    """The members of a result that the modern era adds."""

    resultType: str | UnsetType = UNSET
    ttlMs: Raw | UnsetType = UNSET
    cacheScope: Raw | UnsetType = UNSET


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_LONG_BYTES: Final = 2_048
"""A longer result is read from its end."""
_TAIL_BYTES: Final = 512
_COMPLETE: Final = b',"resultType":"complete"'
_SCOPES: Final = (b'"public"', b'"private"')
NOT_FOUND_BEFORE: Final = -32002
"""Resource not found, up to 2025-11-25."""
ELICITATION_BEFORE: Final = -32042
"""URL elicitation required, in 2025-11-25."""
_RESERVED_CODES: Final = range(-32099, -32019)
_DEFINED: Final = frozenset({-32020, -32021, -32022})
_MAX_KEPT_BYTES: Final = 4096
_VERSION: Final = jsonrpc.raw(MODERN_2026_07_28.name)
_NOT_HANDSHAKE: Final = RESERVED | {BAGGAGE_KEY, CHAIN_KEY}
"""What no request within a handshake session carries: the chain of gateways is the session's, said by `initialize`."""


def modern_params(params: Params, meta: Params, client: Client, token: int) -> dict[str, object]:
    """`params` as a modern backend takes them: who the client is and what it can be asked, our progress token.

    `meta` are the members of `params._meta`: none in a request of our own, which carries who the client is and nothing
    else of what it said, because others may be shown the answer too.
    """
    if meta and client.forwarded is not None:
        return {**params, "_meta": client.forwarded}
    carried = dict(meta)
    carried.pop(BAGGAGE_KEY, None)
    if client.revision.era == "handshake":
        for key in RESERVED:  # not that client's to say
            carried.pop(key, None)
        carried[VERSION_KEY] = _VERSION
        carried[INFO_KEY] = _as_raw(client.info)
        carried[CAPABILITIES_KEY] = across(bytes(client.capabilities))
        if client.log_level is not None:
            carried[LOG_LEVEL_KEY] = jsonrpc.raw(client.log_level)
    elif CAPABILITIES_KEY not in carried:  # a request of our own
        carried[VERSION_KEY] = _VERSION
        carried[INFO_KEY] = _as_raw(client.info)
        carried[CAPABILITIES_KEY] = _as_raw(client.capabilities)
    if client.chain:
        carried[CHAIN_KEY] = Raw(client.chain)
    if PROGRESS_KEY in carried:
        carried[PROGRESS_KEY] = Raw(b"%d" % token)
    return {**params, "_meta": carried}


def handshake_params(params: Params, meta: Params, token: int | Raw) -> Mapping[str, object]:
    """`params` as a handshake backend takes them: without the modern members, with our progress token."""
    if "_meta" not in params:
        return params
    carried: dict[str, object] = dict(params)
    kept = {key: value for key, value in meta.items() if key not in _NOT_HANDSHAKE}
    if PROGRESS_KEY in kept:
        kept[PROGRESS_KEY] = Raw(b"%d" % token) if isinstance(token, int) else token
    if kept:
        carried["_meta"] = kept
    else:
        del carried["_meta"]
    return carried


def meta_of(params: Params) -> Params:
    """The members of `params._meta`; none when there is no such object."""
    meta = params.get("_meta")
    if meta is None:
        return NO_META
    try:
        return jsonrpc.members(meta)
    except ProtocolError:
        return NO_META


def retokened(notice: Params, token: Raw) -> bytes:
    """The parameters of a progress notification, for the client's own token."""
    return jsonrpc.encode({**notice, PROGRESS_KEY: token})


def across(capabilities: bytes) -> Raw:
    """Client capabilities as the other era and every handshake backend are told them: what can be asked is the same;
    tasks are not (an extension in 2026-07-28, not defined before; clients' own tasks are not carried). Remembered,
    because programs are few and calls are many; large ones are not, because strangers write them."""
    return _across(capabilities) if len(capabilities) <= _MAX_KEPT_BYTES else _without_tasks(capabilities)


@lru_cache(maxsize=256)
def _across(capabilities: bytes) -> Raw:
    return _without_tasks(capabilities)


def _without_tasks(capabilities: bytes) -> Raw:
    held = jsonrpc.members(capabilities)
    kept = tasks.without_extension(held)
    if kept is held and tasks.CAPABILITY not in held:
        return Raw(capabilities)
    return jsonrpc.raw({key: value for key, value in kept.items() if key != tasks.CAPABILITY})


def fingerprint(capabilities: bytes) -> str:
    """A short name for a set of client capabilities: equal sets, spelled alike, have equal names."""
    return _kept_fingerprint(capabilities) if len(capabilities) <= _MAX_KEPT_BYTES else _fingerprint(capabilities)


def _fingerprint(capabilities: bytes) -> str:
    return sha256(across(capabilities)).hexdigest()


def has_asks(capabilities: bytes) -> bool:
    """Whether a client with these capabilities can be asked anything."""
    return _kept_has_asks(capabilities) if len(capabilities) <= _MAX_KEPT_BYTES else _has_asks(capabilities)


def _has_asks(capabilities: bytes) -> bool:
    return not ASKS_CAPABILITIES.isdisjoint(jsonrpc.members(capabilities))


_kept_fingerprint: Final = lru_cache(maxsize=256)(_fingerprint)
_kept_has_asks: Final = lru_cache(maxsize=256)(_has_asks)


def without_asks(capabilities: Json) -> bytes:
    """Client capabilities less what would let a backend ask questions."""
    held = jsonrpc.members(capabilities)
    return jsonrpc.encode({key: value for key, value in held.items() if key not in ASKS.values() and key != "tasks"})


class Begun(Protocol):
    """Takes the results that say that work goes on as a task."""

    def begun(self, call: Call, value: bytes) -> Outcome: ...


def outcome_of(answer: Result | Failure, call: Call | None = None, created: Begun | None = None) -> Outcome:
    """What a backend's response means: an InputRequiredResult is not a result, and a CreateTaskResult is for `created`
    to judge. Raises ProtocolError when the result is no object or its `resultType` is unknown (basic/index: it MUST be
    considered invalid)."""
    if isinstance(answer, Failure):
        return answer
    if answer.is_typed:  # it was judged before
        return answer
    value = bytes(answer.value)
    if value[:1] != b"{":
        raise ProtocolError("the result is not an object")
    head = _tail_head(value) if len(value) > _LONG_BYTES else _head(value)
    kind = head.resultType
    if kind == "input_required":
        return InputRequired(value)
    if kind is UNSET:
        return Result(value)
    if kind == "complete":
        return Result(value, True, _is_hinted(head))
    if kind == "task" and call is not None and created is not None:
        return created.begun(call, value)
    raise ProtocolError(f"the result has the unknown resultType {kind[:40]!r}")


def handshake_outcome(answer: Result | Failure) -> Outcome:
    """What the response of a handshake backend means: there is no result that is not one. Raises ProtocolError when it
    is no object."""
    if isinstance(answer, Failure):
        return answer
    value = bytes(answer.value)  # copied once: whoever takes it on finds bytes
    if value[:1] != b"{":
        raise ProtocolError("the result is not an object")
    return Result(value)


def result_for(revision: Revision, row: Method | None, result: Result) -> Json:
    """A result object as `revision` writes it: `resultType` on every one, caching hints on those that need them.

    Hints that break the clause (`ttlMs` below 0, another scope) become the strictest. Raises ProtocolError for what
    `outcome_of` would not have passed.
    """
    is_cacheable = row is not None and row.is_cacheable
    if not revision.has_result_type or (result.is_typed and (result.is_hinted or not is_cacheable)):
        return result.value
    body = bytes(result.value)
    head = _head(body)
    added = b""
    if head.resultType is UNSET:
        added = b'"resultType":"complete",'
    elif not result.is_typed and head.resultType != "complete":  # a member of a handshake server's own
        return result_for(revision, row, Result(_replaced(body, "resultType", b'"complete"')))
    if is_cacheable and head.resultType in (UNSET, "complete"):
        if head.ttlMs is UNSET:
            added += b'"ttlMs":0,'
        elif not bytes(head.ttlMs).isdigit():
            body = _replaced(body, "ttlMs", b"0")
        if head.cacheScope is UNSET:
            added += b'"cacheScope":"private",'
        elif bytes(head.cacheScope) not in _SCOPES:
            body = _replaced(body, "cacheScope", b'"private"')
    return _spliced(body, added)


def failure_for(revision: Revision, failure: Failure, row: Method | None = None) -> Failure:
    """A backend's own error as `revision` writes it: codes that it withdrew or keeps for itself are not sent on, and
    a missing resource has each era's own (2026-07-28, basic/index "Error Codes"; server/resources "Error Handling")."""
    code = failure.code
    is_read = row is not None and row.name == "resources/read"
    if is_read and code == -32602 and revision.not_found_code == NOT_FOUND_BEFORE and _names_uri(failure.data):
        return Failure(NOT_FOUND_BEFORE, failure.message, failure.data)
    if code == NOT_FOUND_BEFORE and revision.not_found_code != NOT_FOUND_BEFORE:
        return Failure(revision.not_found_code, failure.message, failure.data)
    if revision.has_result_type and (code == ELICITATION_BEFORE or (code in _RESERVED_CODES and code not in _DEFINED)):
        return Failure(-32603, failure.message, failure.data)
    return failure


def _is_hinted(head: _Head) -> bool:
    """Whether the caching hints are there and keep to the clause."""
    ttl, scope = head.ttlMs, head.cacheScope
    if isinstance(ttl, UnsetType) or isinstance(scope, UnsetType):
        return False
    return bytes(ttl).isdigit() and bytes(scope) in _SCOPES


def _head(body: bytes) -> _Head:
    # Measured: 0.24 us for 350 B and 40 us for 100 KB, where searching the bytes for one name takes as long or longer.
    try:
        return _decode_head(body)
    except jsonrpc.UNREADABLE as error:
        raise ProtocolError(f"the result breaks its form: {error}") from error


def _tail_head(body: bytes) -> _Head:
    """The head of a long result, told from its last members where they suffice: most servers put `resultType` there,
    and the last member of a name counts. A comma before an unescaped quote begins no end of a string, so what was
    found is a member; and as all behind it balances up to the last brace, it is one of the result itself. Measured for
    100 KB: 0.5 us instead of 40."""
    at = body.rfind(_COMPLETE, -_TAIL_BYTES)
    if at >= 0:
        try:
            return _decode_head(b"{" + body[at + 1 :])
        except jsonrpc.UNREADABLE:
            pass  # an inner object's, which ends before
    return _head(body)


def _replaced(body: bytes, member: str, value: bytes) -> bytes:
    """`body` with another value for one member. Decodes the outside of it: rare."""
    return jsonrpc.encode({**jsonrpc.members(body), member: Raw(value)})


def _names_uri(data: Raw | None) -> bool:
    """Whether an error's data is that of a missing resource: `{"uri": ...}`."""
    try:
        return data is not None and "uri" in jsonrpc.members(data)
    except ProtocolError:
        return False


def _spliced(body: bytes, added: bytes) -> bytes:
    """`body` with members put first. Nothing is rebuilt: the result may be megabytes."""
    if not added:
        return body
    rest = body[1:].lstrip(b" \t\r\n")
    if rest.startswith(b"}"):
        return b"{" + added[:-1] + rest
    return b"{" + added + rest


def _as_raw(value: Json) -> Raw:
    return value if isinstance(value, Raw) else Raw(value)
