"""The feed of one backend: who hears what, when upstream streams open, change over and close."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from backend.mcp_server import backed
from backend.raw_server import soon, until
from gatewright.backend.feed import Feed, Heard, Held, Listener, Wants, announceable, has_subscriptions
from gatewright.background import Background
from gatewright.call import Params
from gatewright.errors import BackendGarbage, BackendUnavailable, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS, RESOURCE_UPDATED
from gatewright.protocol.tasks import NOTICE

pytestmark = pytest.mark.anyio
TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
ALL = frozenset(LISTEN_FIELDS)


class Opened:
    """One stream that the feed opened upstream."""

    def __init__(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        self.wants = wants
        self.acknowledge = acknowledged
        self.announce = announced
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True


class Upstream:
    """A backend that acknowledges when it is told to, or at once."""

    def __init__(self, *, is_prompt: bool = True) -> None:
        self.is_prompt = is_prompt
        self.streams: list[Opened] = []
        self.refusal: Exception | None = None
        self.agreed: Callable[[Wants], Wants] = lambda wants: wants

    @property
    def open(self) -> list[Opened]:
        """Those that are open."""
        return [one for one in self.streams if one.is_open]

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        stream = Opened(wants, acknowledged, announced)
        self.streams.append(stream)
        try:
            if self.refusal is not None:
                raise self.refusal
            if self.is_prompt:
                acknowledged(self.agreed(wants))
            await stream.ending
        finally:
            stream.is_open = False


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def __call__(self, method: str, params: Params) -> None:
        self.heard.append((method, bytes(params.get("uri", b"")).decode().strip('"')))


@asynccontextmanager
async def feeding(*, is_prompt: bool = True) -> AsyncIterator[tuple[Feed, Upstream, asyncio.TaskGroup]]:
    """A feed, closed at the end; nothing of it is left then."""
    upstream = Upstream(is_prompt=is_prompt)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        feed = Feed("b", upstream, Background(tasks))
        yield feed, upstream, tasks
        feed.close()
        await until(lambda: not upstream.open)


def updated(uri: str) -> Params:
    """The parameters of an update."""
    return {"uri": jsonrpc.raw(uri)}


def uris(*names: str) -> Wants:
    """A wish to hear of resources."""
    return Wants(uris=frozenset(names))


# --- joining and leaving


async def test_tasks_are_heard_of_by_who_asked_for_them() -> None:
    """On a stream of their own, open as long as anybody asks, opened anew when somebody asks for more."""
    async with feeding() as (feed, upstream, _):
        one, two, lists = Ears(), Ears(), Ears()
        first = await soon(feed.join(Wants(tasks=frozenset({"1", "2"})), one))
        await soon(feed.join(Wants(lists=frozenset({TOOLS})), lists))
        second = await soon(feed.join(Wants(tasks=frozenset({"2"})), two))
        assert [stream.wants for stream in upstream.streams] == [
            Wants(tasks=frozenset({"1", "2"})),
            Wants(lists=ALL),
        ]
        for params in ({"taskId": jsonrpc.raw(own)} for own in ("1", "2", "3", 1)):
            upstream.streams[0].announce(NOTICE, params)
        upstream.streams[0].announce(NOTICE, {})
        assert (len(one.heard), len(two.heard), lists.heard) == (2, 1, [])
        third = await soon(feed.join(Wants(tasks=frozenset({"4"})), two))
        await until(lambda: len(upstream.open) == 2)
        assert upstream.open[-1].wants == Wants(tasks=frozenset({"1", "2", "4"}))
        for listener in (first, second, third):
            feed.leave(listener)
        await until(lambda: [stream.wants for stream in upstream.open] == [Wants(lists=ALL)])


async def test_a_listener_is_told_which_tasks_the_backend_agreed_to() -> None:
    """No more than it asked for, no less than was agreed."""
    async with feeding() as (feed, upstream, _):
        upstream.agreed = lambda wants: Wants(tasks=wants.tasks - {"2"})
        listener = await soon(feed.join(Wants(tasks=frozenset({"1", "2"})), Ears()))
        assert listener.wants == Wants(tasks=frozenset({"1"}))
        assert bool(listener.wants)


async def test_one_stream_serves_all_who_listen() -> None:
    """It opens with the first and closes with the last."""
    async with feeding() as (feed, upstream, _):
        ears = [Ears() for _ in range(10)]
        listeners = [await soon(feed.join(Wants(lists=frozenset({TOOLS})), one)) for one in ears]
        assert [one.wants for one in upstream.streams] == [Wants(lists=ALL)]
        upstream.streams[0].announce(TOOLS, {})
        assert [one.heard for one in ears] == [[(TOOLS, "")]] * 10
        for listener in listeners[1:]:
            feed.leave(listener)
        assert upstream.open
        feed.leave(listeners[0])
        feed.leave(listeners[0])
        await until(lambda: not upstream.open)
        await soon(feed.join(Wants(lists=frozenset({TOOLS})), ears[0]))
        assert len(upstream.streams) == 2


async def test_a_listener_hears_only_what_it_asked_for() -> None:
    """S-40: never another list, another resource, or what lies beside a resource."""
    async with feeding() as (feed, upstream, _):
        lists, one, tree = Ears(), Ears(), Ears()
        await soon(feed.join(Wants(lists=frozenset({PROMPTS})), lists))
        await soon(feed.join(uris("file:///a"), one))
        await soon(feed.join(uris("file:///d/"), tree))
        said = upstream.open[-1].announce
        for uri in ("file:///a", "file:///ab", "file:///a/b", "file:///d", "file:///d/e"):
            said(RESOURCE_UPDATED, updated(uri))
        said(RESOURCE_UPDATED, {})
        said(RESOURCE_UPDATED, {"uri": jsonrpc.raw(7)})
        said(TOOLS, {})
        said(PROMPTS, {})
        assert lists.heard == [(PROMPTS, "")]
        assert [uri for _, uri in one.heard] == ["file:///a", "file:///a/b"]
        assert [uri for _, uri in tree.heard] == ["file:///d/e"]


async def test_a_listener_is_told_what_was_agreed_to() -> None:
    """Which may be less than it wanted."""
    async with feeding() as (feed, upstream, _):
        upstream.agreed = lambda wants: Wants(wants.lists & {TOOLS}, wants.uris - {"b"})
        listener = await soon(feed.join(Wants(frozenset({TOOLS, PROMPTS}), frozenset({"a", "b"})), Ears()))
        assert listener.wants == Wants(frozenset({TOOLS}), frozenset({"a"}))


@pytest.mark.parametrize("problem", [BackendUnavailable("no"), BackendGarbage("no"), ProtocolError("no")])
async def test_a_backend_that_cannot_be_listened_to_fails_the_join(problem: Exception) -> None:
    """And nothing stays open; the next one asks again."""
    async with feeding() as (feed, upstream, _):
        upstream.refusal = problem
        for number in (1, 2):
            with pytest.raises((BackendUnavailable, BackendGarbage)):
                await soon(feed.join(Wants(lists=frozenset({TOOLS})), Ears()))
            assert len(upstream.streams) == number
        upstream.refusal = None
        assert (await soon(feed.join(Wants(lists=frozenset({TOOLS})), Ears()))).wants.lists == {TOOLS}


async def test_a_stream_that_ends_unacknowledged_fails_the_join() -> None:
    """It agreed to nothing."""
    async with feeding(is_prompt=False) as (feed, upstream, tasks):
        joining = tasks.create_task(joined(feed, uris("a"), Ears()))
        await until(lambda: len(upstream.streams) == 1)
        upstream.streams[0].ending.set_result(None)
        assert isinstance(await soon(joining), BackendUnavailable)
        assert len(upstream.streams) == 1


async def joined(feed: Feed, wants: Wants, ears: Ears) -> Listener | BackendUnavailable:
    """The listener, or why there is none."""
    try:
        return await feed.join(wants, ears)
    except BackendUnavailable as error:
        return error


async def test_a_gateway_that_stops_fails_the_join() -> None:
    """It does not wait for what never begins."""
    async with asyncio.TaskGroup() as tasks:
        feed = Feed("b", Upstream(), Background(tasks))
    with pytest.raises(BackendUnavailable):
        await soon(feed.join(uris("a"), Ears()))


# --- changing over


async def test_a_new_resource_is_heard_before_the_old_stream_closes() -> None:
    """Make before break: nothing is missed in between."""
    async with feeding() as (feed, upstream, tasks):
        first, second = Ears(), Ears()
        await soon(feed.join(uris("a"), first))
        upstream.is_prompt = False
        joining = tasks.create_task(feed.join(uris("b"), second))
        await until(lambda: len(upstream.streams) == 2)
        old, new = upstream.streams
        assert new.wants == uris("a", "b")
        old.announce(RESOURCE_UPDATED, updated("a"))
        assert first.heard == [(RESOURCE_UPDATED, "a")]
        new.acknowledge(new.wants)
        assert (await soon(joining)).wants == uris("b")
        await until(lambda: upstream.open == [new])


async def test_a_change_that_fails_leaves_the_old_stream_as_it_was() -> None:
    """Those who listened go on; only the newcomer is refused."""
    async with feeding() as (feed, upstream, _):
        first = Ears()
        await soon(feed.join(uris("a"), first))
        upstream.refusal = BackendUnavailable("no")
        with pytest.raises(BackendUnavailable):
            await soon(feed.join(uris("b"), Ears()))
        assert upstream.open == [upstream.streams[0]]
        upstream.streams[0].announce(RESOURCE_UPDATED, updated("a"))
        assert first.heard == [(RESOURCE_UPDATED, "a")]
        upstream.refusal = None
        await soon(feed.join(uris("b"), Ears()))
        assert [one.wants for one in upstream.open] == [uris("a", "b")]


async def test_newcomers_who_leave_while_waiting_change_nothing() -> None:
    """The old stream is not closed for them."""
    async with feeding() as (feed, upstream, tasks):
        first = Ears()
        await soon(feed.join(uris("a"), first))
        upstream.is_prompt = False
        joining = tasks.create_task(feed.join(uris("b"), Ears()))
        await until(lambda: len(upstream.streams) == 2)
        joining.cancel()
        await asyncio.wait([joining])
        assert upstream.streams[0].is_open
        upstream.streams[0].announce(RESOURCE_UPDATED, updated("a"))
        assert first.heard == [(RESOURCE_UPDATED, "a")]


async def test_joins_at_once_all_get_their_answer() -> None:
    """Whichever stream is acknowledged first, in whatever order, and one that fails in between."""
    async with feeding(is_prompt=False) as (feed, upstream, tasks):
        joining = []
        for number in range(4):
            joining.append(tasks.create_task(joined(feed, uris(f"r{number}"), Ears())))
            await until(lambda: len(upstream.streams) == len(joining))
        upstream.streams[1].ending.set_result(None)
        assert isinstance(await soon(joining[1]), BackendUnavailable)
        last = upstream.streams[3]
        last.acknowledge(last.wants)
        for number in (0, 2, 3):
            listener = await soon(joining[number])
            assert isinstance(listener, Listener)
            assert listener.wants == uris(f"r{number}")
        await until(lambda: upstream.open == [last])


async def test_resources_that_nobody_wants_are_given_up() -> None:
    """Once for all who left at about the same time, and again make before break."""
    async with feeding() as (feed, upstream, _):
        kept = Ears()
        await soon(feed.join(uris("kept"), kept))
        leaving = [await soon(feed.join(uris(f"r{number}"), Ears())) for number in range(5)]
        opened = len(upstream.streams)
        for listener in leaving:
            feed.leave(listener)
        await until(lambda: len(upstream.streams) > opened)
        await until(lambda: [one.wants for one in upstream.open] == [uris("kept")])
        assert len(upstream.streams) == opened + 1
        upstream.open[0].announce(RESOURCE_UPDATED, updated("kept"))
        assert kept.heard == [(RESOURCE_UPDATED, "kept")]


# --- breaks


async def test_after_a_break_everything_may_have_changed() -> None:
    """The stream is opened again, and what was missed is announced as changed; a first opening announces nothing."""
    async with feeding() as (feed, upstream, _):
        ears = Ears()
        await soon(feed.join(Wants(frozenset({TOOLS}), frozenset({"a"})), ears))
        assert ears.heard == []
        for stream in list(upstream.streams):
            stream.ending.set_exception(BackendGarbage("cut"))
        await until(lambda: len(upstream.streams) == 4)
        assert sorted(ears.heard) == [(RESOURCE_UPDATED, "a"), (TOOLS, "")]


async def test_a_break_does_not_end_what_was_joined() -> None:
    """Also while the backend is away, and whoever leaves meanwhile is forgotten."""
    async with feeding() as (feed, upstream, _):
        listener = await soon(feed.join(uris("a"), Ears()))
        upstream.refusal = BackendUnavailable("away")
        upstream.streams[0].ending.set_result(None)
        await until(lambda: len(upstream.streams) == 2)
        feed.leave(listener)
        await until(lambda: not upstream.open)


# --- with real backends


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_announcements_come_from_a_real_backend(era: str) -> None:
    """Two listeners, one stream upstream; it is closed with the last of them and leaves no connection."""
    async with backed(era) as (world, backend):
        first, second = Ears(), Ears()
        wants = Wants(frozenset({TOOLS}), frozenset({"file:///a"}))
        listeners = [await soon(backend.feed.join(wants, ears)) for ears in (first, second)]
        assert [one.wants for one in listeners] == [wants, wants]
        streams = len(world.mcp.listens) or len(world.mcp.sessions)
        assert streams == (2 if era == "modern" else 1)
        await until(lambda: len(world.server.open_peers) >= streams)
        await until(lambda: era == "modern" or any(heard.method == "GET" for heard in world.server.heard))
        world.mcp.announce(TOOLS)
        world.mcp.announce(RESOURCE_UPDATED, uri="file:///a")
        await until(lambda: len(first.heard) == 2 and len(second.heard) == 2)
        for listener in listeners:
            backend.feed.leave(listener)
        await until(lambda: not world.mcp.open_listens and not world.mcp.sessions)


async def test_nothing_of_a_stream_is_left_to_the_garbage_collector() -> None:
    """It comes seldom, and what strangers ask to hear of is large."""
    async with backed("handshake") as (_, backend):
        gc.collect()
        gc.disable()
        try:
            before = [one for one in gc.get_objects() if isinstance(one, Held)]
            for number in range(3):
                listener = await soon(backend.feed.join(uris(f"u:{number}"), Ears()))
                backend.feed.leave(listener)
            async with asyncio.timeout(5):
                while len([one for one in gc.get_objects() if isinstance(one, Held)]) > len(before):
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_a_handshake_backend_is_told_what_nobody_wants_any_more() -> None:
    """`resources/unsubscribe` for that, and for nothing that somebody still wants; then the session ends."""
    async with backed("handshake") as (world, backend):
        a = await soon(backend.feed.join(uris("u:a", "u:both"), Ears()))
        b = await soon(backend.feed.join(uris("u:b", "u:both"), Ears()))
        last = await soon(backend.feed.join(uris("u:both"), Ears()))
        backend.feed.leave(a)
        await until(lambda: ("unsubscribe", "u:a") in world.mcp.subscribed)
        assert {uri for method, uri in world.mcp.subscribed if method == "unsubscribe"} == {"u:a"}
        backend.feed.leave(b)
        await until(lambda: ("unsubscribe", "u:b") in world.mcp.subscribed)
        assert ("unsubscribe", "u:both") not in world.mcp.subscribed
        backend.feed.leave(last)
        await until(lambda: not world.mcp.sessions)  # its end may overtake the last unsubscribe, and says the same
        assert len(world.mcp.ended) == 1


async def test_a_backend_that_takes_no_subscriptions_agrees_to_none() -> None:
    """It is not asked when it says so beforehand."""
    async with backed("handshake") as (world, backend):
        world.mcp.agrees = False
        assert (await soon(backend.feed.join(uris("u:a"), Ears()))).wants == Wants()
    async with backed("handshake") as (world, backend):
        world.mcp.capabilities = {"tools": {"listChanged": True}, "resources": {}}
        listener = await soon(backend.feed.join(Wants(ALL, frozenset({"u:a"})), Ears()))
        assert listener.wants == Wants(lists=frozenset({TOOLS}))
        assert world.mcp.subscribed == []


async def test_a_modern_backend_that_refuses_to_be_listened_to_is_unavailable() -> None:
    """The reason comes along."""
    async with backed("modern") as (world, backend):
        world.mcp.agrees = False
        with pytest.raises(BackendUnavailable, match="subscriptions/listen"):
            await soon(backend.feed.join(uris("u:a"), Ears()))


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_a_restarted_backend_is_listened_to_again(era: str) -> None:
    """With a gap announced; the feed's session is opened anew, and nothing has to call it for that."""
    async with backed(era) as (world, backend):
        ears = Ears()
        await soon(backend.feed.join(Wants(lists=frozenset({TOOLS})), ears))
        await until(lambda: bool(world.mcp.open_listens) or any(one.method == "GET" for one in world.server.heard))
        await world.server.stop()
        world.mcp.sessions.clear()
        await world.server.start()
        await until(lambda: ears.heard == [(TOOLS, "")])
        await until(lambda: len(world.mcp.open_listens) == 1 or len(world.mcp.sessions) == 1)


