"""Gateways that lead in a circle, and rows that are too long: a clear error, at once, and no harm to what is beside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gatewright.backend.settings import BackendSettings, Era
from gatewright.inbound.settings import Limits
from gatewright.routing.settings import Routing
from journeys.detour import detour
from journeys.host import hosting
from journeys.local import at_home
from journeys.old_client import connected
from journeys.toolbox import Toolbox
from journeys.travel import Travel, over_http, travelling
from journeys.wire import Client, HandshakeClient, Json, ModernClient

pytestmark = pytest.mark.anyio
CLIENTS = ["modern", "handshake"]
SPOKEN: list[Era] = ["auto", "modern", "handshake"]
GREETED: list[Era] = ["auto", "handshake"]
"""Backends that a session begins with: one that is said to be modern is not asked before the first call."""
REFUSED = -31005
ITSELF = "Gateway a is a backend of its own: take the backend that leads back to it out of its configuration"
CIRCLE = "Gateways in a circle (a > b > a): take one of the backends that close it out of its configuration"
PROMPT_S = 3.0
"""Well below every time-out on the way: nobody waited for anybody."""
PATIENT = Routing(list_timeout_s=20)
"""So that a list which somebody waits for in vain is noticed."""


class Prompt:
    """What is done within is done at once."""

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert time.monotonic() - self._began < PROMPT_S


@asynccontextmanager
async def alone(spoken: Era, **more: Any) -> AsyncIterator[Travel]:
    """A gateway that is a backend of its own, with a toolbox beside."""
    async with detour() as way:
        backends = {"box": Toolbox("box"), "self": BackendSettings(url=way.url, era=spoken, **more)}
        async with travelling(backends, gateway_id="a", routing=PATIENT) as a:
            way.to(a.port)
            yield a


@asynccontextmanager
async def pair(spoken: tuple[Era, Era], **more: Any) -> AsyncIterator[tuple[Travel, Travel]]:
    """Two gateways that are backends of each other, each with a toolbox beside."""
    async with detour() as to_a, detour() as to_b:
        to_b_settings = BackendSettings(url=to_b.url, era=spoken[0], **more)
        to_a_settings = BackendSettings(url=to_a.url, era=spoken[1], **more)
        async with (
            travelling({"b": to_b_settings, "box": Toolbox("at a")}, gateway_id="a", routing=PATIENT) as a,
            travelling({"a": to_a_settings, "box": Toolbox("at b")}, gateway_id="b", routing=PATIENT) as b,
        ):
            to_a.to(a.port)
            to_b.to(b.port)
            yield a, b


async def refusal(client: Client, tool: str) -> Json:
    """The error that a call ends in."""
    error = (await client.ask("tools/call", {"name": tool, "arguments": {}}))["error"]
    assert isinstance(error, dict)
    return error


def names(result: Json) -> set[str]:
    """The tools in a list."""
    return {tool["name"] for tool in result["tools"]}


def missing(result: Json) -> dict[str, str]:
    """Which backends a list lacks, and why."""
    return {one["backend"]: one["reason"] for one in result["_meta"]["dev.gatewright/unavailable"]}


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("era", CLIENTS)
async def test_a_gateway_that_is_its_own_backend_says_so(era: str, spoken: Era) -> None:
    """To whoever calls that backend; the one beside it is served as ever, and lists say what is missing."""
    async with alone(spoken) as a:
        with Prompt():
            client = await a.client(era)
            error = await refusal(client, "self.box.echo")
            assert error["code"] == REFUSED
            assert error["message"].removeprefix("self: ") == ITSELF
            assert error["data"] == {"gateways": ["a", "a"]}
            assert await client.tool("box.echo", n=1) == {"label": "box", "n": 1}
            listed = await client.result("tools/list")
            assert "box.echo" in names(listed)
            assert missing(listed)["self"].endswith(ITSELF)


async def test_a_circle_over_the_old_transport_is_found_too() -> None:
    """Its sessions begin with the same words."""
    async with detour() as way:
        itself = BackendSettings(url=way.url.replace("/mcp", "/sse"), type="sse")
        async with travelling({"box": Toolbox("box"), "self": itself}, gateway_id="a", routing=PATIENT) as a:
            way.to(a.port)
            with Prompt():
                client = a.modern()
                error = await refusal(client, "self.box.echo")
                assert (error["code"], error["message"]) == (REFUSED, f"self: {ITSELF}")
                assert await client.tool("box.echo") == {"label": "box"}


@pytest.mark.parametrize("spoken", GREETED)
async def test_its_path_is_refused_when_a_client_introduces_itself(spoken: Era) -> None:
    """A handshake client there has but this one backend."""
    async with alone(spoken) as a:
        with Prompt():
            client = HandshakeClient(a.port, "/mcp/self")
            error = (await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}))["error"]
            assert (error["code"], error["message"]) == (REFUSED, f"self: {ITSELF}")


@pytest.mark.parametrize("first", SPOKEN)
@pytest.mark.parametrize("second", SPOKEN)
@pytest.mark.parametrize("era", CLIENTS)
async def test_two_gateways_in_a_circle_say_which(era: str, first: Era, second: Era) -> None:
    """From both ends, whatever they speak to each other; all that is not in the circle is served through both."""
    async with pair((first, second)) as (a, b):
        with Prompt():
            one, two = await a.client(era), await b.client(era)
            for client, here, there, tool in ((one, "a", "b", "b.a.box.echo"), (two, "b", "a", "a.b.box.echo")):
                error = await refusal(client, tool)
                assert error["code"] == REFUSED, error
                assert f"Gateways in a circle ({here} > {there} > {here})" in error["message"]
                assert error["data"] == {"gateways": [here, there, here]}
                assert await client.tool("box.echo") == {"label": f"at {here}"}
                assert await client.tool(f"{there}.box.echo") == {"label": f"at {there}"}
            found = await asyncio.gather(one.result("tools/list"), two.result("tools/list"))
            assert {"box.echo", "b.box.echo"} <= names(found[0])
            assert {"box.echo", "a.box.echo"} <= names(found[1])
            assert not any(name.startswith(("b.a.", "a.b.")) for listed in found for name in names(listed))


@pytest.mark.parametrize("spoken", SPOKEN)
async def test_sessions_that_are_shared_hide_no_circle(spoken: Era) -> None:
    """One session for all who come straight here, another for those who came over the other gateway."""
    async with pair((spoken, spoken), stateless=True) as (a, b):
        with Prompt():
            clients = [a.modern(capabilities={"roots": {}}), await a.handshake(), b.modern(), await b.handshake()]
            for client in clients * 2:
                there, back = ("b", "b.a.box.echo") if client.port == a.port else ("a", "a.b.box.echo")
                assert (await client.tool(f"{there}.box.echo"))["label"] == f"at {there}"
                assert (await refusal(client, back))["code"] == REFUSED


@pytest.mark.parametrize("spoken", SPOKEN)
async def test_who_listens_in_a_circle_hears_each_change_once(spoken: Era) -> None:
    """Both gateways listen to each other for their clients; a change does not go round."""
    box = Toolbox("box")
    async with detour() as to_a, detour() as to_b, hosting(box) as host:
        behind_a = {"b": BackendSettings(url=to_b.url, era=spoken), "box": over_http(host)}
        behind_b = {"a": BackendSettings(url=to_a.url, era=spoken)}
        async with (
            travelling(behind_a, gateway_id="a", routing=PATIENT) as a,
            travelling(behind_b, gateway_id="b", routing=PATIENT) as b,
        ):
            to_a.to(a.port)
            to_b.to(b.port)
            streams = []
            with Prompt():
                for gateway in (a, b):
                    client = gateway.modern()
                    wanted = {"notifications": {"toolsListChanged": True}}
                    stream = await client.post(client.request("subscriptions/listen", wanted))
                    acknowledged = await stream.event()
                    assert acknowledged is not None
                    assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
                    streams.append(stream)
            # For who came straight, and for who came over b.
            await box.until(lambda it: len(it.noted("listening") + it.noted("standing")) == 2)
            before = (to_a.connections, to_b.connections)
            for conversation in list(box.conversations):
                conversation.announce("notifications/tools/list_changed")
            for stream in streams:
                told = await stream.event()
                assert told is not None
                assert told["method"] == "notifications/tools/list_changed"
            assert await ModernClient(b.port).tool("a.box.echo") == {"label": "box"}
            assert to_a.connections + to_b.connections <= sum(before) + 4


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("era", CLIENTS)
async def test_a_row_that_is_too_long_is_refused_by_the_gateway_that_ends_it(era: str, spoken: Era) -> None:
    """In words of its own; what is nearer is served."""
    async with AsyncExitStack() as stack:
        urls: dict[str, BackendSettings] = {}
        for name in ("d", "c", "b", "a"):
            behind = {"box": Toolbox(f"at {name}"), **urls}
            travel = await stack.enter_async_context(
                travelling(behind, gateway_id=name, limits=Limits(max_hops=3), routing=PATIENT)
            )
            urls = {"next": BackendSettings(url=f"http://127.0.0.1:{travel.port}/mcp", era=spoken)}
        with Prompt():
            client = await travel.client(era)
            assert await client.tool("next.next.box.echo") == {"label": "at c"}
            error = await refusal(client, "next.next.next.box.echo")
            assert error["code"] == REFUSED, error
            assert "More than 3 gateways in a row (limits.max_hops of gateway d)" in error["message"]
            assert error["data"] == {"gateways": ["a", "b", "c", "d"], "maxHops": 3}


@pytest.mark.parametrize("junk", [["a b"], 5, ["x"] * 1_000, {"a": 1}])
async def test_a_client_that_makes_a_chain_up_gets_its_own_request_refused(junk: object) -> None:
    """On every transport and in both eras, and nobody else's."""
    forged = {"_meta": {"dev.gatewright/chain": junk}}
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, **forged}
    async with travelling({"box": Toolbox("box")}, gateway_id="a") as travel:
        modern = travel.modern()
        answer = await modern.post(modern.request("tools/list", forged))
        assert (answer.status, (await answer.last())["error"]["code"]) == (400, -32602)
        assert (await HandshakeClient(travel.port).ask("initialize", opening))["error"]["code"] == -32602
        async with connected(travel.port, introduces=False) as old:
            assert (await old.ask("initialize", opening))["error"]["code"] == -32602
        assert await modern.tool("box.echo") == {"label": "box"}
        assert await (await travel.handshake()).tool("box.echo") == {"label": "box"}
    async with at_home({"box": Toolbox("box")}) as host:
        assert (await host.ask("tools/list", forged))["error"]["code"] == -32602
        assert (await host.ask("initialize", opening, era="handshake"))["error"]["code"] == -32602
        assert await host.tool("box.echo") == {"label": "box"}


async def test_a_chain_that_somebody_made_up_spoils_nothing_for_others() -> None:
    """What gateways ask once for all is asked for each chain: a refusal that one brought about is its own."""
    async with AsyncExitStack() as stack:
        b = await stack.enter_async_context(travelling({"box": Toolbox("box", "handshake")}, gateway_id="b"))
        behind = BackendSettings(url=f"http://127.0.0.1:{b.port}/mcp")
        a = await stack.enter_async_context(travelling({"b": behind}, gateway_id="a"))
        forged = {"_meta": {"dev.gatewright/chain": ["b"]}}
        client = a.modern()
        error = (await client.ask("tools/call", {"name": "b.box.echo", "arguments": {}, **forged}))["error"]
        assert error["code"] == REFUSED
        refused = await client.ask("tools/list", forged)
        assert "Gateways in a circle (b > a > b)" in json.dumps(refused)
        assert "b.box.echo" in names(await client.result("tools/list"))
        assert await client.tool("b.box.echo") == {"label": "box"}
