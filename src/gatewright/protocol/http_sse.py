"""The HTTP+SSE transport of 2024-11-05, without its I/O: the `endpoint` event, written and read.

A client GETs the stream; its first event, `endpoint`, names where to POST messages; everything the server says comes
as `message` events. A server that may choose that address could send a client's messages, and the credentials in
their headers, anywhere: what is read here is therefore never anything but a request target on the stream's own origin.
Paths: `/sse` and `/messages` for all backends, `/sse/<backend>` and `/messages/<backend>` for one.

Sources: 2024-11-05 basic/transports "HTTP with SSE"; RFC 3986 section 5; RFC 6454 section 4.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from gatewright.errors import ProtocolError
from gatewright.protocol import sse
from gatewright.protocol.revisions import Era

STREAM_PATH: Final = "/sse"
MESSAGES_PATH: Final = "/messages"
ERA: Final[Era] = "handshake"
"""What the transport carries: it went before the modern era came."""
ENDPOINT: Final = "endpoint"
"""The name of the first event."""
MESSAGE: Final = "message"
"""The name of every other."""
MAX_ENDPOINT_BYTES: Final = 8_192
"""What common servers take as a request line."""

_SESSION_KEY: Final = b"session_id"
_MAX_PAIRS: Final = 32
"""Of a query: more than any client has reason to send."""
_VISIBLE: Final = re.compile(rb"[!-~]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def endpoint_event(route: str, session_id: str) -> bytes:
    """The event that opens a stream. `route` is a backend's name or empty; the id is of URL-safe characters.

    The address is a path without origin, as the official servers send it: it means the same host to every client.
    """
    path = f"{MESSAGES_PATH}/{route}" if route else MESSAGES_PATH
    return sse.encode(f"{path}?session_id={session_id}".encode(), event=ENDPOINT)


def retry_line(after_s: float) -> bytes:
    """How long a client should wait before it opens a stream again when this one ends: the last line of one.

    A line without the blank one that would end an event: readers heed it at once and dispatch nothing, while clients
    that take whatever is dispatched for a message would trip over an event without data. Source: WHATWG HTML, 9.2.6.
    """
    return b"retry: %d\n" % round(after_s * 1000)


def message_event(message: bytes) -> bytes:
    """One JSON-RPC message as an event."""
    return sse.encode(message, event=MESSAGE)


def session_of(query: bytes) -> bytes | None:
    """The session that a POST's query names; None when it names none, or more than one."""
    pairs = (pair.partition(b"=") for pair in query.split(b"&", _MAX_PAIRS))
    found = [value for key, _, value in pairs if key == _SESSION_KEY]
    return found[0] if len(found) == 1 and found[0] else None


def target_of(stream_url: str, endpoint: bytes) -> str:
    """The request target (path and query) that an `endpoint` event names, seen from the stream's address.

    Raises ProtocolError when it is no address or is not of the stream's origin. The message does not repeat it: it
    holds the session's id.
    """
    if len(endpoint) > MAX_ENDPOINT_BYTES or not _VISIBLE.fullmatch(endpoint):
        raise ProtocolError("the endpoint event holds no address")
    try:
        base = urlsplit(stream_url)
        named = urlsplit(urljoin(stream_url, endpoint.decode("ascii")))
        is_same = _origin(named) == _origin(base)
    except ValueError as error:
        raise ProtocolError("the endpoint event holds no address") from error
    if not is_same or "@" in named.netloc:
        raise ProtocolError("the endpoint event names another origin than the stream's")
    return (named.path or "/") + (f"?{named.query}" if named.query else "")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Raises ValueError for a port that is none."""
    port = parts.port
    return parts.scheme, parts.hostname, _DEFAULT_PORTS.get(parts.scheme) if port is None else port
