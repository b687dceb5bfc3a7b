"""The JSON Schema accepts what the loader accepts, and refuses what editors should underline."""

from typing import Any

import jsonschema_rs
import pytest

from gatewright.config_schema import schema

VALID: list[dict[str, Any]] = [
    {},
    {"listen": "127.0.0.1:8080", "admin": None, "backends": {"a": {"url": "https://a/mcp"}}},
    {"listen": 8080, "admin": {"host": "::1", "port": 8081}, "$schema": "x"},
    {"limits": {"max_body_bytes": "${MAX:-1000}"}, "drain_s": "${DRAIN}", "log": {"level": "${LEVEL}"}},
    {"mcpServers": {"a": {"type": "streamableHttp", "url": "https://a", "disabled": True, "timeout": 3000}}},
    {"servers": {"a": {"command": "npx", "args": ["-y"], "env": {"A": "b"}, "autoApprove": []}}},
    {"backends": {"a": {"command": "x", "tls_verify": "${VERIFY}", "era": "modern"}}},
]
INVALID: list[dict[str, Any]] = [
    {"backend": {}},
    {"limits": {"max_body_bytes": "lots"}},
    {"limits": {"header_timeout_s": 0}},
    {"backends": {"a b": {"url": "x"}}},
    {"backends": {"a": {"ur": "x"}}},
    {"backends": {"a": {"url": "x", "era": "ancient"}}},
    {"backends": {"a": {"url": "x", "disabled": True}}},
    {"mcpServers": {"a": {"frobnicate": 1}}},
    {"log": {"level": "loud"}},
]


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Validator:
    """The schema, compiled; compiling checks it against its own dialect."""
    return jsonschema_rs.validator_for(schema())


@pytest.mark.parametrize("value", VALID, ids=str)
def test_what_the_loader_accepts_is_valid(validator: jsonschema_rs.Validator, value: dict[str, Any]) -> None:
    """Variables, short addresses and clients' words included."""
    assert validator.is_valid(value)


@pytest.mark.parametrize("value", INVALID, ids=str)
def test_mistakes_are_underlined(validator: jsonschema_rs.Validator, value: dict[str, Any]) -> None:
    """Unknown keys, wrong types, values out of range."""
    assert not validator.is_valid(value)


def test_every_key_has_a_description() -> None:
    """What an editor shows when the pointer rests on it."""
    found = schema()
    for holder in (found, *found["$defs"].values()):
        for key, told in holder["properties"].items():
            assert key in ("$schema", "type") or "description" in str(told), key
