"""Repeated lists: recognised byte for byte but for the id, or read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gatewright.backend.repeats import MAX_BYTES, MIN_BYTES, Repeats
from gatewright.call import Failure, Result
from gatewright.protocol import jsonrpc

LIST = "tools/list"
RESULT = b'{"tools":[{"name":"%b"}],"resultType":"complete","ttlMs":0,"cacheScope":"private"}' % (b"n" * MIN_BYTES)
TYPED = Result(RESULT, True, True)


def answer(
    request_id: int, result: bytes = RESULT, envelope: bytes = b'{"jsonrpc":"2.0","id":%d,"result":%b}'
) -> bytes:
    """One answer."""
    return envelope % (request_id, result)


def taught(*bodies: tuple[int, bytes]) -> Repeats:
    """One that has read these."""
    repeats = Repeats()
    for request_id, body in bodies:
        repeats.learn(LIST, request_id, body, jsonrpc.answer_of(jsonrpc.decode(body)))
    return repeats


def test_what_came_twice_is_known_under_any_id() -> None:
    """And is what reading it would give, as a result that was judged."""
    repeats = taught((7, answer(7)), (8, answer(8)))
    for request_id in (9, 10, 123_456_789):
        assert repeats.find(LIST, request_id, answer(request_id)) == TYPED
    assert repeats.find("prompts/list", 9, answer(9)) is None


def test_what_came_once_is_not_kept() -> None:
    """What changes each time would be kept for nothing."""
    assert taught((7, answer(7))).find(LIST, 8, answer(8)) is None


def test_another_id_or_another_byte_is_read() -> None:
    """The id must be that of the request, and nothing else may differ."""
    repeats = taught((7, answer(7)), (8, answer(8)))
    assert repeats.find(LIST, 9, answer(8)) is None
    assert repeats.find(LIST, 9, answer(9) + b" ") is None
    assert repeats.find(LIST, 9, answer(9, RESULT.replace(b"nn", b"nm", 1))) is None
    assert repeats.find(LIST, 9, answer(9).replace(b":9,", b":09,")) is None


@pytest.mark.parametrize(
    "envelope",
    [
        b'{"result":{"id":%d,"tools":%b},"id":"x","jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":"a","x":{"id":%d},"result":%b}',
        b'{"jsonrpc":"2.0", "id": %d,"result":%b}',
    ],
    ids=["inside the result", "inside a member", "spelt otherwise"],
)
def test_an_id_that_cannot_be_told_is_not_learnt(envelope: bytes) -> None:
    """Only where another number there is another id."""
    repeats = taught((7, answer(7, envelope=envelope)), (7, answer(7, envelope=envelope)))
    assert repeats.find(LIST, 7, answer(7, envelope=envelope)) is None


def test_errors_and_sizes_out_of_bounds_are_not_kept() -> None:
    """Small answers are read as fast; huge ones would fill the memory."""
    repeats = Repeats()
    for result in (b"{}", b'{"x":"%b"}' % (b"x" * MAX_BYTES)):
        for request_id in (1, 2):
            repeats.learn(LIST, request_id, answer(request_id, result), Result(Raw(result)))
        assert repeats.find(LIST, 3, answer(3, result)) is None
    repeats.learn(LIST, 1, answer(1), Failure(1, "no"))
    repeats.learn(LIST, 2, answer(2), Failure(1, "no"))
    assert repeats.find(LIST, 3, answer(3)) is None


def test_the_last_one_read_is_the_one_known() -> None:
    """The list changed."""
    other = RESULT.replace(b"nn", b"mm", 1)
    repeats = taught((1, answer(1)), (2, answer(2)), (3, answer(3, other)))
    assert repeats.find(LIST, 4, answer(4)) is None
    assert repeats.find(LIST, 4, answer(4, other)) == Result(other, True, True)


@given(
    body=st.binary(max_size=60).map(lambda junk: answer(5)[:40] + junk + answer(5)[40:]),
    request_id=st.integers(1, 10**6),
)
def test_what_is_found_is_what_reading_gives(body: bytes, request_id: int) -> None:
    """Whatever comes, it is known only if it says the same."""
    found = taught((1, answer(1)), (2, answer(2))).find(LIST, request_id, body)
    if found is not None:
        message = jsonrpc.decode(body)
        assert message.id == request_id
        assert bytes(jsonrpc.answer_of(message).value) == found.value  # type: ignore[union-attr]
