"""Sessions by themselves: whom they are found for, what waits on their streams, how they and their questions end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewright.call import ANONYMOUS, Caller, Client, Failure, Result
from gatewright.errors import InvalidRequest, MissingCapability, Overloaded, ProtocolError, UnknownSession
from gatewright.inbound.session import Session, Unanswered, is_loud
from gatewright.inbound.sessions import MAX_ENDED_AT_ONCE, MAX_TOUCHED_AT_ONCE, Sessions
from gatewright.inbound.settings import Sessions as Settings
from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25
from inbound.neighbours import neighbours

pytestmark = pytest.mark.anyio
ASK = "elicitation/create"
CHANGED = "notifications/tools/list_changed"


@asynccontextmanager
async def held(**settings: Any) -> AsyncIterator[tuple[Sessions, list[str]]]:
    """Sessions, and which of them ended."""
    ended: list[str] = []
    sessions = Sessions(Settings(**settings), ended.append)
    try:
        yield sessions, ended
    finally:
        sessions.close()


def opened(sessions: Sessions, route: str = "", caller: Caller = ANONYMOUS, capabilities: bytes = b"{}") -> Session:
    """A new session."""
    session_id = sessions.mint()
    return sessions.add(session_id, route, caller, Client(HANDSHAKE_2025_11_25, b"{}", capabilities, session_id))


class Sent:
    """A stream that keeps what is sent on it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.arrived = asyncio.Event()

    async def send(self, message: bytes) -> None:
        self.messages.append(json.loads(message))
        self.arrived.set()


@asynccontextmanager
async def asking(session: Session, sent: Sent, *owners: object) -> AsyncIterator[asyncio.Task[Result | Failure]]:
    """An open question."""
    task = asyncio.get_running_loop().create_task(session.put(ASK, b"{}", sent.send, owners))
    async with asyncio.timeout(5):
        await sent.arrived.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


def answer(request_id: object, **members: object) -> jsonrpc.Message:
    """A response of the client."""
    return jsonrpc.decode(json.dumps({"jsonrpc": "2.0", "id": request_id, **members}).encode())


async def test_a_session_is_found_by_its_owner_on_its_path_alone() -> None:
    """Everybody else is told what an unknown id is told, to the letter (S-22)."""
    async with held() as (sessions, _):
        ada, bob = Caller("ada"), Caller("bob")
        session = opened(sessions, "files", ada)
        assert sessions.find(session.id, "files", ada) is session
        told = set()
        for found in [(session.id, "files", bob), (session.id, "", ada), (session.id, "git", ada), ("é", "files", ada)]:
            with pytest.raises(UnknownSession) as refused:
                sessions.find(found[0], found[1], found[2])
            told.add(refused.value.message)
        assert len(told) == 1


async def test_an_ended_session_is_unknown_and_told_once() -> None:
    """Ending twice ends once; its calls are cancelled and its streams close."""
    async with held() as (sessions, ended):
        session = opened(sessions)
        stream = Standing(4)
        session.join(stream)
        sessions.end(session)
        sessions.end(session)
        assert ended == [session.id]
        assert await stream.take() is None
        with pytest.raises(UnknownSession):
            sessions.find(session.id, "", ANONYMOUS)
        with pytest.raises(InvalidRequest):
            session.advance("message")
        assert len(sessions) == 0


async def test_too_many_are_refused() -> None:
    """The bound holds, and an end makes room."""
    async with held(max_sessions=1) as (sessions, _):
        session = opened(sessions)
        with pytest.raises(Overloaded):
            sessions.mint()
        sessions.end(session)
        opened(sessions)


async def test_the_idle_are_ended_and_the_busy_are_not() -> None:
    """A stream or a call keeps a session; without either it ends after `idle_s`."""
    async with held(idle_s=0.05) as (sessions, ended):
        idle, streaming, calling = opened(sessions), opened(sessions), opened(sessions)
        streaming.join(Standing(4))
        task = asyncio.current_task()
        assert task is not None
        calling.calls[task] = 1
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0)
        assert ended == [idle.id]
        calling.calls.clear()
        async with asyncio.timeout(5):
            while len(ended) < 2:
                await asyncio.sleep(0)
        assert ended == [idle.id, calling.id]


async def test_a_crowd_that_left_is_ended_in_portions() -> None:
    """No sweep does more than its share, and none is forgotten."""
    async with held(idle_s=0.01) as (sessions, ended):
        for _ in range(MAX_ENDED_AT_ONCE + 10):
            opened(sessions).last_active_at = -1e9
        portions = set()
        async with asyncio.timeout(5):
            while len(sessions):
                portions.add(len(ended))
                await asyncio.sleep(0)
        assert MAX_ENDED_AT_ONCE in portions
        assert len(ended) == MAX_ENDED_AT_ONCE + 10