async def test_a_standing_stream_that_was_cut_is_a_gap() -> None:
    """The session lives on; what was said in between was not heard."""
    async with backed("handshake") as (world, backend):
        ears = Ears()
        await soon(backend.feed.join(Wants(lists=frozenset({TOOLS})), ears))
        await until(lambda: any(one.method == "GET" for one in world.server.heard))
        world.mcp.cut()
        await until(lambda: ears.heard == [(TOOLS, "")])
        assert len(world.mcp.initialized) == 1


def test_wants_are_something_or_nothing() -> None:
    """For `if`."""
    empty: Any = Wants()
    assert not empty
    assert uris("a")
    assert Wants(lists=ALL)


# --- capabilities


@pytest.mark.parametrize(
    ("capabilities", "lists", "has_uris"),
    [
        ({}, set(), False),
        ({"tools": {}, "resources": {}}, set(), False),
        ({"tools": {"listChanged": True}, "prompts": {"listChanged": False}}, {"tools"}, False),
        ({"resources": {"subscribe": True, "listChanged": True}}, {"resources"}, True),
        ({"tools": True, "prompts": None, "resources": "subscribe"}, set(), False),
        ({"resources": {"subscribe": "yes", "listChanged": 1}}, set(), False),
    ],
)
def test_only_what_is_announced_is_expected(capabilities: dict[str, Any], lists: set[str], has_uris: bool) -> None:
    """`true` and nothing else."""
    read: dict[str, Raw] = {name: jsonrpc.raw(value) for name, value in capabilities.items()}
    assert announceable(read) == {f"notifications/{name}/list_changed" for name in lists}
    assert has_subscriptions(read) is has_uris
