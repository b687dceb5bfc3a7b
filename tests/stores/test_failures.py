"""Errors between replicas: each arrives as what it was raised as, and garbage as nothing."""

from __future__ import annotations

import json

import msgspec
import pytest

from gatewright import errors
from gatewright.errors import BackendTimeout, GatewayError, InvalidParams, MissingCapability, StoreUnavailable
from gatewright.inbound.base import InternalError
from gatewright.protocol import jsonrpc
from gatewright.stores import failures


@pytest.mark.parametrize("error", [InvalidParams("p", data={"a": [1]}), BackendTimeout("t"), StoreUnavailable("s")])
def test_an_error_arrives_as_what_it_is(error: GatewayError) -> None:
    """With its class, message and data."""
    found = failures.read(failures.written(error))
    assert (type(found), found.message) == (type(error), error.message)
    assert json.loads(jsonrpc.encode(found.data)) == error.data


def test_what_a_client_lacks_arrives_too() -> None:
    """In the form that the refusal wants it."""
    found = failures.read(failures.written(MissingCapability("m", {"roots": {}})))
    assert isinstance(found, errors.MissingCapability)
    assert json.loads(jsonrpc.encode(found.data)) == {"requiredCapabilities": {"roots": {}}}


def test_what_is_not_in_the_tree_arrives_as_the_next_above() -> None:
    """A class that only one module knows, or only another version."""
    assert type(failures.read(failures.written(InternalError("i")))) is GatewayError
    strange = msgspec.msgpack.encode(["Strange", "m", None])
    assert type(failures.read(strange)) is GatewayError
    with pytest.raises(msgspec.DecodeError):
        failures.read(b"\xc1")