async def test_the_store_is_told_seldom_and_of_a_few_at_a_time() -> None:
    """Of who is active within a minute, of who only holds a stream before it would be taken for idle, of nobody else;
    a crowd in portions."""
    async with neighbours("a") as [one]:
        loop = asyncio.get_running_loop()
        active, holding, silent = [await one.begin(name) for name in ("active", "holding", "silent")]
        crowd = [await one.begin(f"id {number}") for number in range(MAX_TOUCHED_AT_ONCE)]
        told = {session: session.touched_at for session in (active, holding, silent, *crowd)}
        active.last_active_at += 1.0
        holding.join(Standing(4))
        one.sessions._sweep(loop)
        assert all(session.touched_at == at for session, at in told.items())
        for session in told:
            session.touched_at -= 61.0
            session.last_active_at = session.touched_at + (session is active)
        one.sessions._sweep(loop)
        assert [session.id for session, at in told.items() if session.touched_at >= at] == ["active"]
        for session in (holding, silent, *crowd):
            session.touched_at = session.last_active_at = loop.time() - 901.0
        for session in crowd:
            session.join(Standing(4))
        portions = []
        for _ in range(2):
            one.sessions._sweep(loop)
            portions.append(sum(session.touched_at > loop.time() - 60.0 for session in (holding, silent, *crowd)))
        assert portions == [MAX_TOUCHED_AT_ONCE, MAX_TOUCHED_AT_ONCE + 1]
        assert silent.touched_at < loop.time() - 900.0


async def test_what_belongs_to_no_call_goes_to_one_open_stream() -> None:
    """The newest that is not closing; without one there is nobody to tell."""
    async with held() as (sessions, _):
        session = opened(sessions)
        await session.emit(CHANGED, b"{}")
        older, newer = Standing(4), Standing(4)
        session.join(older)
        session.join(newer)
        await session.emit(CHANGED, b"{}")
        assert len(newer.unsent()) == 1
        newer.close()
        await session.emit(CHANGED, b"{}")
        assert (len(newer.unsent()), len(older.unsent())) == (1, 1)
        session.leave(newer)
        assert len(older.unsent()) == 2
        assert session.streams == [older]


async def test_a_question_is_answered_once() -> None:
    """The first answer counts; later ones, and those to nothing, are dropped."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sent = Sent()
        async with asking(session, sent) as task:
            request_id = sent.messages[0]["id"]
            session.answered(answer(str(request_id), result={"by": "text"}))
            session.answered(answer(request_id, result={"n": 1}))
            session.answered(answer(request_id, result={"n": 2}))
            found = await task
        assert isinstance(found, Result)
        assert json.loads(bytes(found.value)) == {"n": 1}
        assert session._asks == {}


async def test_an_error_is_an_answer_too() -> None:
    """What the client refuses, the backend is told."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sent = Sent()
        async with asking(session, sent) as task:
            session.answered(answer(sent.messages[0]["id"], error={"code": -1, "message": "no"}))
            found = await task
        assert found == Failure(-1, "no", None)
        with pytest.raises(ProtocolError):
            jsonrpc.answer_of(answer(1, result={}, error={"code": -1, "message": "no"}))


async def test_questions_want_the_capability() -> None:
    """What the client did not declare it is not asked."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"roots":{}}')
        with pytest.raises(MissingCapability) as refused:
            await session.put(ASK, b"{}", Sent().send, ())
        assert refused.value.data == {"requiredCapabilities": {"elicitation": {}}}
        with pytest.raises(MissingCapability):
            await session.ask("roots/list", b"{}")


async def test_questions_are_bounded() -> None:
    """One more than the bound is refused, and an answered one makes room."""
    async with held(max_pending_asks=1) as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sent = Sent()
        async with asking(session, sent) as task:
            with pytest.raises(Overloaded):
                await session.put(ASK, b"{}", Sent().send, ())
            session.answered(answer(sent.messages[0]["id"], result={}))
            await task
        async with asking(session, Sent()):
            pass


@pytest.mark.parametrize("how", ["withdraw", "end"])
async def test_a_question_falls_with_its_owner(how: str) -> None:
    """Its stream, its call or the session: whoever asked hears so at once; a stranger's end changes nothing."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sent, owner = Sent(), object()
        async with asking(session, sent, "other", owner) as task:
            assert session.withdraw(object()) == []
            assert not task.done()
            if how == "withdraw":
                [told] = session.withdraw(owner)
                assert json.loads(told)["params"] == {"requestId": sent.messages[0]["id"]}
                assert session.withdraw(owner) == []
            else:
                sessions.end(session)
            await asyncio.wait({task}, timeout=5)
            assert isinstance(task.exception(), Unanswered)
        assert session._asks == {}


async def test_an_ended_session_is_asked_nothing() -> None:
    """A backend that asks too late hears so."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sessions.end(session)
        with pytest.raises(Unanswered):
            await session.put(ASK, b"{}", Sent().send, ())


async def test_whoever_stops_asking_takes_the_question_back() -> None:
    """The client is told under the id that it knows."""
    async with held() as (sessions, _):
        session = opened(sessions, capabilities=b'{"elicitation":{}}')
        sent = Sent()
        async with asking(session, sent):
            pass
        question, taken_back = sent.messages
        assert taken_back["method"] == "notifications/cancelled"
        assert taken_back["params"] == {"requestId": question["id"]}
        assert session._asks == {}


@pytest.mark.parametrize(
    ("level", "said", "expected"),
    [
        (None, b'"debug"', True),
        ("info", b'"debug"', False),
        ("info", b'"info"', True),
        ("info", b'"alert"', True),
        ("emergency", b'"alert"', False),
        ("info", b'"shout"', True),
        ("info", b"null", True),
    ],
)
async def test_the_level_decides(level: str | None, said: bytes, expected: bool) -> None:
    """At or above it is loud enough; what has no known level passes."""
    assert is_loud(level, b'{"level":%b}' % said) is expected
    assert is_loud(level, b"{}") is True
