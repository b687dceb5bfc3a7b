"""Sessions of several replicas: found, told of each other, ended everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from gatewright.backend.heirs import Heirs
from gatewright.call import ANONYMOUS, Caller, Client, Result
from gatewright.errors import MissingCapability, UnknownSession
from gatewright.inbound.elsewhere import Elsewhere
from gatewright.inbound.session import Session, Unanswered
from gatewright.inbound.sessions import FORGET_S
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import CANCELLED
from gatewright.stores.base import Found, Record, Store, reference
from gatewright.stores.memory import MemoryStore
from inbound.neighbours import BOUND_S, neighbours, until

pytestmark = pytest.mark.anyio
NOTICE = "notifications/tools/list_changed"


class Slow:
    """A store that answers to `load` as it is told to, and to all else as the other one does."""

    def __init__(self, store: MemoryStore, load: Callable[[str], Awaitable[Found | None]]) -> None:
        self._store = store
        self.load = load

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def outcome(awaiting: Awaitable[Session]) -> Session | UnknownSession:
    """What it returns or raises."""
    try:
        return await awaiting
    except UnknownSession as error:
        return error


async def test_a_session_is_found_once_and_then_known() -> None:
    """Looked up in the store by the first request, in memory from then on, one look however many wait."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin(route="box")
        assert b.sessions.find("id", "box", ANONYMOUS) is None
        found = await asyncio.gather(*(b.found(route="box") for _ in range(10)))
        assert len(set(map(id, found))) == 1
        assert b.sessions.find("id", "box", ANONYMOUS) is found[0]
        client = found[0].client
        assert (client.revision, bytes(client.capabilities)) == (opened.client.revision, opened.client.capabilities)
        assert (client.session, found[0].route) == ("id", "box")
        found[0].advance("message")


async def test_a_foreign_session_is_an_unknown_one() -> None:
    """Another caller, another path, another id: the same answer, whether it is in memory or not."""
    async with neighbours("a", "b") as (a, b):
        await a.begin()
        for one in (a, b):
            for session, route, caller in (
                ("id", "box", ANONYMOUS),
                ("id", "", Caller("eve")),
                ("no", "", ANONYMOUS),
            ):
                assert one.sessions.find(session, route, caller) is None
                with pytest.raises(UnknownSession):
                    await one.sessions.load(session, route, caller)


async def test_an_end_is_everywhere() -> None:
    """When it is said to be over the others have heard of it; nobody finds it any more."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        await b.found()
        await c.found()
        await b.elsewhere.end(await b.found())
        assert a.ended == c.ended == ["id"]
        assert opened.state.value == "ended"
        with pytest.raises(UnknownSession):
            await c.found()


async def test_what_the_store_forgot_is_dropped() -> None:
    """An emptied store: nobody goes on with what is in memory."""
    async with neighbours("a") as (a,):
        await a.begin()
        a.store._shelf.emptied()
        await until(lambda: a.sessions.find("id", "", ANONYMOUS) is None)
        with pytest.raises(UnknownSession):
            await a.found()
        assert a.ended == ["id"]
        assert len(a.sessions) == 0


async def test_a_log_level_reaches_the_others() -> None:
    """Those that have the session have heard of it when it is set, those that find it later find it with it."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        found = await b.found()
        found.set_log_level("error")
        await b.elsewhere.set_log_level(found, "error")
        assert opened.client.log_level == "error"
        assert (await c.found()).client.log_level == "error"


async def test_who_does_not_hear_is_not_waited_for_long() -> None:
    """One that died without a word, and is not known to be dead: the client gets its answer all the same."""
    async with neighbours("a", "b", dead_s=60.0) as (a, b):
        opened = await a.begin()
        await b.found()
        b.die()
        async with asyncio.timeout(BOUND_S):
            await a.elsewhere.set_log_level(opened, "error")
            await a.elsewhere.end(opened)
        assert not a.post._talks


