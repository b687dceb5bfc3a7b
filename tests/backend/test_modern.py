"""A modern backend: every call stands alone over one link; subscriptions; a process that was replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.mcp_server import Replies, World, backed, call_of, handshake_client, members, modern_client
from backend.raw_server import Peer, chunk, event, response, soon, stream_head, until
from gatewright.backend.backend import McpBackend
from gatewright.backend.feed import Wants
from gatewright.call import ANONYMOUS, Failure, InputRequired, Params, Target
from gatewright.errors import BackendGarbage
from gatewright.protocol.chain import CHAIN_KEY
from gatewright.protocol.modern import CAPABILITIES_KEY, PROGRESS_KEY, VERSION_KEY

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(**changes: Any) -> AsyncIterator[tuple[World, McpBackend]]:
    """A backend that speaks only this era, known to."""
    async with backed("modern", era="modern", **changes) as (world, backend):
        yield world, backend


async def test_every_request_says_all_there_is_to_say() -> None:
    """Version and capabilities in `_meta`, method and name in headers; no session."""
    async with opened() as (world, backend):
        call = call_of(modern_client(b'{"roots":{}}'), name="m.t")
        call.target = Target(backend, "größe")
        await soon(backend(call))
        heard = world.server.heard[-1]
        assert heard.headers["mcp-protocol-version"] == "2026-07-28"
        assert heard.headers["mcp-method"] == "tools/call"
        assert heard.headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="
        assert "mcp-session-id" not in heard.headers
        assert heard.message["params"]["name"] == "größe"
        assert heard.message["params"]["_meta"][VERSION_KEY] == "2026-07-28"
        assert heard.message["params"]["_meta"][CAPABILITIES_KEY] == {"roots": {}}


async def test_nothing_of_one_call_is_in_the_next() -> None:
    """Other capabilities, another name, another id."""
    async with opened() as (world, backend):
        await soon(backend(call_of(modern_client(b'{"roots":{}}'), name="a")))
        await soon(backend(call_of(handshake_client(), name="b")))
        one, other = (heard.message for heard in world.server.heard if heard.message["method"] == "tools/call")
        assert one["id"] != other["id"]
        assert "roots" in one["params"]["_meta"][CAPABILITIES_KEY]
        assert other["params"]["name"] == "b"


async def test_every_request_says_which_gateways_it_has_passed() -> None:
    """Those of clients, the gateway's own, and subscriptions, which are shared by who came over the same gateways."""
    chain, here = '["a","here"]', '["here"]'
    async with backed("modern", chain=here) as (world, backend):
        await soon(backend.warm_up())
        for one in (chain, here):
            await soon(backend(call_of(modern_client(chain=one), _meta={PROGRESS_KEY: 1})))
            await soon(backend.request("tools/list", {}, modern_client(chain=one), ANONYMOUS))
        wants = Wants(lists=frozenset({"notifications/tools/list_changed"}))
        joined = [
            await soon(backend.join(modern_client(chain=one), ANONYMOUS, wants, lambda *_: None))
            for one in (chain, here, chain)
        ]
        told = [
            (one.message["method"], json.dumps(one.message["params"]["_meta"][CHAIN_KEY], separators=(",", ":")))
            for one in world.server.heard
            if one.method == "POST"
        ]
        assert told == [
            ("server/discover", here),
            ("tools/list", chain),
            ("tools/call", chain),
            ("tools/list", chain),
            ("tools/call", here),
            ("tools/list", here),
            ("subscriptions/listen", chain),
            ("subscriptions/listen", here),
        ]
        for feed, listener in joined:
            feed.leave(listener)


def answering(*said: dict[str, Any]) -> Any:
    """Answers calls with a stream of these messages, `id` and tokens filled in, and everything else as it should."""

    def wrapped(talk: Any) -> Any:
        async def streaming(peer: Peer) -> None:
            await talk(Streaming(peer, said))

        return streaming

    return wrapped


class Streaming:
    """A connection that streams its answers to calls."""

    def __init__(self, peer: Peer, said: tuple[dict[str, Any], ...]) -> None:
        self._peer = peer
        self._said = said

    async def hear(self) -> Any:
        while b"tools/call" in (heard := await self._peer.hear()).body:
            text = json.dumps(self._said).replace('"ID"', str(heard.message["id"]))
            self._peer.say(stream_head(), *(event(one) for one in json.loads(text)), chunk(b""))
        return heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)


async def test_progress_is_told_under_the_clients_token() -> None:
    """The backend knows only ours."""
    said = (
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "ID", "progress": 1}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 0, "progress": 2}},
        {"jsonrpc": "2.0", "id": "ID", "result": {"resultType": "complete"}},
    )
    async with opened() as (world, backend):
        world.server.talk = answering(*said)(world.mcp.talk)
        reply = Replies()
        await soon(backend(call_of(modern_client(), reply=reply, _meta={PROGRESS_KEY: "mine"})))
        assert reply.notes == [("notifications/progress", {"progressToken": "mine", "progress": 1})]
        meta = world.server.heard[-1].message["params"]["_meta"]
        assert meta[PROGRESS_KEY] == world.server.heard[-1].message["id"]


