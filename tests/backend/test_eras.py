"""Eras found out: what each kind of backend answers, what is kept of it, and what happens when it changes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from msgspec.structs import replace

from backend.mcp_server import backed, call_of, handshake_client, members, modern_client
from backend.raw_server import response, soon, until
from gatewright.backend.eras import MAX_OFFERS
from gatewright.call import ANONYMOUS, Client
from gatewright.errors import BackendError, BackendGarbage, BackendRefusedChain, BackendTimeout, BackendUnavailable

pytestmark = pytest.mark.anyio
HERE = '["here"]'
CLIENTS = {"modern": modern_client, "handshake": handshake_client}


def client(era: str) -> Client:
    """A client of that era."""
    return CLIENTS[era]()


@pytest.mark.parametrize(
    ("speaks", "asks", "spoken", "probes"),
    [
        ("modern", "modern", "modern", ["server/discover"]),
        ("modern", "handshake", "modern", ["initialize", "server/discover"]),
        ("handshake", "handshake", "handshake", ["initialize"]),
        ("handshake", "modern", "handshake", ["server/discover", "initialize"]),
        ("modern handshake", "modern", "modern", ["server/discover"]),
        ("modern handshake", "handshake", "handshake", ["initialize"]),
    ],
)
async def test_a_client_is_served_in_its_own_era_if_the_backend_has_it(
    speaks: str, asks: str, spoken: str, probes: list[str]
) -> None:
    """Otherwise in the other; each era is asked at most once, and only when it matters."""
    async with backed(*speaks.split()) as (world, backend):
        for number in (1, 2):
            assert members(await soon(backend(call_of(client(asks)))))["calls"] == number
        found = [method for method in world.methods() if method in ("server/discover", "initialize")]
        assert found == probes
        assert spoken in backend.eras


async def test_a_backend_that_is_neither_says_so_and_is_asked_again() -> None:
    """Nothing is kept of it: it may be repaired."""
    async with backed() as (world, backend):
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="neither"):
                await soon(backend(call_of(client("modern"))))
            assert backend.eras == []
        world.mcp.speaks.add("modern")
        assert members(await soon(backend(call_of(client("modern")))))["calls"] == 1


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_a_backend_that_is_not_there_leaves_nothing_behind(era: str) -> None:
    """When it is back it is found as if it had never been away."""
    async with backed("modern", "handshake") as (world, backend):
        await world.server.stop()
        for _ in range(2):
            with pytest.raises(BackendUnavailable):
                await soon(backend(call_of(client(era))))
        assert backend.eras == []
        await world.server.start()
        assert members(await soon(backend(call_of(client(era)))))["calls"] == 1
        assert backend.eras == [era]


@pytest.mark.parametrize(
    "status", ["500 Oops", "502 Bad Gateway", "503 Busy", "401 Unauthorized", "302 Found", "200 OK"]
)
async def test_a_backend_that_is_not_well_leaves_nothing_behind(status: str) -> None:
    """An error page is no era."""
    async with backed() as (world, backend):
        talk = world.mcp.talk

        async def sick(peer: Any) -> None:
            while True:
                await peer.hear()
                peer.say(response(b"<html>", status, kind="text/html"))

        world.server.talk = sick
        with pytest.raises(BackendError):
            await soon(backend(call_of(client("modern"))))
        assert backend.eras == []
        world.mcp.speaks.add("modern")
        await world.server.stop()
        world.server.talk = talk
        await world.server.start()
        assert members(await soon(backend(call_of(client("modern")))))["calls"] == 1


@pytest.mark.parametrize(
    "refusal",
    [
        response(b"", "400 Bad Request"),
        response(b"Bad Request: Server not initialized", "400 Bad Request", kind="text/plain"),
        response(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}', "400 x"),
        response(b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Missing session"}}', "400 x"),
        response(b"", "404 Not Found"),
        response(b"", "405 Method Not Allowed"),
        response(b"", "406 Not Acceptable"),
        response(b"", "415 Unsupported Media Type"),
        response(b"", "500 Internal Server Error"),
        response(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}'),
        response(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Received request before init"}}'),
        response(b'{"jsonrpc":"2.0","id":1,"result":{}}'),
    ],
    ids=lambda refusal: repr(refusal[9:60]),
)
async def test_handshake_backends_refuse_in_many_ways(refusal: bytes) -> None:
    """Whatever they answer to `server/discover`: they are spoken to in theirs (basic/versioning)."""
    async with backed("handshake") as (world, backend):
        world.mcp.refusal = refusal
        assert members(await soon(backend(call_of(client("modern")))))["calls"] == 1
        assert backend.eras == ["handshake"]


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
async def test_an_error_that_only_modern_backends_have_tells_one(code: int) -> None:
    """The body of the 400 counts, not the status."""
    async with backed("handshake") as (world, backend):
        body = f'{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"x"}}}}'
        world.mcp.refusal = response(body.encode(), "400 Bad Request")
        await soon(backend.warm_up())
        assert backend.eras == ["modern"]


async def test_a_backend_of_another_modern_revision_is_not_taken_for_ours() -> None:
    """A revision in common is needed to speak."""
    async with backed("handshake") as (world, backend):
        world.mcp.refusal = response(
            b'{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2031-01-01"],"capabilities":{}}}'
        )
        await soon(backend.warm_up())
        assert backend.eras == ["handshake"]


async def test_a_silent_backend_is_tried_in_the_other_era() -> None:
    """After the probe's time; what silence said over HTTP is doubted later."""
    async with backed("handshake", probe_s=0.2) as (world, backend):
        talk = world.mcp.talk

        async def deaf_to_discover(peer: Any) -> None:
            await talk(Deaf(peer))

        world.server.talk = deaf_to_discover
        assert members(await soon(backend(call_of(client("modern")))))["calls"] == 1
        assert backend.eras == ["handshake"]


