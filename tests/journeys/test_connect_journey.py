"""A local host before one remote server, as `gatewright connect` bridges it: sessions, streams, cancels, breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from journeys.host import HttpHost, hosting
from journeys.local import LocalHost, at_home
from journeys.toolbox import Toolbox
from journeys.travel import over_http

pytestmark = pytest.mark.anyio
ERAS = ["modern", "handshake"]


@asynccontextmanager
async def bridged(era: str = "both", **more: Any) -> AsyncIterator[tuple[LocalHost, Toolbox, HttpHost]]:
    """The host, the remote toolbox and its address."""
    box = Toolbox("box", era)
    async with hosting(box) as remote, at_home({"remote": over_http(remote)}, route="remote", **more) as host:
        yield host, box, remote


@pytest.mark.parametrize("behind", ERAS)
@pytest.mark.parametrize("era", ERAS)
async def test_a_host_of_either_era_reaches_a_server_of_either_era(era: str, behind: str) -> None:
    """With the server's own names."""
    async with bridged(behind) as (host, _, _):
        if era == "handshake":
            assert (await host.shake_hands())["serverInfo"]["name"] == "box"
        assert await host.tool("echo", {"n": 1}, era=era) == {"label": "box", "n": 1}


async def test_a_handshake_host_has_one_session_there_and_it_is_ended() -> None:
    """The session id is kept, the standing stream held, and DELETE sent when the host leaves."""
    async with bridged("handshake") as (host, box, remote):
        await host.shake_hands()
        await box.until(lambda it: bool(it.noted("standing")))
        for _ in range(3):
            await host.tool("echo", era="handshake")
        assert (
            len([one for one in box.conversations if one.introduction.get("clientInfo", {}).get("name") == "host"]) == 1
        )
        host.close_input()
        await host.end()
        assert not remote.sessions
        assert box.noted("deleted")


async def test_what_the_server_says_of_its_own_accord_reaches_the_host() -> None:
    """Over the standing stream; also after that broke off."""
    async with bridged("handshake") as (host, box, remote):
        host.capabilities = {"roots": {}}
        await host.shake_hands()
        await host.tool("echo", era="handshake")
        own = next(key for key, one in remote.sessions.items() if "roots" in one.introduction["capabilities"])
        await box.until(lambda it: own in it.noted("standing"))
        remote.sessions[own].announce("notifications/tools/list_changed")
        await host.notice("notifications/tools/list_changed")
        remote.standing.pop(own).abort()
        await box.until(lambda it: it.noted("standing").count(own) == 2)
        remote.sessions[own].announce("notifications/prompts/list_changed")
        await host.notice("notifications/prompts/list_changed")


async def test_a_session_that_the_server_forgot_is_opened_anew() -> None:
    """A host on standard input cannot be told to begin again."""
    async with bridged("handshake") as (host, _, remote):
        await host.shake_hands()
        await host.tool("echo", era="handshake")
        remote.sessions.clear()
        assert await host.tool("echo", era="handshake") == {"label": "box"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancel_of_the_host_is_a_cancel_at_the_server(era: str) -> None:
    """By closing the stream in the modern era, by a notification in the other."""
    async with bridged(era) as (host, box, _):
        if era == "handshake":
            await host.shake_hands()
        own = host.call("park", {"key": "a"}, era=era)
        await box.until(lambda it: bool(it.noted("parked")))
        host.tell("notifications/cancelled", {"requestId": own})
        await box.until(lambda it: bool(it.noted("cancelled" if era == "handshake" else "left")))
        await host.tool("echo", era=era)
        assert not any(one.get("id") == own for one in host.said)


async def test_a_question_of_the_server_is_put_to_the_host() -> None:
    """And its answer carried back."""
    async with bridged("handshake") as (host, _, _):
        host.capabilities = {"elicitation": {}}
        await host.shake_hands()
        own = host.call("ask", {"method": "elicitation/create", "params": {"message": "Who?"}}, era="handshake")
        asked = await host.notice("elicitation/create")
        host.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})
        told = json.loads((await host.answer(own))["result"]["content"][0]["text"])
        assert told == {"answer": {"action": "decline"}}


async def test_a_subscription_outlives_a_stream_that_broke_off() -> None:
    """It is opened anew, and the host is told of changes under its own id."""
    async with bridged("modern") as (host, box, remote):
        own = host.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, request_id="mine")
        await host.notice("notifications/subscriptions/acknowledged")
        await box.until(lambda it: len(it.noted("listening")) == 1)
        for wire in set(remote.posts.values()):
            wire.abort()
        await box.until(lambda it: len(it.noted("listening")) == 2)
        remote.modern.announce("notifications/tools/list_changed")
        told = await host.notice("notifications/tools/list_changed")
        assert told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == own
