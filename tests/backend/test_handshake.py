"""Sessions with a handshake backend: whose they are, how they open, what happens when they are lost, how they end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backend.mcp_server import World, backed, call_of, handshake_client, members, modern_client
from backend.raw_server import Peer, response, soon, until
from gatewright.backend.backend import McpBackend
from gatewright.backend.feed import Wants
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import StdioConnector
from gatewright.call import ANONYMOUS, Caller, Failure, Result
from gatewright.errors import BackendError, BackendGarbage, BackendRefusedChain, BackendUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.chain import CHAIN_KEY

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(**changes: Any) -> AsyncIterator[tuple[World, McpBackend]]:
    """A backend that speaks only this era, known to."""
    async with backed("handshake", era="handshake", **changes) as (world, backend):
        yield world, backend


# --- whose session


async def test_every_client_session_has_one_of_its_own() -> None:
    """With exactly that client's capabilities, revision and name, opened by its first call."""
    async with opened() as (world, backend):
        capabilities = b'{"roots":{"listChanged":true},"sampling":{},"x-own":{"a":1}}'
        for session in ("c1", "c2", "c1"):
            await soon(backend(call_of(handshake_client(session, capabilities))))
        assert len(world.mcp.sessions) == 2
        assert world.mcp.initialized[0] == {
            "protocolVersion": "2025-11-25",
            "capabilities": json.loads(capabilities),
            "clientInfo": {"name": "c", "version": "1"},
        }


async def test_modern_clients_share_one_per_caller_and_capabilities() -> None:
    """Never between callers, and never with a session's."""
    async with opened() as (world, backend):
        for _ in range(3):
            await soon(backend(call_of(modern_client())))
            await soon(backend(call_of(modern_client(b'{"x":{}}'))))
            call = call_of(modern_client())
            call.caller = Caller("somebody")
            await soon(backend(call))
        await soon(backend(call_of(handshake_client())))
        assert len(world.mcp.sessions) == 4


async def test_no_name_of_a_caller_leads_into_anothers_session() -> None:
    """Whatever an identity provider calls people: what looks like a chain of gateways, or like a number of ours."""
    async with opened() as (world, backend):
        face = backend._handshake
        there = replace(modern_client(), chain='["there","here"]')
        keys = {
            face._key(client, Caller(subject))
            for client in (modern_client(), there)
            for subject in ("eve", 'eve ["there","here"]', '["there","here"] eve', " eve", "eve #2", "#2 eve", "")
        }
        assert len(keys) == 2 * 7
        call = call_of(there)
        call.caller = Caller("eve")
        await soon(backend(call))
        call = call_of(modern_client())
        call.caller = Caller('eve ["there","here"]')
        await soon(backend(call))
        assert len(world.mcp.sessions) == 2


async def test_nothing_is_kept_of_resources_that_nobody_listens_to() -> None:
    """Strangers name them, a thousand at a time, and the session is shared and lives on; whether the backend takes
    subscriptions or not."""
    for capabilities in ({"resources": {}}, {"resources": {"subscribe": True}}):
        async with opened() as (world, backend):
            world.mcp.capabilities = capabilities
            session = await soon(backend._handshake.session(modern_client(), ANONYMOUS))
            wants = Wants(uris=frozenset(f"u:{number}" for number in range(20)))
            feed, listener = await soon(backend.join(modern_client(), ANONYMOUS, wants, lambda method, params: None))
            await until(lambda session=session: len(session.subscribed) == 20)  # type: ignore[misc]
            feed.leave(listener)
            await until(lambda session=session: not session.subscribed)  # type: ignore[misc]


async def test_a_stateless_backend_has_one_for_all_that_can_be_asked_nothing() -> None:
    """Whoever calls; a client's notification is not passed to what is not its own."""
    async with opened(stateless=True) as (world, backend):
        await soon(backend(call_of(handshake_client("c1", b'{"roots":{},"sampling":{},"elicitation":{}}'))))
        await soon(backend(call_of(modern_client())))
        await soon(
            backend.tell(handshake_client("c1"), jsonrpc.notification("notifications/roots/list_changed", b"{}"))
        )
        await soon(backend.release("c1"))
        assert [params["capabilities"] for params in world.mcp.initialized] == [{}]
        assert len(world.mcp.sessions) == 1
        assert "notifications/roots/list_changed" not in world.methods()


@pytest.mark.parametrize("stateless", [False, True])
async def test_a_session_is_told_of_one_chain_of_gateways_and_serves_no_other(stateless: bool) -> None:
    """Else a circle would stay hidden in a session that somebody else opened. The calls in it say nothing of chains."""
    chains = ['["here"]', '["a","here"]', '["b","here"]']
    async with opened(stateless=stateless, chain=chains[0]) as (world, backend):
        for chain in chains * 2:
            await soon(backend(call_of(modern_client(chain=chain), _meta={CHAIN_KEY: ["a"], "x": 1})))
        told = [json.dumps(one["_meta"][CHAIN_KEY], separators=(",", ":")) for one in world.mcp.initialized]
        assert told == chains
        heard = [one for one in world.server.heard if one.method == "POST"]
        calls = [one.message["params"] for one in heard if one.message.get("method") == "tools/call"]
        assert [one["_meta"] for one in calls] == [{"x": 1}] * 6