class Deaf:
    """A connection that never answers `server/discover`."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    async def hear(self) -> Any:
        heard = await self._peer.hear()
        if b"server/discover" in heard.body:
            await self._peer.until_closed()
            raise EOFError
        return heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_many_first_calls_ask_once(era: str) -> None:
    """Fifty calls at once cost one probe, also when the first caller leaves meanwhile."""
    async with backed(era) as (world, backend), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(backend(call_of(client(era))))
        await until(lambda: len(world.server.peers) == 1)
        first.cancel()
        answers = await soon(asyncio.gather(*(backend(call_of(client(era))) for _ in range(50))))
        assert sorted(members(one)["calls"] for one in answers) == list(range(1, 51))
        assert world.methods().count("server/discover") + world.methods().count("initialize") == 1


async def test_many_first_calls_share_one_failure() -> None:
    """They do not queue up to time out one after the other."""
    async with backed("modern") as (world, backend):
        await world.server.stop()
        found = await soon(
            asyncio.gather(*(backend(call_of(client("modern"))) for _ in range(50)), return_exceptions=True)
        )
        assert all(isinstance(one, BackendUnavailable) for one in found)


@pytest.mark.parametrize("asks", ["modern", "handshake"])
async def test_a_refused_chain_says_nothing_of_its_era(asks: str) -> None:
    """It is the refusal that the caller gets, and what others ask is found out as ever."""
    async with backed("modern", "handshake", chain=HERE) as (world, backend):
        world.mcp.refuses = "a"
        who = replace(client(asks), chain='["a","here"]')
        with pytest.raises(BackendRefusedChain, match="b: no"):
            await soon(backend.offer(who, ANONYMOUS))
        assert backend.eras == []
        await soon(backend.offer(replace(client(asks), chain=HERE), ANONYMOUS))
        assert backend.eras == [asks]


async def test_nobody_waits_for_ever_for_what_a_known_backend_offers() -> None:
    """It speaks the era, and now says nothing: `initialize` waits for this, and no deadline of a call bounds that."""
    async with backed("modern", probe_s=0.05) as (world, backend):
        assert members(await soon(backend(call_of(client("modern")))))["calls"] == 1
        world.mcp.is_silent = True
        other = replace(client("modern"), chain='["there","here"]')
        with pytest.raises(BackendTimeout):
            await soon(backend.offer(other, ANONYMOUS))


async def test_those_who_came_over_other_gateways_wait_for_no_probe_of_ours() -> None:
    """In a circle that probe may be the very one that waits for theirs."""
    async with backed("modern", chain=HERE) as (world, backend), asyncio.TaskGroup() as tasks:
        world.mcp.ignores, world.mcp.refuses = "slow", "a"
        waiting = tasks.create_task(backend.offer(modern_client(chain='["slow","here"]'), ANONYMOUS))
        await until(lambda: world.methods() == ["server/discover"])
        with pytest.raises(BackendRefusedChain):
            await soon(backend.offer(modern_client(chain='["a","here"]'), ANONYMOUS))
        await soon(backend.offer(modern_client(chain=HERE), ANONYMOUS))
        assert not waiting.done()
        waiting.cancel()


async def test_what_it_offers_over_another_gateway_is_kept_for_that_one_only() -> None:
    """A gateway offers less to those for whom it would close a circle. What is kept is bounded."""
    async with backed("modern", chain=HERE) as (world, backend):
        whole, world.mcp.capabilities = world.mcp.capabilities, {}
        assert (await soon(backend.offer(modern_client(chain='["a","here"]'), ANONYMOUS))).capabilities == {}
        world.mcp.capabilities = whole
        for _ in range(2):
            assert (await soon(backend.offer(modern_client(chain='["a","here"]'), ANONYMOUS))).capabilities == {}
            assert (await soon(backend.offer(modern_client(chain=HERE), ANONYMOUS))).capabilities.keys() == whole.keys()
        assert world.methods().count("server/discover") == 2
        for number in range(MAX_OFFERS):
            await soon(backend.offer(modern_client(chain=f'["{number}","here"]'), ANONYMOUS))
        assert world.methods().count("server/discover") == 2 + MAX_OFFERS
        await soon(backend.offer(modern_client(chain=HERE), ANONYMOUS))
        assert world.methods().count("server/discover") == 3 + MAX_OFFERS


@pytest.mark.parametrize(("forced", "spoken"), [("modern", "modern"), ("handshake", "handshake")])
@pytest.mark.parametrize("asks", ["modern", "handshake"])
async def test_an_era_in_the_settings_is_not_questioned(forced: str, spoken: str, asks: str) -> None:
    """Nothing is probed, and a refusal changes nothing."""
    async with backed("modern", "handshake", era=forced) as (world, backend):
        assert members(await soon(backend(call_of(client(asks)))))["calls"] == 1
        assert backend.eras == [spoken]
        assert "server/discover" not in world.methods()
        world.mcp.speaks.discard(forced)
        world.mcp.sessions.clear()
        with contextlib.suppress(BackendError):
            await soon(backend(call_of(client(asks))))
        assert backend.eras == [spoken]
        assert "server/discover" not in world.methods()


@pytest.mark.parametrize("asks", ["modern", "handshake"])
@pytest.mark.parametrize(("before", "after"), [("modern", "handshake"), ("handshake", "modern")])
async def test_a_backend_that_came_back_as_something_else_is_found_out(before: str, after: str, asks: str) -> None:
    """The call that noticed is carried out, once, and so are its neighbours."""
    async with backed(before) as (world, backend):
        assert members(await soon(backend(call_of(client(asks)))))["calls"] == 1
        await world.server.stop()
        world.mcp.speaks = {after}
        world.mcp.sessions.clear()
        await world.server.start()
        answers = await soon(asyncio.gather(*(backend(call_of(client(asks))) for _ in range(20))))
        assert sorted(members(one)["calls"] for one in answers) == list(range(2, 22))
        assert backend.eras == [after]


async def test_a_backend_that_gained_an_era_goes_on_as_it_was() -> None:
    """Nothing failed: nothing is asked."""
    async with backed("handshake") as (world, backend):
        await soon(backend(call_of(client("modern"))))
        world.mcp.speaks.add("modern")
        await soon(backend(call_of(client("modern"))))
        assert world.methods().count("server/discover") == 1


async def test_a_backends_own_refusals_do_not_cast_doubt_on_its_era() -> None:
    """An unknown method is answered with 404 and -32601 in the modern era: that is a value, and no probe."""
    async with backed("modern") as (world, backend):
        for _ in range(3):
            outcome = await soon(backend(call_of(client("modern"), "x/unknown")))
            assert getattr(outcome, "code", None) == -32601
        assert world.methods().count("server/discover") == 1
        assert backend.eras == ["modern"]


async def test_refusals_that_look_foreign_are_looked_into_seldom() -> None:
    """A modern backend that answers 400 to everything is not probed for every call."""
    async with backed("modern") as (world, backend):
        await soon(backend(call_of(client("modern"))))
        talk = world.mcp.talk

        async def refusing(peer: Any) -> None:
            await talk(Refusing(peer))

        await world.server.stop()
        world.server.talk = refusing
        await world.server.start()
        for _ in range(10):
            with pytest.raises(BackendUnavailable):
                await soon(backend(call_of(client("modern"))))
        assert world.methods().count("server/discover") == 2
        assert backend.eras == ["modern"]


class Refusing(Deaf):
    """A connection that refuses every call."""

    async def hear(self) -> Any:
        while b"tools/call" in (heard := await self._peer.hear()).body:
            self._peer.say(response(b"", "400 Bad Request"))
        return heard


async def test_what_may_have_run_is_not_carried_out_in_another_era() -> None:
    """Only what was surely refused is."""
    async with backed("modern") as (world, backend):
        await soon(backend(call_of(client("modern"))))
        await world.server.stop()

        async def dying(peer: Any) -> None:
            await peer.hear()

        world.server.talk = dying
        await world.server.start()
        with pytest.raises(BackendGarbage):
            await soon(backend(call_of(client("modern"))))
        assert world.methods()[-1] == "tools/call"


async def test_an_offer_is_what_the_backend_said() -> None:
    """In either era; asked once in the modern one."""
    for era in ("modern", "handshake"):
        async with backed(era, instructions="ours") as (world, backend):
            for _ in range(2):
                offer = await soon(backend.offer(client(era), ANONYMOUS))
                assert set(offer.capabilities) == {"tools", "resources"}
                assert offer.instructions == "ours"
            assert world.methods().count("server/discover") <= 1
