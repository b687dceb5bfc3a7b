"""The `endpoint` event: what is written for clients, and what is believed of backends."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.errors import ProtocolError
from gatewright.protocol import http_sse, sse

STREAM = "http://h:81/base/sse?key=1"
TOKENS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=64)
NAMED = [
    ("/messages/?session_id=1", "/messages/?session_id=1"),
    ("messages?session_id=1", "/base/messages?session_id=1"),
    ("../m/x", "/m/x"),
    ("?session_id=1", "/base/sse?session_id=1"),
    ("http://h:81/m", "/m"),
    ("HTTP://H:81", "/"),
    ("/m#part", "/m"),
    ("/m?a=b&c=%0d%0a", "/m?a=b&c=%0d%0a"),
]
FOREIGN = [
    "http://evil:81/m",
    "http://h:82/m",
    "http://h/m",
    "https://h:81/m",
    "//evil/m",
    "//h/m",
    "http://h:81@evil/m",
    "http://user@h:81/m",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "ftp://h:81/m",
]
NONSENSE = [
    *("", " ", "/a b", "/a\tb", "/a\nb", "/a\r\nhost: evil", "/\0", "/ü", "/" * 9000),
    *("http://[", "http://h:x/m", "http://h:81.evil/m"),
]


@pytest.mark.parametrize(("endpoint", "target"), NAMED)
def test_an_endpoint_is_read_as_a_reference(endpoint: str, target: str) -> None:
    """Absolute and relative references mean what RFC 3986 says, less their fragment."""
    assert http_sse.target_of(STREAM, endpoint.encode()) == target


@pytest.mark.parametrize("endpoint", FOREIGN)
def test_an_endpoint_elsewhere_is_refused(endpoint: str) -> None:
    """Scheme, host and port are the stream's own, and no credentials are smuggled in."""
    with pytest.raises(ProtocolError, match="another origin"):
        http_sse.target_of(STREAM, endpoint.encode())


@pytest.mark.parametrize("endpoint", NONSENSE)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    """Nothing but visible ASCII of a sane length can be in a request line."""
    with pytest.raises(ProtocolError):
        http_sse.target_of(STREAM, endpoint.encode())


@pytest.mark.parametrize(
    ("stream", "endpoint"), [("https://h/sse", "https://h:443/m"), ("http://h:80/s", "http://h/m")]
)
def test_a_default_port_may_be_left_out(stream: str, endpoint: str) -> None:
    """443 and 80 are what their schemes mean without a port."""
    assert http_sse.target_of(stream, endpoint.encode()) == "/m"


@given(st.binary(max_size=200))
def test_no_endpoint_leads_astray(endpoint: bytes) -> None:
    """Whatever a backend says: a target that starts with a slash and breaks no request line, or ProtocolError."""
    try:
        target = http_sse.target_of(STREAM, endpoint)
    except ProtocolError:
        return
    assert target.startswith("/")
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert "#" not in target


@given(st.one_of(st.just(""), TOKENS), TOKENS)
def test_an_event_leads_back_to_its_session(route: str, session_id: str) -> None:
    """The address that a client is told is on its own origin and names its session."""
    (event,) = sse.Decoder().feed(http_sse.endpoint_event(route, session_id))
    assert event.event == "endpoint"
    path, _, query = http_sse.target_of("http://h/sse", event.data).partition("?")
    assert path == ("/messages" if not route else f"/messages/{route}")
    assert http_sse.session_of(query.encode()) == session_id.encode()


def test_a_message_is_an_event_of_that_name() -> None:
    """Named, because some clients of the time take nothing else."""
    assert http_sse.message_event(b"{}") == b"event: message\ndata: {}\n\n"


@pytest.mark.parametrize(
    "query", [b"", b"session_id", b"session_id=", b"session_id=a&session_id=b", b"sessionid=a", b"x=session_id=a"]
)
def test_a_query_without_exactly_one_session_names_none(query: bytes) -> None:
    """Two readers might pick differently."""
    assert http_sse.session_of(query) is None


def test_the_last_line_says_when_to_return_and_is_no_event() -> None:
    """Whole milliseconds, heeded by a reader that has not seen the end of an event."""
    decoder = sse.Decoder(max_line_bytes=1_000, max_event_bytes=1_000)
    assert decoder.feed(http_sse.message_event(b"{}") + http_sse.retry_line(1.2345)) == [sse.Event(b"{}", "message")]
    assert decoder.retry_ms == 1_234
