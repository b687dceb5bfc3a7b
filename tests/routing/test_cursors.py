"""Cursors of merged lists: what this server made for this caller is read back, nothing else is (THREATS B-8)."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import InvalidParams
from gatewright.routing.cursors import Cursors

KEY = b"k" * 32
CURSORS = Cursors(KEY)
METHODS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
SUBJECTS = st.text() | st.sampled_from(["", "a", "a\0", "a\0b", "\0", "1", "a\x001", "\ud800"])


@given(st.sampled_from(METHODS), SUBJECTS, st.integers(0, 10**18))
def test_a_cursor_reads_back(method: str, subject: str, offset: int) -> None:
    """Also on another replica with the same key; it is made of characters that need no escape anywhere."""
    cursor = CURSORS.make(method, subject, offset)
    assert Cursors(KEY).read(method, subject, cursor) == offset
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("offset", [0, 9, 1_000, 123_456_789])
def test_every_single_bit_flip_and_every_truncation_is_refused(offset: int) -> None:
    """Of the sealed bytes, and of the text that carries them."""
    cursor = CURSORS.make("tools/list", "alice", offset)
    sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    forged = [cursor[:length] for length in range(len(cursor))]
    forged += [cursor[start:] for start in range(1, len(cursor))]
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        forged.append(base64.urlsafe_b64encode(flipped).decode().rstrip("="))
    for bit in range(len(cursor) * 7):
        characters = bytearray(cursor.encode())
        characters[bit // 7] ^= 1 << bit % 7
        forged.append(characters.decode("latin-1"))
    for one in forged:
        with pytest.raises(InvalidParams):
            CURSORS.read("tools/list", "alice", one)


@pytest.mark.parametrize(
    ("method", "subject", "key"),
    [
        ("prompts/list", "alice", KEY),
        ("tools/list", "bob", KEY),
        ("tools/list", "", KEY),
        ("tools/list", "alice\0", KEY),
        ("tools/lis", "talice", KEY),
        ("tools/list", "alice", b"j" * 32),
    ],
)
def test_a_cursor_holds_for_its_method_its_caller_and_its_key_alone(method: str, subject: str, key: bytes) -> None:
    """S-83."""
    cursor = CURSORS.make("tools/list", "alice", 1_000)
    with pytest.raises(InvalidParams):
        Cursors(key).read(method, subject, cursor)


@given(SUBJECTS, SUBJECTS, st.integers(0, 10**6), st.text(max_size=3), st.integers(0, 20))
def test_no_part_of_a_subject_can_be_moved_into_the_offset(
    mine: str, theirs: str, offset: int, glue: str, cut: int
) -> None:
    """Splicing: a tag made for one caller, with any other text behind it, is refused for every other caller."""
    if mine == theirs:
        return
    cursor = CURSORS.make("tools/list", theirs, offset)
    sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    stolen = theirs.encode("utf-8", "surrogatepass")[cut:] + glue.encode("utf-8", "surrogatepass")
    for text in (sealed[16:], stolen + sealed[16:], stolen + b"\0" + sealed[16:], sealed[16:] + stolen):
        spliced = base64.urlsafe_b64encode(sealed[:16] + text).decode().rstrip("=")
        with pytest.raises(InvalidParams):
            CURSORS.read("tools/list", mine, spliced)


@pytest.mark.parametrize("padding", ["=", "==", "\n", " ", "\0", "é", "+", "/", "A", "%3D", "\ud800"])
def test_one_cursor_has_one_spelling(padding: str) -> None:
    """What a lenient decoder skips makes another cursor: refused, so that logs and limits count one as one."""
    cursor = CURSORS.make("tools/list", "alice", 5)
    for spelt in (cursor + padding, padding + cursor, cursor[:5] + padding + cursor[5:]):
        with pytest.raises(InvalidParams):
            CURSORS.read("tools/list", "alice", spelt)


@given(st.text() | st.binary().map(lambda junk: base64.urlsafe_b64encode(junk).decode()))
def test_junk_is_refused_as_invalid_params(junk: str) -> None:
    """-32602, SHOULD of server/utilities/pagination; the empty string is a cursor like any other."""
    with pytest.raises(InvalidParams):
        CURSORS.read("tools/list", "alice", junk)


def test_a_huge_cursor_costs_no_more_than_reading_it() -> None:
    """Four megabytes of it."""
    with pytest.raises(InvalidParams):
        CURSORS.read("tools/list", "alice", "A" * 4_000_000)


def test_a_request_says_where_its_list_begins() -> None:
    """At the beginning without a cursor; what is no text is no cursor."""
    cursor = msgspec.Raw(msgspec.json.encode(CURSORS.make("tools/list", "alice", 7)))
    assert CURSORS.offset("tools/list", "alice", None) == 0
    assert CURSORS.offset("tools/list", "alice", cursor) == 7
    for odd in (b"5", b"null", b"{}", b'"x"'):
        with pytest.raises(InvalidParams, match="cursor"):
            CURSORS.offset("tools/list", "alice", msgspec.Raw(odd))
