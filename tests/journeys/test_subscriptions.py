"""What sessions of the handshake era listen to at a modern backend, what they hear of their tasks, and how many calls
wait for answers: on several replicas as on one. Real processes, a real Redis, a real backend."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from journeys.host import HttpHost, hosting
from journeys.replicas import Replicas, eventually, replicas
from journeys.task_box import TaskBox
from journeys.toolbox import Toolbox
from journeys.wire import Answer, HandshakeClient, Json, ModernClient

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
NOTE, PAGE = "box://note", "box://page/1"
UPDATED, CHANGED = "notifications/resources/updated", "notifications/tools/list_changed"
QUIET_S = 0.4


class Reader:
    """A client, and what it hears on its standing stream."""

    def __init__(self, there: Replicas, client: HandshakeClient, host: HttpHost) -> None:
        self._there = there
        self.client = client
        self._host = host
        self._numbers = 0
        self.stream: Answer | None = None

    async def listen(self, number: int) -> None:
        """A standing stream on that replica."""
        self._there.at(self.client, number)
        self.stream = await self.client.listen()

    async def resume(self, number: int) -> None:
        """The stream that broke off, on that replica."""
        assert self.stream is not None
        self._there.at(self.client, number)
        fields = {"Accept": "text/event-stream", "Last-Event-ID": self.stream.last_id, **self.client.headers({})}
        answer = (await self.client.wire()).begin("GET", self.client.path, fields)
        async with asyncio.timeout(15):  # until the dead one is known to be dead
            await answer.started
        assert answer.status == 200
        self.stream = answer

    async def subscribe(self, number: int, uri: str = NOTE, *, is_end: bool = False) -> None:
        """Subscribe, or end that, through a replica."""
        self._there.at(self.client, number)
        method = "resources/unsubscribe" if is_end else "resources/subscribe"
        assert await self.client.result(method, {"uri": uri}) == {}

    def say(self, uri: str = NOTE) -> int:
        """Have the backend say that it was updated: the number of this time."""
        self._numbers += 1
        self._host.modern.announce(UPDATED, {"uri": uri, "number": self._numbers})
        return self._numbers

    async def heard(self) -> list[Json]:
        """Everything on the stream until it is quiet."""
        found: list[Json] = []
        assert self.stream is not None
        try:
            while (event := await self.stream.event(QUIET_S)) is not None:
                found.append(event)
        except TimeoutError:
            pass
        return found

    async def numbers(self, uri: str = NOTE) -> list[int | None]:
        """The updates on the stream; None for one that only says that there may have been some."""
        told = [one["params"] for one in await self.heard() if one["method"] == UPDATED]
        return [one.get("number") for one in told if one["uri"] == uri]

    async def is_heard(self) -> bool:
        """Whether an update comes, and comes once."""
        number = self.say()
        numbers = await self.numbers()
        assert numbers.count(number) <= 1, numbers
        return number in numbers


async def opened(there: Replicas, host: HttpHost) -> Reader:
    """A client with a session that it opened on the first replica."""
    return Reader(there, await there.handshake(0), host)


async def test_a_subscription_is_one_wherever_it_is_asked_for(tmp_path: Path) -> None:
    """Asked for on three replicas, listed on three: each change is heard once; ended on any, it is heard no more."""
    async with (
        hosting(Toolbox("box", "modern")) as host,
        replicas(tmp_path, {"box": {"url": host.url}}, 3) as there,
    ):
        reader = await opened(there, host)
        for number in (0, 1, 2, 1):
            await reader.subscribe(number)
            await reader.client.result("tools/list")
        await reader.subscribe(2, PAGE)
        await reader.listen(1)
        await eventually(reader.is_heard)
        host.modern.announce(CHANGED)
        number = reader.say(PAGE)
        heard = sorted(await reader.heard(), key=lambda one: str(one["method"]))  # two carriers, in any order
        assert [one["method"] for one in heard] == [UPDATED, CHANGED]
        assert heard[0]["params"] == {"uri": PAGE, "number": number}
        await reader.subscribe(2, is_end=True)
        reader.say()
        number = reader.say(PAGE)
        assert [one["params"]["uri"] for one in await reader.heard()] == [PAGE]
        await reader.subscribe(1)
        assert await reader.is_heard()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_updates_go_on_when_the_replica_that_carried_them_is_gone(tmp_path: Path, end: signal.Signals) -> None:
    """Its stream was on another one: that takes it up, and says that something may have been missed. To end it is
    everybody's as before; another subscription of the session never noticed."""
    async with (
        hosting(Toolbox("box", "modern")) as host,
        replicas(tmp_path, {"box": {"url": host.url}}, 3) as there,
    ):
        reader = await opened(there, host)
        await reader.subscribe(0)
        await reader.subscribe(2, PAGE)
        await reader.listen(1)
        await eventually(reader.is_heard)
        there[0].signal(end)
        await there[0].ended()
        await eventually(reader.is_heard, 15.0)
        number = reader.say(PAGE)
        assert await reader.numbers(PAGE) == [number]
        await reader.subscribe(2, is_end=True)
        reader.say()
        host.modern.announce(CHANGED)
        assert [one["method"] for one in await reader.heard()] == [CHANGED]


