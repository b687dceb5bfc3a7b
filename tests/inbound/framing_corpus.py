"""Raw HTTP/1.1 requests that must be refused, and odd ones that must be read rightly, as data.

`REFUSED` holds a name, the bytes and the status of the one answer: nothing behind them on the connection may be
served. `READ` holds a name, the bytes and what is read from them as (method, path, body). Where an expectation differs
from what llhttp does by itself, `gatewright.inbound.framing` says so. Sources: RFC 9112 sections 2.2, 3, 5, 6, 7 and
11; the request-smuggling classes CL.TE, TE.CL, TE.0, CL.0, chunk extensions, bare LF, obs-fold.
"""

from __future__ import annotations

from typing import NamedTuple


class Refused(NamedTuple):
    """A request that is answered with `status`, once; the connection ends."""

    name: str
    raw: bytes
    status: int


class Read(NamedTuple):
    """Bytes that hold exactly these requests."""

    name: str
    raw: bytes
    requests: tuple[tuple[str, str, bytes], ...]


CANARY = b"GET /canary HTTP/1.1\r\nHost: a\r\n\r\n"
"""Sent behind each case. It is served behind a case of `READ` and never behind one of `REFUSED`."""

START = b"POST /mcp HTTP/1.1\r\n"
HEAD = START + b"Host: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

CONTROLS = [bytes([code]) for code in (*range(0x20), 0x7F)]
"""Every control character of ASCII."""
SEPARATORS = [bytes([char]) for char in b'"(),/:;<=>?@[\\]{}']
"""What RFC 9110 section 5.6.2 keeps out of tokens."""


def _field(line: bytes) -> bytes:
    return HEAD + line + b"\r\n\r\n"


def _refused(kind: str, status: int, *raws: bytes) -> list[Refused]:
    return [Refused(f"{kind} {number}", raw, status) for number, raw in enumerate(raws)]


_LENGTHS = (
    b"+3", b"-3", b"0x3", b"3,", b",3", b"3, 3", b"3,4", b"3 3", b"3;", b"3.0", b"1e1", b"three", b"", b" ", b"\xb3",
    b"3\x0b", b"\x0c3", b"0_3", b"'3'", b'"3"', b"18446744073709551616", b"99999999999999999999999999", b"3\t3",
    b"3\x00", b"\x003", b"3h", b"0b11", b"3/3",
)  # fmt: skip

_CODINGS = {
    # llhttp refuses these; a coding it takes for the last one but that is not `chunked` alone is ours (501).
    b"chunked, gzip": 400, b"identity": 501, b"xchunked": 501, b"chunkedx": 501, b'"chunked"': 501,
    b"chunked;q=1": 501, b"chunked, chunked": 400, b"gzip": 501, b"gzip, chunked": 501, b"identity, chunked": 501,
    b"deflate,chunked": 501, b"chunked, identity": 400, b"chunk": 501, b"": 400, b" ": 400, b"\x0bchunked": 400,
    b"chunked\x00": 400, b"\x00chunked": 400, b"chunked\x0b": 400, b"chunked,": 400, b",chunked": 501,
    b"ch\tunked": 501, b"chunked\x0c": 400, b"chunked gzip": 501, b"x chunked": 501, b"'chunked'": 501,
}  # fmt: skip

_CHUNKS = (
    b"g\r\nabc\r\n", b"0x3\r\nabc\r\n", b"+3\r\nabc\r\n", b"-3\r\nabc\r\n", b" 3\r\nabc\r\n", b"3 \r\nabc\r\n",
    b"3\t\r\nabc\r\n", b"3\nabc\r\n", b"3\rabc\r\n", b"3\r\r\nabc\r\n", b"3\r\nabc\n", b"3\r\nabc\r", b"3\r\nabc",
    b"3\r\nabcd\r\n", b"3\r\nab\r\n", b"4\r\nabc\r\n", b"\r\nabc\r\n", b"\n", b"3 ;x\r\nabc\r\n", b"3;\nabc\r\n",
    b"3;x\nabc\r\n", b"3;x=y\nabc\r\n", b'3;x="a\r\nb"\r\nabc\r\n', b"3;x\x00\r\nabc\r\n", b"3;x\x7f\r\nabc\r\n",
    b"fffffffffffffffff\r\nabc\r\n", b"10000000000000003\r\nabc\r\n", b"3,3\r\nabc\r\n", b"0_3\r\nabc\r\n",
    b"3h\r\nabc\r\n", b"3.0\r\nabc\r\n", b"\xb3\r\nabc\r\n", b"3\x0b\r\nabc\r\n", b"3\r\nabc\r\n\r\n", b"0\n\r\n",
    b"0\r\n\n", b"0\r\n\rG", b"0 \r\n\r\n", b"0\r\nbad trailer\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n",
    b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\nTransfer-Encoding: gzip\r\n\r\n", b"0\r\nX: a\x00\r\n\r\n",
    b"0\r\nX: a\n\r\n", b"0\r\nHost: a\r\nHost: b\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: a\r\n b\r\n\r\n",
)  # fmt: skip

