"""Handshake sessions on several replicas: any of them serves any request of any session.

Real processes, a real Redis, a real backend. Which replica a request goes to is chosen by the test, as no balancer
would: never the one that would be easiest.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from journeys.host import HttpHost, hosting
from journeys.old_client import OldClient
from journeys.replicas import Replicas, eventually, replicas
from journeys.toolbox import Toolbox
from journeys.wire import Answer, Client, HandshakeClient, Json, soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
HERE = Path(__file__).parent
ASK = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object"}}}


@asynccontextmanager
async def placed(
    folder: Path, number: int = 2, era: str = "handshake", **more: Any
) -> AsyncIterator[tuple[Replicas, Toolbox, HttpHost]]:
    """Replicas before one toolbox of that era."""
    async with hosting(Toolbox("box", era)) as host, replicas(folder, {"box": {"url": host.url}}, number, **more) as it:
        yield it, host.box, host


def called(client: Client, tool: str, /, token: object = None, **arguments: object) -> Json:
    """A tools/call request."""
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return client.request("tools/call", {"name": tool, "arguments": arguments, **meta})


def said(message: Json | None) -> Json:
    """What a tool said, as the object in its first text."""
    assert message is not None
    assert "result" in message, message
    found = json.loads(message["result"]["content"][0]["text"])
    assert isinstance(found, dict)
    return found


def introduced(box: Toolbox) -> int:
    """How often the client shook hands with the backend, through whichever replica."""
    told = [one.introduction.get("clientInfo", {}).get("name") for one in box.conversations]
    return told.count("traveller")


async def answered(answer: Answer) -> Json:
    """The final message of a stream or a JSON answer."""
    return await answer.last()


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_session_is_served_by_every_replica(tmp_path: Path, era: str) -> None:
    """Opened on one, used on three, in turn, with one session at the backend; a foreign id is unknown everywhere."""
    async with placed(tmp_path, 3, era) as (there, box, _):
        client = await there.handshake(0)
        for turn in range(9):
            there.at(client, turn % 3)
            assert await client.tool("echo", text=str(turn)) == {"label": "box", "text": str(turn)}
        if era == "handshake":
            assert introduced(box) == 1
        stranger = await there.handshake(1)
        stranger.session = client.session[:-1] + ("A" if client.session[-1] != "A" else "B")
        assert (await stranger.post(called(stranger, "echo", text="x"))).status == 404
        client.path = "/mcp"
        assert (await client.post(called(client, "echo", text="x"))).status == 404


async def test_delete_ends_it_everywhere_at_once(tmp_path: Path) -> None:
    """Also where it was in memory, also its streams, also at the backend."""
    async with placed(tmp_path, 3) as (there, box, _):
        client = await there.handshake(0)
        for number in (0, 1, 2):
            there.at(client, number)
            await client.tool("echo", text="x")
        there.at(client, 1)
        standing = await client.listen()
        there.at(client, 2)
        assert await client.end() == 204
        assert await client.end() == 404

        async def is_unknown() -> bool:
            statuses = set()
            for number in (0, 1, 2):
                there.at(client, number)
                statuses.add((await client.post(called(client, "echo", text="x"))).status)
            return statuses == {404}

        await eventually(is_unknown, 1.0)
        while await soon(standing.event()) is not None:
            pass
        await box.until(lambda it: it.noted("deleted"))


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_question_is_answered_through_another_replica(tmp_path: Path, era: str) -> None:
    """Asked on the stream of one, answered by a POST to another."""
    tool = {"handshake": "ask", "modern": "need_input"}[era]
    async with placed(tmp_path, 2, era) as (there, _, _):
        client = await there.handshake(0, {"elicitation": {}})
        arguments = ASK if era == "handshake" else {}
        answer = await client.post(called(client, tool, **arguments))
        question = await soon(answer.event())
        assert question is not None
        there.at(client, 1)
        assert (await client.reply(question, {"action": "accept", "content": {"name": "Ada"}})).status == 202
        assert "Ada" in json.dumps(await answered(answer))


async def test_a_call_is_cancelled_through_another_replica(tmp_path: Path) -> None:
    """The backend hears of it, and the client's POST ends."""
    async with placed(tmp_path) as (there, box, _):
        client = await there.handshake(0)
        request = called(client, "park", key="k")
        answer = await client.begin(request)
        await box.until(lambda it: it.noted("parked"))
        there.at(client, 1)
        assert (await client.tell("notifications/cancelled", {"requestId": request["id"]})).status == 202
        await box.until(lambda it: it.noted("cancelled"))
        await soon(answer.started)
        assert await client.tool("echo", text="x") == {"label": "box", "text": "x"}


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_the_log_level_holds_everywhere(tmp_path: Path, era: str) -> None:
    """Set on one replica, kept on the others, also on those that had the session already."""
    async with placed(tmp_path, 2, era) as (there, _, _):
        client = await there.handshake(0)
        for number in (0, 1):
            there.at(client, number)
            await client.tool("echo", text="x")
        there.at(client, 1)
        assert await client.result("logging/setLevel", {"level": "error"}) == {}
        there.at(client, 0)

        async def is_error() -> bool:
            answer = await client.post(called(client, "log", levels=["debug", "warning", "error", "emergency"]))
            heard = [one["params"]["level"] async for one in answer.messages() if "method" in one]
            return heard == ["error", "emergency"]

        await eventually(is_error, 1.0)


