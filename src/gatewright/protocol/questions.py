"""Questions between eras: an InputRequiredResult and the requests it stands for.

In the modern era a server asks by answering with `input_required` and is answered in a retry; in the handshake era it
sends requests and gets responses. Both carry the same params and results, elicitation, sampling and roots, so a
question crosses by changing its envelope. Sources: basic/patterns/mrtr and client/* of 2026-07-28; client/* of
2025-06-18 and 2025-11-25.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from gatewright.call import Json, Params
from gatewright.errors import InvalidParams, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import ASKS
from gatewright.protocol.types import InputRequiredResult

RESPONSES_KEY: Final = "inputResponses"
STATE_KEY: Final = "requestState"
URL_REQUIRED: Final = -32042
"""2025-11-25: the call needs URL elicitations first. Never sent to a modern client (basic/index)."""
_UNSALIENT: Final = frozenset({"_meta", RESPONSES_KEY, STATE_KEY})


@final
class Question(msgspec.Struct, frozen=True):
    """One question: the request's method and params."""

    method: str
    params: Raw


@final
class _UrlRequired(msgspec.Struct):
    """The data of a URL_REQUIRED error."""

    elicitations: list[Raw]


_decode_required: Final = msgspec.json.Decoder(InputRequiredResult).decode
_decode_answers: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_urls: Final = msgspec.json.Decoder(_UrlRequired).decode


def read_required(value: Json) -> tuple[dict[str, Question], Raw | None]:
    """The questions of an InputRequiredResult by the server's keys, and its state. Raises ProtocolError."""
    try:
        read = _decode_required(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an InputRequiredResult: {error}") from error
    requests = read.input_requests or {}
    state = jsonrpc.members(value).get(STATE_KEY)
    if not requests and state is None:
        raise ProtocolError("an InputRequiredResult with neither inputRequests nor requestState")
    questions = {}
    for key, request in requests.items():
        if request.method not in ASKS:
            raise ProtocolError(f"an input request that is no question: {request.method[:60]!r}")
        params = request.params
        questions[key] = Question(request.method, jsonrpc.EMPTY if isinstance(params, msgspec.UnsetType) else params)
    return questions, state


def required(questions: Mapping[str, Question], state: str) -> bytes:
    """An InputRequiredResult that asks these."""
    requests = {
        key: {"method": question.method, "params": _modern_params(question)} for key, question in questions.items()
    }
    return jsonrpc.encode({"resultType": "input_required", "inputRequests": requests, STATE_KEY: state})


def retried(params: Params, answers: Mapping[str, Json], state: Raw | None) -> Params:
    """The parameters of the retry that brings the answers."""
    kept = {key: value for key, value in params.items() if key not in (RESPONSES_KEY, STATE_KEY)}
    kept[RESPONSES_KEY] = jsonrpc.raw({key: Raw(bytes(answer)) for key, answer in answers.items()})
    if state is not None:
        kept[STATE_KEY] = state
    return kept


def handshake_params(question: Question, elicitation_id: str) -> bytes:
    """A question's params as a handshake client takes them: 2025-11-25 wants an id on URL elicitations."""
    if question.method != "elicitation/create":
        return bytes(question.params)
    members = jsonrpc.members(question.params)
    if bytes(members.get("mode", b"")) == b'"url"' and "elicitationId" not in members:
        members["elicitationId"] = jsonrpc.raw(elicitation_id)
    return jsonrpc.encode(members)


def answers_in(params: Params) -> dict[str, Raw]:
    """The answers that a retry brings, by key. Raises InvalidParams."""
    given = params.get(RESPONSES_KEY)
    if given is None:
        return {}
    try:
        return _decode_answers(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParams("params.inputResponses must be an object of answers by key") from error


def state_in(params: Params) -> str | None:
    """The state that a retry brings. Raises InvalidParams."""
    given = params.get(STATE_KEY)
    if given is None:
        return None
    try:
        return _decode_text(given)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParams("params.requestState must be a string") from error


def fresh(params: Params) -> Params:
    """The parameters without what belongs to a retry."""
    if STATE_KEY not in params and RESPONSES_KEY not in params:
        return params
    return {key: value for key, value in params.items() if key not in (RESPONSES_KEY, STATE_KEY)}


def salient(params: Params) -> bytes:
    """What a retry must have in common with its first request, in one canonical form."""
    kept = {key: msgspec.json.decode(value) for key, value in params.items() if key not in _UNSALIENT}
    return msgspec.json.encode(kept, order="deterministic")


def is_askable(capabilities: Json, question: Question) -> bool:
    """Whether a client with these capabilities can be asked this (client/elicitation: modes; an empty object means
    form mode)."""
    held = jsonrpc.members(capabilities)
    capability = held.get(ASKS.get(question.method, ""))
    if capability is None:
        return False
    if question.method != "elicitation/create":
        return True
    modes = jsonrpc.members(capability)
    if bytes(jsonrpc.members(question.params).get("mode", b"")) == b'"url"':
        return "url" in modes
    return "form" in modes or "url" not in modes


def needed(question: Question) -> dict[str, object]:
    """The client capability that a question needs."""
    if question.method != "elicitation/create":
        return {ASKS[question.method]: {}}
    is_url = bytes(jsonrpc.members(question.params).get("mode", b"")) == b'"url"'
    return {"elicitation": {"url" if is_url else "form": {}}}


def url_questions(data: Raw | None) -> dict[str, Question]:
    """The URL elicitations in the data of a URL_REQUIRED error, as questions."""
    if data is None:
        return {}
    try:
        elicitations = _decode_urls(data).elicitations
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {f"url{number}": Question("elicitation/create", one) for number, one in enumerate(elicitations, 1)}


def _modern_params(question: Question) -> Raw:
    """A question's params as a modern client takes them: without what belongs to the handshake session."""
    members = jsonrpc.members(question.params)
    for key in ("elicitationId", "task"):
        members.pop(key, None)
    if "_meta" in members:
        meta = jsonrpc.members(members["_meta"])
        meta.pop("progressToken", None)
        if meta:
            members["_meta"] = jsonrpc.raw(meta)
        else:
            del members["_meta"]
    return jsonrpc.raw(members)
