"""Suggestions for unknown keys."""

from dataclasses import fields

import pytest

from gatewright.config import BACKEND_SECTIONS, Config, Log
from gatewright.config_explain import KEYS, key_advice
from gatewright.config_tree import Path


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        (("backend",), 'did you mean "backends"?'),
        (("mcpservers",), 'did you mean "mcpServers"?'),
        (("LISTEN",), 'did you mean "listen"?'),
        (("log_level",), 'did you mean "log.level"?'),
        (("host",), 'did you mean "listen"?'),
        (("page_size",), 'it belongs under "routing"'),
        (("idle_s",), 'it belongs under "sessions"'),
        (("limits", "max_body_byte"), 'did you mean "max_body_bytes"?'),
        (("limits", "idle_s"), 'it belongs under "sessions"'),
        (("backends", "a", "timeout"), 'did you mean "timeout_s"?'),
        (("backends", "a", "environment"), 'did you mean "env"?'),
        (("backends", "a", "header"), 'did you mean "headers"?'),
        (("backends", "a", "disable"), 'did you mean "disabled"?'),
        (("backends", "a", "page_size"), None),
        (("zebra",), None),
    ],
)
def test_an_unknown_key_brings_up_the_one_that_was_meant(path: Path, advice: str | None) -> None:
    """Near misses, other words for the same, and keys in the wrong section."""
    assert key_advice(path) == advice


def test_the_known_keys_are_those_of_the_settings() -> None:
    """The table that suggestions come from has not fallen behind."""
    assert set(KEYS[""]) == {field.name for field in fields(Config)} | set(BACKEND_SECTIONS)
    assert set(KEYS["log"]) == {field.name for field in fields(Log)}
    assert {key for key in KEYS if key} == {
        "listen",
        "admin",
        "limits",
        "sessions",
        "routing",
        "store",
        "log",
        "backends",
    }
