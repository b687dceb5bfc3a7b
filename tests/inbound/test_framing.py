"""Request framing as a conversation without sockets: strict, and the same under any chunking."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gatewright.inbound.framing import HttpRequest, Refusal, RequestReader, may_hold_many
from gatewright.inbound.settings import Limits
from inbound.framing_corpus import CANARY, HEAD, LAST_READ, READ, REFUSED, Read, Refused

CANARY_READ = ("GET", "/canary", b"")


class Conversation:
    """One reader and what it said."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.requests: list[HttpRequest] = []
        self.lasts: list[bool] = []
        self.refusal: Refusal | None = None
        self.reader = RequestReader(self._deliver, limits or Limits())

    def _deliver(self, request: HttpRequest, is_last: bool, is_old: bool) -> None:
        self.requests.append(request)
        self.lasts.append(is_last)

    def hear(self, *pieces: bytes) -> Conversation:
        """Feed until the end or the refusal."""
        for piece in pieces:
            try:
                self.reader.feed(piece)
            except Refusal as refusal:
                self.refusal = refusal
                break
        return self

    @property
    def verdict(self) -> tuple[list[tuple[str, str, bytes]], int]:
        """What was read, and the status of the refusal or 0."""
        read = [(request.method, request.path, request.body) for request in self.requests]
        return read, self.refusal.status if self.refusal else 0


def _cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(marks)]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_framing_error_is_refused_and_nothing_behind_it_is_read(case: Refused) -> None:
    """One refusal with the right status; the canary behind it is not a request."""
    assert Conversation().hear(case.raw + CANARY).verdict == ([], case.status)


@pytest.mark.parametrize("case", [case for case in REFUSED if len(case.raw) < 5_000], ids=lambda case: case.name)
def test_a_framing_error_is_refused_byte_by_byte(case: Refused) -> None:
    """The verdict does not depend on how the bytes arrive."""
    pieces = [bytes([byte]) for byte in case.raw + CANARY]
    assert Conversation().hear(*pieces).verdict == ([], case.status)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_framing_error_behind_a_request_is_refused(case: Refused) -> None:
    """The good request before it is read, the bad one is not, nor anything behind it."""
    assert Conversation().hear(CANARY + case.raw + CANARY).verdict == ([CANARY_READ], case.status)


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_an_odd_request_is_read_rightly(case: Read) -> None:
    """It is read as the specification says, and the request behind it keeps its own bytes."""
    assert Conversation().hear(case.raw + CANARY).verdict == ([*case.requests, CANARY_READ], 0)


@pytest.mark.parametrize("case", LAST_READ, ids=lambda case: case.name)
def test_nothing_is_read_behind_the_last_request(case: Read) -> None:
    """A request that ends the connection is read; the canary is not, in the same read or in the next."""
    talk = Conversation().hear(case.raw + CANARY, CANARY)
    assert talk.verdict == (list(case.requests), 0)
    assert talk.lasts == [True]


@given(
    cases=st.lists(st.sampled_from(READ), min_size=1, max_size=5),
    ending=st.sampled_from([None, *(case for case in REFUSED if len(case.raw) < 5_000), *LAST_READ]),
    cuts=st.lists(st.integers(min_value=0, max_value=5_000), max_size=20),
)
def test_any_chunking_gives_the_same_requests(
    cases: list[Read], ending: Read | Refused | None, cuts: list[int]
) -> None:
    """However a connection's bytes are cut, the same requests and the same refusal come out."""
    raw = b"".join(case.raw for case in cases) + (ending.raw if ending else b"") + CANARY
    expected = [request for case in cases for request in case.requests]
    status = 0
    if isinstance(ending, Refused):
        status = ending.status
    elif ending is None:
        expected.append(CANARY_READ)
    else:
        expected.extend(ending.requests)
    assert Conversation().hear(*_cut(raw, cuts)).verdict == (expected, status)