_TARGETS = (
    b"*", b"http://a/mcp", b"https://a/mcp", b"http://a", b"//a:b@c\x00", b"a", b"mcp", b"a:80", b"/mcp#x", b"/mcp?x#y",
    b"/a\\b", b'/a"b', b"/a<b", b"/a>b", b"/a^b", b"/a`b", b"/a{b", b"/a|b", b"/a}b", b"/a[b", b"/a]b", b"/%", b"/%4",
    b"/%zz", b"/a%2", b"/\xff", b"/caf\xc3\xa9", b"?x", b"#", b"/mcp?a\xff", b"ftp://a/", b"urn:x", b"/a%g0", b"/%%20",
)  # fmt: skip

_VERSIONS = {
    b"HTTP/2.0": 505, b"HTTP/0.9": 505, b"HTTP/1.2": 505, b"HTTP/3.0": 505, b"HTTP/1.10": 400, b"HTTP/11.1": 400,
    b"HTTP/1": 400, b"HTTP/1.": 400, b"HTTP/.1": 400, b"http/1.1": 400, b"HTTPS/1.1": 400, b"HTTP 1.1": 400,
    b"HTTP/1,1": 400, b"HTTP/1.1 ": 400, b"HTTP/1.1 x": 400, b"HTTP/1.1\t": 400, b"HTTP/-1.1": 400, b"HTTP/x.1": 400,
    b"HTP/1.1": 400, b"FTP/1.1": 400, b"HTTP/\xb1.1": 400,
}  # fmt: skip

_HOSTS = (
    b"", b"a b", b"a,b", b"a@b", b"user:pw@a", b"a/b", b"a?b", b"a#b", b"a:b", b"a:80:80", b"a:-1", b"a:", b"[::1",
    b"::1", b"[zz]", b"a\\b", b"<a>", b"a;b", b"'a'", b'"a"', b"a%00", b"http://a", b"\xc3\xa9", b"a:123456", b"a\tb",
)  # fmt: skip

_REPEATED = (
    b"Host", b"Content-Type", b"Authorization", b"Origin", b"Mcp-Session-Id", b"MCP-Protocol-Version", b"Mcp-Method",
    b"Mcp-Name", b"Last-Event-ID", b"Mcp-Param-City", b"MCP-PARAM-x", b"Content-Length", b"Transfer-Encoding",
)  # fmt: skip


def _head_lines() -> list[Refused]:
    """Field lines: names, values, line ends."""
    names = [_field(b"X" + char + b"Y: a") for char in [*CONTROLS, *SEPARATORS, b" ", b"\x80", b"\xff"] if char != b":"]
    values = [_field(b"X: a" + char + b"b") for char in CONTROLS if char != b"\t"]
    tails = [_field(b"X: a" + char) for char in CONTROLS if char not in b"\t\r"]
    return [
        *_refused("field name", 400, *names),
        *_refused("field value", 400, *values),
        *_refused("end of field value", 400, *tails),
        *_refused(
            "field line",
            400,
            _field(b": a"),
            _field(b"X"),
            _field(b"X : a"),
            _field(b"X\t: a"),
            _field(b" X: a"),
            _field(b"\tX: a"),
            _field(b"X: a\r\n b"),
            _field(b"X: a\r\n\tb"),
            _field(b"X: a\r\n "),
            _field(b"X: a\n b"),
            _field(b"X: a\r\r\nY: b"),
            HEAD + b"X: a\n\r\n",
            HEAD + b"X: a\r\n\n",
            HEAD + b"X: a\n\n",
            HEAD + b"X: a\r\r",
            HEAD + b"\rX: a\r\n\r\n",
            HEAD + b"\n",
            START + b" Host: a\r\n\r\n",
            START + b"Host: a\n\r\n",
            START + b"Host: a\r\n\rX: b\r\n\r\n",
        ),
    ]


