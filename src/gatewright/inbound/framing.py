"""HTTP/1.1 request framing: bytes in, whole requests out, or one refusal after which nothing more is read.

Contract: SANS-IO. `RequestReader.feed` takes any chunking of a connection's bytes and delivers each complete request
to a callback; it raises `Refusal` for bytes that are not strictly HTTP/1.1 or that exceed a bound, and must not be fed
again after that. It never repairs: what two parsers could read differently is refused (RFC 9112 section 11.2).

llhttp (through httptools, no leniency switched on) refuses by itself: Content-Length with Transfer-Encoding or twice,
signs, spaces and lists in Content-Length, bare CR, bare LF, obs-fold, space before the colon, control characters and
non-token names, bad chunk sizes and extensions. It accepts, and we refuse: `Transfer-Encoding: gzip, chunked`, chunked
under HTTP/1.0, HTTP/0.9 and 2.0 request lines, a missing or repeated Host, absolute-form, authority-form and asterisk
targets, fragments and characters outside RFC 3986 in the path, and endless chunk extensions or trailers. Two
tolerances of RFC 9112 stay: more than one space in the request line (section 3), empty lines before it (section 2.2).
Trailers are read and dropped (section 7.1.2). `Upgrade` is ignored (RFC 9110 section 7.8): Java's HttpClient offers
`h2c` with its first POST, and the body that follows belongs to that POST.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

import httptools
import msgspec

from gatewright.errors import ProtocolError
from gatewright.inbound.known_heads import LENGTH, Known, KnownHeads
from gatewright.inbound.settings import Limits
from gatewright.pieces import Pieces, hold

Peer: TypeAlias = tuple[str, int] | None

SINGULAR: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"authorization",
        b"origin",
        b"mcp-session-id",
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"last-event-id",
    }
)
"""Fields that mean one thing: a request that repeats one is refused, since two readers may pick differently. So is a
repeated `mcp-param-*`."""

_MAX_FIELDS: Final = 128
"""Header fields of one request. Apache httpd allows 100; MCP clients send about ten."""

_TARGET: Final = re.compile(rb"(/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)(?:\?([!\"$-~]*))?")
"""origin-form (RFC 9112 section 3.2.1): the path as RFC 3986 has it; a query of anything visible but `#`."""
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?")
_NO_FIELDS: Final[dict[bytes, bytes]] = {}


@final
class HttpRequest(msgspec.Struct, gc=False):
    """One complete request. Header names are lower case; a repeated list-like field is joined with `, `, and
    `content-length` is left out: the body says it. They may be shared with other requests: never change them."""

    method: str
    path: str
    """Without the query; percent-encoding kept as received."""
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    peer: Peer
    known: Known | None = None
    """Its head, when the connection sent that before: what is found in it once may be kept there."""


class Refusal(ProtocolError):
    """A request that is not served. `status` is the HTTP status of the answer, `headers` its extra lines (CRLF-ended).

    The connection ends after the answer.
    """

    def __init__(self, status: int, message: str, *, headers: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


Deliver: TypeAlias = Callable[[HttpRequest, bool, bool], None]
"""Called with each complete request, in order: the request, whether the connection ends after it, and whether the
client speaks HTTP/1.0 (no chunked answers)."""


class RequestReader:
    """Reads the requests of one connection.

    `stage` counts transitions: `stage % 3` is 0 between requests, 1 inside a header section, 2 inside a body. A caller
    that remembers it sees any progress by one comparison.
    """

    __slots__ = (
        "_chunked",
        "_deliver",
        "_fields",
        "_gathered",
        "_head",
        "_head_bytes",
        "_host",
        "_is_old",
        "_is_upgrade",
        "_known",
        "_limits",
        "_parser",
        "_parts",
        "_peer",
        "_read",
        "_refusal",
        "_repeats",
        "_request",
        "_size",
        "_target",
        "_url",
        "_wire_bytes",
        "awaits_continue",
        "body_left",
        "is_last",
        "stage",
    )

    def __init__(self, deliver: Deliver, limits: Limits, peer: Peer = None) -> None:
        self._deliver = deliver
        self._limits = limits
        self._peer = peer
        self.stage = 0
        self.is_last = False
        """The last delivered request ends the connection; what follows it is not read."""
        self.awaits_continue = False
        """The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1)."""
        self.body_left = 0
        """Bytes of a Content-Length body still to come; 0 when unknown."""
        self._url = b""
        self._fields = _NO_FIELDS
        self._repeats = 0
        self._request: HttpRequest | None = None
        self._parts: bytearray | bytes = b""
        self._size = 0
        self._chunked = False
        self._is_old = False
        self._is_upgrade = False
        self._head_bytes = 0
        self._wire_bytes = 0
        self._refusal: Refusal | None = None
        # Requests on one connection repeat their host and target: what was found good is not checked again.
        self._host = b" "  # no value is this: values are trimmed
        self._target: tuple[bytes, str, bytes] = (b"", "", b"")
        self._known = KnownHeads()
        self._read: HttpRequest | None = None  # the last one of the bytes at hand
        self._head = b""  # that of a request whose body takes more reads than one
        self._gathered: tuple[Known, Pieces] | None = None  # the body so far, under a known head
        self._parser: httptools.HttpRequestParser | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises `Refusal`; after that, feed nothing more."""
        if self._gathered is not None:
            self._gather(*self._gathered, data)
            return
        stage = self.stage
        fresh = data if isinstance(data, bytes) and not (stage % 3 or self.is_last) else None
        found = None if fresh is None else self._known.match(fresh, self._limits.max_body_bytes)
        if found is not None:
            known, at, self.body_left = found
            self.stage = stage + 2
            self._gather(known, [data[at:]], b"")
            return
        self._parse(data)
        request, self._read = self._read, None
        head, self._head = self._head, b""
        if fresh is not None and self.stage == stage + 3 and request is not None:
            self._learn(fresh, request)
        elif fresh is not None and self.stage == stage + 2:
            self._head = fresh[: fresh.find(b"\r\n\r\n") + 4]
        elif head and self.stage == stage:
            self._head = head  # only more of its body
        elif head and self.stage == stage + 1 and request is not None:
            self._learn(head, request, len(request.body))

    def known(self, data: bytes) -> HttpRequest | None:
        """The request, when `data` is exactly one under a head that was sent before, and nothing came before it: it is
        read, and not delivered."""
        if self.stage % 3 or self.is_last:
            return None
        found = self._known.match(data, self._limits.max_body_bytes)
        if found is None:
            return None
        known, at, missing = found
        if missing:
            return None
        self.stage += 3
        return HttpRequest(known.method, known.path, known.query, known.fields, data[at:], self._peer, known)

    def _gather(self, known: Known, pieces: Pieces, data: bytes | memoryview) -> None:
        """Take the next piece of a body under a known head; what follows it is another request's."""
        left = self.body_left
        size = len(data)
        if data:
            hold(pieces, data[:left])
        if size < left:
            self.body_left = left - size
            self._gathered = (known, pieces)
            return
        self.body_left = 0
        self._gathered = None
        self.stage += 1
        body = b"".join(pieces)
        request = HttpRequest(known.method, known.path, known.query, known.fields, body, self._peer, known)
        self._deliver(request, False, False)
        if size > left:
            self.feed(data[left:])

    def _learn(self, data: bytes, request: HttpRequest, missing: int = 0) -> None:
        """`data` was exactly this request, but for `missing` bytes of its body, unless the lengths say otherwise."""
        fields = request.headers
        if not self.is_last and b"expect" not in fields and b"upgrade" not in fields:
            self._known.learn(data, request.method, request.path, request.query, fields, missing)

    def _parse(self, data: bytes | memoryview) -> None:
        if self.stage % 3:
            self._head_bytes += len(data)
            self._wire_bytes += len(data)
        else:
            self._head_bytes = len(data)
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.is_last and not self.stage % 3:
                return  # bytes after a request that ends the connection: nobody reads them
            raise self._refusal or _parser_refusal(error) from error
        if self.stage % 3:
            self._check_unfinished()

    def close(self) -> None:
        """Drop the parser, whose callbacks refer back to this object, and what has come of a request that will never be
        whole: a connection refers back to itself, so all that it holds waits for the garbage collector, which is seldom
        there, and a body may be megabytes."""
        self._parser = self._request = self._gathered = None
        self._parts = self._head = b""
        self._fields = _NO_FIELDS
        self._known = KnownHeads()

    def rest(self) -> None:
        """Drop what only another request needs: none is expected for long. Between requests a new parser reads as the
        old one would."""
        self._known = KnownHeads()
        if not self.stage % 3:
            self._parser = None

    def _check_unfinished(self) -> None:
        """Bounds on what has arrived of a request that is not complete."""
        if self.stage % 3 == 1:
            if self._head_bytes < 0:
                self._head_bytes = 0  # began behind another request: counted from the next read on
            elif self._head_bytes > self._limits.max_header_bytes:
                raise _too_long(self._limits)
        elif self._chunked and self._wire_bytes - 2 * self._size > self._limits.max_header_bytes:
            # Chunk sizes, extensions and trailers may not outweigh the body (CVE-2024-22019, CVE-2023-39326).
            raise Refusal(400, "chunked framing outweighs the body")

    # Callbacks of the parser, in the order of a request.

    def on_message_begin(self) -> None:
        if self.is_last:
            raise EOFError("nothing is read after a request that ends the connection")  # stops the parser
        self.stage += 1
        self._url = b""
        self._fields = {}

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        fields = self._fields
        if name in fields:
            self._repeat(name, value)
        else:
            fields[name] = value.rstrip(b" \t")

    def on_headers_complete(self) -> None:
        try:
            self._accept_head()
        except Refusal as refusal:
            self._refusal = refusal
            raise

    def on_body(self, part: bytes) -> None:
        size = self._size = self._size + len(part)
        if self._chunked:
            if size > self._limits.max_body_bytes:
                self._refusal = _too_large(self._limits)
                raise self._refusal
        else:
            self.body_left -= len(part)
        self.awaits_continue = False
        if size == len(part):
            self._parts = part
        elif isinstance(self._parts, bytearray):
            self._parts += part
        else:
            self._parts = bytearray(self._parts)
            self._parts += part

    def on_message_complete(self) -> None:
        request = self._request
        if request is None or self._is_upgrade:
            return  # the parser ends an upgrade early; `_ignore_upgrade` goes on with it
        self._request = None
        if self._size:
            request.body = bytes(self._parts)
            self._parts = b""
            self._size = 0
        self.awaits_continue = False
        self.stage += 1
        self._head_bytes = -1
        self._read = request
        self._deliver(request, self.is_last, self._is_old)

    # The head as a whole.

    def _accept_head(self) -> None:
        fields = self._fields
        if not 0 <= self._head_bytes <= self._limits.max_header_bytes:
            self._check_head_size()
        if len(fields) > _MAX_FIELDS:
            raise Refusal(431, "too many header fields")
        parser = self._parser
        assert parser is not None
        self._is_old = False
        if not parser.should_keep_alive() or b"connection" in fields:
            self._accept_version(parser)
        host = fields.get(b"host")
        if host is None:
            if not self._is_old:
                raise Refusal(400, "Host is missing")
        elif host != self._host:
            if not _HOST.fullmatch(host):
                raise Refusal(400, "Host is not a host")
            self._host = host
        url = self._url
        if url != self._target[0]:
            self._accept_target(url)
        length = fields.pop(b"content-length", None)
        if length is None:
            self.body_left = 0
            self._chunked = b"transfer-encoding" in fields
            if self._chunked:
                self._accept_coding(fields[b"transfer-encoding"])
        else:
            self.body_left = int(length)
            self._chunked = False
            if self.body_left > self._limits.max_body_bytes:
                raise _too_large(self._limits)
        if b"content-encoding" in fields and fields[b"content-encoding"].lower() != b"identity":
            raise Refusal(415, "Content-Encoding is not accepted", headers=b"Accept-Encoding: identity\r\n")
        if b"expect" in fields:
            self._accept_expectation(fields[b"expect"])
        if b"upgrade" in fields:
            self._is_upgrade = parser.should_upgrade()
        method = parser.get_method()
        if method == b"CONNECT":
            raise Refusal(400, "CONNECT takes a host, and no host is served")
        target = self._target
        self._request = HttpRequest(method.decode(), target[1], target[2], fields, b"", self._peer)
        if self._chunked:
            self._fields = {}  # what still arrives are trailers
            self._wire_bytes = 0
        self._repeats = 0
        self.stage += 1

    def _repeat(self, name: bytes, value: bytes) -> None:
        self._repeats += 1
        if name in SINGULAR or name.startswith(b"mcp-param-"):
            self._refusal = Refusal(400, f"{name.decode('ascii')[:64]} is repeated")
            raise self._refusal
        if self._repeats > _MAX_FIELDS:
            self._refusal = Refusal(431, "too many header fields")
            raise self._refusal
        self._fields[name] += b", " + value.rstrip(b" \t")

    def _check_head_size(self) -> None:
        """The exact size, when the reads that carried the head were longer than a head may be."""
        size = len(self._url) + 16 + sum(len(name) + len(value) + 4 for name, value in self._fields.items())
        if size > self._limits.max_header_bytes:
            raise _too_long(self._limits)

    def _accept_version(self, parser: httptools.HttpRequestParser) -> None:
        version = parser.get_http_version()
        if version == "1.1":
            self.is_last = not parser.should_keep_alive()
        elif version == "1.0":
            self.is_last = self._is_old = True
        else:
            raise Refusal(505, "only HTTP/1.1 and HTTP/1.0 are served")

    def _accept_target(self, url: bytes) -> None:
        found = _TARGET.fullmatch(url)
        if found is None:
            raise Refusal(400, "the request target is not a path")
        self._target = (url, found[1].decode("ascii"), found[2] or b"")

    def _accept_coding(self, coding: bytes) -> None:
        if self._is_old:
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise Refusal(501, "the only Transfer-Encoding is chunked")

    def _accept_expectation(self, expectation: bytes) -> None:
        if expectation.lower() != b"100-continue":
            raise Refusal(417, "the only Expect is 100-continue")
        self.awaits_continue = not self._is_old and (self._chunked or self.body_left > 0)

    def _ignore_upgrade(self, rest: bytes | memoryview) -> None:
        """Go on in HTTP/1.1 after a request that offered another protocol: the parser stopped behind its head."""
        request = self._request
        if request is None:
            raise Refusal(400, "the request target is not a path")
        self._is_upgrade = False
        replay = _Replay(self)
        self._parser = httptools.HttpRequestParser(replay)
        framing = b"Content-Length: %d" % self.body_left
        if self._chunked:
            framing = b"Transfer-Encoding: chunked"
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        replay.is_head = False
        if rest and not (self.is_last and not self.stage % 3):
            self._parse(rest)