@given(
    start=st.sampled_from([case.raw for case in (*READ, *REFUSED) if len(case.raw) < 1_000]),
    edits=st.lists(st.tuples(st.integers(0, 1_000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_mutated_bytes_give_requests_or_a_refusal_and_nothing_else(
    start: bytes, edits: list[tuple[int, bytes]]
) -> None:
    """Garbage never escapes as another exception, and cutting it never changes what it means."""
    raw = bytearray(start + CANARY)
    for place, text in edits:
        at = place % len(raw)
        raw[at : at + 1] = text
    whole = Conversation().hear(bytes(raw)).verdict
    assert Conversation().hear(*(bytes([byte]) for byte in raw)).verdict == whole


@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    HEAD,
                    HEAD + b"Mcp-Name: x\r\n",
                    HEAD + b"Expect: 100-continue\r\n",
                    HEAD + b"Upgrade: h2c\r\nConnection: upgrade\r\n",
                    HEAD + b"Connection: keep-alive\r\n",
                    b"POST /other?q HTTP/1.1\r\nHost: a\r\n",
                ]
            ),
            st.sampled_from([b"Content-Length: %d\r\n", b"content-length:%d\r\n", b"Content-Length: 0%d \r\n"]),
            st.sampled_from([b"", b"X: y\r\n", b"Connection: close\r\n", b"Content-Encoding: gzip\r\n", b"X : y\r\n"]),
            st.binary(max_size=12),
        ),
        max_size=12,
    ),
    edit=st.one_of(st.none(), st.tuples(st.integers(0, 200), st.binary(max_size=2))),
    marks=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 200)), max_size=12),
)
def test_a_head_that_is_known_is_read_as_if_it_were_not(
    requests: list[tuple[bytes, bytes, bytes, bytes]],
    edit: tuple[int, bytes] | None,
    marks: list[tuple[int, int]],
) -> None:
    """Repeated heads are recognised when a read begins with one and holds nothing else but its body: no difference."""
    raws = [start + length % len(body) + end + b"\r\n" + body for start, length, end, body in requests]
    if edit is not None and raws:
        last = bytearray(raws[-1])
        at = edit[0] % len(last)
        last[at : at + 1] = edit[1]
        raws[-1] = bytes(last)
    raws.append(CANARY)
    reads = [
        piece for number, raw in enumerate(raws) for piece in _cut(raw, [at for one, at in marks if one == number])
    ]
    known = Conversation().hear(*reads)
    cut = Conversation().hear(*(bytes([byte]) for byte in b"".join(raws)))
    assert known.verdict == cut.verdict
    assert [replace(request, known=None) for request in known.requests] == cut.requests
    assert known.lasts == cut.lasts


@given(raw=st.binary(max_size=300))
def test_random_bytes_give_a_refusal_or_nothing(raw: bytes) -> None:
    """Random bytes are never a request."""
    assert Conversation().hear(raw).requests == []


def test_names_are_lowered_values_trimmed_and_lists_joined() -> None:
    """What the fields of a request look like to those who read it."""
    raw = HEAD + b"Accept: a/b \t\r\nX-Empty:  \r\nACCEPT: c/d\r\n\r\n"
    (request,) = Conversation().hear(raw).requests
    assert request.headers == {b"host": b"a", b"accept": b"a/b, c/d", b"x-empty": b""}


def test_the_target_is_split_and_otherwise_kept() -> None:
    """Percent-encoding is the router's to judge; a query may be there and empty."""
    raw = b"GET /a%2fb?c=%41?d HTTP/1.1\r\nHost: a\r\n\r\nGET /e? HTTP/1.1\r\nHost: a\r\n\r\n"
    first, second = Conversation().hear(raw).requests
    assert (first.path, first.query) == ("/a%2fb", b"c=%41?d")
    assert (second.path, second.query) == ("/e", b"")


def test_trailers_never_become_fields() -> None:
    """Neither of their own request nor of the next one."""
    raw = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: evil\r\n\r\n" + CANARY
    for pieces in ([raw], [bytes([byte]) for byte in raw]):
        first, second = Conversation().hear(*pieces).requests
        assert set(first.headers) == {b"host", b"transfer-encoding"}
        assert second.headers == {b"host": b"a"}


def test_requests_do_not_share_their_fields() -> None:
    """What one reader of a request adds to its fields does not reach the next request."""
    talk = Conversation()
    for _ in range(5):
        talk.hear(HEAD + b"Content-Length: 1\r\n\r\nx")
        assert talk.requests[-1].headers == {b"host": b"a"}
        with contextlib.suppress(TypeError):
            cast("dict[bytes, bytes]", talk.requests[-1].headers)[b"x"] = b"y"


def test_a_body_in_pieces_is_gathered_under_a_known_head() -> None:
    """Also when the next request begins in the same read, and when its head was never seen in one piece."""
    raws = [HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size for size in (90, 80, 70, 60)]
    reads = [piece for raw in raws for piece in (raw[:-50], raw[-50:-20], raw[-20:])]
    talk = Conversation().hear(*reads)
    assert [len(request.body) for request in talk.requests] == [90, 80, 70, 60]
    assert talk.requests[0].known is None
    assert talk.requests[-1].known is not None
    talk.hear(raws[0][:-10], raws[0][-10:] + raws[1][:-10], raws[1][-10:] + CANARY)
    assert [len(request.body) for request in talk.requests[4:]] == [90, 80, 0]
    assert talk.reader.stage % 3 == 0