def _lengths() -> list[Refused]:
    """Content-Length, Transfer-Encoding and the two together."""
    length = b"Content-Length: 3"
    chunked = b"Transfer-Encoding: chunked"
    pairs = [
        HEAD + first + b"\r\n" + second + b"\r\n\r\n" + body
        for first, second in (
            (length, chunked),
            (chunked, length),
            (length, length),
            (length, b"Content-Length: 4"),
            (b"Content-Length: 0", chunked),
            (chunked, chunked),
            (chunked, b"Transfer-Encoding: identity"),
            (b"CONTENT-LENGTH: 3", b"transfer-encoding: CHUNKED"),
            (length, b"Transfer-Encoding : chunked"),
            (length, b" Transfer-Encoding: chunked"),
            (length, b"X: y\r\n Transfer-Encoding: chunked"),
            (length, b"Transfer-Encoding:\r\n chunked"),
            (b"Content-Length : 3", chunked),
        )
        for body in (b"abc", b"3\r\nabc\r\n0\r\n\r\n")
    ]
    spaced = (b"Transfer-Encoding : chunked", b"Content-Length : 3", b"Transfer-Encoding\t: chunked")
    return [
        *_refused("Content-Length", 400, *(_field(b"Content-Length: " + value) + b"abc" for value in _LENGTHS)),
        *_refused("Content-Length with Transfer-Encoding", 400, *pairs),
        *_refused("space before the colon", 400, *(_field(line) + LAST for line in spaced)),
        *(
            Refused(f"Transfer-Encoding {value!r}", _field(b"Transfer-Encoding: " + value) + LAST, status)
            for value, status in _CODINGS.items()
        ),
        *_refused(
            "chunked in HTTP/1.0",
            400,
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
            b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        ),
        *_refused("chunk", 400, *(CHUNKED + chunk for chunk in _CHUNKS)),
        *_refused("chunk behind a good one", 400, *(CHUNKED + b"2\r\nok\r\n" + chunk for chunk in _CHUNKS)),
        *_refused("chunk size", 400, *(CHUNKED + b"3" + char + b"\r\nabc\r\n" for char in CONTROLS if char != b"\r")),
    ]


