"""What is said within a session: introductions, calls and their cancellation, notifications, log levels."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, cast

import pytest
from msgspec import Raw
from typing_extensions import override

from gatewright.backend.backend import Offer
from gatewright.call import ANONYMOUS, Call, Client, Handler, Outcome, Result
from gatewright.errors import ClientError, InvalidParams, InvalidRequest, MethodNotFound
from gatewright.inbound.dialogue import Dialogue, SessionRules, cancelled_id
from gatewright.inbound.session import Session
from gatewright.protocol import jsonrpc
from gatewright.protocol.chain import Chain
from gatewright.protocol.handshake import State
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.revisions import HANDSHAKE_2025_06_18
from gatewright.routing.front import Front

pytestmark = pytest.mark.anyio
CLIENT = Client(HANDSHAKE_2025_06_18, b"{}", b"{}", "s")


class Kept(SessionRules):
    """Keeps what is said."""

    def __init__(self, session: Session, row: Method | None = None) -> None:
        super().__init__(1, row, HANDSHAKE_2025_06_18)
        self._session = session
        self.call = None
        self.sent: list[Any] = []

    @override
    def channel(self) -> object | None:
        return self

    @override
    async def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    @override
    async def finish(self, status: int, body: bytes) -> None:
        self.sent.append(json.loads(body))


class StubFront:
    """Offers one thing, and keeps what it is told."""

    info = Raw(b'{"name":"gatewright"}')

    def __init__(self, info: bytes = b"{}", instructions: str | None = None) -> None:
        self.told: list[Any] = []
        self._offer = Offer({"tools": Raw(b"{}")}, Raw(info), instructions)

    async def offer(self, *_: object) -> Offer:
        """Always the same."""
        return self._offer

    async def tell(self, route: str, client: Client, message: bytes) -> None:
        """Keep it."""
        self.told.append((route, json.loads(message)))


def session_of() -> Session:
    """One that is open."""
    session = Session("s", "", ANONYMOUS, CLIENT, 4, asyncio.get_running_loop())
    session.advance("initialize")
    return session


def dialogue(handle: Handler | None = None, front: StubFront | None = None) -> Dialogue:
    """With a stub for what it does not concern."""

    async def done(call: Call) -> Outcome:
        return Result(b'{"method":"%b"}' % call.method.encode())

    return Dialogue(handle or done, cast("Front", front or StubFront()), Chain("here", 8))


def message(method: str, params: bytes | None = None) -> jsonrpc.Message:
    """A request or notification."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"%b"%b}'
    return jsonrpc.decode(body % (method.encode(), b"" if params is None else b',"params":' + params))


async def ask(session: Session, method: str, params: bytes | None = None, *, of: Dialogue | None = None) -> Outcome:
    """The outcome of a request."""
    task = asyncio.current_task()
    assert task is not None
    asked = message(method, params)
    reply = Kept(session, METHODS.get(method))
    try:
        return await (of or dialogue()).outcome(session, asked, method, reply, task)
    finally:
        reply.over()


@pytest.mark.parametrize(
    ("route", "info", "name"),
    [("", b'{"name":"box"}', "gatewright"), ("box", b'{"name":"box"}', "box"), ("box", b"{}", "gatewright")],
)
async def test_an_introduction_names_whom_the_client_speaks_to(route: str, info: bytes, name: str) -> None:
    """The gateway where it serves several, the backend where it serves one that says its name."""
    told = json.loads(await dialogue(front=StubFront(info, "Be kind.")).introduction(route, CLIENT))
    assert told == {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": name},
        "instructions": "Be kind.",
    }
    assert "instructions" not in json.loads(await dialogue().introduction(route, CLIENT))


async def test_a_call_knows_its_session() -> None:
    """And ping is answered without one."""
    seen: list[Call] = []

    async def handle(call: Call) -> Outcome:
        seen.append(call)
        return Result(b"{}")

    session = session_of()
    assert await ask(session, "ping", of=dialogue(handle)) == Result(b"{}")
    assert not seen
    await ask(session, "tools/call", b'{"name":"t","_meta":{"progressToken":5}}', of=dialogue(handle))
    assert (seen[0].client.session, seen[0].name, bytes(seen[0].meta["progressToken"])) == ("s", "t", b"5")
    assert not session.calls


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("server/discover", None, MethodNotFound),
        ("tools/call", b"{}", InvalidParams),
        ("logging/setLevel", b'{"level":"loud"}', InvalidParams),
        ("logging/setLevel", None, InvalidParams),
    ],
)
async def test_what_the_era_does_not_have_is_refused(
    method: str, params: bytes | None, error: type[ClientError]
) -> None:
    """Before anything is called."""
    with pytest.raises(error):
        await ask(session_of(), method, params)


async def test_a_log_level_is_kept_for_what_comes_after() -> None:
    """Messages below it go no further."""
    session = session_of()
    await ask(session, "logging/setLevel", b'{"level":"error"}')
    reply = Kept(session)
    for level in ("info", "critical"):
        await reply.emit("notifications/message", b'{"level":"%b"}' % level.encode())
    assert [one["params"]["level"] for one in reply.sent] == ["critical"]


async def test_a_cancelled_call_is_owed_no_answer_and_its_task_goes_on() -> None:
    """The task may serve other requests after it."""
    session = session_of()
    begun = asyncio.Event()

    async def handle(call: Call) -> Outcome:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return Result(b"{}")

    reply = Kept(session)

    async def serve() -> str:
        task = asyncio.current_task()
        assert task is not None
        asked = message("tools/list")
        outcome = partial(dialogue(handle).outcome, session, asked, "tools/list", reply, task)
        await reply.answer("tools/list", outcome)
        await asyncio.sleep(0)
        return "went on"

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve())
        await begun.wait()
        told = message("notifications/cancelled", b'{"requestId":1}')
        assert dialogue().is_taken(session, "notifications/cancelled", told)
    assert serving.result() == "went on"
    assert not reply.sent
    assert not session.calls


async def test_life_cycle_notifications_are_the_sessions_and_others_the_backends() -> None:
    """Only the latter are passed on, with their parameters."""
    session, front = session_of(), StubFront()
    speaking = dialogue(front=front)
    assert speaking.is_taken(session, "notifications/initialized", message("notifications/initialized"))
    assert session.state is State.READY
    other = message("notifications/roots/list_changed", b'{"a":1}')
    assert not speaking.is_taken(session, "notifications/roots/list_changed", other)
    await speaking.tell(session, "notifications/roots/list_changed", other)
    await speaking.tell(session, "notifications/x", message("notifications/x"))
    assert [one["params"] for _, one in front.told] == [{"a": 1}, {}]
    session.end()
    with pytest.raises(InvalidRequest):
        speaking.is_taken(session, "notifications/initialized", message("notifications/initialized"))


@pytest.mark.parametrize(
    "params", [{}, {"requestId": Raw(b"null")}, {"requestId": Raw(b"1.5")}, {"requestId": Raw(b"[1]")}]
)
async def test_a_cancellation_names_its_request(params: dict[str, Raw]) -> None:
    """By a text or a whole number."""
    with pytest.raises(InvalidParams):
        cancelled_id(params)
    assert cancelled_id({"requestId": Raw(b"7")}) == 7
    assert cancelled_id({"requestId": Raw(b'"7"')}) == "7"


async def test_a_transport_has_to_say_where_questions_go() -> None:
    """The rules alone cannot be made."""
    with pytest.raises(TypeError, match="channel"):
        SessionRules(1, None, HANDSHAKE_2025_06_18)  # type: ignore[abstract]
