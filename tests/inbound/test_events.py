"""The event log of a session: resuming a stream replays exactly what it missed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import InvalidRequest
from gatewright.inbound.events import Budget, EventLog, EventStream
from gatewright.protocol.sse import Decoder

pytestmark = pytest.mark.anyio


class Reader:
    """A connection that reads events."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.data: list[bytes] = []
        self.ids: list[str] = []

    async def send(self, chunk: bytes) -> None:
        """Take a chunk."""
        self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Take a chunk."""
        for event in self.decoder.feed(chunk):
            self.data.append(event.data)
            self.ids.append(event.event_id or "")


async def said(stream: EventStream, *messages: bytes) -> None:
    for message in messages:
        await stream.send(message)


async def test_a_resumed_stream_gets_what_it_missed_once_and_in_order() -> None:
    """Events before the break are not repeated, events while nobody read are not lost."""
    log = EventLog(100, 10_000, Budget(1 << 30))
    stream = log.open()
    first, second = Reader(), Reader()
    stream.attach(first.send, lambda: None)
    await said(stream, b"1", b"2")
    stream.detach(first.send)
    await said(stream, b"3", b"4")
    found, missed = log.resume(first.ids[-1])
    assert found is stream
    for chunk in missed:
        second.take(chunk)
    found.attach(second.send, lambda: None)
    await said(stream, b"5")
    assert first.data == [b"1", b"2"]
    assert second.data == [b"3", b"4", b"5"]


async def test_no_other_streams_messages_are_replayed() -> None:
    """S-24: an id names one stream, and only that one's events come back."""
    log = EventLog(100, 10_000, Budget(1 << 30))
    one, two = log.open(), log.open()
    await said(one, b"a1")
    await said(two, b"b1")
    await said(one, b"a2")
    reader = Reader()
    for chunk in log.resume("1-0")[1]:
        reader.take(chunk)
    assert reader.data == [b"a1", b"a2"]


async def test_ids_are_unique_in_the_session() -> None:
    """S-24, over all streams."""
    log = EventLog(100, 10_000, Budget(1 << 30))
    reader = Reader()
    for _ in range(3):
        stream = log.open()
        stream.attach(reader.send, lambda: None)
        await said(stream, b"x", b"y")
    assert len(set(reader.ids)) == 6


async def test_a_primed_stream_can_be_resumed_from_its_start() -> None:
    """S-25: the priming event carries an id, a retry and no data."""
    log = EventLog(100, 10_000, Budget(1 << 30))
    stream = log.open()
    decoder = Decoder()
    decoder.feed(stream.prime(1500))
    assert decoder.retry_ms == 1500
    assert decoder.last_event_id == "1-0"
    await said(stream, b"1")
    assert len(log.resume("1-0")[1]) == 1


@pytest.mark.parametrize(
    "event_id", ["", "x", "1", "1-", "-1", "1-9", "9-0", "1-0-0", "1--1", "9" * 40 + "-1", "1-" + "9" * 40, "\u0661-0"]
)
async def test_unknown_ids_are_refused(event_id: str) -> None:
    """Whatever a client sends, it gets its own stream or an error."""
    log = EventLog(100, 10_000, Budget(1 << 30))
    await said(log.open(), b"1")
    with pytest.raises(InvalidRequest, match="Last-Event-ID"):
        log.resume(event_id)


@given(st.integers(1, 8), st.integers(1, 60), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=40))
def test_the_log_is_bounded_and_never_replays_a_gap(
    max_events: int, max_bytes: int, sends: list[tuple[int, int]]
) -> None:
    """A resume gives all that came after, or an error: never some of it."""
    log = EventLog(max_events, max_bytes, Budget(1 << 30))
    streams = [log.open() for _ in range(3)]
    sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    for place, (number, size) in enumerate(sends):
        message = b"%d" % place + b"." * size
        coroutine = streams[number].send(message)
        with pytest.raises(StopIteration):
            coroutine.send(None)
        sent[number].append(message)
    for number, messages in sent.items():
        for after in range(len(messages) + 1):
            reader = Reader()
            try:
                chunks = log.resume(f"{number + 1}-{after}")[1]
            except InvalidRequest:
                continue
            for chunk in chunks:
                reader.take(chunk)
            assert reader.data == messages[after:]
            assert len(chunks) <= max_events


async def test_streams_that_are_done_are_forgotten_with_their_events() -> None:
    """Nothing of a finished stream outlives its events."""
    log = EventLog(2, 10_000, Budget(1 << 30))
    stream = log.open()
    ended: list[bool] = []
    stream.attach(Reader().send, lambda: ended.append(True))
    await said(stream, b"1")
    stream.finish()
    assert ended == [True]
    await said(log.open(), b"2", b"3", b"4")
    with pytest.raises(InvalidRequest):
        log.resume("1-0")


async def test_all_logs_together_are_bounded() -> None:
    """When the budget is used up a session loses its own oldest events, and gives back what it held when it ends."""
    budget = Budget(100)
    one, two = EventLog(100, 1_000, budget), EventLog(100, 1_000, budget)
    first, second = one.open(), two.open()
    await said(first, *[b"x" * 30] * 3)
    await said(second, b"y" * 30)
    assert budget.used <= 100
    assert len(one.resume(f"{first.number}-0")[1]) == 3
    with pytest.raises(InvalidRequest, match="too old"):
        two.resume(f"{second.number}-0")
    one.close()
    await said(first, b"late")
    assert budget.used == 0
    await said(second, b"z" * 30)
    assert budget.used == 30
