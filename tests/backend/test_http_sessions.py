"""The HTTP link over time: sessions, streams that break off and are resumed, standing streams."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from backend.http_host import ACCEPTED
from backend.raw_server import Peer, chunk, event, response, soon, stream_head, until
from backend.test_http import AGREED, always, error, linked, members, note, outcome, request, result
from contracts.links import Recorder
from gatewright.backend.base import Link, Refused, SessionLost
from gatewright.errors import BackendGarbage, BackendUnavailable
from gatewright.protocol import jsonrpc

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


def opened(session: str) -> bytes:
    """The answer to `initialize`."""
    return response(json.dumps(result(1)).encode(), "200 OK", f"Mcp-Session-Id: {session}")


def in_session(session: str, rest: Any) -> Any:
    """Opens a session, accepts what is told, and leaves the rest to `rest(peer, heard)`."""

    async def talk(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            if heard.method == "POST" and heard.message.get("method") == "initialize":
                peer.say(opened(session))
            else:
                await rest(peer, heard)

    return talk


async def open_session(link: Link) -> None:
    """The handshake, as far as the link is concerned."""
    await soon(link.exchange(request(1, "initialize", is_cancellable=False), Recorder()))
    link.agree(AGREED)


async def accept(peer: Peer, heard: Any) -> None:
    """Says yes to everything."""
    del heard
    peer.say(ACCEPTED)


# --- sessions


async def test_a_session_goes_with_every_later_message_and_ends_with_a_delete() -> None:
    """Whatever visible characters its id has."""
    session = "".join(map(chr, range(0x21, 0x7F)))
    async with linked(in_session(session, accept)) as (server, link):
        await open_session(link)
        await soon(link.tell(jsonrpc.notification("notifications/initialized", b"{}")))
        await soon(link.aclose())
        await soon(link.aclose())
        assert [heard.method for heard in server.heard] == ["POST", "POST", "DELETE"]
        assert "mcp-session-id" not in server.heard[0].headers
        for heard in server.heard[1:]:
            assert heard.headers["mcp-session-id"] == session
            assert heard.headers["mcp-protocol-version"] == "2025-11-25"


@pytest.mark.parametrize("session", ["two words", "tab\there", "caf\xe9", "x\x7f"])
async def test_a_session_id_that_is_not_visible_ascii_is_refused(session: str) -> None:
    """It could not be sent back as it came (basic/transports, session management)."""
    said = opened("SESSION").replace(b"SESSION", session.encode("latin-1"))
    async with linked(always(said)) as (_, link):
        assert type(await outcome(link.exchange(request(1, "initialize"), Recorder()))) is BackendGarbage


async def test_only_the_handshake_gives_a_session() -> None:
    """A session id on another answer says nothing, and where there is none nothing is deleted."""
    async with linked(always(response(json.dumps(result()).encode(), "200 OK", "mcp-session-id: x"))) as (server, link):
        await soon(link.exchange(request(), Recorder()))
        await soon(link.exchange(request(), Recorder()))
        await soon(link.aclose())
        assert [heard.headers.get("mcp-session-id") for heard in server.heard] == [None, None]


async def test_a_delete_that_is_not_answered_is_given_up() -> None:
    """Closing ends within its grace, and raises nothing."""

    async def rest(peer: Peer, heard: Any) -> None:
        await peer.until_closed()

    async with linked(in_session("s", rest)) as (server, link):
        await open_session(link)
        await soon(link.aclose())
        assert server.heard[-1].method == "DELETE"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("404 Not Found", b""),
        ("404 Not Found", error(None, -32600, "Session not found")),
        ("404 Not Found", error("server-error", -32600, "Session terminated")),
        ("400 Bad Request", error(None, -32000, "Bad Request: No valid session ID provided")),
    ],
)
async def test_a_lost_session_is_told_from_other_refusals(status: str, body: bytes) -> None:
    """The link is over: nothing ran, nothing more is sent in that session, and there is none to delete."""

    async def rest(peer: Peer, heard: Any) -> None:
        peer.say(response(body, status))

    async with linked(in_session("s", rest)) as (server, link):
        await open_session(link)
        for _ in range(2):
            got = await outcome(link.exchange(request(), Recorder()))
            assert isinstance(got, SessionLost)
            assert got.is_retriable
        assert not link.is_open
        assert isinstance(await outcome(link.tell(jsonrpc.notification("x", b"{}"))), SessionLost)
        await soon(link.aclose())
        assert len(server.heard) == 2


async def test_an_unknown_method_does_not_end_a_session() -> None:
    """A 404 that says -32601 is about the method; a 400 about something else is about that."""
    refusals = [("404 Not Found", error(7, -32601)), ("400 Bad Request", error(None, -32000, "Bad Request: no body"))]

    async def rest(peer: Peer, heard: Any) -> None:
        status, body = ("202 Accepted", b"") if heard.method == "DELETE" else refusals.pop(0)
        peer.say(response(body, status))

    async with linked(in_session("s", rest)) as (_, link):
        await open_session(link)
        for status in (404, 400):
            got = await outcome(link.exchange(request(), Recorder()))
            assert type(got) is Refused
            assert got.status == status
        assert link.is_open


# --- streams that break off


async def test_a_handshake_stream_is_resumed_where_it_broke() -> None:
    """After a priming event and `retry`: not earlier than asked, with the last id each time, until the answer."""
    times: list[float] = []

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        times.append(asyncio.get_running_loop().time())
        if heard.method == "POST":
            peer.say(stream_head(), event(None, "prime", 150))
        elif heard.headers["last-event-id"] == "prime":
            peer.say(stream_head(), event(note(1), "one"))  # cut without the last chunk
        else:
            assert heard.headers["last-event-id"] == "one"
            peer.say(stream_head(), event(result(ok=True), "two"), chunk(b""))
            return await peer.until_closed()
        if len(times) == 1:
            peer.say(chunk(b""))
        await peer.writer.drain()
        return None

    async with linked(talk, is_handshake=True) as (server, link):
        sink = Recorder()
        assert members(await soon(link.exchange(request(), sink))) == {"ok": True}
        assert [params["n"] for _, params in sink.notes] == [1]
        assert [heard.method for heard in server.heard] == ["POST", "GET", "GET"]
        # uvloop counts in whole milliseconds
        assert all(later - earlier >= 0.148 for earlier, later in itertools.pairwise(times))
        assert server.heard[1].headers["mcp-protocol-version"] == "2025-11-25"


async def test_a_modern_stream_is_not_resumed() -> None:
    """It is lost with its request, whatever ids it had (2026-07-28, streamable-http)."""
    async with linked(always(stream_head(), event(note(1), "one", 0), is_closing=True)) as (server, link):
        assert type(await outcome(link.exchange(request(), Recorder()))) is BackendGarbage
        assert len(server.heard) == 1


async def test_a_stream_without_ids_is_not_resumed() -> None:
    """There is nothing to resume from; the call may have run."""
    async with linked(always(stream_head(), event(note(1)), chunk(b"")), is_handshake=True) as (server, link):
        assert type(await outcome(link.exchange(request(), Recorder()))) is BackendGarbage
        assert len(server.heard) == 1


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "404 Not Found", "400 Bad Request"])
async def test_a_backend_that_does_not_resume_leaves_it_open_whether_it_ran(status: str) -> None:
    """Never a failure that may be sent again."""

    async def talk(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            if heard.method == "POST":
                peer.say(stream_head(), event(None, "1", 1), chunk(b""))
            else:
                peer.say(response(b"", status))

    async with linked(talk, is_handshake=True) as (server, link):
        got = await outcome(link.exchange(request(), Recorder()))
        assert type(got) is BackendGarbage
        assert len(server.heard) == 2


async def test_a_backend_that_is_gone_when_resuming_leaves_it_open_whether_it_ran() -> None:
    """A refused connection is no proof that nothing ran: the call was sent."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.server.refuse()
        peer.say(stream_head(), event(None, "1", 1), chunk(b""))
        await peer.writer.drain()

    async with linked(talk, is_handshake=True) as (_, link):
        got = await outcome(link.exchange(request(), Recorder()))
        assert type(got) is BackendGarbage
        assert not got.is_retriable


