"""Sealed state: it opens for whom it was made, and for nobody else."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import ProtocolError
from gatewright.protocol.sealed import KEY_BYTES, MAX_SEALED_CHARS, NONCE_BYTES, Sealer, context, digest

KEY, OLDER, OTHER = (bytes([number]) * KEY_BYTES for number in (1, 2, 3))
NONCE = bytes(range(NONCE_BYTES))


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_what_was_sealed_opens_in_its_context(payload: bytes, where: bytes) -> None:
    """The round trip is the identity."""
    sealer = Sealer([KEY])
    assert sealer.open(sealer.seal(payload, where, os.urandom(NONCE_BYTES)), where) == payload


def test_every_bit_flip_is_refused() -> None:
    """THREATS B-8: no single bit of the sealed bytes may change."""
    sealer = Sealer([KEY])
    state = sealer.seal(b"parked call 7", b"alice", NONCE)
    sealed = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4))
    for position in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[position // 8] ^= 1 << position % 8
        text = base64.urlsafe_b64encode(bytes(flipped)).rstrip(b"=").decode()
        with pytest.raises(ProtocolError):
            sealer.open(text, b"alice")


def test_every_changed_character_is_refused() -> None:
    """Not even the spare bits of the encoding may change: one state has one spelling."""
    sealer = Sealer([KEY])
    state = sealer.seal(b"parked", b"", NONCE)
    for position, char in enumerate(state):
        for other in "AQgw-_=+/ \n":
            if other != char:
                with pytest.raises(ProtocolError):
                    sealer.open(state[:position] + other + state[position + 1 :], b"")


def test_every_truncation_and_splice_is_refused() -> None:
    """A part of a state, or parts of two, are no state."""
    sealer = Sealer([KEY])
    one = sealer.seal(b"the first", b"", NONCE)
    two = sealer.seal(b"the other", b"", NONCE[::-1])
    for cut in range(len(one)):
        for text in (one[:cut], one[cut + 1 :], one[:cut] + two[cut:]):
            if text not in (one, two):
                with pytest.raises(ProtocolError):
                    sealer.open(text, b"")


def test_another_context_does_not_open_it() -> None:
    """A state made for one caller, method or set of parameters opens for no other."""
    sealer = Sealer([KEY])
    state = sealer.seal(b"x", context("alice", "jira", "tools/call", digest(b"{}")), NONCE)
    for parts in (("bob", "jira", "tools/call"), ("alice", "wiki", "tools/call"), ("alice", "jira", "prompts/get")):
        with pytest.raises(ProtocolError):
            sealer.open(state, context(*parts, digest(b"{}")))


def test_contexts_of_different_parts_differ() -> None:
    """Joining is unambiguous: a border between parts cannot be moved."""
    assert context("ab", "c") != context("a", "bc") != context("abc")


def test_keys_rotate() -> None:
    """What an older key sealed still opens; what a stranger's key sealed does not."""
    old = Sealer([OLDER]).seal(b"x", b"", NONCE)
    assert Sealer([KEY, OLDER]).open(old, b"") == b"x"
    assert Sealer([KEY, OLDER]).seal(b"x", b"", NONCE) == Sealer([KEY]).seal(b"x", b"", NONCE)
    with pytest.raises(ProtocolError):
        Sealer([KEY, OTHER]).open(old, b"")


@given(st.text(max_size=200))
def test_garbage_is_only_a_protocol_error(text: str) -> None:
    """Whatever a client sends, nothing else is raised."""
    with pytest.raises(ProtocolError):
        Sealer([KEY]).open(text, b"")


def test_an_endless_state_is_refused_before_it_is_read() -> None:
    """The bound holds."""
    with pytest.raises(ProtocolError, match="too long"):
        Sealer([KEY]).open("A" * (MAX_SEALED_CHARS + 1), b"")


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=20))
def test_what_is_sealed_alike_is_equal_for_equals_alone(one: bytes, two: bytes, here: bytes, there: bytes) -> None:
    """Same payload, context and key: the same string, which opens. Nothing else shares a nonce with it."""
    sealer = Sealer([KEY])
    first, second = sealer.seal_alike(one, here), Sealer([KEY, OLDER]).seal_alike(two, there)
    assert (first == second) == ((one, here) == (two, there))
    assert (first[:14] == second[:14]) == ((one, here) == (two, there))
    assert sealer.open(first, here) == one
    assert Sealer([OTHER]).seal_alike(one, here) != first
