"""Server-sent events: what the standard says comes out, for any chunking; what we write, any reader reads back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import ProtocolError
from gatewright.protocol.sse import Decoder, Event, SseError, comment, encode


def decode(*chunks: bytes, **bounds: int) -> list[Event]:
    decoder = Decoder(**bounds)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def one(data: bytes, event: str = "message", event_id: str | None = None, retry_ms: int | None = None) -> list[Event]:
    return [Event(data, event, event_id, retry_ms)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: x\n\n", one(b"x"), id="lf"),
        pytest.param(b"data: x\r\r", one(b"x"), id="cr"),
        pytest.param(b"data: x\r\n\r\n", one(b"x"), id="crlf"),
        pytest.param(b"data: x\r\n\n", one(b"x"), id="crlf then lf"),
        pytest.param(b"data: x\n\r\n", one(b"x"), id="lf then crlf"),
        pytest.param(b"data: x\r\n\r", one(b"x"), id="crlf then cr"),
        pytest.param(b"event: message\ndata: x\n\n", one(b"x"), id="named message"),
        pytest.param(b"event: message\r\ndata: x\r\n\r\n", one(b"x"), id="named message, crlf"),
        pytest.param(b"event: message\r\ndata: x\n\n", one(b"x"), id="mixed line ends"),
        pytest.param(b"event: message\ndata: x\r\n\r\n", one(b"x"), id="mixed line ends, other way"),
        pytest.param(b"event: endpoint\ndata: /m\n\n", one(b"/m", "endpoint"), id="named event"),
        pytest.param(b"event:\ndata: x\n\n", one(b"x"), id="empty name is message"),
        pytest.param(b"event: a\nevent: b\ndata: x\n\n", one(b"x", "b"), id="last name wins"),
        pytest.param(b"event: a\nevent: message\ndata: x\n\n", one(b"x"), id="last name wins, message"),
        pytest.param(b"data:x\n\n", one(b"x"), id="no space"),
        pytest.param(b"data:  x\n\n", one(b" x"), id="only one space is syntax"),
        pytest.param(b"data\n\n", one(b""), id="field name alone"),
        pytest.param(b"data:\n\n", one(b""), id="empty data is an event"),
        pytest.param(b"data\ndata\n\n", one(b"\n"), id="two empty lines"),
        pytest.param(b"data: a\ndata: b\n\n", one(b"a\nb"), id="lines are joined"),
        pytest.param(b"data: a\rdata: b\r\r", one(b"a\nb"), id="cr separates lines"),
        pytest.param(b"id: 7\ndata: x\n\n", one(b"x", event_id="7"), id="id"),
        pytest.param(b"id\ndata: x\n\n", one(b"x", event_id=""), id="id reset"),
        pytest.param(b"id: a\0b\ndata: x\n\n", one(b"x"), id="id with NUL is ignored"),
        pytest.param(b"retry: 3000\ndata: x\n\n", one(b"x", retry_ms=3000), id="retry"),
        pytest.param(b"retry: -1\ndata: x\n\n", one(b"x"), id="negative retry is ignored"),
        pytest.param(b"retry: 1.5\ndata: x\n\n", one(b"x"), id="fractional retry is ignored"),
        pytest.param(b"retry:\ndata: x\n\n", one(b"x"), id="empty retry is ignored"),
        pytest.param(b"retry: \xd9\xa3\ndata: x\n\n", one(b"x"), id="only ascii digits"),
        pytest.param(b"retry: " + b"9" * 9000 + b"\ndata: x\n\n", one(b"x"), id="endless retry is ignored"),
        pytest.param(b": c\ndata: x\n\n", one(b"x"), id="comment before"),
        pytest.param(b"data: a\n: c\ndata: b\n\n", one(b"a\nb"), id="comment inside"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", one(b"x"), id="bom"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", [], id="only one bom"),
        pytest.param(b"data: x\n\n\xef\xbb\xbfdata: y\n\n", one(b"x"), id="bom only at the start"),
        pytest.param(b"data: x\n\n\n\ndata: y\n\n", one(b"x") + one(b"y"), id="extra blank lines"),
        pytest.param(b"event: gone\n\ndata: x\n\n", one(b"x"), id="a name without data is forgotten"),
        pytest.param(b"id: 1\n\ndata: x\n\n", one(b"x"), id="an id without data is not this event's"),
        pytest.param(b"data: x\n", [], id="unfinished"),
        pytest.param(b"data: x", [], id="unfinished line"),
        pytest.param(b"Data: x\nDATA: y\n data: z\n\n", [], id="field names are exact"),
        pytest.param(b"foo: x\nbar\ndata: x\n\n", one(b"x"), id="unknown fields"),
        pytest.param(
            b"data: x\xe2\x80\xa8y\xc2\x85\x0b\x0c\x1c\n\n", one(b"x\xe2\x80\xa8y\xc2\x85\x0b\x0c\x1c"), id="ls"
        ),
        pytest.param(b"data: x\0y\n\n", one(b"x\0y"), id="nul in data"),
        pytest.param(b"event: \xff\ndata: \xff\n\n", one(b"\xff", "\ufffd"), id="invalid utf-8"),
    ],
)
def test_a_stream_decodes_as_the_standard_says(stream: bytes, expected: list[Event]) -> None:
    """Whole, and one byte at a time."""
    assert decode(stream) == expected
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == expected


# B-4: what an attacker puts into a payload to forge an event, an id or a reconnection time.
INJECTIONS = [
    b"x\rdata: forged",
    b"x\r\rdata: forged\r\r",
    b"x\n\ndata: forged\n\n",
    b"x\r\n\r\ndata: forged\r\n\r\n",
    b"x\rid: 1\revent: endpoint\rretry: 1\r",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\r",
    b"\r\r\n\n",
    b"\nid: stolen",
    b": not a comment",
    b"data: nested",
    b" leading space",
    b"\xef\xbb\xbfbom",
    b"\0",
    b"\xe2\x80\xa8\xe2\x80\xa9\xc2\x85\x0b\x0c\x1c\x1d\x1e",
    b"",
    b"\n\n",
    b"trailing\n",
    b"trailing\r",
]


def line_ends_as_lf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@pytest.mark.parametrize("payload", INJECTIONS)
@pytest.mark.parametrize("fields", [{}, {"event": "message"}, {"event": "e", "event_id": "i", "retry_ms": 5}])
def test_a_payload_never_breaks_out_of_its_event(payload: bytes, fields: dict[str, str | int]) -> None:
    """Exactly one event with an equal payload, and nothing that the payload claims (B-4)."""
    wire = encode(payload, **fields)  # type: ignore[arg-type]
    (event,) = decode(wire)
    assert event.data == line_ends_as_lf(payload)
    assert (event.event, event.event_id, event.retry_ms) == (
        fields.get("event", "message"),
        fields.get("event_id"),
        fields.get("retry_ms"),
    )


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\r\nb", "a\0b", "\n", "\ud800"])
def test_an_event_name_or_id_that_could_break_out_is_refused(text: str) -> None:
    """Names and ids with a line break, NUL or what is not UTF-8 are our mistake, not something to mend."""
    with pytest.raises(SseError):
        encode(b"{}", event=text)
    with pytest.raises(SseError):
        encode(b"{}", event_id=text)


def test_what_the_format_cannot_say_is_refused() -> None:
    """An empty event name would read as "message"; a retry is not negative; a comment is one line."""
    with pytest.raises(SseError):
        encode(b"{}", event="")
    with pytest.raises(SseError):
        encode(b"{}", retry_ms=-1)
    for text in (b"a\nb", b"a\rb", b"a\0b"):
        with pytest.raises(SseError):
            comment(text)


def test_comments_are_counted_and_yield_nothing() -> None:
    """A keep-alive is seen as a change of the count, also while an event is under way."""
    decoder = Decoder()
    assert decoder.feed(comment()) == []
    assert decoder.feed(b"data: x\n" + b": ping 1\n") == []
    assert decoder.comments == 2
    assert decoder.feed(b":\r\n\r\n") == one(b"x")
    assert decoder.comments == 3
    assert comment(b"ping") == b": ping\n\n"


def test_an_id_and_a_retry_without_data_are_kept_for_resuming() -> None:
    """Servers prime a stream with an id, and ask for a pause, before they have anything to say (2025-11-25)."""
    decoder = Decoder()
    assert decoder.feed(b"id: 41\nretry: 250\n\n") == []
    assert (decoder.last_event_id, decoder.retry_ms) == ("41", 250)
    assert decoder.feed(b"id: 42\ndata:\n\n") == one(b"", event_id="42")
    assert decoder.feed(b"data: x\n\n") == one(b"x")
    assert decoder.last_event_id == "42"
    assert decoder.feed(b"id: 43\n") == []
    assert decoder.last_event_id == "42", "an id counts once its event is complete"


@pytest.mark.parametrize(
    ("stream", "is_between"),
    [
        (b"", True),
        (b"data: a\n\n", True),
        (b"id: 1\nretry: 5\n\n: comment\n\n", True),
        (b"data", False),
        (b"data: a\n", False),
        (b"id: 1\n", False),
        (b"data: a\n\r", False),
    ],
)
def test_a_decoder_knows_when_nothing_has_begun(stream: bytes, is_between: bool) -> None:
    """Then another one may take its place."""
    decoder = Decoder()
    decoder.feed(stream)
    assert decoder.is_between == is_between


def test_a_line_end_split_over_chunks_is_one_line_end() -> None:
    """CR in one chunk and LF in the next end one line; the event is handed out at the CR, not one chunk later."""
    decoder = Decoder()
    assert decoder.feed(b"data: x\r") == []
    assert decoder.feed(b"\n\r") == one(b"x")
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: y\r\r") == one(b"y")
    assert decoder.feed(b"data: z\n\n") == one(b"z")


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_a_line_beyond_its_bound_is_refused_in_any_chunking(size: int) -> None:
    """The bound counts the bytes of the line without its end; one byte more is refused before it is buffered."""
    fits = b"data: " + b"x" * 94 + b"\n\n"
    exceeds = b"data: " + b"x" * 95 + b"\n\n"
    assert decode(*chunked(fits, size), max_line_bytes=100) == one(b"x" * 94)
    for stream in (exceeds, exceeds[:-2], b": " + b"c" * 99 + b"\n", b"\n\n" + exceeds):
        with pytest.raises(SseError):
            decode(*chunked(stream, size), max_line_bytes=100)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_beyond_its_bound_is_refused(size: int) -> None:
    """Many short lines are bounded too, empty data lines and unknown fields included."""
    assert decode(*chunked(b"data: 1234\n" * 10 + b"\n", size), max_event_bytes=100) == one(b"\n".join([b"1234"] * 10))
    for line in (b"data: 1234\n", b"data\n", b"junk: 12\n", b"id: 1\n"):
        with pytest.raises(SseError):
            decode(*chunked(line * 30, size), max_event_bytes=100)
    with pytest.raises(SseError):
        decode(b"data: " + b"x" * 95 + b"\n\n", max_event_bytes=100)


def test_comments_without_end_are_not_an_event_beyond_its_bound() -> None:
    """Keep-alives between two events may go on for days."""
    stream = b":\n" * 1000 + b"data: x\n\n"
    assert decode(stream, max_event_bytes=10) == one(b"x")
    assert decode(*chunked(stream, 3), max_event_bytes=10) == one(b"x")


def chunked(stream: bytes, size: int) -> list[bytes]:
    return [stream[i : i + size] for i in range(0, len(stream), size)]


PIECES = st.sampled_from(
    [
        b"data",
        b"data:",
        b"data: ",
        b"event: message",
        b"event: e",
        b"id: 1",
        b"id",
        b"retry: 20",
        b":",
        b": c",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b" ",
        b"x",
        b"\0",
        b"\xff",
        b"\xe2\x80\xa8",
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=6), max_size=40).map(b"".join)


def reference(stream: bytes) -> list[Event]:
    """The standard's algorithm, as slow and as plain as it is written there."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    events: list[Event] = []
    data: list[bytes] = []
    name, event_id, retry_ms = b"", None, None
    for line in lines:
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if data:
                events.append(Event(b"\n".join(data), name.decode(errors="replace") or "message", event_id, retry_ms))
            data, name, event_id, retry_ms = [], b"", None, None
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"id" and b"\0" not in value:
            event_id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit() and len(value) <= 12:
            retry_ms = int(value)
    return events


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 250), max_size=12))
def test_any_chunking_gives_the_events_of_the_standard(stream: bytes, cuts: list[int]) -> None:
    """Cut anywhere, the same events come out as from the plain algorithm, with the same state left behind."""
    points = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole, cut = Decoder(), Decoder()
    expected = whole.feed(stream)
    got = [event for a, b in itertools.pairwise(points) for event in cut.feed(stream[a:b])]
    assert got == expected == reference(stream)
    assert (cut.comments, cut.last_event_id, cut.retry_ms) == (whole.comments, whole.last_event_id, whole.retry_ms)


