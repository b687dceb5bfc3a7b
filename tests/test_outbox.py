"""The outbox: messages of one turn leave together, in order, and none of them waits for what does not come."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gatewright.outbox import LARGE_BYTES, MOST, Outbox, Write


class Loop:
    """A loop that runs what was called soon when it is told to, and connections that note what is written."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.sent: list[tuple[int, bytes]] = []
        self.outbox = Outbox(self.soon.append)

    def connection(self, number: int) -> Write:
        """The `write` of a new connection."""

        def write(data: bytes) -> None:
            self.sent.append((number, data))

        return write

    def turn(self) -> None:
        """Run what was called soon."""
        soon, self.soon[:] = list(self.soon), []
        for callback in soon:
            callback()


def test_what_is_the_only_one_is_sent_at_once() -> None:
    """Whether it was expected or not; nothing is scheduled for it."""
    loop = Loop()
    loop.outbox.post(loop.connection(1), b"a")
    loop.outbox.expected += 1
    loop.outbox.post(loop.connection(2), b"b")
    assert loop.sent == [(1, b"a"), (2, b"b")]
    assert not loop.soon


def test_messages_wait_for_the_last_one_that_is_expected() -> None:
    """Which sends them all in their order."""
    loop = Loop()
    loop.outbox.expected += 3
    for number in (1, 2):
        loop.outbox.post(loop.connection(number), b"a")
        assert loop.sent == []
    loop.outbox.post(loop.connection(3), b"a")
    assert loop.sent == [(1, b"a"), (2, b"a"), (3, b"a")]
    loop.turn()
    assert len(loop.sent) == 3
    assert not loop.soon


def test_nothing_waits_for_what_does_not_come() -> None:
    """Beyond the turn; and the next message waits for it no more."""
    loop = Loop()
    loop.outbox.expected += 3
    loop.outbox.post(loop.connection(1), b"a")
    loop.outbox.post(loop.connection(2), b"a")
    assert len(loop.soon) == 1
    loop.turn()
    assert loop.sent == [(1, b"a"), (2, b"a")]
    loop.outbox.expected += 1
    loop.outbox.post(loop.connection(3), b"a")
    assert loop.sent[2:] == [(3, b"a")]


def test_what_is_read_meanwhile_is_still_expected() -> None:
    """The next turn's reads come before its first callback: only what was expected in vain is taken back."""
    loop = Loop()
    loop.outbox.expected += 3
    loop.outbox.post(loop.connection(1), b"a")
    loop.outbox.expected += 2
    loop.turn()
    assert loop.sent == [(1, b"a")]
    assert loop.outbox.expected == 2
    loop.outbox.post(loop.connection(2), b"a")
    assert len(loop.sent) == 1
    loop.outbox.post(loop.connection(3), b"a")
    assert len(loop.sent) == 3
    assert loop.outbox.expected == 0
    loop.turn()
    assert loop.outbox.expected == 0


def test_what_goes_another_way_is_not_waited_for() -> None:
    """The last of what was expected may begin a stream instead."""
    loop = Loop()
    loop.outbox.expected += 2
    loop.outbox.post(loop.connection(1), b"a")
    loop.outbox.pass_by()
    assert loop.sent == [(1, b"a")]
    loop.outbox.pass_by()
    assert loop.outbox.expected == 0


def test_a_crowd_is_sent_in_parts() -> None:
    """Who was ready first does not wait for hundreds."""
    loop = Loop()
    loop.outbox.expected += 2 * MOST
    write = loop.connection(1)
    for _ in range(MOST - 1):
        loop.outbox.post(write, b"a")
    assert loop.sent == []
    loop.outbox.post(write, b"a")
    assert len(loop.sent) == MOST


def test_a_large_message_takes_along_what_waits() -> None:
    """In order: it goes last."""
    loop = Loop()
    loop.outbox.expected += 5
    loop.outbox.post(loop.connection(1), b"a")
    loop.outbox.post(loop.connection(2), bytes(LARGE_BYTES))
    assert [number for number, _ in loop.sent] == [1, 2]


def test_a_connection_that_is_gone_gets_nothing() -> None:
    """Others are not concerned."""
    loop = Loop()
    gone, there = loop.connection(1), loop.connection(2)
    loop.outbox.expected += 4
    for write in (gone, there, gone):
        loop.outbox.post(write, b"a")
    loop.outbox.drop(gone)
    loop.outbox.flush()
    assert loop.sent == [(2, b"a")]


def test_one_that_cannot_be_sent_does_not_keep_back_the_others() -> None:
    """It is a bug, and logged as one."""
    loop = Loop()

    def broken(data: bytes) -> None:
        raise RuntimeError("closed")

    loop.outbox.expected += 3
    with structlog.testing.capture_logs() as logs:
        for write in (loop.connection(1), broken, loop.connection(2)):
            loop.outbox.post(write, b"a")
    assert loop.sent == [(1, b"a"), (2, b"a")]
    assert [line["event"] for line in logs] == ["a message could not be sent"]


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["wake", "pass by", "flush", "turn"]),
        st.tuples(st.just("post"), st.integers(0, 3), st.sampled_from([1, 1, 1, LARGE_BYTES])),
        st.tuples(st.just("drop"), st.integers(0, 3)),
    )
)


@given(STEPS)
def test_messages_are_sent_once_and_in_order(steps: list[str | tuple[str, int] | tuple[str, int, int]]) -> None:
    """Whatever was expected: those of each connection, all but those that waited when it went away. After one more turn
    nothing waits, and a message that comes alone is sent at once again."""
    loop = Loop()
    writes = [loop.connection(number) for number in range(4)]
    owed: list[list[bytes]] = [[] for _ in writes]
    count = 0
    for step in steps:
        match step:
            case "wake":
                loop.outbox.expected += 1
            case "pass by":
                loop.outbox.pass_by()
            case "flush":
                loop.outbox.flush()
            case "turn":
                loop.turn()
            case ("post", number, size):
                count += 1
                owed[number].append(b"%d " % count + bytes(size))
                loop.outbox.post(writes[number], owed[number][-1])
            case (_, number, *_):
                loop.outbox.drop(writes[number])
                owed[number] = [data for each, data in loop.sent if each == number]
    loop.turn()
    assert [[data for each, data in loop.sent if each == number] for number in range(4)] == owed
    loop.turn()
    loop.outbox.post(writes[0], b"x")
    loop.turn()
    assert loop.sent[-1] == (0, b"x")
    with pytest.raises(IndexError):
        loop.soon.pop()