def may_hold_many(data: bytes, stage: int = 0) -> bool:
    """Whether bytes that come at that stage may hold more than one request. Its length says quickly that a long one is
    alone, if it begins them: the rest of the bytes need not be looked through, which takes longer than reading them
    does. In the middle of a request what looks like a head may be anything."""
    if not stage % 3:
        end = data.find(b"\r\n\r\n") + 4
        found = LENGTH.search(data, 0, end) if end >= 4 else None
        if found is not None and len(data) - end <= int(found[1]):
            return False
    return data.count(b" HTTP/1.") > 1


class _Replay:
    """Callbacks for a parser that is given a head which the reader has accepted already: only what follows counts."""

    __slots__ = ("_reader", "is_head", "on_body", "on_message_complete")

    def __init__(self, reader: RequestReader) -> None:
        self._reader = reader
        self.is_head = True
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete

    def on_message_begin(self) -> None:
        if not self.is_head:
            self._reader.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_head:
            self._reader.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_head:
            self._reader.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_head:
            self._reader.on_headers_complete()


def _too_long(limits: Limits) -> Refusal:
    return Refusal(431, f"the header section exceeds {limits.max_header_bytes} bytes")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body exceeds {limits.max_body_bytes} bytes")


def _parser_refusal(error: httptools.HttpParserError) -> Refusal:
    """llhttp's reason, a fixed English phrase, as a refusal."""
    reason = str(error)
    if reason in ("Pause on PRI/Upgrade", "Invalid HTTP version"):
        return Refusal(505, "only HTTP/1.1 and HTTP/1.0 are served")
    return Refusal(400, f"not HTTP/1.1: {reason}")