async def test_a_backend_that_is_away_for_a_moment_is_asked_again() -> None:
    """A refusal of the kind that passes does not end the call."""
    refusals = [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", b""]

    async def talk(peer: Peer) -> None:
        while (await peer.hear()).method == "POST":
            peer.say(stream_head(), event(None, "1", 1), chunk(b""))
        if refusals:
            peer.say(refusals.pop())
        else:
            peer.say(stream_head(), event(result(ok=True)), chunk(b""))
        await peer.writer.drain()

    async with linked(talk, is_handshake=True) as (_, link):
        assert members(await soon(link.exchange(request(), Recorder()))) == {"ok": True}


async def test_cancelling_while_waiting_to_resume_tells_the_backend() -> None:
    """The request is still in progress there."""

    async def talk(peer: Peer) -> None:
        while True:
            heard = await peer.hear()
            if heard.message.get("id") == 7:
                peer.say(stream_head(), event(note(1), "1", 60_000), chunk(b""))
            else:
                peer.say(ACCEPTED)

    async with linked(talk, is_handshake=True) as (server, link), asyncio.TaskGroup() as tasks:
        sink = Recorder()
        task = tasks.create_task(link.exchange(request(), sink))
        await sink.until(lambda it: len(it.notes) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await until(lambda: len(server.heard) == 2)
        assert server.heard[1].message["method"] == "notifications/cancelled"


# --- standing streams


async def test_a_backend_without_standing_stream_is_not_asked_again() -> None:
    """405 says so."""
    async with linked(always(response(b"", "405 Method Not Allowed")), is_handshake=True) as (server, link):
        await soon(link.listen())
        assert [heard.method for heard in server.heard] == ["GET"]
        assert link.is_open


async def test_a_standing_stream_of_a_lost_session_ends_the_link() -> None:
    """The next call opens another session."""

    async def rest(peer: Peer, heard: Any) -> None:
        peer.say(response(b"", "404 Not Found"))

    async with linked(in_session("s", rest)) as (_, link):
        await open_session(link)
        await soon(link.listen())
        assert not link.is_open


@pytest.mark.parametrize("is_resumable", [False, True])
async def test_a_standing_stream_that_breaks_is_opened_anew(is_resumable: bool) -> None:
    """With an id it goes on where it was; without one, what came meanwhile is missed and the sink is told so first."""

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        number = len(server.heard)
        event_id = str(number) if is_resumable else None
        assert heard.headers.get("last-event-id") == (str(number - 1) if is_resumable and number > 1 else None)
        peer.say(stream_head(), event(note(number), event_id, 10))
        await peer.writer.drain()
        if number < 3:
            return None
        return await peer.until_closed()

    sink = Missing()
    async with linked(talk, sink=sink, is_handshake=True) as (server, link), asyncio.TaskGroup() as tasks:
        tasks.create_task(link.listen())
        await sink.until(lambda it: len(it.notes) == 3)
        assert sink.gaps == ([] if is_resumable else [1, 2])
        await soon(link.aclose())


class Missing(Recorder):
    """A sink that knows when it was told of a gap: after how many notes."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[int] = []

    def missed(self) -> None:
        self.gaps.append(len(self.notes))


@pytest.mark.parametrize("said", [b"", stream_head(), stream_head() + event(note(1), "1", 300_000) + chunk(b"")])
async def test_listening_ends_as_soon_as_the_link_is_closed(said: bytes) -> None:
    """While it waits for a head, for an event, or for the pause that the backend asked for."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(said)
        await peer.until_closed()

    async with linked(talk, is_handshake=True) as (server, link), asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(link.listen())
        await until(lambda: len(server.heard) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        await soon(link.aclose())
        await soon(listening)
        await soon(link.listen())
        assert len(server.heard) == 1
        if b"300000" not in said:
            await soon(server.peers[0].closed.wait())


async def test_standing_streams_do_not_starve_calls() -> None:
    """With one connection for calls, a subscription that stands leaves it free."""

    async def talk(peer: Peer) -> None:
        heard = await peer.hear()
        if heard.message["method"] == "subscriptions/listen":
            peer.say(stream_head(), event(note(1)))
            return await peer.until_closed()
        peer.say(response(json.dumps(result()).encode()))
        return await peer.until_closed()

    async with linked(talk, max_connections=1) as (_, link), asyncio.TaskGroup() as tasks:
        sink = Recorder()
        standing = tasks.create_task(link.exchange(request(3, "subscriptions/listen"), sink))
        await sink.until(lambda it: len(it.notes) == 1)
        assert members(await soon(link.exchange(request(), Recorder()))) == {}
        standing.cancel()


async def test_nobody_there_is_unavailable_for_calls_and_tells() -> None:
    """Nothing was sent: it may be tried again."""

    async def talk(peer: Peer) -> None:
        await peer.hear()

    async with linked(talk) as (server, link):
        await server.stop()
        assert isinstance(await outcome(link.exchange(request(), Recorder())), BackendUnavailable)
        assert isinstance(await outcome(link.tell(jsonrpc.notification("x", b"{}"))), BackendUnavailable)