async def test_a_refused_chain_does_not_say_that_it_is_of_another_era() -> None:
    """The gateway's own words reach the client; a session for others opens."""
    async with opened(chain='["here"]') as (world, backend):
        world.mcp.refuses = "a"
        with pytest.raises(BackendRefusedChain, match="b: no"):
            await soon(backend(call_of(modern_client(chain='["a","here"]'))))
        assert members(await soon(backend(call_of(modern_client(chain='["here"]')))))["calls"] == 1


async def test_a_clients_notification_goes_to_its_own_session() -> None:
    """If it has one here; it opens none."""
    async with opened() as (world, backend):
        message = jsonrpc.notification("notifications/roots/list_changed", b"{}")
        await soon(backend.tell(handshake_client("c1"), message))
        assert world.server.heard == []
        await soon(backend(call_of(handshake_client("c1"))))
        await soon(backend.tell(handshake_client("c1"), message))
        assert world.server.heard[-1].message["method"] == "notifications/roots/list_changed"
        assert world.server.heard[-1].headers["mcp-session-id"] == "s1"


async def test_sessions_that_nobody_uses_make_room(tmp_path: Path) -> None:
    """Any number of capability sets over programs, of which only so many may run: the idle ones go, oldest first."""
    eras = tmp_path / "eras"
    eras.write_text("handshake")
    args = (str(Path(__file__).parent / "era_child.py"), str(eras))
    settings = {"command": sys.executable, "args": args, "max_children": 8, "era": "handshake"}
    async with backed("handshake") as (world, _), asyncio.TaskGroup() as tasks:
        connector = StdioConnector("b", BackendSettings(**settings), tasks)  # type: ignore[arg-type]
        backend = world.backend(connector, **settings)
        busy = members(await soon(backend(call_of(modern_client(b'{"n":0}')))))["pid"]
        for number in range(1, 12):
            await soon(backend(call_of(modern_client(b'{"n":0}'))))
            await soon(backend(call_of(modern_client(b'{"n":%d}' % number))))
        await until(lambda: len(connector.pids()) == 4)
        assert members(await soon(backend(call_of(modern_client(b'{"n":0}')))))["pid"] == busy
        await soon(backend.aclose())


# --- opening


async def test_a_session_is_opened_once_however_many_wait() -> None:
    """Also when who asked first leaves; `initialized` goes before the first call."""
    async with opened() as (world, backend), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(backend(call_of(handshake_client())))
        await until(lambda: len(world.server.peers) == 1)
        first.cancel()
        await soon(asyncio.gather(*(backend(call_of(handshake_client())) for _ in range(20))))
        posted = world.methods()
        assert posted[:2] == ["initialize", "notifications/initialized"]
        assert posted.count("initialize") == 1
        assert world.mcp.calls == 20


async def test_all_who_wait_learn_that_it_cannot_be_opened() -> None:
    """And the next one tries again."""
    async with opened() as (world, backend):
        await world.server.stop()
        found = await soon(
            asyncio.gather(*(backend(call_of(handshake_client())) for _ in range(5)), return_exceptions=True)
        )
        assert all(isinstance(one, BackendUnavailable) for one in found)
        await world.server.start()
        assert members(await soon(backend(call_of(handshake_client()))))["calls"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        b'{"protocolVersion":"2031-01-01","capabilities":{},"serverInfo":{}}',
        b'{"protocolVersion":"2026-07-28","capabilities":{},"serverInfo":{}}',
        b'{"capabilities":{}}',
        b"[]",
        b"null",
    ],
)
async def test_an_answer_that_opens_no_session_is_an_error_and_leaves_none(answer: bytes) -> None:
    """Another revision, or none: the session that the server made is ended."""
    async with opened() as (world, backend):

        async def odd(peer: Peer) -> None:
            while True:
                heard = await peer.hear()
                if heard.method == "DELETE":
                    deleted.set()
                    peer.say(response(b"", "200 OK"))
                    continue
                body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (heard.message["id"], answer)
                peer.say(response(body, "200 OK", "mcp-session-id: odd"))

        deleted = asyncio.Event()
        world.server.talk = odd
        with pytest.raises(BackendError):
            await soon(backend(call_of(handshake_client())))
        await soon(deleted.wait())


async def test_a_session_that_ends_while_it_is_opened_is_not_left_behind() -> None:
    """Its calls fail, the backend's half is ended when it stands."""
    async with opened() as (world, backend), asyncio.TaskGroup() as tasks:
        talk = world.mcp.talk
        world.server.talk = lambda peer: talk(Slow(peer))  # type: ignore[arg-type]
        call = tasks.create_task(failing(backend, handshake_client("c1")))
        await until(lambda: len(world.server.heard) == 1)
        await soon(backend.release("c1"))
        assert isinstance(await soon(call), BackendUnavailable)
        gate.set()
        await until(lambda: world.mcp.ended == ["s1"])
        gate.clear()