@pytest.mark.parametrize("said", ["level", "end"])
async def test_what_is_said_while_a_session_is_looked_up_counts(said: str) -> None:
    """The word may be faster than the look: it is looked again."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        load, is_looking, go = b.store.load, asyncio.Event(), asyncio.Event()

        async def slow(ref: str) -> Found | None:
            found = await load(ref)
            is_looking.set()
            await go.wait()
            return found

        elsewhere = Elsewhere(cast("Store", Slow(b.store, slow)), b.post, b.background)
        elsewhere.serve(b.sessions)
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(outcome(elsewhere.load("id", "", ANONYMOUS)))
            await is_looking.wait()
            if said == "level":
                await a.elsewhere.set_log_level(opened, "error")
            else:
                await a.elsewhere.end(opened)
            go.set()
        found = looking.result()
        if said == "level":
            assert isinstance(found, Session)
            assert found.client.log_level == "error"
        else:
            assert isinstance(found, UnknownSession)


@pytest.mark.parametrize("request_id", [7, "seven"])
async def test_a_cancel_finds_its_call(request_id: jsonrpc.Id) -> None:
    """It runs on one replica, and is cancelled through another; only that one is."""
    async with neighbours("a", "b") as (a, b):
        opened, found = await a.begin(), await b.found()
        running = [asyncio.get_running_loop().create_task(asyncio.Event().wait()) for _ in range(2)]
        opened.calls = {running[0]: request_id, running[1]: 8}
        found.cancel(request_id)
        await asyncio.wait({running[0]}, timeout=5)
        assert running[0].cancelled()
        assert not running[1].done()
        running[1].cancel()


async def test_a_notice_goes_where_the_stream_is() -> None:
    """In order, and to nobody when there is none."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        await opened.emit(NOTICE, b"{}")
        found = await b.found()
        standing = Standing(1_000)
        found.join(standing)
        for number in range(100):
            await opened.emit(NOTICE, b'{"n":%d}' % number)
        await until(lambda: len(standing.unsent()) == 100)
        assert standing.unsent() == [jsonrpc.notification(NOTICE, b'{"n":%d}' % number) for number in range(100)]
        found.leave(standing)
        await opened.emit(NOTICE, b"{}")
        await until(lambda: not a.elsewhere.notices)


async def asked(standing: Standing) -> jsonrpc.Message:
    """The question that waits there."""
    await until(standing.unasked)
    return jsonrpc.decode(standing.unasked()[0])


async def test_a_question_goes_where_the_stream_is_and_its_answer_back() -> None:
    """The answer comes to any replica."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        with pytest.raises(MissingCapability):
            await opened.ask("roots/list", b"{}")
        standing = Standing(10)
        (await b.found()).join(standing)
        asking = asyncio.get_running_loop().create_task(opened.ask("roots/list", b"{}"))
        question = await asked(standing)
        answer = b'{"jsonrpc":"2.0","id":%b,"result":{"roots":[]}}' % jsonrpc.encode_id(question.id)  # type: ignore[arg-type]
        (await c.found()).answered(jsonrpc.decode(answer))
        outcome = await asyncio.wait_for(asking, 5)
        assert isinstance(outcome, Result)
        assert msgspec.json.decode(bytes(outcome.value)) == {"roots": []}
        (await c.found()).answered(jsonrpc.decode(answer))  # late: nobody waits


async def test_a_question_ends_with_its_stream() -> None:
    """On whichever replica that is, and also when that replica dies."""
    async with neighbours("a", "b", "c") as (a, b, c):
        opened = await a.begin()
        for other, ends in ((b, lambda: None), (c, c.die)):
            session, standing = await other.found(), Standing(10)
            session.join(standing)
            await until(lambda: a.store._shelf.sessions[opened.ref].standing)
            asking = asyncio.get_running_loop().create_task(opened.ask("roots/list", b"{}"))
            question = await asked(standing)
            if other is b:
                session.leave(standing)
                assert CANCELLED not in str(question)
            ends()
            with pytest.raises(Unanswered):
                await asyncio.wait_for(asking, 5)


async def test_idle_copies_are_looked_after() -> None:
    """One that is used elsewhere stays; one that has ended in the store goes."""
    settings = SessionSettings(idle_s=0.3)
    async with neighbours("a", "b", settings=settings) as (a, b):
        await a.begin()
        await b.found()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await b.found()
        assert await a.store.lives([(await b.found()).ref]) == [True]
        await until(lambda: a.ended == b.ended == ["id"])


async def test_a_list_that_changed_in_a_session_is_stale_wherever_that_is() -> None:
    """The others that have the session hear of it; what concerns no session is everybody's own to hear."""

    class Lists:
        def __init__(self) -> None:
            self.heard: list[tuple[str, str, str]] = []

        def changed(self, backend: str, session: str, method: str) -> None:
            self.heard.append((backend, session, method))

    async with neighbours("a", "b") as (a, b):
        here, there = Lists(), Lists()
        a.elsewhere.spread(here)
        b.elsewhere.spread(there)
        await a.begin()
        await b.found()
        a.elsewhere.changed("box", "", NOTICE)
        a.elsewhere.changed("box", "id", NOTICE)
        await until(lambda: there.heard)
        assert here.heard == [("box", "", NOTICE), ("box", "id", NOTICE)]
        assert there.heard == [("box", "id", NOTICE)]