async def test_a_question_on_a_stream_is_not_answered() -> None:
    """Servers MUST NOT send requests (2026-07-28, basic/transports): nothing is posted for it."""
    said = (
        {"jsonrpc": "2.0", "id": "q", "method": "roots/list", "params": {}},
        {"jsonrpc": "2.0", "id": "ID", "result": {"resultType": "complete"}},
    )
    async with opened() as (world, backend):
        world.server.talk = answering(*said)(world.mcp.talk)
        reply = Replies()
        await soon(backend(call_of(modern_client(b'{"roots":{}}'), reply=reply)))
        await soon(backend(call_of(modern_client())))
        assert reply.asked == []
        assert set(world.methods()) <= {"tools/call", "tools/list"}


async def test_an_input_required_result_is_an_outcome_of_its_own() -> None:
    """And a result of a type that nobody knows is garbage."""
    for kind, expected in (("input_required", InputRequired), ("what", None)):
        said = {"jsonrpc": "2.0", "id": "ID", "result": {"resultType": kind, "inputRequests": {}}}
        async with opened() as (world, backend):
            world.server.talk = answering(said)(world.mcp.talk)
            if expected is None:
                with pytest.raises(BackendGarbage):
                    await soon(backend(call_of(modern_client())))
            else:
                assert isinstance(await soon(backend(call_of(modern_client()))), expected)


async def test_a_cancelled_call_closes_its_connection_and_nothing_is_posted() -> None:
    """The close is the cancel."""
    async with opened() as (world, backend), asyncio.TaskGroup() as tasks:
        await soon(backend(call_of(modern_client())))
        await world.server.stop()
        world.server.talk = Peer.until_closed
        await world.server.start()
        before = len(world.server.peers)
        task = tasks.create_task(backend(call_of(modern_client())))
        await until(lambda: len(world.server.peers) > before)
        task.cancel()
        await soon(world.server.peers[-1].closed.wait())
        await asyncio.wait([task])
        assert "notifications/cancelled" not in world.methods()


async def test_the_backends_error_is_a_value_whatever_status_it_has() -> None:
    """400 and 404 carry the modern era's own errors."""
    for code, status in ((-32601, "404 Not Found"), (-32602, "400 Bad Request"), (-32020, "400 Bad Request")):
        async with opened() as (world, backend):
            body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "m"}}).encode()

            async def refusing(peer: Peer, body: bytes = body, status: str = status) -> None:
                while True:
                    await peer.hear()
                    peer.say(response(body, status))

            world.server.talk = refusing
            outcome = await soon(backend(call_of(modern_client(), "x/own")))
            assert outcome == Failure(code, "m", None)


# --- subscriptions


def listening(backend: McpBackend, wants: Wants, agreed: list[Wants], heard: list[tuple[str, Params]]) -> Any:
    """One upstream subscription."""
    return backend.listen(wants, agreed.append, lambda method, params: heard.append((method, params)))


async def test_a_subscription_is_one_long_request() -> None:
    """First what was agreed to, then what changed, without the hop's own id; until the backend ends it."""
    async with opened() as (world, backend), asyncio.TaskGroup() as tasks:
        agreed: list[Wants] = []
        heard: list[tuple[str, Params]] = []
        wants = Wants(frozenset({"notifications/tools/list_changed"}), frozenset({"u:a"}))
        task = tasks.create_task(listening(backend, wants, agreed, heard))
        await until(lambda: agreed == [wants])
        assert world.mcp.listens == [{"toolsListChanged": True, "resourceSubscriptions": ["u:a"]}]
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": 1, "kept": 2}}
        world.mcp.announce("notifications/resources/updated", uri="u:a", **meta)
        world.mcp.announce("notifications/tools/list_changed", _meta=7)
        world.mcp.announce("notifications/tools/list_changed")
        await until(lambda: len(heard) == 2)
        assert heard[0][0] == "notifications/resources/updated"
        assert bytes(heard[0][1]["_meta"]) == b'{"kept":2}'
        assert heard[1] == ("notifications/tools/list_changed", {})
        task.cancel()
        await until(lambda: not world.mcp.open_listens)


async def test_an_acknowledgment_that_cannot_be_read_agrees_to_nothing() -> None:
    """It does not break the stream either."""
    async with opened() as (world, backend), asyncio.TaskGroup() as tasks:

        async def odd(peer: Peer) -> None:
            await peer.hear()
            method = "notifications/subscriptions/acknowledged"
            for params in ({"notifications": 7}, {"notifications": {"resourceSubscriptions": "all"}}, {}):
                peer.say(*([stream_head()] if params == {"notifications": 7} else []))
                peer.say(event({"jsonrpc": "2.0", "method": method, "params": params}))
            await peer.until_closed()

        world.server.talk = odd
        agreed: list[Wants] = []
        task = tasks.create_task(listening(backend, Wants(uris=frozenset({"u:a"})), agreed, []))
        await until(lambda: agreed == [Wants()])
        task.cancel()


async def test_a_call_counts_from_one_link() -> None:
    """Concurrent first calls open one."""
    async with opened() as (world, backend):
        answers = await soon(asyncio.gather(*(backend(call_of(modern_client())) for _ in range(20))))
        assert sorted(members(one)["calls"] for one in answers) == list(range(1, 21))
        assert "server/discover" not in world.methods()