async def test_a_notice_reaches_the_stream_wherever_it_is(tmp_path: Path) -> None:
    """The backend says it to one replica, the client listens on another."""
    async with placed(tmp_path) as (there, _, _):
        client = await there.handshake(0)
        await client.tool("echo", text="x")
        there.at(client, 1)
        standing = await client.listen()
        there.at(client, 0)
        await is_heard(client, standing)


async def is_heard(client: HandshakeClient, standing: Answer, within_s: float = 10.0) -> None:
    """What the backend says outside calls comes on that stream."""
    notice = {"method": "notifications/tools/list_changed", "params": {}}

    async def heard() -> bool:
        await client.tool("announce", **notice)
        try:
            event = await standing.event(0.3)
        except TimeoutError:
            return False
        return event is not None and event["method"] == notice["method"]

    await eventually(heard, within_s)


async def test_a_stream_is_resumed_elsewhere(tmp_path: Path) -> None:
    """The call goes on where it was; what was missed and what follows comes over another replica, each once."""
    async with placed(tmp_path) as (there, _, _):
        client = await there.handshake(0)
        answer = await client.post(called(client, "park", token=7, key="k", is_loud=True))
        first = await soon(answer.event())
        assert first is not None
        last_id = answer.last_id
        answer.close()
        there.at(client, 1)
        fields = {"Accept": "text/event-stream", "Last-Event-ID": last_id, **client.headers({})}
        resumed = await (await client.wire()).send("GET", client.path, fields)
        assert resumed.status == 200
        assert await client.tool("release", key="k") == {"released": True}
        messages = [message async for message in resumed.messages()]
        assert [("result" in one) for one in messages] == [True]
        again = await (await client.wire()).send("GET", client.path, {**fields, "Last-Event-ID": resumed.last_id})
        assert [message async for message in again.messages()] == []


async def test_sessions_outlive_their_replica(tmp_path: Path) -> None:
    """kill -9: the session goes on elsewhere, without `initialize`, with its backend session; streams come back with
    what the store kept; the call that ran there is answered with an error."""
    async with placed(tmp_path, 2) as (there, box, _):
        client = await there.handshake(0)
        await client.tool("echo", text="x")
        standing = await client.listen()
        running = await client.post(called(client, "park", token=7, key="k", is_loud=True))
        assert await soon(running.event()) is not None
        with pytest.raises(TimeoutError):
            await standing.event(0.2)  # nothing but its first event, which has an id
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        there.at(client, 1)
        assert await soon(client.tool("echo", text="y")) == {"label": "box", "text": "y"}
        assert introduced(box) == 1
        for broken, is_standing in ((running, False), (standing, True)):
            fields = {"Accept": "text/event-stream", "Last-Event-ID": broken.last_id, **client.headers({})}
            async with asyncio.timeout(10):
                resumed = await (await client.wire()).send("GET", client.path, fields)
                assert resumed.status == 200, (broken.last_id, await resumed.body())
                if is_standing:
                    await is_heard(client, resumed)
                else:
                    (lost,) = [message async for message in resumed.messages()]
                    assert "may have run" in lost["error"]["message"]


@asynccontextmanager
async def beside(folder: Path, number: int = 2) -> AsyncIterator[Replicas]:
    """Replicas before a toolbox that each of them would start as a child."""
    command = {"command": sys.executable, "args": ["-I", "-S", str(HERE / "toolbox.py"), "box", "handshake"]}
    async with replicas(folder, {"box": {**command, "stop_grace_s": 0.5}}, number) as there:
        yield there