async def test_what_nobody_uses_here_is_forgotten_and_found_again() -> None:
    """Not ended: it is in the store. One of which something is only here stays, and one that waits for something."""
    async with neighbours("a", "b") as (a, b):
        opened = await a.begin()
        loop = asyncio.get_running_loop()

        def swept() -> bool:
            opened.last_active_at = loop.time() - FORGET_S - 1
            a.sessions._sweep(loop)
            return len(a.sessions) == 0

        standing = Standing(1)
        opened.join(standing)
        assert not swept()
        opened.leave(standing)
        a.may_leave = False
        assert not swept()
        a.may_leave = True
        assert swept()
        assert a.ended == []
        await b.found()
        assert await b.store.owners(opened.ref) == {"b"}
        assert await a.found() is not opened


@pytest.mark.parametrize(
    "record",
    [
        Record("2099-01-01", b"{}", b"{}", 1.0),
        Record("2025-11-25", b"x", b"{}", 1.0),
        Record("2025-11-25", b"{}", b"[]", 1.0),
        Record("2025-11-25", b"{}", b'{"roots":{}},"injected":{', 1.0),
        Record("2025-11-25", b"{}", b"{}", 1.0, metadata={"chain": '["a"],"injected":1'}),
    ],
)
async def test_a_session_that_nobody_could_have_kept_is_unknown(record: Record) -> None:
    """What the store holds goes to backends as it is: it is read before, and what is not to be read is not served."""
    async with neighbours("a") as (a,):
        await a.store.create(reference("id", "", ANONYMOUS), record)
        with pytest.raises(UnknownSession):
            await a.found()


async def test_an_answer_to_what_nobody_asked_goes_nowhere() -> None:
    """Its id is whatever a client says: no letter is written to a replica of a name that none can have."""
    async with neighbours("a") as (a,):
        session = await a.begin()
        for ask_id in ("x" * 100_000 + ".1", ".1", "1"):
            session.answered(jsonrpc.decode(jsonrpc.result(ask_id, b"{}")))
        assert not a.post._out
        session.answered(jsonrpc.decode(jsonrpc.result("b.1", b"{}")))
        assert list(a.post._out) == ["b"]
        await until(lambda: not a.post._out)


async def test_a_log_level_that_is_none_is_not_taken_over() -> None:
    """Neither with the session nor later."""
    async with neighbours("a", "b") as (a, b):
        session = await a.begin()
        await a.store.set_log_level(session.ref, "loudest")
        found = await b.found()
        assert found.client.log_level is None
        b.sessions.distrust()
        b.sessions.trust()
        assert (await b.found()).client.log_level is None


async def test_whoever_waits_for_a_session_hears_of_a_bug() -> None:
    """As of any: it is answered under an id, and its connection is not cut."""
    async with neighbours("a") as (a,):

        async def broken(ref: str) -> None:
            raise ZeroDivisionError

        a.elsewhere.store = cast("Store", SimpleNamespace(load=broken))  # type: ignore[misc]
        try:
            for result in await asyncio.gather(*(a.found("nobody") for _ in range(3)), return_exceptions=True):
                assert isinstance(result, ZeroDivisionError)
        finally:
            a.elsewhere.store = a.store  # type: ignore[misc]


class Carrying:
    """A backend that sessions listen to: what it is asked to take up here, or to let go."""

    is_stood_in = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def inherit(self, client: Client, key: str, since: float) -> None:
        """See heirs.Carrying."""
        self.asked.append((client.session, key))

    async def let_go(self, session: str, key: str) -> None:
        """See heirs.Carrying."""
        self.asked.append((session, f"not {key}"))

    async def recheck(self) -> None:
        """See heirs.Carrying."""
        self.asked.append(("", "recheck"))


async def test_what_a_dead_replica_carried_is_taken_up_where_the_stream_is() -> None:
    """Of those sessions that have one here, when it dies; and of one that opens one later. What was let go is not."""
    async with neighbours("a", "b") as (a, b):
        box = Carrying()
        there = b.elsewhere
        there.heirs = Heirs({"box": box}, there, b.post, there._background, 0.2)
        one, two = await a.begin("one"), await a.begin("two")
        for session in (one, two):
            assert await a.elsewhere.claim(session.id, "box x:1", b"a", None) == b"a"
        await a.elsewhere.claim("two", "box x:2", b"a", None)
        await a.elsewhere.unclaim("two", "box x:2", b"a")
        assert await there.claims("two") == {}  # it is not here
        (await b.found("one")).join(Standing(9))
        later = await b.found("two")
        assert await there.claims("two") == {"box x:1": b"a"}
        assert there.listening() == ["one"]
        a.die()
        await until(lambda: box.asked == [("one", "x:1")])
        later.join(Standing(9))
        await until(lambda: box.asked == [("one", "x:1"), ("two", "x:1")])
        await there.unclaim("gone", "box x:1", b"a")
        b.post.on_lapsed()
        await until(lambda: box.asked[2:] == [("", "recheck")])
