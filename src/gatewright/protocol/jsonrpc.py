"""The JSON-RPC 2.0 envelope: one decode of the outside, the inside left as bytes; and its encodings.

A message is read into `Message` with `params`, `result` and ids undecoded. What is forwarded is encoded anew from
what was read, so that two parsers can never disagree on a duplicated member (the last one counts here). A message that
is a call and an answer at once is refused: two readers would take it for two things. `params`, `result` and `error`
that are null count as absent, because many writers cannot leave a member out. Source: basic/index of every revision.
"""

from __future__ import annotations

from typing import Final, TypeAlias, cast, final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gatewright.call import Failure, Json, Params, Result
from gatewright.errors import InvalidParams, InvalidRequest, ParseError, ProtocolError
from gatewright.protocol import blobs
from gatewright.protocol.depth import check_utf8

Id: TypeAlias = int | str
"""A JSON-RPC id. Never null, never a float (2026-07-28, basic/index)."""


@final
class ErrorObject(msgspec.Struct, gc=False):
    """The `error` member of a response."""

    code: int
    message: str = ""
    data: Raw | UnsetType = UNSET


class Message(msgspec.Struct, gc=False):
    """Any JSON-RPC message. Which kind it is follows from which members are set."""

    jsonrpc: str
    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Params | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET


@final
class _Nulled(msgspec.Struct, gc=False):
    """A message whose absent members may be spelt null. Only read when `Message` refuses the body."""

    jsonrpc: str
    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Params | UnsetType | None = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType | None = UNSET


@final
class _Loose(msgspec.Struct, gc=False):
    """What can still be said of a message that is not one: whether its id can be echoed."""

    id: object = None


_decode_message: Final = msgspec.json.Decoder(Message).decode
_decode_nulled: Final = msgspec.json.Decoder(_Nulled).decode
_decode_batch: Final = msgspec.json.Decoder(list[Raw]).decode
_decode_loose: Final = msgspec.json.Decoder(_Loose).decode
_decode_members: Final = msgspec.json.Decoder(Params).decode
_encode: Final = msgspec.json.Encoder().encode
EMPTY: Final = Raw(b"{}")
NO_PARAMS: Final[Params] = {}
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder of a peer's bytes raises. A text that is not UTF-8 is no DecodeError, and deep nesting is neither."""


def decode(body: bytes) -> Message:
    """Read one message from a backend. Raises ProtocolError for anything else, also for bytes that are not UTF-8 where
    nobody here reads them: clients must get none."""
    message = _decode_around(body) if len(body) >= blobs.LONG_BYTES else None
    if message is None:
        if not body.isascii():
            check_utf8(body)
        try:
            message = _decode_message(body)
        except msgspec.ValidationError as error:
            message = _without_nulls(body, error)
        except UNREADABLE as error:
            raise ProtocolError(f"not a JSON-RPC message: {error}") from error
    if message.jsonrpc != "2.0":
        raise ProtocolError('not a JSON-RPC message: "jsonrpc" must be "2.0"')
    if message.method is not UNSET and (message.result is not UNSET or message.error is not UNSET):
        _refuse_both(message)
    return message


def decode_request(body: bytes) -> Message:
    """Read one message from a client; that it is UTF-8 was checked (`depth.check_json`).

    Raises ParseError, InvalidRequest or InvalidParams: which one tells the client what to mend.
    """
    try:
        around = _decode_around(body) if len(body) >= blobs.LONG_BYTES else None
        message = _decode_message(body) if around is None else around
    except msgspec.ValidationError as error:
        try:
            message = _without_nulls(body, error)
        except ProtocolError as problem:
            if "`$.params`" in str(error):
                raise InvalidParams("params must be an object") from error
            raise InvalidRequest(str(problem)) from error
    except UNREADABLE as error:
        raise ParseError(f"the body is not JSON: {error}") from error
    if message.jsonrpc != "2.0":
        raise InvalidRequest('"jsonrpc" must be "2.0"')
    if message.result is not UNSET or message.error is not UNSET:
        if message.method is not UNSET:
            try:
                _refuse_both(message)
            except ProtocolError as error:
                raise InvalidRequest(str(error)) from error
        elif message.id is UNSET and message.result is not UNSET:
            raise InvalidRequest("a result needs the id of its request")
    elif message.method is UNSET:
        raise InvalidRequest("the message has neither method, result nor error")
    if message.id is None:
        raise InvalidRequest("id must be a string or an integer, not null")
    return message


