"""Standing subscriptions: handshake sessions hear of a modern backend's changes on their own streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec import Raw

from gatewright.backend.feed import Feed, Heard, Wants
from gatewright.backend.standing import MAX_URIS, Standing
from gatewright.background import Background
from gatewright.call import Failure, Json, Result
from gatewright.errors import BackendUnavailable
from gatewright.protocol.subscriptions import MAX_URI_CHARS

pytestmark = pytest.mark.anyio
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


class Backend:
    """A modern backend that agrees to what it has, and announces what it is told to."""

    def __init__(self, uris: set[str], *, is_there: bool = True) -> None:
        self.uris = uris
        self.is_there = is_there
        self.announced: list[tuple[Wants, Heard]] = []

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        """See Upstream.listen."""
        if not self.is_there:
            raise BackendUnavailable("not there")
        acknowledged(Wants(wants.lists & {TOOLS}, wants.uris & self.uris))
        self.announced.append((wants, announced))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.announced.remove((wants, announced))

    def say(self, method: str, params: dict[str, Raw] | None = None) -> None:
        """Announce on every stream that is for it."""
        for wants, announced in list(self.announced):
            if bool(wants.uris) == (method == UPDATED):
                announced(method, params or {})


class Session:
    """A client session's standing stream."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def emit(self, method: str, params: Json) -> None:
        """Hear."""
        self.heard.put_nowait((method, bytes(params)))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Nothing is asked here."""
        raise AssertionError(method)


@asynccontextmanager
async def standing(backend: Backend, sessions: dict[str, Session]) -> AsyncIterator[tuple[Standing, Feed]]:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        feed = Feed("notes", backend, background)
        yield Standing(sessions, background), feed
        feed.close()


async def heard(session: Session) -> tuple[str, bytes]:
    async with asyncio.timeout(5):
        return await session.heard.get()


async def test_a_watching_session_hears_of_list_changes() -> None:
    """On its own standing stream, without having asked for anything."""
    backend, session = Backend(set()), Session()
    async with standing(backend, {"s": session}) as (stand, feed):
        await stand.watch("s", feed)
        backend.say(TOOLS)
        assert await heard(session) == (TOOLS, b"{}")


async def test_watching_a_backend_that_is_not_there_is_no_failure() -> None:
    """The session goes on without notices."""
    async with standing(Backend(set(), is_there=False), {"s": Session()}) as (stand, feed):
        await stand.watch("s", feed)


async def test_each_session_hears_what_it_subscribed_to() -> None:
    """And nothing of what another one did."""
    backend, one, two = Backend({"a:1", "a:2"}), Session(), Session()
    async with standing(backend, {"one": one, "two": two}) as (stand, feed):
        assert await stand.subscribe("one", "a:1", feed) == Result(b"{}")
        assert await stand.subscribe("two", "a:2", feed) == Result(b"{}")
        assert await stand.subscribe("one", "a:1", feed) == Result(b"{}")  # again: nothing new
        backend.say(UPDATED, {"uri": Raw(b'"a:1"')})
        assert await heard(one) == (UPDATED, b'{"uri":"a:1"}')
        backend.say(UPDATED, {"uri": Raw(b'"a:2"')})
        assert await heard(two) == (UPDATED, b'{"uri":"a:2"}')
        assert one.heard.empty()


async def test_what_the_backend_does_not_agree_to_is_refused() -> None:
    """The client learns that it will hear nothing, instead of waiting."""
    async with standing(Backend(set()), {"s": Session()}) as (stand, feed):
        answer = await stand.subscribe("s", "a:1", feed)
        assert isinstance(answer, Failure)
        assert answer.code == -32602


async def test_an_unsubscribed_resource_is_heard_no_more() -> None:
    """And unsubscribing from what was not subscribed to is no failure."""
    backend, session = Backend({"a:1", "a:2"}), Session()
    async with standing(backend, {"s": session}) as (stand, feed):
        await stand.subscribe("s", "a:1", feed)
        await stand.subscribe("s", "a:2", feed)
        assert await stand.unsubscribe("s", "a:1") == await stand.unsubscribe("s", "never") == Result(b"{}")
        backend.say(UPDATED, {"uri": Raw(b'"a:1"')})
        backend.say(UPDATED, {"uri": Raw(b'"a:2"')})
        assert await heard(session) == (UPDATED, b'{"uri":"a:2"}')


async def test_nothing_stays_of_a_session_that_ended() -> None:
    """Released, it is no listener any more, and upstream closes when it was the last."""
    backend, session = Backend({"a:1"}), Session()
    async with standing(backend, {"s": session}) as (stand, feed):
        await stand.watch("s", feed)
        await stand.subscribe("s", "a:1", feed)
        stand.release("s")
        while backend.announced:
            await asyncio.sleep(0)
        assert session.heard.empty()


async def test_a_session_that_ended_meanwhile_joins_nothing() -> None:
    """It may end while its subscription is on its way."""
    backend = Backend({"a:1"})
    async with standing(backend, {}) as (stand, feed):
        await stand.subscribe("gone", "a:1", feed)
        while backend.announced:
            await asyncio.sleep(0)


async def test_a_uri_that_is_too_long_is_refused() -> None:
    """It would be kept here, at the backend and in the store."""
    long = "a:" + "x" * MAX_URI_CHARS
    backend = Backend({long})
    async with standing(backend, {"s": Session()}) as (stand, feed):
        assert isinstance(await stand.subscribe("s", long, feed), Failure)
        assert not stand.holds("s")


async def test_subscriptions_of_one_session_are_bounded() -> None:
    """The bound holds, with a clear error."""
    backend = Backend({f"a:{number}" for number in range(MAX_URIS + 2)})
    async with standing(backend, {"s": Session()}) as (stand, feed):
        answers = [await stand.subscribe("s", f"a:{number}", feed) for number in range(MAX_URIS + 2)]
        assert isinstance(answers[-1], Failure)
        assert answers[0] == Result(b"{}")
