"""The handshake era (up to 2025-11-25): the session's transition table, and the messages that open one.

Everything that changes a session's state is in `TRANSITIONS`. Sources: basic/lifecycle and basic/transports of
2024-11-05 to 2025-11-25.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from gatewright.call import Client, Json, Params
from gatewright.errors import InvalidParams, InvalidRequest, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.chain import CHAIN_KEY
from gatewright.protocol.chain import read as read_chain
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.protocol.revisions import HANDSHAKE, LATEST_HANDSHAKE, Revision, negotiated


class State(Enum):
    """Where a session stands."""

    NEW = "new"
    OPENED = "opened"
    """`initialize` was answered."""
    READY = "ready"
    """`notifications/initialized` arrived."""
    ENDED = "ended"


Event = Literal["initialize", "initialized", "message", "end"]

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.NEW: {"initialize": State.OPENED, "end": State.ENDED},
    # Clients send their first list right after the answer, ahead of `initialized`: the lifecycle says SHOULD NOT, so
    # it is served.
    State.OPENED: {"initialized": State.READY, "message": State.OPENED, "end": State.ENDED},
    State.READY: {"initialized": State.READY, "message": State.READY, "end": State.ENDED},
    State.ENDED: {},
}


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises InvalidRequest when the session does not take it there."""
    after = TRANSITIONS[state].get(event)
    if after is None:
        raise InvalidRequest(f"{event} cannot happen in a session that is {state.value}")
    return after


@final
class InitializeParams(msgspec.Struct, gc=False):
    """What a client says of itself (basic/lifecycle, initialization)."""

    protocolVersion: str
    capabilities: Raw = jsonrpc.EMPTY
    clientInfo: Raw = jsonrpc.EMPTY


@final
class InitializeResult(msgspec.Struct, gc=False):
    """What a server answers."""

    protocolVersion: str
    capabilities: dict[str, Raw] = {}
    serverInfo: Raw = jsonrpc.EMPTY
    instructions: str | None = None


MAX_CLIENT_BYTES: Final = 65_536
"""What a client may say of itself in all: it is kept as long as its session, and by every replica that has it."""
MAX_SERVER_BYTES: Final = 1 << 20
"""The same of a server, whose instructions may be long."""
_decode_params: Final = msgspec.json.Decoder(InitializeParams).decode
_decode_result: Final = msgspec.json.Decoder(InitializeResult).decode
_NEEDED: Final = {"name": Raw(b'"unknown"'), "version": Raw(b'"0"')}
_UNKNOWN: Final = jsonrpc.raw(_NEEDED)


def client_of(params: Params, session: str) -> Client:
    """The client that an `initialize` introduces. Raises InvalidParams, also for one that says more of itself than
    MAX_CLIENT_BYTES."""
    try:
        read = _decode_params(jsonrpc.encode(params))
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams(f"initialize: {error}") from error
    if not _is_object(read.capabilities):
        raise InvalidParams("initialize: capabilities must be an object")
    if len(bytes(read.capabilities)) + len(bytes(read.clientInfo)) > MAX_CLIENT_BYTES:
        raise InvalidParams(f"initialize: capabilities and clientInfo exceed {MAX_CLIENT_BYTES} bytes")
    # Copied: what is read is a part of the whole body, which would be kept with it.
    return Client(negotiated(read.protocolVersion), identity(read.clientInfo), read.capabilities.copy(), session)


def restored(revision: str, info: bytes, capabilities: bytes, session: str, level: str | None, chain: str) -> Client:
    """A client that introduced itself to another replica, as a store gives it back. Raises ProtocolError for what no
    replica of this version keeps: the store may hold anything, and this goes to backends as it is."""
    known = HANDSHAKE.get(revision)
    if known is None:
        raise ProtocolError(f"a session of revision {revision[:40]!r}, which is not served here")
    jsonrpc.members(info)
    jsonrpc.members(capabilities)
    try:
        read_chain(Raw(chain.encode() or b"[]"))
    except (InvalidParams, UnicodeEncodeError) as error:
        raise ProtocolError("a session with a chain of gateways that is none") from error
    return Client(
        known, Raw(info), Raw(capabilities), session, log_level=level if level in LOG_LEVELS else None, chain=chain
    )


def identity(info: Json) -> Raw:
    """An Implementation object as strict peers take it: `name` and `version`, which it MUST have, filled in where the
    sender left them out. Says nothing that may be relied on (2026-07-28, basic/index)."""
    try:
        read = jsonrpc.members(info)
    except ProtocolError:
        return _UNKNOWN
    known = {key: value for key, value in read.items() if key not in _NEEDED or bytes(value).startswith(b'"')}
    return jsonrpc.raw({**_NEEDED, **known})


def initialize_params(revision: Revision, info: Json, capabilities: Json, chain: str = "") -> dict[str, object]:
    """The parameters of our own `initialize` to a backend; `chain` are the gateways that the session leads through."""
    return {
        "protocolVersion": revision.name,
        "capabilities": Raw(bytes(capabilities)),
        "clientInfo": identity(info),
        **({"_meta": {CHAIN_KEY: Raw(chain)}} if chain else {}),
    }


def read_initialize_result(value: Json) -> tuple[Revision, InitializeResult]:
    """The revision a backend chose, and its answer. Raises ProtocolError when it is none we speak, or longer than
    MAX_SERVER_BYTES."""
    said = bytes(value)  # copied: else the whole body would be kept with the session
    if len(said) > MAX_SERVER_BYTES:
        raise ProtocolError(f"the backend's InitializeResult exceeds {MAX_SERVER_BYTES} bytes")
    try:
        answer = _decode_result(said)
    except jsonrpc.UNREADABLE as error:
        raise ProtocolError(f"not an InitializeResult: {error}") from error
    if not _is_object(answer.serverInfo):
        answer.serverInfo = jsonrpc.EMPTY
    # Some writers spell an absent capability null, which would announce it here.
    answer.capabilities = {key: value for key, value in answer.capabilities.items() if bytes(value) != b"null"}
    revision = HANDSHAKE.get(answer.protocolVersion)
    if revision is None:
        raise ProtocolError(f"the backend speaks revision {answer.protocolVersion[:40]!r}, which is not served here")
    return revision, answer


def _is_object(value: Raw) -> bool:
    return bytes(value).startswith(b"{")


_VERSION_HEADERS: Final = frozenset(name.encode() for name in HANDSHAKE)


def is_version_header_served(value: bytes | None) -> bool:
    """Whether an `MCP-Protocol-Version` on a session's request may stand (absent may: older clients have none)."""
    return value is None or value in _VERSION_HEADERS


OFFERED: Final = LATEST_HANDSHAKE
"""The revision we offer a handshake backend."""