def _lines() -> list[Refused]:
    """Request lines."""
    methods = [
        b"",
        b"get",
        b"Post",
        b"FOO",
        b"GE T",
        b"GET\x00",
        b"\x00GET",
        b"G",
        b"PO",
        b"POSTX",
        b"\xffGET",
        b"GET\t",
    ]
    return [
        *_refused("method", 400, *(name + b" /mcp HTTP/1.1\r\nHost: a\r\n\r\n" for name in methods)),
        *_refused("target", 400, *(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n" for target in _TARGETS)),
        *_refused("control in the target", 400, *(b"GET /a" + c + b"b HTTP/1.1\r\nHost: a\r\n\r\n" for c in CONTROLS)),
        *(
            Refused(f"version {value!r}", b"GET /mcp " + value + b"\r\nHost: a\r\n\r\n", status)
            for value, status in _VERSIONS.items()
        ),
        *_refused(
            "request line",
            400,
            b"GET /mcp HTTP/1.1\nHost: a\r\n\r\n",
            b"GET /mcp HTTP/1.1\nHost: a\n\n",
            b"GET /mcp HTTP/1.1\rHost: a\r\n\r\n",
            b"GET /mcp HTTP/1.1\r\r\nHost: a\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\t/mcp\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00\x00\x00\x00",
            b"{}\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\xef\xbb\xbfGET /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        Refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        Refused("HTTP/0.9", b"GET /mcp\r\n\r\n", 505),
    ]


def _fields() -> list[Refused]:
    """Fields that are well formed one by one."""
    repeats = [
        START + (b"" if name == b"Host" else b"Host: a\r\n") + name + b": 1\r\n" + name.lower() + b": 1\r\n\r\n"
        for name in _REPEATED
    ]
    return [
        *_refused("repeated field", 400, *repeats),
        *_refused("Host", 400, *(START + b"Host: " + host + b"\r\n\r\n" for host in _HOSTS)),
        Refused("no Host", START + b"X: y\r\n\r\n", 400),
        Refused("no fields", START + b"\r\n", 400),
        Refused("Host twice, equal", START + b"Host: a\r\nHost: a\r\n\r\n", 400),
        Refused("Host twice, apart", START + b"Host: a\r\nX: y\r\nhOST: b\r\n\r\n", 400),
        Refused("bad Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        *(
            Refused(f"Content-Encoding {coding!r}", _field(b"Content-Encoding: " + coding), 415)
            for coding in (b"gzip", b"deflate", b"br", b"zstd", b"GZIP", b"x", b"identity, gzip", b"gzip, gzip", b"")
        ),
        *(
            Refused(f"Expect {value!r}", _field(b"Expect: " + value + b"\r\nContent-Length: 3") + b"abc", 417)
            for value in (b"200-ok", b"100-continue, x", b"100", b"", b"100-continue\r\nExpect: 100-continue")
        ),
        Refused("too many fields", HEAD + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        Refused("too many repeats", HEAD + b"X: y\r\n" * 200 + b"\r\n", 431),
        Refused("long field", _field(b"X: " + b"y" * 40_000), 431),
        Refused("long field name", _field(b"X" * 40_000 + b": y"), 431),
        Refused("long target", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        Refused("long header section", HEAD + (b"X%0400d: y\r\n" * 100 % tuple(range(100))) + b"\r\n", 431),
        Refused("declared body too large", _field(b"Content-Length: 4194305") + b"abc", 413),
        Refused("declared body far too large", _field(b"Content-Length: 18446744073709551615") + b"abc", 413),
        Refused("chunked body too large", CHUNKED + (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 5, 413),
    ]


REFUSED: tuple[Refused, ...] = (*_head_lines(), *_lengths(), *_lines(), *_fields())

_POST = ("POST", "/mcp", b"abc")
_EMPTY = ("POST", "/mcp", b"")
_THREE = b"Content-Length: 3\r\n\r\nabc"


def _h2c(rest: bytes) -> bytes:
    return HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n" + rest


READ: tuple[Read, ...] = (
    Read("length", HEAD + _THREE, (_POST,)),
    Read("length zero", HEAD + b"Content-Length: 0\r\n\r\n", (_EMPTY,)),
    Read("no length", HEAD + b"\r\n", (_EMPTY,)),
    Read("leading zeros", HEAD + b"Content-Length: 003\r\n\r\nabc", (_POST,)),
    Read("space around the length", HEAD + b"Content-Length: \t3 \t \r\n\r\nabc", (_POST,)),
    Read("no space after the colon", START + b"Host:a\r\nContent-Length:3\r\n\r\nabc", (_POST,)),
    Read("case of names", START + b"HOST: a\r\ncOnTeNt-LeNgTh: 3\r\n\r\nabc", (_POST,)),
    Read("chunk", CHUNKED + b"3\r\nabc\r\n" + LAST, (_POST,)),
    Read("chunks", CHUNKED + b"1\r\na\r\n2\r\nbc\r\n" + LAST, (_POST,)),
    Read("no chunk", CHUNKED + LAST, (_EMPTY,)),
    Read("chunk sizes with zeros", CHUNKED + b"0003\r\nabc\r\n00\r\n\r\n", (_POST,)),
    Read("chunk extension", CHUNKED + b'3;a;b=c;d="e f"\r\nabc\r\n0;z\r\n\r\n', (_POST,)),
    Read("chunk size in capitals", CHUNKED + b"A\r\n0123456789\r\n" + LAST, (("POST", "/mcp", b"0123456789"),)),
    Read("CHUNKED", HEAD + b"Transfer-Encoding: CHUNKED \r\n\r\n3\r\nabc\r\n" + LAST, (_POST,)),
    Read("trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\nAuthorization: Bearer evil\r\n\r\n", (_POST,)),
    Read("body like a request", _field(b"Content-Length: %d" % len(CANARY)) + CANARY, (("POST", "/mcp", CANARY),)),
    Read("two", (HEAD + _THREE) * 2, (_POST, _POST)),
    Read("empty lines before", b"\r\n\r\n" + HEAD + _THREE, (_POST,)),
    Read("empty line between", HEAD + _THREE + b"\r\n" + HEAD + _THREE, (_POST, _POST)),
    Read("spaces in the request line", b"POST  /mcp  HTTP/1.1\r\nHost: a\r\n" + _THREE, (_POST,)),
    Read("query", b"GET /mcp?a=%20&b={|} HTTP/1.1\r\nHost: a\r\n\r\n", (("GET", "/mcp", b""),)),
    Read("path", b"GET /%2F;c=d/@:!$&'()*+,~ HTTP/1.1\r\nHost: a\r\n\r\n", (("GET", "/%2F;c=d/@:!$&'()*+,~", b""),)),
    Read("doubled slash", b"GET //mcp HTTP/1.1\r\nHost: a\r\n\r\n", (("GET", "//mcp", b""),)),
    Read("host and port", START + b"Host: a.example:8080\r\n" + _THREE, (_POST,)),
    Read("IPv6 host", START + b"Host: [::1]:80\r\n" + _THREE, (_POST,)),
    Read("delete", b"DELETE /mcp HTTP/1.1\r\nHost: a\r\n\r\n", (("DELETE", "/mcp", b""),)),
    Read("body of GET", b"GET /mcp HTTP/1.1\r\nHost: a\r\n" + _THREE, (("GET", "/mcp", b"abc"),)),
    Read("odd method", b"PURGE /mcp HTTP/1.1\r\nHost: a\r\n\r\n", (("PURGE", "/mcp", b""),)),
    Read("keep-alive", HEAD + b"Connection: keep-alive\r\n" + _THREE, (_POST,)),
    Read("identity", HEAD + b"Content-Encoding: identity\r\n" + _THREE, (_POST,)),
    Read("underscores", HEAD + b"Content_Length: 9\r\nTransfer_Encoding: chunked\r\n" + _THREE, (_POST,)),
    Read("upgrade without the option", HEAD + b"Upgrade: h2c\r\n" + _THREE, (_POST,)),
    Read(
        "upgrade to h2c, as Java's HttpClient offers it",
        _h2c(_THREE),
        (_POST,),
    ),
    Read("upgrade, chunked", _h2c(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + LAST), (_POST,)),
    Read("upgrade to websocket", HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", (_EMPTY,)),
    Read("expectation", HEAD + b"Expect: 100-continue\r\n" + _THREE, (_POST,)),
    Read("bytes above ASCII in a value", HEAD + b"X: \xc3\xa9\xff\tz\r\n" + _THREE, (_POST,)),
    Read("empty values", HEAD + b"X:\r\nY: \r\nZ: \t \r\n" + _THREE, (_POST,)),
    Read("repeated list", HEAD + b"Accept: a/b\r\naccept: c/d\r\n" + _THREE, (_POST,)),
)  # fmt: skip

LAST_READ: tuple[Read, ...] = (
    Read("close", HEAD + b"Connection: close\r\n" + _THREE, (_POST,)),
    Read("close among others", HEAD + b"Connection: keep-alive, close\r\n" + _THREE, (_POST,)),
    Read("close in a second field", HEAD + b"Connection: keep-alive\r\nConnection: close\r\n" + _THREE, (_POST,)),
    Read("Close", HEAD + b"Connection: Close\r\n" + _THREE, (_POST,)),
    Read("HTTP/1.0", b"POST /mcp HTTP/1.0\r\n" + _THREE, (_POST,)),
    Read("HTTP/1.0 with Host", b"POST /mcp HTTP/1.0\r\nHost: a\r\n" + _THREE, (_POST,)),
    Read("HTTP/1.0 keep-alive", b"POST /mcp HTTP/1.0\r\nConnection: keep-alive\r\n" + _THREE, (_POST,)),
    Read("close and upgrade", HEAD + b"Connection: close, upgrade\r\nUpgrade: h2c\r\n" + _THREE, (_POST,)),
)
"""Requests that end their connection: they are served, and nothing behind them is."""
