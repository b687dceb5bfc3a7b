"""The modern era (2026-07-28): every request carries its revision and capabilities, mirrored in headers.

The ladder, first failure wins: `_meta` is there and whole (-32602) -> the headers agree with the body (-32020) ->
the revision is served (-32022). Sources: basic/index "General fields", basic/transports/streamable-http "Request
Metadata" and "Server Validation". Whether the method exists is decided later, by whoever dispatches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final, final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gatewright.call import Client, Params
from gatewright.errors import (
    GatewayError,
    HeaderMismatch,
    InvalidParams,
    MalformedMeta,
    ProtocolError,
    UnsupportedVersion,
)
from gatewright.protocol import addressing, jsonrpc
from gatewright.protocol import headers as header_codec
from gatewright.protocol.chain import CHAIN_KEY, Chain
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.revisions import MODERN

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
INFO_KEY: Final = "io.modelcontextprotocol/clientInfo"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"
SERVER_INFO_KEY: Final = "io.modelcontextprotocol/serverInfo"
PROGRESS_KEY: Final = "progressToken"
BAGGAGE_KEY: Final = "baggage"
"""W3C baggage is the caller's, not the backend's: it is not forwarded (THREATS I-12, S-37)."""
RESERVED: Final = frozenset({VERSION_KEY, INFO_KEY, CAPABILITIES_KEY, LOG_LEVEL_KEY, SUBSCRIPTION_KEY})
"""The `_meta` members that only the modern era knows: never sent to a handshake backend."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

MAX_REMEMBERED_BYTES: Final = 2_048
"""A longer `_meta` is read each time: the texts that are remembered stay below 2 MiB."""
MAX_AGREED_BYTES: Final = 1_024
MAX_AGREED_MEMBERS: Final = 16
"""A larger request is looked at each time: each connection remembers some, also while it idles. With these bounds 2 KiB
of text and what was read of it for each."""

_VERSION_HEADERS: Final = frozenset(name.encode() for name in MODERN)
_decode_text: Final = msgspec.json.Decoder(str).decode


def is_named(version_header: bytes | None) -> bool:
    """Whether the version header names a modern revision: all there is to go by in a request without a body."""
    return version_header in _VERSION_HEADERS


def is_claimed(message: jsonrpc.Message, version_header: bytes | None) -> bool:
    """Whether the sender means the modern era: by its version header, or by the modern members of its `_meta`."""
    if is_named(version_header):
        return True
    params = message.params
    if params is UNSET or "_meta" not in params:
        return False
    meta = params["_meta"]
    text = bytes(meta)
    if b"modelcontextprotocol" not in text and b"\\u" not in text:  # without the slash: some writers escape it
        return False
    try:
        return VERSION_KEY in jsonrpc.members(meta)
    except ProtocolError:
        return False


@final
class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A request that may be served."""

    row: Method | None
    """Its method's row in the table."""
    name: str | None
    """What it addresses."""
    client: Client
    """Who sent it, as it says."""
    meta: Params
    """The members of its `_meta`. May be shared with other requests: never changed."""


@final
class Agreed(msgspec.Struct, gc=False):
    """What the headers of a request agree with: the same headers beside the same body need no second look."""

    version: str = ""
    method: str = ""
    name: str | None = None
    admitted: Admitted | None = None
    """The last request that was admitted with them, and how what it is judged by was written there."""
    name_field: str = ""
    name_text: Raw | None = None
    meta_text: Raw = jsonrpc.EMPTY

    def again(self, method: str, params: Params) -> Admitted | None:
        """A request with the same headers that says the same as the last one, as far as it is judged by that."""
        is_same = (
            method == self.method
            and params.get("_meta") == self.meta_text
            and params.get(self.name_field) == self.name_text
            and addressing.MEMBERS.issuperset(params)
        )
        return self.admitted if is_same else None

    def keep(self, admitted: Admitted, params: Params) -> None:
        """Remember a request that was admitted, if it is as small as most."""
        self.admitted = None
        if len(admitted.meta) > MAX_AGREED_MEMBERS:
            return
        row, meta = admitted.row, bytes(params["_meta"])
        field = "" if row is None or row.name_field is None else row.name_field
        name = bytes(params[field]) if field else b""
        if len(meta) + len(name) <= MAX_AGREED_BYTES:  # copies: a `Raw` that was read keeps all of its message
            self.name_field, self.name_text, self.meta_text = field, Raw(name) if field else None, Raw(meta)
            self.admitted = admitted


def admit(
    message: jsonrpc.Message,
    name: str | None,
    headers: Mapping[bytes, bytes] | None,
    chain: Chain,
    agreed: Agreed | None = None,
) -> tuple[Client, Params]:
    """Climb the ladder. Returns the client as this request describes it, and the members of its `_meta`.

    `name` is what the request addresses, None when it addresses nothing; `headers` are the request's by lower-case
    name, None on a transport that has none (stdio), and `agreed` what exactly these were found to agree with last;
    `chain` is the gateway's place in chains. Raises MalformedMeta, HeaderMismatch, UnsupportedVersion or ChainRefused.
    """
    raw_meta = None if message.params is UNSET else message.params.get("_meta")
    if raw_meta is None:
        raise MalformedMeta(f"params._meta must carry {VERSION_KEY} and {CAPABILITIES_KEY}")
    text = bytes(raw_meta)
    said = _remembered(text, chain) if len(text) <= MAX_REMEMBERED_BYTES else _said(text, chain)
    if headers is not None:
        if agreed is None:
            _agree(message.method, name, said.version, headers)
        elif agreed.method != message.method or agreed.name != name or agreed.version != said.version:
            _agree(message.method, name, said.version, headers)
            if name is None or len(name) <= MAX_AGREED_BYTES:
                agreed.version, agreed.method, agreed.name = said.version, str(message.method), name
    if said.client is None:
        if headers is not None:
            _check_plain(said.version, "MCP-Protocol-Version")
        raise UnsupportedVersion(said.version, tuple(MODERN))
    if said.problem is not None:
        raise said.problem()
    return said.client, said.meta