async def test_calls_for_a_child_go_where_it_is(tmp_path: Path) -> None:
    """One child for the session, whichever replica is asked; progress, questions and cancels pass through."""
    async with beside(tmp_path) as there:
        client = await there.handshake(0, {"elicitation": {}})
        await client.tool("echo", text="x")
        there.at(client, 1)
        assert (await client.tool("client"))["introduction"]["clientInfo"]["name"] == "traveller"
        answer = await client.post(called(client, "progress", token="mine", steps=5))
        *steps, last = [message async for message in answer.messages()]
        assert [one["params"]["progressToken"] for one in steps] == ["mine"] * 5
        assert "result" in last
        answer = await client.post(called(client, "ask", **ASK))
        question = await soon(answer.event())
        assert question is not None
        there.at(client, 0)
        assert (await client.reply(question, {"action": "decline"})).status == 202
        assert "decline" in json.dumps(await answer.last())
        there.at(client, 1)
        request = called(client, "park", key="k")
        parked = await client.begin(request)

        async def is_parked() -> bool:
            return bool((await client.tool("seen", what="parked"))["seen"])

        await eventually(is_parked)
        assert (await client.tell("notifications/cancelled", {"requestId": request["id"]})).status == 202
        await soon(parked.started)

        async def is_cancelled() -> bool:
            return bool((await client.tool("seen", what="cancelled"))["seen"])

        await eventually(is_cancelled)


async def test_a_child_that_died_with_its_replica_is_started_elsewhere(tmp_path: Path) -> None:
    """The call that was in it fails and says that it may have run; the next one has a child of its own."""
    async with beside(tmp_path) as there:
        client = await there.handshake(0)
        await client.tool("echo", text="x")
        there.at(client, 1)
        await client.tool("echo", text="x")
        running = await client.begin(called(client, "park", key="k"))

        async def is_parked() -> bool:
            return bool((await client.tool("seen", what="parked"))["seen"])

        await eventually(is_parked)
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        async with asyncio.timeout(10):
            await running.started
        assert "may have run" in json.dumps(await running.last())
        async with asyncio.timeout(10):
            assert await client.tool("echo", text="y") == {"label": "box", "text": "y"}


async def test_a_replica_that_is_stopped_leaves_its_sessions_to_the_others(tmp_path: Path) -> None:
    """SIGTERM: what is at an HTTP backend goes on, and is not ended there."""
    async with placed(tmp_path) as (there, box, _):
        client = await there.handshake(0)
        await client.tool("echo", text="x")
        there[0].signal(signal.SIGTERM)
        assert await there[0].ended() == 0
        there.at(client, 1)
        assert await client.tool("echo", text="y") == {"label": "box", "text": "y"}
        assert introduced(box) == 1


async def test_a_parked_call_is_answered_through_another_replica(tmp_path: Path) -> None:
    """A modern client is asked by one replica and answers another, once; when the first one is dead it is told so."""
    async with placed(tmp_path) as (there, _, _):
        client = there.modern(0, {"elicitation": {"form": {}}})
        form = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
        params: Json = {"name": "ask", "arguments": {"method": "elicitation/create", "params": form}}

        async def asked() -> Json:
            there.at(client, 0)
            result = await client.result("tools/call", params)
            (key,) = result["inputRequests"]
            answer = {"action": "accept", "content": {"name": "Ada"}}
            return {**params, "inputResponses": {key: answer}, "requestState": result["requestState"]}

        retry = await asked()
        there.at(client, 1)
        assert "Ada" in json.dumps(await client.result("tools/call", retry))
        assert (await client.ask("tools/call", retry))["error"]["code"] == -32602
        changed = {**retry, "arguments": {**params["arguments"], "other": 1}}
        assert (await client.ask("tools/call", changed))["error"]["code"] == -32602
        there.at(client, 0)
        assert (await client.ask("tools/call", retry))["error"]["code"] == -32602
        retry = await asked()
        there[0].signal(signal.SIGKILL)
        await there[0].ended()
        there.at(client, 1)
        answer = await client.begin(client.request("tools/call", retry))
        async with asyncio.timeout(10):
            await answer.started
        error = (await answer.last())["error"]
        assert error["code"] == -32602
        assert "make it again" in error["message"]


