"""A handshake client before a handshake backend: everything of the era, over every kind of transport."""

from __future__ import annotations

import asyncio
import json

import pytest

from gatewright.inbound.settings import Sessions
from journeys.toolbox import Toolbox
from journeys.travel import KINDS, travelling, travelling_over
from journeys.wire import Answer, HandshakeClient, Json, soon

pytestmark = pytest.mark.anyio
PROGRESS = "notifications/progress"
ASKS = {
    "elicitation/create": ("elicitation", {"message": "Who?", "requestedSchema": {"type": "object"}}),
    "sampling/createMessage": ("sampling", {"messages": [], "maxTokens": 9}),
    "roots/list": ("roots", {}),
}


def called(client: HandshakeClient, tool: str, /, token: object = None, **arguments: object) -> Json:
    """A tools/call request."""
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return client.request("tools/call", {"name": tool, "arguments": arguments, **meta})


async def parked(box: Toolbox, client: HandshakeClient, **more: object) -> Answer:
    """A call that the backend holds, once it does."""
    before = len(box.noted("parked"))
    answer = await client.begin(called(client, "park", key="k", **more))
    await box.until(lambda it: len(it.noted("parked")) > before)
    return answer


@pytest.mark.parametrize("kind", KINDS)
async def test_progress_comes_under_the_clients_own_token(kind: str) -> None:
    """Every step reaches the client, in order, with its own token, ahead of the answer on the same stream."""
    async with travelling_over(kind, "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box")
        answer = await client.post(called(client, "progress", token="mine", steps=20))
        assert answer.is_stream
        *steps, last = [message async for message in answer.messages()]
        assert [(one["method"], one["params"]["progressToken"]) for one in steps] == [(PROGRESS, "mine")] * 20
        assert [one["params"]["progress"] for one in steps] == list(range(1, 21))
        assert "result" in last


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_to_say_is_answered_in_json(kind: str) -> None:
    """Without a token there is no progress, and no stream."""
    async with travelling_over(kind, "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box")
        answer = await client.post(called(client, "progress", steps=3))
        assert not answer.is_stream
        assert "result" in await answer.last()


@pytest.mark.parametrize("kind", KINDS)
async def test_each_session_has_its_own_log_level(kind: str) -> None:
    """`logging/setLevel` of one session changes nothing in another: neither at the backend nor on the way back."""
    async with travelling_over(kind, "handshake") as (travel, _):
        loud, quiet = await travel.handshake("/mcp/box"), await travel.handshake("/mcp/box")
        assert await loud.result("logging/setLevel", {"level": "debug"}) == {}
        assert await quiet.result("logging/setLevel", {"level": "error"}) == {}
        assert (await loud.tool("client"))["log_level"] == "debug"
        assert (await quiet.tool("client"))["log_level"] == "error"
        heard: dict[HandshakeClient, list[str]] = {}
        for client in (loud, quiet):
            answer = await client.post(called(client, "log", levels=["debug", "warning", "error", "emergency"]))
            messages = [message async for message in answer.messages()]
            heard[client] = [one["params"]["level"] for one in messages if "method" in one]
        assert heard[loud] == ["debug", "warning", "error", "emergency"]
        assert heard[quiet] == ["error", "emergency"]


async def test_a_wrong_level_is_refused_by_name() -> None:
    """The error says which levels there are."""
    async with travelling({"box": Toolbox(era="handshake")}) as travel:
        client = await travel.handshake("/mcp/box")
        error = (await client.ask("logging/setLevel", {"level": "loud"}))["error"]
        assert error["code"] == -32602
        assert "emergency" in error["message"]


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_a_notification_cancels_at_the_backend(kind: str) -> None:
    """`notifications/cancelled` reaches the backend for its own request, and the client's POST ends without answer."""
    async with travelling_over(kind, "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box")
        answer = await parked(box, client)
        assert (await client.tell("notifications/cancelled", {"requestId": 2})).status == 202
        await box.until(lambda it: it.noted("cancelled"))
        await soon(answer.started)
        assert answer.status == 202
        assert await answer.body() == b""
        assert await client.tool("echo", text="still here") == {"label": "box", "text": "still here"}