def _decode_around(body: bytes) -> Message | None:
    """A long message read without its one long string; None when it has none, or is to be refused."""
    found = blobs.cut(body)
    if found is None:
        return None
    text, blob = found
    try:
        message = _decode_message(text)
    except UNREADABLE:
        return None
    if message.result is not UNSET:
        result = blobs.restored(message.result, blob)
        if result is not None:
            message.result = cast("Raw", result)  # bytes will do: a `Raw` around them would be copied once more
            return message
    if message.params is not UNSET:
        for name, value in message.params.items():
            whole = blobs.restored(value, blob)
            if whole is not None:
                message.params[name] = Raw(whole)
                return message
    return None  # it is elsewhere: in an error, or in what nobody here reads


def _without_nulls(body: bytes, error: msgspec.ValidationError) -> Message:
    """A message that `Message` refused, read with null members as absent. Raises ProtocolError."""
    try:
        read = _decode_nulled(body)
    except UNREADABLE as still:
        raise ProtocolError(f"not a JSON-RPC message: {still}") from error
    params = UNSET if read.params is None else read.params
    return Message(read.jsonrpc, read.id, read.method, params, read.result, UNSET if read.error is None else read.error)


def _refuse_both(message: Message) -> None:
    """Raises ProtocolError for a call that is an answer too; takes a null result away."""
    if message.error is not UNSET or (message.result is not UNSET and bytes(message.result) != b"null"):
        raise ProtocolError("not a JSON-RPC message: both a call and an answer")
    message.result = UNSET


def decode_batch(body: bytes) -> list[Raw]:
    """The messages of an array body, undecoded. Raises ParseError."""
    try:
        return _decode_batch(body)
    except UNREADABLE as error:
        raise ParseError(f"the body is not a JSON array: {error}") from error


def salvage_id(body: Json) -> Id | None:
    """The id of a message that was refused, for the error that answers it; None when it has none worth echoing."""
    try:
        value = _decode_loose(body).id
    except UNREADABLE:
        return None
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def members(value: Json) -> Params:
    """The members of a JSON object, undecoded. Raises ProtocolError when it is not an object."""
    try:
        return _decode_members(value)
    except UNREADABLE as error:
        raise ProtocolError(f"not a JSON object: {error}") from error


def encode(value: object) -> bytes:
    """`value` as JSON bytes; `Raw` members are copied as they are."""
    return _encode(value)


def raw(value: object) -> Raw:
    """`value` as a JSON fragment to put among undecoded members."""
    return Raw(_encode(value))


def encode_id(request_id: Id | None) -> bytes:
    """An id as JSON."""
    return b"%d" % request_id if type(request_id) is int else _encode(request_id)


def request(request_id: Id, method: str, params: object) -> bytes:
    """A request. `params` is any JSON-serialisable object, `Raw` members included."""
    return _encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def notification(method: str, params: Json) -> bytes:
    """A notification; `params` is a JSON object."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (_encode(method), bytes(params))


def result(request_id: Id | None, value: Json) -> bytes:
    """A success response around a JSON result, which is copied as it is."""
    if type(request_id) is int:  # as most have it: no frame and no copy more
        return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (request_id, value)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_encode(request_id), value)


def error(request_id: Id | None, failure: Failure) -> bytes:
    """An error response. Without an id the member is left out (2026-07-28, basic/index)."""
    body: dict[str, object] = {"code": failure.code, "message": failure.message}
    if failure.data is not None:
        body["data"] = failure.data
    envelope: dict[str, object] = {"jsonrpc": "2.0", "error": body}
    if request_id is not None:
        envelope = {"jsonrpc": "2.0", "id": request_id, "error": body}
    return _encode(envelope)


def response(request_id: Id | None, answer: Result | Failure) -> bytes:
    """The response that carries `answer`."""
    return error(request_id, answer) if isinstance(answer, Failure) else result(request_id, answer.value)


def answer_of(message: Message) -> Result | Failure:
    """The outcome that a response carries. Raises ProtocolError when it carries neither result nor error, or both."""
    if message.error is not UNSET:
        if message.result is not UNSET and bytes(message.result) != b"null":
            raise ProtocolError("a response with both result and error")
        problem = message.error
        return Failure(problem.code, problem.message, None if problem.data is UNSET else problem.data)
    if message.result is UNSET:
        raise ProtocolError("a response with neither result nor error")
    return Result(message.result)