async def test_an_old_clients_posts_reach_its_stream_from_any_replica(tmp_path: Path) -> None:
    """HTTP+SSE: the stream is on one replica, every POST goes to another; with the replica the session is gone."""
    async with placed(tmp_path) as (there, box, _):
        client = await OldClient(there[0].port, "/sse/box", {"elicitation": {}}).connect()
        hearing = asyncio.get_running_loop().create_task(client.listen())
        there.at(client, 1)
        await client.introduce()
        assert await client.tool("echo", text="x") == {"label": "box", "text": "x"}
        answer = await client.send(called(client, "ask", **ASK))
        await client.until(lambda it: bool(it.of("elicitation/create")))
        (question,) = client.of("elicitation/create")
        assert (await client.reply(question, {"action": "decline"})).status == 202
        assert "decline" in json.dumps(await soon(answer))
        request = called(client, "park", key="k")
        await client.send(request)
        await box.until(lambda it: it.noted("parked"))
        await client.tell("notifications/cancelled", {"requestId": request["id"]})
        await box.until(lambda it: it.noted("cancelled"))
        wrong = await client.post({"jsonrpc": "2.0", "id": 1})
        assert wrong.status == 400
        there[0].signal(signal.SIGKILL)
        await asyncio.wait({hearing}, timeout=5)
        assert isinstance(hearing.exception(), ConnectionError)
        async with asyncio.timeout(10):
            assert (await client.tell("notifications/initialized")).status == 404
        client.close()


async def test_in_steady_state_redis_is_not_asked_per_call(tmp_path: Path) -> None:
    """300 calls of sessions that are known: what Redis does meanwhile is what it does without them."""
    async with placed(tmp_path) as (there, _, _):
        clients = [await there.handshake(number % 2) for number in range(6)]
        for client in clients:
            for number in (0, 1):
                there.at(client, number)
                await client.tool("echo", text="x")

        def commands() -> int:
            told = there.redis.cli("INFO", "stats")
            return int(told.partition("total_commands_processed:")[2].split()[0])

        loop = asyncio.get_running_loop()
        before, began_at = commands(), loop.time()
        for turn in range(50):
            for client in clients:
                there.at(client, turn % 2)
                await client.tool("echo", text="x")
        spent = commands() - before
        assert spent < 100 + 16 * (loop.time() - began_at), spent  # signs of life, also late ones, and nothing else


@pytest.mark.parametrize("kind", ["http", "stdio"])
async def test_a_rolling_restart_fails_no_call(tmp_path: Path, kind: str) -> None:
    """Each replica is told to stop in turn, another takes its place; clients move to one that is there, as a balancer
    would have them do. A child's memory is lost with its replica; not one call fails."""
    async with AsyncExitStack() as stack:
        if kind == "http":
            there, _, _ = await stack.enter_async_context(placed(tmp_path, 3))
        else:
            there = await stack.enter_async_context(beside(tmp_path, 3))
        clients = [await there.handshake(number) for number in range(3)]
        serving = [0, 1, 2]
        is_over = asyncio.Event()
        done = 0

        async def call(client: HandshakeClient, turn: int) -> None:
            nonlocal done
            while not is_over.is_set():
                turn += 1
                there.at(client, serving[turn % len(serving)])
                assert await client.tool("echo", text=str(turn)) == {"label": "box", "text": str(turn)}
                client.close()  # each call on a connection of its own: descriptors are few
                done += 1

        calling = [asyncio.get_running_loop().create_task(call(client, turn)) for turn, client in enumerate(clients)]
        for number in range(3):
            await there.start()
            serving.append(3 + number)
            serving.remove(number)
            await asyncio.sleep(0.1)  # what is on its way to the one that stops arrives
            there[number].signal(signal.SIGTERM)
            assert await there[number].ended() == 0
            before = done
            async with asyncio.timeout(10):
                while done < before + 30:
                    await asyncio.sleep(0.02)
                    assert not any(one.done() for one in calling), [one for one in calling if one.done()]
        is_over.set()
        await asyncio.gather(*calling)


async def test_a_replica_that_was_only_asleep_does_nothing_twice(tmp_path: Path) -> None:
    """Stopped for longer than it takes to be taken for dead, its child was replaced: when it wakes up it uses the new
    one, and what it was asked meanwhile it does not do."""
    async with beside(tmp_path) as there:
        client = await there.handshake(0)
        await client.tool("echo", text="x")
        there.at(client, 1)
        await client.tool("echo", text="x")
        there[0].signal(signal.SIGSTOP)
        answer = await client.begin(called(client, "echo", text="asked of the sleeper"))
        async with asyncio.timeout(10):
            await answer.started
        assert said(await answer.last())["text"] == "asked of the sleeper"  # by a child of this one
        request = called(client, "park", key="k")
        parked = await client.begin(request)
        await asyncio.sleep(0.1)
        await client.tell("notifications/cancelled", {"requestId": request["id"]})
        await soon(parked.started)
        there[0].signal(signal.SIGCONT)
        there.at(client, 0)

        async def is_the_new_one() -> bool:
            return len((await client.tool("seen", what="parked"))["seen"]) == 1

        await eventually(is_the_new_one)
