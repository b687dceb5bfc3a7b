"""The one table that turns errors into responses: JSON-RPC code and HTTP status by era.

Sources: basic/index "Error Codes" and basic/transports/streamable-http of 2026-07-28; basic/transports of the
handshake revisions, where an error that answers a request is a JSON-RPC error in a 200 and a 404 means that the
session is gone. Codes of our own lie outside the reserved range -32768..-32000.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from gatewright import errors
from gatewright.call import Failure
from gatewright.protocol import jsonrpc
from gatewright.protocol.revisions import Era


@final
class Row(msgspec.Struct, frozen=True, gc=False):
    """How one error looks on the wire."""

    code: int
    modern_status: int
    handshake_status: int


INTERNAL: Final = Row(-32603, 500, 500)
CHAIN_REFUSED: Final = -31005
"""Told apart from other errors by the gateways that it comes through."""

TABLE: Final[dict[type[errors.GatewayError], Row]] = {
    errors.GatewayError: INTERNAL,
    errors.ClientError: Row(-32600, 400, 400),
    errors.ParseError: Row(-32700, 400, 400),
    errors.InvalidRequest: Row(-32600, 400, 400),
    errors.MalformedMeta: Row(-32602, 400, 400),
    errors.InvalidParams: Row(-32602, 400, 200),
    errors.MethodNotFound: Row(-32601, 404, 200),
    errors.ResourceNotFound: Row(-32602, 400, 200),
    errors.HeaderMismatch: Row(-32020, 400, 400),
    errors.UnsupportedVersion: Row(-32022, 400, 400),
    errors.MissingCapability: Row(-32021, 400, 200),
    errors.UnknownSession: Row(-32600, 404, 404),
    errors.SessionRequired: Row(-32600, 400, 400),
    errors.OriginRefused: Row(-32600, 403, 403),
    errors.Overloaded: Row(-31001, 503, 503),
    errors.ChainRefused: Row(CHAIN_REFUSED, 200, 200),
    errors.BackendError: Row(-31004, 200, 200),
    errors.BackendUnavailable: Row(-31002, 200, 200),
    errors.BackendTimeout: Row(-31003, 200, 200),
    errors.BackendGarbage: Row(-31004, 200, 200),
    errors.BackendRefusedChain: Row(CHAIN_REFUSED, 200, 200),
}
"""A backend's fault is a JSON-RPC error in a 200: clients surface those, and take a 5xx for a broken gateway.
So is what is wrong with a chain of gateways: those in front pass the error on."""

FAILURE_STATUS: Final = {
    -32700: 400,
    -32600: 400,
    -32601: 404,
    -32602: 400,
    -32020: 400,
    -32021: 400,
    -32022: 400,
}
"""The HTTP status of a backend's own error towards a modern client; 200 for every other code."""


def row(error: errors.GatewayError) -> Row:
    """The table row of an error, by its class or the nearest class above it."""
    for cls in type(error).__mro__:
        found = TABLE.get(cls)
        if found is not None:
            return found
    return INTERNAL


def failure(error: errors.GatewayError, *, not_found_code: int = -32602) -> Failure:
    """The JSON-RPC error of one of our refusals. `not_found_code` is the client's revision's."""
    code = not_found_code if isinstance(error, errors.ResourceNotFound) else row(error).code
    return Failure(code, error.message, None if error.data is None else jsonrpc.raw(error.data))


def status(error: errors.GatewayError, era: Era) -> int:
    """The HTTP status of one of our refusals."""
    found = row(error)
    return found.modern_status if era == "modern" else found.handshake_status


def failure_status(answer: Failure, era: Era) -> int:
    """The HTTP status around a backend's own JSON-RPC error."""
    return FAILURE_STATUS.get(answer.code, 200) if era == "modern" else 200
