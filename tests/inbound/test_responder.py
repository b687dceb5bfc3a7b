"""One response: its bytes on the wire, and what happens when it is used late, twice or after the client left."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable
from http.client import HTTPMessage, parse_headers
from io import BytesIO
from typing import Any

import pytest

from gatewright.inbound.crowd import Crowd, Places
from gatewright.inbound.responder import Responder, error_body, refusal_bytes
from gatewright.outbox import Outbox

pytestmark = pytest.mark.anyio


class Wire:
    """A connection that keeps what it is given."""

    def __init__(self) -> None:
        self.sent = b""
        self.held = b""
        self.writes = 0
        self.crowd = Crowd(Places(1, 1), retry_after_s=1.0)
        self.outbox = Outbox(lambda flush: pytest.fail("nothing waits where nothing else is expected"))
        self.is_draining = False
        self.is_ending = False
        self.is_paused = False
        self.waits = 0
        self.finished: list[Responder] = []

    def write(self, data: bytes, /) -> None:
        self.sent += data
        self.writes += 1

    def write_soon(self, data: bytes, /) -> None:
        self.held += data

    def flush(self) -> None:
        if self.held:
            held, self.held = self.held, b""
            self.write(held)

    def writelines(self, parts: Iterable[bytes], /) -> None:
        assert not self.held
        self.write(b"".join(parts))

    async def writable(self) -> None:
        self.waits += 1
        self.is_paused = False

    def finish(self, responder: Responder, /) -> None:
        self.finished.append(responder)

    def responder(self, *, is_last: bool = False, is_old: bool = False, is_bare: bool = False) -> Responder:
        return Responder(self, is_last, is_old, is_bare)

    def parsed(self) -> tuple[bytes, HTTPMessage, bytes]:
        """Status line, fields and what follows them, read by the standard library."""
        line, rest = self.sent.split(b"\r\n", 1)
        stream = BytesIO(rest)
        return line, parse_headers(stream), stream.read()


@pytest.fixture
def wire() -> Wire:
    """A connection with nothing on it yet."""
    return Wire()


def test_a_whole_response_is_one_write(wire: Wire) -> None:
    """Head and body leave together, so that they leave in one packet."""
    wire.responder().respond(200, b"{}", headers=b"Mcp-Session-Id: x\r\n")
    line, fields, body = wire.parsed()
    assert line == b"HTTP/1.1 200 OK"
    assert dict(fields) == {"Content-Type": "application/json", "Content-Length": "2", "Mcp-Session-Id": "x"}
    assert body == b"{}"
    assert wire.writes == 1
    assert len(wire.finished) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (202, b"", {"Content-Length": "0"}),
        (204, b"", {}),
        (304, b"", {}),
        (404, b"x", {"Content-Type": "text/plain", "Content-Length": "1"}),
        (299, b"x", {"Content-Type": "text/plain", "Content-Length": "1"}),
    ],
)
def test_a_head_has_the_fields_its_body_calls_for(
    wire: Wire, status: int, body: bytes, expected: dict[str, str]
) -> None:
    """No content type without content, no length where the status forbids it."""
    wire.responder().respond(status, body, content_type=b"text/plain")
    line, fields, sent = wire.parsed()
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert dict(fields) == expected
    assert sent == body


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000])
def test_a_long_body_arrives_as_it_is(wire: Wire, size: int) -> None:
    """However head and body are handed to the transport."""
    wire.responder().respond(200, b"x" * size)
    _, fields, body = wire.parsed()
    assert fields["Content-Length"] == str(size)
    assert body == b"x" * size


def test_head_is_answered_without_a_body(wire: Wire) -> None:
    """The length is the one GET would have had (RFC 9110 section 9.3.2)."""
    wire.responder(is_bare=True).respond(200, b"abc")
    _, fields, body = wire.parsed()
    assert fields["Content-Length"] == "3"
    assert body == b""


@pytest.mark.parametrize("draining", [False, True])
def test_the_last_response_says_so(wire: Wire, draining: bool) -> None:
    """Because the client asked for it, or because the listener shuts down."""
    wire.is_draining = draining
    responder = wire.responder(is_last=not draining)
    assert not responder.is_draining
    responder.respond(200, b"{}")
    assert wire.parsed()[1]["Connection"] == "close"
    assert wire.finished[0].is_last


async def test_a_stream_is_chunked_and_terminated(wire: Wire) -> None:
    """Every piece is one chunk; empty pieces would end the stream and are left out."""
    responder = wire.responder()
    responder.start_stream(headers=b"Mcp-Session-Id: x\r\n")
    for piece in (b"data: 1\n\n", b"", b"y" * 70_000):
        await responder.send(piece)
    responder.end()
    line, fields, rest = wire.parsed()
    assert line == b"HTTP/1.1 200 OK"
    assert dict(fields) == {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "Transfer-Encoding": "chunked",
        "Mcp-Session-Id": "x",
    }
    assert rest == b"9\r\ndata: 1\n\n\r\n" + b"%x\r\n" % 70_000 + b"y" * 70_000 + b"\r\n0\r\n\r\n"
    assert len(wire.finished) == 1


async def test_a_short_stream_is_one_write(wire: Wire) -> None:
    """Head, event and end leave together when they are ready together."""
    responder = wire.responder()
    responder.start_stream()
    await responder.send(b"data: 1\n\n")
    responder.end()
    assert wire.writes == 1
    assert wire.sent.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n")


async def test_a_stream_to_an_old_client_ends_with_the_connection(wire: Wire) -> None:
    """HTTP/1.0 has no chunks (RFC 9112 section 7)."""
    responder = wire.responder(is_last=True, is_old=True)
    responder.start_stream()
    await responder.send(b"data: 1\n\n")
    responder.end()
    _, fields, rest = wire.parsed()
    assert fields["Connection"] == "close"
    assert "Transfer-Encoding" not in fields
    assert rest == b"data: 1\n\n"
    assert wire.finished[0].is_last


async def test_sending_waits_while_the_reader_is_slow(wire: Wire) -> None:
    """A paused transport holds the sender back, and only then."""
    responder = wire.responder()
    responder.start_stream()
    await responder.send(b"a")
    assert wire.waits == 0
    wire.is_paused = True
    await responder.send(b"b")
    assert wire.waits == 1


async def test_nothing_more_is_sent_while_the_reader_is_slow(wire: Wire) -> None:
    """Of many who send on one stream each waits for its turn: a slow reader's buffer holds no more than one piece."""
    responder = wire.responder()
    responder.start_stream()
    wire.is_paused = True
    assert responder.is_behind
    sending = responder.send(b"late").__await__()
    wire.is_paused = True
    wire.writable = gone(responder)  # type: ignore[method-assign]
    with pytest.raises(StopIteration):
        next(sending)
    assert b"late" not in wire.held