@given(
    events=st.lists(
        st.tuples(
            st.one_of(st.sampled_from(INJECTIONS), STREAMS, st.binary(max_size=60)),
            st.none() | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1),
            st.none() | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])),
            st.none() | st.integers(0, 10**9),
        ),
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 500), max_size=6),
)
def test_what_is_encoded_decodes_to_the_same_events(
    events: list[tuple[bytes, str | None, str | None, int | None]], cuts: list[int]
) -> None:
    """Round trip through any chunking, with keep-alives between."""
    wire = comment().join(encode(d, event=e, event_id=i, retry_ms=r) for d, e, i, r in events)
    points = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    chunks = [wire[a:b] for a, b in itertools.pairwise(points)]
    assert decode(*chunks) == [Event(line_ends_as_lf(d), e or "message", i, r) for d, e, i, r in events]


@given(chunks=st.lists(st.binary(max_size=80) | STREAMS, max_size=10), bound=st.integers(1, 60))
def test_garbage_gives_events_or_a_protocol_error(chunks: list[bytes], bound: int) -> None:
    """Nothing else is ever raised, and no event is larger than the bound that was set."""
    try:
        events = decode(*chunks, max_line_bytes=bound, max_event_bytes=bound)
    except ProtocolError:
        return
    assert all(len(event.data) <= bound for event in events)
