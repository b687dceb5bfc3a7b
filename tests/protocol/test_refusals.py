"""The one table of refusals: total over the error tree, with the codes and statuses of the clauses."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any

import pytest
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from mcp_types import jsonrpc as sdk

import gatewright
from gatewright import errors
from gatewright.call import Failure
from gatewright.protocol import refusals
from gatewright.protocol.revisions import ALL


def tree() -> list[type[errors.GatewayError]]:
    """Every refusal there is, those that modules add for themselves included."""
    for module in pkgutil.walk_packages(gatewright.__path__, "gatewright."):
        if not module.name.startswith("gatewright.cli") and "demo" not in module.name:
            importlib.import_module(module.name)
    found: list[type[errors.GatewayError]] = [errors.GatewayError]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub not in found)
    return found


TREE = tree()

# Code, modern status, handshake status. By the clauses: 2026-07-28 basic/index "Error Codes" and streamable-http;
# 2025-11-25 basic/transports (403 for an Origin, 400 without a session, 404 for a lost one); JSON-RPC 2.0.
ROWS: dict[type[errors.GatewayError], tuple[int, int, int]] = {
    errors.ParseError: (-32700, 400, 400),
    errors.InvalidRequest: (-32600, 400, 400),
    errors.InvalidParams: (-32602, 400, 200),
    errors.MalformedMeta: (-32602, 400, 400),
    errors.MethodNotFound: (-32601, 404, 200),
    errors.ResourceNotFound: (-32602, 400, 200),
    errors.HeaderMismatch: (-32020, 400, 400),
    errors.UnsupportedVersion: (-32022, 400, 400),
    errors.MissingCapability: (-32021, 400, 200),
    errors.UnknownSession: (-32600, 404, 404),
    errors.SessionRequired: (-32600, 400, 400),
    errors.OriginRefused: (-32600, 403, 403),
    errors.Overloaded: (-31001, 503, 503),
    errors.StoreUnavailable: (-31001, 503, 503),
    errors.ChainRefused: (-31005, 200, 200),
    errors.BackendUnavailable: (-31002, 200, 200),
    errors.BackendTimeout: (-31003, 200, 200),
    errors.BackendGarbage: (-31004, 200, 200),
    errors.BackendRefusedChain: (-31005, 200, 200),
}


def made(cls: type[errors.GatewayError]) -> errors.GatewayError:
    """One of them, without its own constructor: those take what they like."""
    error = cls.__new__(cls)
    errors.GatewayError.__init__(error, "said", data={"a": 1})
    return error


@pytest.mark.parametrize("cls", ROWS, ids=lambda cls: cls.__name__)
def test_a_refusal_looks_as_the_clauses_say(cls: type[errors.GatewayError]) -> None:
    """Code and HTTP status in both eras."""
    code, modern, handshake = ROWS[cls]
    error = made(cls)
    assert refusals.failure(error).code == code
    assert (refusals.status(error, "modern"), refusals.status(error, "handshake")) == (modern, handshake)


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_refusal_has_a_row_or_inherits_one_of_its_source(cls: type[errors.GatewayError]) -> None:
    """Nothing that is the client's or a backend's fault looks like ours, and the reverse."""
    row = refusals.row(made(cls))
    if issubclass(cls, errors.ClientError):
        assert 400 <= row.modern_status < 500
        assert row.handshake_status in (200, 400, 403, 404)
    elif issubclass(cls, errors.BackendError | errors.ChainRefused):
        assert (row.modern_status, row.handshake_status) == (200, 200)
    elif not issubclass(cls, errors.Overloaded):
        assert row is refusals.INTERNAL


def test_the_tree_of_the_docstring_is_the_tree() -> None:
    """Every class that `errors` draws is in the table or below one that is."""
    named = {cls for cls in TREE if cls.__module__ == errors.__name__}
    assert set(ROWS) | {errors.GatewayError, errors.ClientError, errors.BackendError} == named


@pytest.mark.parametrize("row", refusals.TABLE.values(), ids=[cls.__name__ for cls in refusals.TABLE])
def test_our_own_codes_keep_out_of_reserved_ranges(row: refusals.Row) -> None:
    """S-35: of -32768..-32000 only what is defined, and never a code of earlier revisions."""
    defined = {-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022}
    assert row.code in defined or not -32768 <= row.code <= -32000


def test_modern_statuses_are_those_of_the_sdk() -> None:
    """Of our refusals by their code, and around a backend's own errors."""
    for row in refusals.TABLE.values():
        if row.code in ERROR_CODE_HTTP_STATUS and row.code != -32600:
            assert row.modern_status == ERROR_CODE_HTTP_STATUS[row.code]
    assert dict(ERROR_CODE_HTTP_STATUS) == refusals.FAILURE_STATUS
    assert refusals.TABLE[errors.HeaderMismatch].code == sdk.HEADER_MISMATCH
    assert refusals.TABLE[errors.MissingCapability].code == sdk.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert refusals.TABLE[errors.UnsupportedVersion].code == sdk.UNSUPPORTED_PROTOCOL_VERSION


@pytest.mark.parametrize("code", [*refusals.FAILURE_STATUS, -32603, -32000, -32002, 0, 1, -31000, 10**20])
def test_a_backends_error_stands_in_a_200_for_a_handshake_client(code: int) -> None:
    """There a 404 means that the session is gone."""
    failure = Failure(code, "x")
    assert refusals.failure_status(failure, "handshake") == 200
    assert refusals.failure_status(failure, "modern") == refusals.FAILURE_STATUS.get(code, 200)


@pytest.mark.parametrize("revision", ALL.values(), ids=ALL)
def test_a_missing_resource_has_the_code_of_the_clients_revision(revision: Any) -> None:
    """-32002 up to 2025-11-25, -32602 since."""
    error = errors.ResourceNotFound("no", data={"uri": "x"})
    expected = -32602 if revision.name == "2026-07-28" else -32002
    assert refusals.failure(error, not_found_code=revision.not_found_code).code == expected
    assert refusals.failure(errors.InvalidParams("no"), not_found_code=revision.not_found_code).code == -32602


def test_a_refusal_carries_its_data() -> None:
    """As JSON; and none where there is none."""
    failure = refusals.failure(errors.MissingCapability("no", {"roots": {}}))
    assert failure.data is not None
    assert json.loads(bytes(failure.data)) == {"requiredCapabilities": {"roots": {}}}
    assert refusals.failure(errors.ParseError("no")).data is None
    unsupported = refusals.failure(errors.UnsupportedVersion("x", ("2026-07-28",)))
    assert unsupported.data is not None
    assert json.loads(bytes(unsupported.data)) == {"supported": ["2026-07-28"], "requested": "x"}