def gone(responder: Responder) -> Callable[[], Coroutine[Any, Any, None]]:
    """A wait for a client that ends because it left."""

    async def left() -> None:
        responder.leave()

    return left


async def test_a_second_answer_is_a_bug(wire: Wire) -> None:
    """It would be read as the answer to the next request."""
    responder = wire.responder()
    responder.respond(200, b"{}")
    sent = wire.sent
    with pytest.raises(RuntimeError):
        responder.respond(200, b"{}")
    with pytest.raises(RuntimeError):
        responder.start_stream()
    await responder.send(b"late")
    responder.end()
    assert wire.sent == sent
    assert len(wire.finished) == 1


async def test_sending_before_the_stream_is_started_is_a_bug(wire: Wire) -> None:
    """Bytes before the head would not be HTTP."""
    with pytest.raises(RuntimeError):
        await wire.responder().send(b"early")


async def test_nothing_is_written_after_the_client_left(wire: Wire) -> None:
    """Answering then is normal, and does nothing."""
    whole, stream = wire.responder(), wire.responder()
    stream.start_stream()
    sent = wire.sent
    left: list[str] = []
    stream.on_gone = lambda: left.append("stream")
    for responder in (whole, stream):
        responder.leave()
        responder.leave()
        assert responder.is_gone
    whole.respond(200, b"{}")
    await stream.send(b"late")
    stream.end()
    assert wire.sent == sent
    assert wire.finished == []
    assert left == ["stream"]


def test_whoever_asks_late_is_told_at_once(wire: Wire) -> None:
    """A client may leave, and the listener begin to drain, before the request is looked at."""
    told: list[str] = []
    responder = wire.responder()
    responder.leave()
    responder.on_gone = lambda: told.append("gone")
    wire.is_ending = True
    responder = wire.responder()
    responder.on_drain = lambda: told.append("drain")
    responder.drain()
    assert told == ["gone", "drain"]


def test_a_client_that_leaves_after_its_answer_was_answered(wire: Wire) -> None:
    """Nobody is told: there is nothing to stop."""
    responder = wire.responder()
    left: list[str] = []
    responder.on_gone = lambda: left.append("gone")
    responder.respond(200, b"{}")
    responder.leave()
    assert not responder.is_gone
    assert left == []


def test_draining_is_told_once_and_only_while_the_response_runs(wire: Wire) -> None:
    """The owner of a stream ends it politely; a finished response has no owner."""
    told: list[str] = []
    running, finished = wire.responder(), wire.responder()
    running.on_drain = lambda: told.append("running")
    finished.on_drain = lambda: told.append("finished")
    finished.respond(200, b"{}")
    for responder in (running, running, finished):
        responder.drain()
    assert told == ["running"]


def test_errors_are_json_rpc_without_an_id() -> None:
    """They answer bytes, not a call; an internal error carries the id that the log shows."""
    assert json.loads(error_body(-32600, 'a "b"')) == {
        "jsonrpc": "2.0",
        "error": {"code": -32600, "message": 'a "b"'},
    }
    assert json.loads(error_body(-32603, "Internal error", "f00"))["error"]["data"] == {"errorId": "f00"}


def test_a_refusal_ends_the_connection(wire: Wire) -> None:
    """It is complete in itself."""
    wire.write(refusal_bytes(503, "too many connections", b"Retry-After: 1\r\n"))
    line, fields, body = wire.parsed()
    assert line == b"HTTP/1.1 503 Service Unavailable"
    assert (fields["Connection"], fields["Retry-After"]) == ("close", "1")
    assert int(fields["Content-Length"]) == len(body)
    assert json.loads(body)["error"]["code"] == -31001