@final
class _Said(msgspec.Struct, frozen=True):
    """What a `_meta` says. `client` is None when its revision is not served, `problem` is what is wrong beyond that."""

    version: str
    client: Client | None
    meta: Params
    problem: Callable[[], GatewayError] | None


def _said(text: bytes, chain: Chain) -> _Said:
    """Read a `_meta`. Raises MalformedMeta when a required member is missing or the version is no string."""
    meta = _members(Raw(text))
    capabilities = meta.get(CAPABILITIES_KEY)
    if capabilities is None or VERSION_KEY not in meta:
        missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in meta]
        raise MalformedMeta(f"params._meta lacks {' and '.join(missing)}")
    version = _text(meta[VERSION_KEY], VERSION_KEY)
    revision = MODERN.get(version)
    if revision is None:
        return _Said(version, None, meta, None)
    problem, passed = None, chain.own
    if CHAIN_KEY in meta:
        problem, passed = _chained(meta, chain)
    if not bytes(capabilities).startswith(b"{"):
        problem = partial(MalformedMeta, f"params._meta.{CAPABILITIES_KEY} must be an object")
    if LOG_LEVEL_KEY in meta:
        level = _level(meta[LOG_LEVEL_KEY])
        if level is None:
            levels = ", ".join(LOG_LEVELS)
            problem = problem or partial(MalformedMeta, f"params._meta.{LOG_LEVEL_KEY} must be one of {levels}")
        else:
            meta[LOG_LEVEL_KEY] = jsonrpc.raw(level)  # as written plainly: whoever reads it compares bytes
    forwarded = None
    if PROGRESS_KEY not in meta:
        kept = {key: value for key, value in meta.items() if key != BAGGAGE_KEY}
        forwarded = jsonrpc.raw({**kept, CHAIN_KEY: Raw(passed)} if passed else kept)
    info = meta.get(INFO_KEY, jsonrpc.EMPTY)
    return _Said(version, Client(revision, info, capabilities, forwarded=forwarded, chain=passed), meta, problem)


def _chained(meta: Params, chain: Chain) -> tuple[Callable[[], GatewayError] | None, str]:
    """What is wrong with the gateways that it says it passed, or the chain that goes on to backends."""
    try:
        return None, chain.after(meta)
    except InvalidParams as error:
        return partial(MalformedMeta, error.message), ""
    except GatewayError as error:
        return partial(type(error), error.message, data=error.data), ""


_remembered: Final = lru_cache(maxsize=1_024)(_said)
"""A client sends the same `_meta` with every call, but for progress tokens and trace context: reading it is then one
look-up (0.3 us for 2 us). What it answers is shared between calls and never changed."""


def _level(value: Raw) -> str | None:
    try:
        level = _decode_text(value)
    except jsonrpc.UNREADABLE:
        return None
    return level if level in LOG_LEVELS else None


def _agree(method: str | UnsetType, name: str | None, requested: str, headers: Mapping[bytes, bytes]) -> None:
    """The mirrored headers say what the body says, or HeaderMismatch."""
    version = headers.get(b"mcp-protocol-version")
    if version is None:
        raise HeaderMismatch("Header mismatch: MCP-Protocol-Version is missing")
    if version != requested.encode():
        raise HeaderMismatch(f"Header mismatch: MCP-Protocol-Version differs from _meta {VERSION_KEY}")
    if method is UNSET:
        return
    stated = headers.get(b"mcp-method")
    if stated is None:
        raise HeaderMismatch("Header mismatch: Mcp-Method is missing")
    if stated != method.encode():
        raise HeaderMismatch("Header mismatch: Mcp-Method differs from the body's method")
    row = METHODS.get(method)
    if row is None:
        _check_plain(method, "Mcp-Method")
    elif name is not None and row.has_name_header:
        _agree_name(name, row.name_field or "", headers.get(b"mcp-name"))


def _agree_name(name: str, field: str, stated: bytes | None) -> None:
    if stated is None:
        raise HeaderMismatch("Header mismatch: Mcp-Name is missing")
    # The usual name is its own header form; `decode_value` judges the others. Printable ASCII is exactly 0x20-0x7E.
    if stated == name.encode() and stated.isascii() and stated.strip(b" =") == stated and name.isprintable():
        return
    try:
        is_same = header_codec.decode_value(stated) == name
    except ProtocolError as error:
        raise HeaderMismatch(f"Header mismatch: Mcp-Name is malformed: {error}") from error
    if not is_same:
        raise HeaderMismatch(f"Header mismatch: Mcp-Name differs from the body's params.{field}")


def _check_plain(value: str, header: str) -> None:
    """Raises HeaderMismatch when a value that no encoding is defined for has characters no field value may have."""
    if not (value.isascii() and value.isprintable()):
        raise HeaderMismatch(f"Header mismatch: {header} has invalid characters")


def _members(meta: Raw) -> Params:
    try:
        return jsonrpc.members(meta)
    except ProtocolError as error:
        raise MalformedMeta("params._meta must be an object") from error


def _text(value: Raw, where: str) -> str:
    try:
        return _decode_text(value)
    except jsonrpc.UNREADABLE as error:
        raise MalformedMeta(f"{where} must be a string") from error