gate = asyncio.Event()


class Slow:
    """A connection whose `initialize` is not answered before the gate opens."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def hear(self) -> Any:
        heard = await self._peer.hear()
        if b'"initialize"' in heard.body:
            await gate.wait()
        return heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)


async def failing(backend: McpBackend, client: Any) -> Any:
    """What the call raises."""
    try:
        return await backend(call_of(client))
    except BackendError as error:
        return error


# --- lost and ended


@pytest.mark.parametrize("is_request", [False, True])
async def test_a_lost_session_is_opened_anew_and_each_call_runs_once(is_request: bool) -> None:
    """Twenty at once, and requests of the gateway's own."""
    async with opened() as (world, backend):
        client = handshake_client()
        await soon(backend(call_of(client)))
        world.mcp.sessions.clear()
        if is_request:
            answers = await soon(
                asyncio.gather(*(backend.request("tools/list", {}, client, ANONYMOUS) for _ in range(20)))
            )
            assert all(isinstance(one, Result) for one in answers)
        else:
            await soon(asyncio.gather(*(backend(call_of(client)) for _ in range(20))))
            assert world.mcp.calls == 21
        assert len(world.mcp.initialized) == 2


async def test_a_session_that_is_lost_at_once_again_is_given_up() -> None:
    """Once is enough: a backend that forgets every session would be asked for ever."""
    async with opened() as (world, backend):
        client = handshake_client()
        await soon(backend(call_of(client)))
        talk = world.mcp.talk

        async def forgetful(peer: Peer) -> None:
            await talk(Forgetful(peer))  # type: ignore[arg-type]

        await world.server.stop()
        world.server.talk = forgetful
        await world.server.start()
        with pytest.raises(BackendUnavailable):
            await soon(backend(call_of(client)))
        assert world.methods().count("tools/call") == 3
        assert world.mcp.calls == 1


class Forgetful(Slow):
    """A connection that answers every call as if there were no session."""

    async def hear(self) -> Any:
        while b"tools/call" in (heard := await self._peer.hear()).body:
            self._peer.say(response(b"", "404 Not Found"))
        return heard


async def test_the_end_of_a_client_session_ends_the_backends() -> None:
    """With a DELETE; the others go on."""
    async with opened() as (world, backend):
        for session in ("c1", "c2"):
            await soon(backend(call_of(handshake_client(session))))
        await soon(backend.release("c1"))
        await soon(backend.release("unknown"))
        assert world.mcp.ended == ["s1"]
        await soon(backend(call_of(handshake_client("c2"))))
        assert len(world.mcp.initialized) == 2


async def test_closing_ends_every_session_and_opens_no_other() -> None:
    """Whoever comes later is told."""
    async with opened() as (world, backend):
        for session in ("c1", "c2"):
            await soon(backend(call_of(handshake_client(session))))
        await soon(backend.aclose())
        assert sorted(world.mcp.ended) == ["s1", "s2"]
        await until(lambda: not world.server.open_peers)
        with pytest.raises(BackendUnavailable):
            await soon(backend(call_of(handshake_client("c3"))))


async def test_ids_are_unique_over_all_sessions() -> None:
    """They share connections: an answer on the wrong one must match nobody."""
    async with opened() as (world, backend):
        await soon(asyncio.gather(*(backend(call_of(handshake_client(f"c{n}"))) for n in range(5) for _ in range(4))))
        ids = [heard.message["id"] for heard in world.server.heard if heard.method == "POST" and "id" in heard.message]
        assert len(ids) == len(set(ids)) >= 25


async def test_an_outcome_of_another_era_is_garbage() -> None:
    """A result that is no object. A `resultType` is none of this era: it is a member of the server's own."""
    for result in (b"[]", b'"x"'):
        async with opened() as (world, backend):
            talk = world.mcp.talk
            await soon(backend(call_of(handshake_client())))
            await world.server.stop()
            world.server.talk = lambda peer, result=result, talk=talk: talk(Odd(peer, result))  # type: ignore[misc]
            await world.server.start()
            with pytest.raises(BackendGarbage):
                await soon(backend(call_of(handshake_client())))


class Odd(Slow):
    """A connection that answers calls with that result."""

    def __init__(self, peer: Peer, result: bytes) -> None:
        super().__init__(peer)
        self._result = result

    async def hear(self) -> Any:
        while b"tools/call" in (heard := await self._peer.hear()).body:
            body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (heard.message["id"], self._result)
            self._peer.say(response(body))
        return heard


async def test_an_unknown_method_is_the_backends_to_refuse() -> None:
    """Its error is a value."""
    async with opened() as (_, backend):
        outcome = await soon(backend(call_of(handshake_client(), "x/unknown")))
        assert isinstance(outcome, Failure)
        assert outcome.code == -32601