async def test_a_cancelled_stream_ends_without_an_answer() -> None:
    """A call that had begun a stream ends it empty-handed."""
    async with travelling_over("python", "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box")
        answer = await client.post(called(client, "park", token=7, key="k", is_loud=True))
        first = await answer.event()
        assert first is not None
        assert first["params"]["progressToken"] == 7
        await client.tell("notifications/cancelled", {"requestId": 2})
        assert await answer.event() is None
        await box.until(lambda it: it.noted("cancelled"))


@pytest.mark.parametrize(
    "wrong", [{}, {"requestId": None}, {"requestId": True}, {"requestId": 1.5}, {"requestId": [2]}]
)
async def test_a_cancellation_of_nothing_is_refused(wrong: Json) -> None:
    """True is not request 1: what names no request cancels none."""
    async with travelling_over("python", "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box")
        await parked(box, client)
        assert (await client.tell("notifications/cancelled", wrong)).status in (200, 400)
        assert await client.tool("release", key="k") == {"released": True}
        assert box.noted("cancelled") == []


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_closing_the_stream_cancels_nothing(kind: str) -> None:
    """A client that leaves in the middle of a call gets no answer, and the call goes on to its end."""
    async with travelling_over(kind, "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box")
        answer = await parked(box, client)
        answer.close()
        assert await client.tool("release", key="k") == {"released": True}
        assert await client.tool("echo", text="x") == {"label": "box", "text": "x"}
        assert box.noted("cancelled") == []
        assert box.noted("left") == []


