"""Nothing is left of clients that misbehave: no call, reply, session, question or task, after all sorts of ends.

Sixty clients of both eras do what clients do and ought not to do: leave in the middle of calls, questions and streams,
cancel too late, answer twice, end sessions under running calls. Then every session is ended, and the process is looked
through for what should be gone.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from contextlib import suppress

import pytest
import structlog

from gatewright.backend.settings import BackendSettings
from gatewright.backend.sinks import CallSink
from gatewright.call import Call
from gatewright.inbound.base import BaseReply
from gatewright.inbound.events import EventStream
from gatewright.inbound.session import Ask, Session
from gatewright.inbound.settings import Sessions
from gatewright.inbound.standing import Standing
from gatewright.routing.listings import Reading
from journeys.host import hosting
from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import Answer, Client, HandshakeClient, Json, soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
CLIENTS = 60
TURNS = 12
GONE = (Call, BaseReply, Session, Standing, Ask, CallSink, Reading, EventStream)


class Unruly:
    """One client that does anything."""

    def __init__(self, client: Client, prefix: str, chance: random.Random) -> None:
        self._client = client
        self._prefix = prefix
        self._chance = chance

    async def work(self) -> None:
        """A number of turns, then the end."""
        deeds = [self._park, self._quick, self._list, self._progress, self._listen]
        if isinstance(self._client, HandshakeClient):
            deeds += [self._ask, self._cancel, self._ask]
        for _ in range(TURNS):
            with suppress(ConnectionError):
                await self._chance.choice(deeds)()
        if isinstance(self._client, HandshakeClient):
            running = await self._call("park", key="x")
            await self._client.end()
            running.close()
        self._client.close()

    async def _call(self, tool: str, /, **arguments: object) -> Answer:
        params: Json = {"name": self._prefix + tool, "arguments": arguments, "_meta": {"progressToken": 1}}
        return await self._client.begin(self._client.request("tools/call", params, request_id=1))

    async def _pause(self) -> None:
        for _ in range(self._chance.randrange(30)):
            await asyncio.sleep(0)

    async def _park(self) -> None:
        answer = await self._call("park", key=str(self._chance.random()), is_loud=self._chance.random() < 0.5)
        await self._pause()
        answer.close()

    async def _quick(self) -> None:
        await (await self._call("echo", text="x")).last()

    async def _progress(self) -> None:
        answer = await self._call("progress", steps=30)
        await self._pause()
        answer.close()

    async def _list(self) -> None:
        await self._client.ask(self._chance.choice(["tools/list", "resources/list", "no/such"]))

    async def _listen(self) -> None:
        if isinstance(self._client, HandshakeClient):
            stream = await self._client.listen()
        else:
            wants = {"notifications": {"toolsListChanged": True}}
            stream = await self._client.begin(self._client.request("subscriptions/listen", wants))
        await self._pause()
        stream.close()

    async def _ask(self) -> None:
        client = self._client
        assert isinstance(client, HandshakeClient)
        answer = await self._call("ask", method="elicitation/create")
        await soon(answer.started)
        question = await answer.event() if answer.is_stream else None
        if question is None or "id" not in question or "method" not in question:
            return  # with another call under way, a pipe cannot tell which one a question is about
        if self._chance.random() < 0.5:
            for _ in range(2):
                await client.reply(question, {"action": "accept"})
        answer.close()

    async def _cancel(self) -> None:
        client = self._client
        assert isinstance(client, HandshakeClient)
        answer = await self._call(self._chance.choice(["park", "echo"]), key="k")
        await self._pause()
        await client.tell("notifications/cancelled", {"requestId": 1})
        answer.close()


def remains() -> Counter[str]:
    """What of a call or a session is still in the process."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, GONE))


async def unruly(travel: Travel, number: int) -> Unruly:
    """The client of that number."""
    backend = ("here", "web")[number // 2 % 2]
    is_shared = number % 3 == 0
    path = "/mcp" if is_shared else f"/mcp/{backend}"
    era = ("handshake", "modern")[number % 2]
    client = await travel.client(era, path, {"elicitation": {}} if era == "handshake" else {})
    return Unruly(client, f"{backend}." if is_shared else "", random.Random(number))


async def test_nothing_is_left_of_unruly_clients() -> None:
    """Within moments after the last has left; and none of it was a bug."""
    with structlog.testing.capture_logs() as logged:
        await romp()
    assert [one for one in logged if one["log_level"] == "error"] == []


async def romp() -> None:
    """All of them at once, and a look at what is left."""
    before = remains()  # what other tests of this process hold on to is theirs
    async with hosting(Toolbox("web")) as host:
        behind = {"here": Toolbox("here"), "web": BackendSettings(url=host.url)}
        # A question that was left is open for a grace, and on a pipe the next one waits for its end: a short one here.
        async with travelling(behind, sessions=Sessions(retry_s=0.01)) as travel:
            await travel.modern().result("tools/list")  # what is kept for good is there before
            clients = [await unruly(travel, number) for number in range(CLIENTS)]
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                for one in clients:
                    tasks.create_task(one.work())
            ends_at = asyncio.get_running_loop().time() + 10
            while (left := remains() - before) and asyncio.get_running_loop().time() < ends_at:
                await asyncio.sleep(0)
            assert not left
            assert (await travel.modern("/mcp/web").tool("echo", text="x"))["label"] == "web"