def test_no_body_is_kept_for_an_idle_connection() -> None:
    """A connection that waits holds its heads, not what it sent last."""
    talk = Conversation()
    for _ in range(3):
        talk.hear(HEAD + b"Content-Length: 1000000\r\n\r\n", b"x" * 1_000_000)
    held = [value for name in talk.reader.__slots__ if isinstance(value := getattr(talk.reader, name), bytes)]
    assert all(len(value) < 10_000 for value in held)
    assert talk.reader._read is None
    assert talk.reader._request is None


@pytest.mark.parametrize("size", [1, 2, 1_024, 1_025])
def test_a_body_up_to_the_bound_is_read(size: int) -> None:
    """The bound itself is allowed, one more is 413, whichever framing is used."""
    limits = Limits(max_body_bytes=1_024)
    expected = 0 if size <= 1_024 else 413
    length = HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    for raw in (length, chunked):
        talk = Conversation(limits).hear(raw)
        assert talk.verdict == ([("POST", "/mcp", b"x" * size)] if not expected else [], expected)


def test_a_declared_body_is_refused_before_it_is_sent() -> None:
    """The head alone is enough."""
    assert Conversation().hear(HEAD + b"Content-Length: 99999999\r\n\r\n").verdict == ([], 413)


def test_an_endless_header_is_refused_before_it_ends() -> None:
    """A field without an end is not collected beyond the bound, whatever the size of the reads."""
    for size in (100, 8_000, 100_000):
        talk = Conversation()
        pieces = 0
        talk.hear(HEAD + b"X: ")
        while talk.refusal is None and pieces < 1_000:
            talk.hear(b"y" * size)
            pieces += 1
        assert talk.verdict == ([], 431)
        assert pieces * size <= 32_768 + size


def test_a_header_up_to_the_bound_is_read_behind_a_long_body() -> None:
    """The bound is on the header, not on what was read along with it."""
    long = HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000
    fine = HEAD + b"X: " + b"y" * 32_000 + b"\r\n\r\n"
    talk = Conversation().hear(long + fine + CANARY)
    assert talk.verdict[1] == 0
    assert len(talk.requests) == 3


@pytest.mark.parametrize(
    "piece",
    [b"1;" + b"x" * 1_000 + b"\r\na\r\n", b"1\r\na\r\n", b"1;a=b\r\na\r\n"],
    ids=["long extensions", "one byte each", "short extensions"],
)
def test_chunk_framing_may_not_outweigh_the_body(piece: bytes) -> None:
    """Endless extensions or one-byte chunks are refused long before the body reaches its bound."""
    talk = Conversation().hear(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while talk.refusal is None and sent < 200_000:
        talk.hear(piece * 20)
        sent += len(piece) * 20
    assert talk.verdict == ([], 400)


def test_endless_trailers_are_refused() -> None:
    """Trailers are dropped, but not for ever."""
    talk = Conversation().hear(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    for number in range(10_000):
        talk.hear(b"X%d: y\r\n" % number)
        if talk.refusal is not None:
            break
    assert talk.verdict == ([], 400)


def test_a_client_that_expects_to_be_told_to_go_on_is_noticed() -> None:
    """Only while its body has not begun to arrive."""
    talk = Conversation().hear(HEAD + b"Content-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
    assert talk.reader.awaits_continue
    talk.hear(b"a")
    assert not talk.reader.awaits_continue
    assert not Conversation().hear(HEAD + b"Expect: 100-continue\r\n\r\n").reader.awaits_continue


def test_stages_tell_where_the_reader_is() -> None:
    """0 between requests, 1 in a header, 2 in a body, counted on and on."""
    talk = Conversation()
    stages = [talk.reader.stage]
    for piece in (b"\r\n", b"PO", b"ST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"a", b"b", CANARY):
        talk.hear(piece)
        stages.append(talk.reader.stage)
    assert stages == [0, 0, 1, 2, 2, 3, 6]


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_a_reader_that_rested_reads_on(case: Read) -> None:
    """A new parser behind a whole request reads as the old one would; within one, nothing is dropped."""
    talk = Conversation().hear(CANARY)
    talk.reader.rest()
    talk.hear(case.raw[:10])
    talk.reader.rest()
    assert talk.hear(case.raw[10:]).verdict == Conversation().hear(CANARY, case.raw).verdict


@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from([b"Content-Length: %d\r\n", b"content-length:  %d\r\n", b""]), st.binary(max_size=90)
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.integers(0, 60),
)
def test_what_holds_many_requests_is_never_taken_for_one(requests: list[tuple[bytes, bytes]], cut: int) -> None:
    """A quick look at the first one's length may say that it is alone, only when it is."""
    data = b""
    for length, body in requests:
        data += HEAD + (length % len(body) + b"\r\n" + body if length else b"\r\n")
    data = data[: len(data) - cut % len(data)]
    assert may_hold_many(data, stage=2) == (data.count(b" HTTP/1.") > 1)
    if not may_hold_many(data):
        assert len(Conversation().hear(data).requests) <= 1