@pytest.mark.parametrize("method", ASKS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_is_asked_on_the_calls_stream(kind: str, method: str) -> None:
    """It comes before the answer, under an id of the gateway's, and a POST answers it."""
    capability, params = ASKS[method]
    async with travelling_over(kind, "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box", {capability: {}})
        answer = await client.post(called(client, "ask", method=method, params=params))
        question = await answer.event()
        assert question is not None
        assert (question["method"], question["params"]) == (method, params)
        assert (await client.reply(question, {"answered": method})).status == 202
        last = await answer.event()
        assert last is not None
        assert json.loads(last["result"]["content"][0]["text"]) == {"answer": {"answered": method}}
        assert await answer.event() is None


@pytest.mark.parametrize("kind", KINDS)
async def test_the_backend_is_told_what_the_client_can_answer(kind: str) -> None:
    """Capabilities, identity and revision of the client reach the backend; a question it cannot answer is refused."""
    async with travelling_over(kind, "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box", {"roots": {"listChanged": True}}, revision="2025-06-18")
        told = (await client.tool("client"))["introduction"]
        assert told["capabilities"] == {"roots": {"listChanged": True}}
        assert told["clientInfo"]["name"] == "traveller"
        assert told["protocolVersion"] == "2025-06-18"
        refused = await client.tool("ask", method="sampling/createMessage")
        assert refused["answer"]["error"]["code"] == -32021


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_a_question_ends_when_the_client_leaves(kind: str) -> None:
    """And does not come back in time: the backend hears so, and the session has room for other questions."""
    async with travelling_over(kind, "handshake", sessions=Sessions(retry_s=0.005)) as (travel, box):
        client = await travel.handshake("/mcp/box", {"elicitation": {}})
        answer = await client.post(called(client, "ask", method="elicitation/create"))
        assert await answer.event() is not None
        answer.close()
        await box.until(lambda it: it.noted("answered"))
        assert "left" in box.noted("answered")[0]["answer"]["error"]["message"]


async def test_a_question_ends_with_its_call() -> None:
    """A call that is cancelled while it asks leaves no question open: the client is told, the backend too."""
    async with travelling_over("python", "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box", {"elicitation": {}})
        answer = await client.post(called(client, "ask", method="elicitation/create"))
        question = await answer.event()
        assert question is not None
        await client.tell("notifications/cancelled", {"requestId": 2})
        told = await answer.event()
        assert told is not None
        assert (told["method"], told["params"]) == ("notifications/cancelled", {"requestId": question["id"]})
        assert await answer.event() is None
        await box.until(lambda it: it.noted("answered"))


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_a_backend_takes_its_question_back(kind: str) -> None:
    """The client is told under the id that it knows; a late answer is dropped, and the call goes on."""
    async with travelling_over(kind, "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box", {"elicitation": {}})
        answer = await client.post(called(client, "ask", method="elicitation/create"))
        question = await answer.event()
        assert question is not None
        for conversation in box.conversations:
            conversation.take_back()
        told = await answer.event()
        assert told is not None
        assert (told["method"], told["params"]) == ("notifications/cancelled", {"requestId": question["id"]})
        assert (await client.reply(question, {"late": True})).status == 202
        assert await client.tool("echo", text="x") == {"label": "box", "text": "x"}
        assert box.noted("answered") == []


async def test_another_session_cannot_answer() -> None:
    """An answer counts in the session that was asked, and nowhere else."""
    async with travelling_over("python", "handshake") as (travel, _):
        asked, other = [await travel.handshake("/mcp/box", {"elicitation": {}}) for _ in range(2)]
        answer = await asked.post(called(asked, "ask", method="elicitation/create"))
        question = await answer.event()
        assert question is not None
        assert (await other.reply(question, {"by": "other"})).status == 202
        assert (await asked.reply(question, {"by": "asked"})).status == 202
        assert '"by": "asked"' in str((await answer.last())["result"]["content"][0]["text"])


async def test_too_many_questions_are_refused() -> None:
    """Their number in one session is bounded; the next is refused, the open ones go on."""
    settings = Sessions(max_pending_asks=2)
    async with travelling_over("http", "handshake", sessions=settings) as (travel, _):
        client = await travel.handshake("/mcp/box", {"elicitation": {}})
        open_ones = [await client.post(called(client, "ask", method="elicitation/create")) for _ in range(2)]
        questions = [await answer.event() for answer in open_ones]
        refused = await client.tool("ask", method="elicitation/create")
        assert "too many" in refused["answer"]["error"]["message"]
        for answer, question in zip(open_ones, questions, strict=True):
            assert question is not None
            await client.reply(question, {"ok": True})
            assert "result" in await answer.last()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_outside_calls_comes_on_the_standing_stream(kind: str) -> None:
    """What belongs to no call is asked on the GET stream, and answered by a POST."""
    async with travelling_over(kind, "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box", {"roots": {}})
        standing = await client.listen()
        await client.tool("ask_outside", method="roots/list")
        question = await standing.event()
        assert question is not None
        assert question["method"] == "roots/list"
        await client.reply(question, {"roots": [{"uri": "file:///here"}]})
        seen = await answered(client)
        assert seen == [{"method": "roots/list", "answer": {"roots": [{"uri": "file:///here"}]}}]


async def answered(client: HandshakeClient) -> list[Json]:
    """What the backend was answered, once it was."""
    async with asyncio.timeout(5):
        while True:
            seen = await client.tool("seen", what="answered")
            if seen["seen"]:
                return list(seen["seen"])


async def test_a_question_outside_calls_needs_a_stream() -> None:
    """Without one the backend is refused at once; with one that broke, once the client had time to resume it."""
    async with travelling_over("python", "handshake", sessions=Sessions(retry_s=0.005)) as (travel, box):
        client = await travel.handshake("/mcp/box", {"roots": {}})
        await client.tool("ask_outside", method="roots/list")
        await box.until(lambda it: len(it.noted("answered")) == 1)
        standing = await client.listen()
        await client.tool("ask_outside", method="roots/list")
        assert await standing.event() is not None
        standing.close()
        await box.until(lambda it: len(it.noted("answered")) == 2)
        assert ["error" in one["answer"] for one in box.noted("answered")] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
async def test_announcements_come_on_the_standing_stream(kind: str) -> None:
    """A subscribed resource's update and a changed list come there, in this session alone."""
    async with travelling_over(kind, "handshake") as (travel, _):
        client, other = await travel.handshake("/mcp/box"), await travel.handshake("/mcp/box")
        standing, elsewhere = await client.listen(), await other.listen()
        assert await client.result("resources/subscribe", {"uri": "box://note"}) == {}
        updated = "notifications/resources/updated"
        await client.tool("announce", method=updated, params={"uri": "box://note"})
        assert await standing.event() == {"jsonrpc": "2.0", "method": updated, "params": {"uri": "box://note"}}
        await client.tool("announce", method="notifications/tools/list_changed")
        changed = await standing.event()
        assert changed is not None
        assert changed["method"] == "notifications/tools/list_changed"
        assert await client.result("resources/unsubscribe", {"uri": "box://note"}) == {}
        await other.tool("announce", method="notifications/prompts/list_changed")
        heard = await elsewhere.event()
        assert heard is not None
        assert heard["method"] == "notifications/prompts/list_changed"


async def test_an_announcement_comes_on_one_stream_only() -> None:
    """A session with two standing streams hears each thing once (S-23)."""
    async with travelling_over("python", "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box")
        streams = [await client.listen() for _ in range(2)]
        for method in ("notifications/tools/list_changed", "notifications/prompts/list_changed"):
            await client.tool("announce", method=method)
        assert await client.end() == 204
        heard = []
        for stream in streams:
            while (message := await stream.event()) is not None:
                heard.append(message["method"])
        assert sorted(heard) == ["notifications/prompts/list_changed", "notifications/tools/list_changed"]


async def test_a_slow_standing_stream_holds_up_nobody() -> None:
    """A client that does not read its GET stream loses old notifications; its backend and its calls go on."""
    async with travelling_over("python", "handshake") as (travel, _):
        client = await travel.handshake("/mcp/box")
        wire = await client.wire()
        standing = await wire.send("GET", "/mcp/box", {"Accept": "text/event-stream", **client.headers({})})
        wire.pause()
        big = "x" * 40_000
        for number in range(200):
            params = {"uri": f"box://{number}", "padding": big}
            told = await client.tool("announce", method="notifications/resources/updated", params=params)
            assert told == {"announced": "notifications/resources/updated"}
        wire.resume()
        assert await client.end() == 204
        seen = []
        while (message := await standing.event()) is not None:
            seen.append(message["params"]["uri"])
        assert seen[-1] == "box://199"
        assert len(seen) < 200


@pytest.mark.parametrize("kind", ["python", "http"])
async def test_delete_ends_the_session_everywhere(kind: str) -> None:
    """Calls stop, the standing stream ends, the backend's session is ended, and the id is unknown from then on."""
    async with travelling_over(kind, "handshake") as (travel, box):
        client = await travel.handshake("/mcp/box")
        standing = await client.listen()
        call = await parked(box, client)
        before = len(box.noted("ended"))
        assert await client.end() == 204
        assert await standing.event() is None
        await soon(call.started)
        assert call.status == 202
        await box.until(lambda it: len(it.noted("ended")) > before and bool(it.noted("cancelled") or it.noted("left")))
        assert (await client.post(client.request("ping"))).status == 404
        assert await client.end() == 404


async def test_an_idle_session_is_ended() -> None:
    """After `idle_s` without a request or a stream it is gone here and at the backend."""
    async with travelling_over("python", "handshake", sessions=Sessions(idle_s=0.2)) as (travel, box):
        idle = await travel.handshake("/mcp/box")
        [behind] = [one for one in box.conversations if "traveller" in str(one.introduction)]
        held_open = await travel.handshake("/mcp/box")
        await held_open.listen()
        await box.until(lambda it: behind in it.noted("ended"))
        assert (await idle.post(idle.request("ping"))).status == 404
        assert (await held_open.post(held_open.request("ping"))).status == 200


async def test_a_client_that_left_during_initialize_leaves_no_session() -> None:
    """Nobody would ever know its id: the backend's session is ended as soon as it is open."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel:
        await box.until(lambda it: any(one.introduction for one in it.conversations))  # warmed up
        box.mute.add("initialize")
        client = HandshakeClient(travel.port, "/mcp/box")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hasty", "version": "1"}}
        answer = await client.begin(client.request("initialize", params))
        await box.until(lambda it: it.noted("muted"))
        hasty = box.conversations[-1]
        answer.close()
        box.mute.clear()
        assert (await travel.handshake("/mcp/box")).session  # the gateway has seen the other leave
        hasty.catch_up()
        await box.until(lambda it: hasty in it.noted("ended"))