async def test_a_subscription_goes_on_with_the_stream_that_its_replica_took_along(tmp_path: Path) -> None:
    """kill -9 of the one that had everything of the session: the client resumes its stream elsewhere, and hears."""
    async with (
        hosting(Toolbox("box", "modern")) as host,
        replicas(tmp_path, {"box": {"url": host.url}}, 3) as there,
    ):
        reader = await opened(there, host)
        await reader.subscribe(0)
        await reader.listen(0)
        await eventually(reader.is_heard)
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        await reader.resume(1)
        await eventually(reader.is_heard, 15.0)
        there[1].signal(signal.SIGKILL)
        await there[1].ended()
        reader.stream = None
        await reader.listen(2)  # a new one, which resumes nothing
        await eventually(reader.is_heard, 15.0)
        await reader.subscribe(2, is_end=True)
        assert not await reader.is_heard()


async def test_progress_of_a_task_is_heard_when_the_replica_that_made_it_is_gone(tmp_path: Path) -> None:
    """Under the client's own token, on the stream that it has elsewhere."""
    box = TaskBox("box", "handshake")
    async with hosting(box) as host, replicas(tmp_path, {"box": {"url": host.url}}, 2) as there:
        reader = await opened(there, host)
        call = {"name": "slow_compute", "arguments": {}, "task": {"ttl": 60_000}, "_meta": {"progressToken": "mine"}}
        task = (await reader.client.result("tools/call", call))["task"]
        await reader.listen(1)
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        kept = box.kept["task-1"]

        async def is_told() -> bool:
            kept.owner.report(kept, 7)
            return any(one["params"].get("progressToken") == "mine" for one in await reader.heard())

        await eventually(is_told, 15.0)
        assert (await reader.client.result("tasks/get", {"taskId": task["taskId"]}))["status"] == "working"


FORM: Json = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
ASK: Json = {"name": "ask", "arguments": {"method": "elicitation/create", "params": FORM}}


async def parks(client: ModernClient) -> Json | None:
    """A call that asks: the retry that answers it, None when there is no room for it."""
    answer = await client.post(client.request("tools/call", ASK))
    ended = await answer.last()
    if "error" in ended:
        assert (answer.status, ended["error"]["code"]) == (503, -31001), ended
        return None
    (key,) = ended["result"]["inputRequests"]
    said = {"action": "accept", "content": {}}
    return {**ASK, "inputResponses": {key: said}, "requestState": ended["result"]["requestState"]}


async def test_parked_calls_are_bounded_over_all_replicas(tmp_path: Path) -> None:
    """One more than may be is refused on whichever replica; a place is free when its call has ended, or its replica is
    gone. Without the Redis each goes on with its part."""
    async with (
        hosting(Toolbox("box", "handshake")) as host,
        replicas(tmp_path, {"box": {"url": host.url, "max_parked_per_caller": 4}}, 2) as there,
    ):
        clients = [there.modern(number, {"elicitation": {"form": {}}}) for number in (0, 1)]
        retries = [await parks(clients[number]) for number in (0, 0, 1, 0)]
        assert None not in retries
        assert await parks(clients[0]) is None
        assert await parks(clients[1]) is None
        assert await clients[0].tool("echo", text="x") == {"label": "box", "text": "x"}
        await clients[0].result("tools/call", retries[2])  # which waits on the other one
        assert await parks(clients[0]) is not None
        assert await parks(clients[1]) is None
        there[0].signal(signal.SIGKILL)
        await there[0].ended()

        async def is_room() -> bool:
            return await parks(clients[1]) is not None

        await eventually(is_room, 10.0)
        assert [await is_room() for _ in range(3)] == [True] * 3
        assert not await is_room()
        there.redis.kill()
        assert not await is_room()
        await there.start()
        third = there.modern(2, {"elicitation": {"form": {}}})
        assert await parks(third) is not None
        there.redis.start()

        async def is_said_again() -> bool:
            said = there.redis.cli("HVALS", "gatewright:held:{parked box}:all").split()
            return sorted(said) == ["1", "4"]

        await eventually(is_said_again, 10.0)
        assert await parks(third) is None
