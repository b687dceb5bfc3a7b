"""SSE: any chunking gives the events of one chunk, within the bounds; what is encoded decodes to the same."""

from __future__ import annotations

import engine

with engine.instrumented():
    from gatewright.errors import ProtocolError
    from gatewright.protocol.sse import Decoder, Event, encode

WORDS = (
    b"data",
    b"data:",
    b"data: ",
    b"event: message\n",
    b"event: ",
    b"id: ",
    b"retry: 1",
    b":",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\xef\xbb\xbf",
    b"\0",
    b"\xe2\x80\xa8",
    b"{}",
    b" ",
)


def decode(chunks: list[bytes], bound: int) -> tuple[list[Event], Decoder] | None:
    """All events and the decoder, None when a bound was broken."""
    decoder = Decoder(max_line_bytes=bound, max_event_bytes=bound)
    try:
        return [event for chunk in chunks for event in decoder.feed(chunk)], decoder
    except ProtocolError:
        return None


def check(data: bytes) -> None:
    """The first two bytes choose the chunk size and the bound, the rest is the stream."""
    size, bound, stream = 1 + (data[:1] or b"\1")[0] % 32, 1 + (data[1:2] or b"\xff")[0] * 8, data[2:]
    whole = decode([stream], bound)
    cut = decode([stream[i : i + size] for i in range(0, len(stream), size)], bound)
    assert (whole is None) == (cut is None)
    if whole is not None and cut is not None:
        assert whole[0] == cut[0]
        for name in ("comments", "last_event_id", "retry_ms"):
            assert getattr(whole[1], name) == getattr(cut[1], name)
        assert all(len(event.data) <= bound for event in whole[0])
    (event,) = Decoder().feed(encode(stream))
    assert event.data == stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


if __name__ == "__main__":
    engine.run("sse", check, WORDS)
