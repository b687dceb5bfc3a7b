"""Where a stream broke off, and how long to wait."""

from __future__ import annotations

import pytest

from gatewright.backend.resume import (
    MAX_ID_BYTES,
    RETRY_ASKED_MAX_S,
    RETRY_ASKED_MIN_S,
    RETRY_MAX_S,
    RETRY_S,
    Resume,
)
from gatewright.protocol import sse


def after(*said: bytes, jitter: float = 1.0) -> Resume:
    """What is known after a stream said that."""
    resume = Resume(lambda: jitter)
    decoder = sse.Decoder()
    for one in said:
        decoder.feed(one)
    resume.note(decoder)
    return resume


def test_without_an_id_there_is_nothing_to_resume_from() -> None:
    """And no header."""
    for resume in (Resume(), after(b"data: x\n\n"), after(b"id:\ndata: x\n\n"), after(b"id: a\0b\n\n")):
        assert not resume.is_possible
        assert resume.header() == b""


def test_the_last_id_counts() -> None:
    """Also of an event without data, which primes."""
    assert after(b"id: 1\ndata:\n\n").header() == b"last-event-id: 1\r\n"
    assert after(b"id: 1\ndata: x\n\n", "id: zwölf\n\n".encode()).header() == "last-event-id: zwölf\r\n".encode()


def test_an_id_that_no_header_holds_is_none() -> None:
    """Rather than a request that nobody takes."""
    assert after(b"id: %b\n\n" % (b"x" * MAX_ID_BYTES)).is_possible
    assert not after(b"id: %b\n\n" % (b"x" * (MAX_ID_BYTES + 1))).is_possible


@pytest.mark.parametrize(
    ("retry_ms", "pause_s"),
    [(1500, 1.5), (50, 0.05), (0, RETRY_ASKED_MIN_S), (10**9, RETRY_ASKED_MAX_S)],
)
def test_a_pause_that_was_asked_for_is_kept(retry_ms: int, pause_s: float) -> None:
    """Within bounds; no jitter shortens it."""
    for jitter in (0.0, 1.0):
        assert after(b"retry: %d\n\n" % retry_ms, jitter=jitter).pause_s() == pause_s


def test_streams_that_bring_nothing_are_fetched_ever_more_seldom() -> None:
    """Whether a pause was asked for or not; a message ends that."""
    for resume, first_s in ((after(), RETRY_S), (after(b"retry: 0\n\n"), RETRY_ASKED_MIN_S)):
        pauses = []
        for resume.fruitless in range(2000):
            pauses.append(resume.pause_s())
        assert pauses[:3] == [first_s, first_s * 2, first_s * 4]
        assert pauses == sorted(pauses)
        assert pauses[-1] == RETRY_MAX_S
        resume.fruitless = 0
        assert resume.pause_s() == first_s


def test_the_pause_of_many_is_spread() -> None:
    """Those that lost a backend at the same moment come back at different ones."""
    assert after(jitter=0.0).pause_s() == RETRY_S / 2
    assert after(jitter=0.5).pause_s() == RETRY_S * 0.75
