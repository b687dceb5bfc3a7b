"""The revisions that are served, and which one an `initialize` is answered with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import version as sdk

from gatewright.protocol import revisions
from gatewright.protocol.revisions import ALL, HANDSHAKE, LATEST_HANDSHAKE, MODERN, negotiated


def test_every_revision_of_the_sdk_is_served_in_its_era() -> None:
    """And no other."""
    assert set(ALL) == set(sdk.KNOWN_PROTOCOL_VERSIONS)
    assert set(HANDSHAKE) == set(sdk.HANDSHAKE_PROTOCOL_VERSIONS)
    assert set(MODERN) == set(sdk.MODERN_PROTOCOL_VERSIONS)
    assert (LATEST_HANDSHAKE.name, revisions.LATEST_MODERN.name) == (
        sdk.LATEST_HANDSHAKE_VERSION,
        sdk.LATEST_MODERN_VERSION,
    )
    assert all(name == revision.name for name, revision in ALL.items())


@pytest.mark.parametrize("revision", ALL.values(), ids=ALL)
def test_what_differs_follows_the_clauses(revision: revisions.Revision) -> None:
    """Batches in 2025-03-26 alone; -32002 and untyped results before 2026-07-28; elicitation since 2025-06-18."""
    is_modern = revision.name == "2026-07-28"
    assert revision.era == ("modern" if is_modern else "handshake")
    assert revision.has_batches == (revision.name == "2025-03-26")
    assert revision.has_result_type == is_modern
    assert revision.not_found_code == (-32602 if is_modern else -32002)
    assert revision.has_elicitation == (revision.name not in ("2024-11-05", "2025-03-26"))


@pytest.mark.parametrize("name", HANDSHAKE)
def test_a_served_revision_is_agreed_to(name: str) -> None:
    """If the server supports the requested version, it MUST answer with the same (lifecycle)."""
    assert negotiated(name).name == name


@given(st.text() | st.sampled_from([*MODERN, "2025-11-26", "2099-01-01", "", "DRAFT-2026-v1", " 2025-11-25"]))
def test_any_other_revision_is_answered_with_our_latest(name: str) -> None:
    """Otherwise another it supports, which SHOULD be the latest; a modern one has no `initialize`."""
    assert negotiated(name) is (HANDSHAKE.get(name) or LATEST_HANDSHAKE)


def test_the_order_of_names_decides_nothing() -> None:
    """An era is a set of names: what is not listed is in none."""
    assert not HANDSHAKE.keys() & MODERN.keys()
    assert revisions.ASSUMED_WITHOUT_HEADER.name == "2025-03-26"
