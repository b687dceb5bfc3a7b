"""Clients of the 2024-11-05 transport, through a real gateway: streams, sessions, and those that mean harm."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gatewright.backend.settings import BackendSettings
from gatewright.inbound.settings import Limits, Listen
from gatewright.inbound.settings import Sessions as SessionSettings
from journeys.old_client import OldClient, Stream, connected
from journeys.toolbox import Toolbox
from journeys.travel import Travel, travelling
from journeys.wire import Answer, Json, Wire, soon

pytestmark = pytest.mark.anyio
ASKABLE = {"elicitation": {}, "sampling": {}, "roots": {}}


async def http(port: int, method: str, path: str, body: Any = b"", **headers: str) -> Answer:
    """One plain request on a connection of its own; the response has begun."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    wire = await Wire.open(port)
    fields = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    return await soon(wire.send(method, path, fields, data))


def call(name: str, request_id: Any = 7, **arguments: Any) -> Json:
    """A `tools/call`."""
    return {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments},
    }


async def opened(travel: Travel, path: str = "/sse") -> OldClient:
    """A client with a stream and nothing more; nobody reads it on."""
    return await OldClient(travel.port, path).connect()


class HalfPost:
    """A POST whose body is still to come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._body = body

    @classmethod
    async def begin(cls, client: OldClient, message: Json) -> HalfPost:
        """Send its head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        body = json.dumps(message).encode()
        fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"POST {client.endpoint} HTTP/1.1\r\n{fields}\r\n".encode())
        return cls(reader, writer, body)

    async def finish(self) -> int:
        """Send its body; the status of the answer."""
        self._writer.write(self._body)
        line = await soon(self._reader.readline())
        self._writer.transport.abort()
        return int(line.split(b" ")[1])


# --- a session


async def test_a_stream_begins_with_where_to_post() -> None:
    """The address is a path, so it is on the same origin for every client; the id in it is not to be guessed."""
    async with travelling({"box": Toolbox("box")}) as travel:
        clients = [await opened(travel) for _ in range(20)]
        ids = {client.endpoint.removeprefix("/messages?session_id=") for client in clients}
        assert len(ids) == 20
        assert all(len(one) == 32 and "/" not in one and "=" not in one for one in ids)
        single = await opened(travel, "/sse/box")
        assert single.endpoint.startswith("/messages/box?session_id=")
        for client in (*clients, single):
            client.close()


@pytest.mark.parametrize(("path", "tool"), [("/sse", "box.echo"), ("/sse/box", "echo")])
@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-11-25"])
async def test_a_call_is_accepted_and_answered_on_the_stream(path: str, tool: str, revision: str) -> None:
    """On either route, in every revision of the era."""
    async with (
        travelling({"box": Toolbox("box")}) as travel,
        connected(travel.port, path, revision=revision) as client,
    ):
        assert client.introduction["protocolVersion"] == revision
        assert client.introduction["serverInfo"]["name"] == ("gatewright" if path == "/sse" else "box")
        assert await client.tool(tool, x=1) == {"label": "box", "x": 1}
        assert await client.ask("ping") == {"jsonrpc": "2.0", "id": 3, "result": {}}


async def test_calls_of_one_stream_run_side_by_side() -> None:
    """A parked call holds up nothing; each gets its own answer, also where ids are text or used twice."""
    async with travelling({"box": Toolbox("box")}) as travel, connected(travel.port, "/sse/box") as client:
        parked = await client.send(call("park", "p", key="k"))
        answers = [await client.send(call("echo", number, n=number)) for number in range(30)]
        for number, waiting in enumerate(answers):
            answer = await soon(waiting)
            assert json.loads(answer["result"]["content"][0]["text"])["n"] == number
        assert not parked.done()
        await client.tool("release", key="k")
        assert "result" in await soon(parked)


async def test_errors_come_on_the_stream() -> None:
    """A method, a tool or parameters that are none: the POST is accepted, the answer says what is wrong."""
    async with travelling({"box": Toolbox("box")}) as travel, connected(travel.port, "/sse/box") as client:
        assert (await client.ask("no/such"))["error"]["code"] == -32601
        assert (await client.ask("server/discover"))["error"]["code"] == -32601
        assert (await client.ask("tools/call", {"name": "none", "arguments": {}}))["error"]["code"] == -32602
        assert (await client.ask("resources/read", {"uri": "box://missing"}))["error"]["code"] == -32002
        assert (await client.ask("initialize", {}))["error"]["code"] == -32600


async def test_what_belongs_to_a_call_precedes_its_answer() -> None:
    """Progress and log messages come on the stream, in order, and then the answer."""
    async with travelling({"box": Toolbox("box")}) as travel, connected(travel.port, "/sse/box") as client:
        message = call("progress", steps=20)
        message["params"]["_meta"] = {"progressToken": "mine"}
        await soon(await client.send(message))
        told = client.of("notifications/progress")
        assert [one["params"]["progress"] for one in told] == list(range(1, 21))
        assert {one["params"]["progressToken"] for one in told} == {"mine"}
        await client.result("logging/setLevel", {"level": "warning"})
        await client.tool("log", levels=["info", "error"])
        assert [one["params"]["level"] for one in client.of("notifications/message")] == ["error"]


async def test_what_belongs_to_no_call_comes_too() -> None:
    """A list that changed, a resource that was subscribed to."""
    async with travelling({"box": Toolbox("box")}) as travel, connected(travel.port, "/sse/box") as client:
        await client.result("resources/subscribe", {"uri": "box://note"})
        await client.tool("announce", method="notifications/resources/updated", params={"uri": "box://note"})
        await client.tool("announce", method="notifications/tools/list_changed")
        await client.until(lambda it: len(it.heard) >= 2)
        methods = {one["method"] for one in client.heard}
        assert methods == {"notifications/resources/updated", "notifications/tools/list_changed"}


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
async def test_a_question_is_put_on_the_stream_and_answered_by_a_post(method: str) -> None:
    """Asked in the middle of a call, answered, and the call goes on."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel, connected(travel.port, "/sse/box", capabilities=ASKABLE) as client:
        waiting = await client.send(call("ask", method=method, params={"message": "?"}))
        await client.until(lambda it: bool(it.of(method)))
        answer = await client.reply(client.of(method)[0], {"action": "accept"})
        assert answer.status == 202
        assert json.loads((await soon(waiting))["result"]["content"][0]["text"]) == {"answer": {"action": "accept"}}


async def test_a_question_of_a_modern_backend_is_put_too() -> None:
    """Its `InputRequired` becomes a question on the stream."""
    box = Toolbox("box", "modern")
    async with travelling({"box": box}) as travel, connected(travel.port, "/sse/box", capabilities=ASKABLE) as client:
        waiting = await client.send(call("need_input"))
        await client.until(lambda it: bool(it.of("elicitation/create")))
        await client.reply(client.of("elicitation/create")[0], {"action": "accept", "content": {"a": 1}})
        assert "result" in await soon(waiting)


async def test_a_client_that_cannot_be_asked_is_not() -> None:
    """The backend gets the error, the stream carries nothing of it."""
    async with travelling({"box": Toolbox("box", "handshake")}) as travel, connected(travel.port, "/sse/box") as client:
        answer = await client.tool("ask", method="sampling/createMessage")
        assert "error" in answer["answer"]
        assert client.heard == []


async def test_a_call_is_cancelled_by_its_notification() -> None:
    """The backend is told; nothing more comes of the call."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel, connected(travel.port, "/sse/box") as client:
        waiting = await client.send(call("park", "mine", key="k"))
        await box.until(lambda it: bool(it.noted("parked")))
        assert (await client.tell("notifications/cancelled", {"requestId": "mine"})).status == 202
        await box.until(lambda it: bool(it.noted("cancelled")))
        assert await client.tool("echo", x=1) == {"label": "box", "x": 1}
        assert not waiting.done()


async def test_a_batch_is_taken_where_the_revision_has_them() -> None:
    """2025-03-26: every request in it is answered on the stream. Elsewhere it is refused."""
    async with travelling({"box": Toolbox("box")}) as travel:
        async with connected(travel.port, "/sse/box", revision="2025-03-26") as client:
            waiting = [client.expect(number) for number in range(3)]
            messages = [call("echo", number, n=number) for number in range(3)]
            notice = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
            assert (await client.post([*messages, notice])).status == 202
            assert len(await soon(asyncio.gather(*waiting))) == 3
            assert (await client.post([])).status == 400
        async with connected(travel.port, "/sse/box") as client:
            assert (await client.post([call("echo")])).status == 400


# --- the end


async def test_the_end_of_the_stream_ends_the_session() -> None:
    """What ran is cancelled, the backend session closed, and the address answers as if it had never been."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel:
        async with connected(travel.port, "/sse/box") as client:
            await client.send(call("park", key="k"))
            await box.until(lambda it: bool(it.noted("parked")))
            endpoint = client.endpoint
        await box.until(lambda it: bool(it.noted("cancelled")) and bool(it.noted("ended")))
        answer = await http(travel.port, "POST", endpoint, call("echo"))
        assert answer.status == 404


async def test_a_question_falls_with_the_stream() -> None:
    """Nobody will answer it: the backend is told so instead of waiting."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel:
        async with connected(travel.port, "/sse/box", capabilities=ASKABLE) as client:
            await client.send(call("ask", method="roots/list"))
            await client.until(lambda it: bool(it.of("roots/list")))
        await box.until(lambda it: bool(it.noted("ended")))


async def test_a_stopping_gateway_lets_calls_finish() -> None:
    """The stream stays for the call that runs and takes the answer to its question, then it ends whole; calls that
    come later are refused."""
    box = Toolbox("box", "handshake")
    async with (
        travelling({"box": box}, drain_s=5.0) as travel,
        connected(travel.port) as idle,
        connected(travel.port, "/sse/box", capabilities=ASKABLE) as client,
    ):
        waiting = await client.send(call("ask", method="roots/list"))
        await client.until(lambda it: bool(it.of("roots/list")))
        ask = client.of("roots/list")[0]
        late = await HalfPost.begin(client, call("echo"))
        answer = await HalfPost.begin(client, {"jsonrpc": "2.0", "id": ask["id"], "result": {}})
        reader, writer = await asyncio.open_connection("127.0.0.1", travel.port)
        writer.write(b"GET /sse HTTP/1.1\r\n")
        await client.tool("echo", x=1)  # what was sent has arrived by now
        travel.gateway.stop()
        await idle.until(lambda it: it.is_ended)
        writer.write(b"Host: x\r\n\r\n")
        assert (await soon(reader.readline())).split(b" ")[1] == b"503"
        writer.transport.abort()
        assert [await late.finish(), await answer.finish()] == [503, 202]
        assert "result" in await soon(waiting)
        await client.until(lambda it: it.is_ended)


async def test_an_idle_stream_ends_at_once_when_the_gateway_stops() -> None:
    """Nothing runs on it: it ends whole, well before the drain is over, and says when to come back. That is a line, not
    an event: clients that take every event for a message do not see it."""
    settings = SessionSettings(retry_s=2.5)
    async with (
        travelling({"box": Toolbox("box")}, sessions=settings, drain_s=30.0) as travel,
        connected(travel.port) as client,
    ):
        travel.gateway.stop()
        await client.until(lambda it: it.is_ended)
        name, _, value = client.stream.last_line.partition(b": ")
        assert name == b"retry"
        assert 2_500 <= int(value.removesuffix(b"\n")) < 3_000


async def test_a_stream_without_an_introduction_ends() -> None:
    """It is not held for a client that never says who it is; one that did stays."""
    limits = Limits(body_timeout_s=0.2)
    async with (
        travelling({"box": Toolbox("box")}, limits=limits) as travel,
        connected(travel.port, "/sse/box") as other,
        connected(travel.port, introduces=False) as client,
    ):
        await client.until(lambda it: it.is_ended)
        assert await other.tool("echo", x=1) == {"label": "box", "x": 1}


async def test_a_silent_stream_is_kept_alive() -> None:
    """A comment each interval, so that proxies do not cut it."""
    limits = Limits(stream_keepalive_s=0.05)
    async with (
        travelling({"box": Toolbox("box")}, limits=limits) as travel,
        connected(travel.port, "/sse/box") as client,
    ):
        while client.stream.comments < 2:
            await client.tool("echo", x=1)


async def test_many_streams_keep_apart() -> None:
    """Thirty clients at once that all use the same ids: each hears its own answers and nothing else."""
    async with travelling({"box": Toolbox("box")}) as travel:

        async def one(number: int) -> None:
            async with connected(travel.port, "/sse/box") as client:
                for step in range(20):
                    message = call("echo", 1, mine=f"{number}-{step}")
                    answer = await soon(await client.send(message), 20)
                    assert json.loads(answer["result"]["content"][0]["text"])["mine"] == f"{number}-{step}"
                assert client.heard == []

        await asyncio.gather(*(one(number) for number in range(30)))


async def test_nothing_is_left_of_streams_that_ended() -> None:
    """Not a task and no backend session, however they ended: idle, in a call, in a question, unintroduced."""
    box = Toolbox("box", "handshake")
    async with travelling({"box": box}) as travel:
        async with connected(travel.port, "/sse/box") as client:
            await client.tool("echo", x=1)
        await box.until(lambda it: len(it.conversations) == 1)  # the gateway's own, by which it learned the era
        before = len(asyncio.all_tasks())
        for number in range(25):
            async with connected(travel.port, "/sse/box", capabilities=ASKABLE, introduces=number % 5 != 0) as client:
                if number % 5 == 1:
                    await client.send(call("park", key=str(number)))
                elif number % 5 == 2:
                    await client.send(call("ask", method="roots/list"))
                    await client.until(lambda it: bool(it.of("roots/list")))
                elif number % 5 == 3:
                    (await client.begin(call("park", key=str(number)))).close()
        await box.until(lambda it: len(it.conversations) == 1)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0)


# --- those that mean harm


async def test_another_route_is_another_session() -> None:
    """A stream of one backend cannot be used to reach all, or the other way round: 404, as for any unknown id."""
    boxes = {"box": Toolbox("box"), "other": Toolbox("other")}
    async with travelling(boxes) as travel, connected(travel.port, "/sse/box") as client:
        query = client.endpoint.partition("?")[2]
        for path in ("/messages", "/messages/other", "/messages/none"):
            assert (await http(travel.port, "POST", f"{path}?{query}", call("echo"))).status == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("?session_id=", 400), ("?session_id=x", 404), ("?session_id=x&session_id=y", 400), ("?id=x", 400)],
)
async def test_an_unknown_session_is_refused(query: str, status: int) -> None:
    """No id, a made-up one, or two of them."""
    async with travelling({"box": Toolbox("box")}) as travel:
        assert (await http(travel.port, "POST", f"/messages{query}", call("echo"))).status == status


async def test_ids_of_the_other_transport_lead_nowhere() -> None:
    """A session of Streamable HTTP has no stream here."""
    async with travelling({"box": Toolbox("box")}) as travel:
        session = (await travel.handshake("/mcp")).session
        assert (await http(travel.port, "POST", f"/messages?session_id={session}", call("echo"))).status == 404


async def test_a_session_cannot_be_fixed_or_taken_over() -> None:
    """An id in the GET is ignored: each stream has a fresh one, and the first keeps hearing its own answers."""
    async with travelling({"box": Toolbox("box")}) as travel, connected(travel.port, "/sse/box") as victim:
        query = victim.endpoint.partition("?")[2]
        thief = OldClient(travel.port, f"/sse/box?{query}", headers={"Mcp-Session-Id": query.partition("=")[2]})
        await thief.connect()
        assert thief.endpoint != victim.endpoint
        assert await victim.tool("echo", x=1) == {"label": "box", "x": 1}
        thief.close()


async def test_other_methods_are_not_allowed() -> None:
    """A POST to the stream's path is how a newer client finds out that this is an old server: 405."""
    async with travelling({"box": Toolbox("box")}) as travel:
        for method, path, allowed in [
            ("POST", "/sse", "GET"),
            ("DELETE", "/sse/box", "GET"),
            ("GET", "/messages", "POST"),
            ("DELETE", "/messages/box", "POST"),
        ]:
            answer = await http(travel.port, method, path)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert (await http(travel.port, "GET", "/sse/none")).status == 404
        assert (await http(travel.port, "GET", "/ssebox")).status == 404


async def test_a_foreign_origin_is_refused() -> None:
    """For the stream and for messages, before anything else is looked at."""
    listen = Listen(port=0, allowed_origins=("https://good.example",))
    async with travelling({"box": Toolbox("box")}, listen=listen) as travel:
        assert (await http(travel.port, "GET", "/sse", Origin="https://evil.example")).status == 403
        async with connected(travel.port, headers={"Origin": "https://good.example"}) as client:
            refused = await client.post(call("box.echo"), {"Origin": "https://evil.example"})
            assert refused.status == 403
            assert await client.tool("box.echo", x=1) == {"label": "box", "x": 1}


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"{", 400, {}),
        (b"[" * 70 + b"]" * 70, 400, {}),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, {}),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, {}),
        (b'{"jsonrpc":"2.0","id":1}', 400, {}),
        (b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}', 400, {}),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', 415, {"Content-Type": "text/plain"}),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', 400, {"MCP-Protocol-Version": "2026-07-28"}),
        (b'"' + b"x" * 2000 + b'"', 413, {}),
    ],
)
async def test_what_is_no_message_is_refused(body: bytes, status: int, headers: dict[str, str]) -> None:
    """At the POST: the stream carries nothing of it and goes on."""
    limits = Limits(max_body_bytes=1024)
    async with travelling({"box": Toolbox("box")}, limits=limits) as travel, connected(travel.port) as client:
        wire = await Wire.open(travel.port)
        fields = {"Content-Type": "application/json"} | headers
        answer = await soon(wire.send("POST", client.endpoint, fields, body))
        assert answer.status == status
        assert await client.ask("ping") == {"jsonrpc": "2.0", "id": 2, "result": {}}
        assert client.heard == []


async def test_nothing_is_served_before_the_introduction() -> None:
    """A ping is, and a method of the other era is said to be none; the rest waits for `initialize`."""
    async with (
        travelling({"box": Toolbox("box")}) as travel,
        connected(travel.port, "/sse/box", introduces=False) as client,
    ):
        assert (await client.ask("ping"))["result"] == {}
        assert (await client.ask("tools/list"))["error"]["code"] == -32600
        assert (await client.ask("server/discover"))["error"]["code"] == -32601
        assert (await client.ask("initialize", {"protocolVersion": 7}))["error"]["code"] == -32602
        assert (await client.tell("notifications/initialized")).status == 400
        assert (await client.post({"jsonrpc": "2.0", "id": 1, "result": {}})).status == 400
        await client.introduce()
        assert await client.tool("echo", x=1) == {"label": "box", "x": 1}


async def test_calls_on_one_stream_are_bounded() -> None:
    """A POST's connection is free at once, so their number is bounded by itself: beyond it 503, until one is done."""
    limits = Limits(max_queued_messages=3)
    async with (
        travelling({"box": Toolbox("box")}, limits=limits) as travel,
        connected(travel.port, "/sse/box") as client,
        connected(travel.port, "/sse/box") as other,
    ):
        waiting = [await client.send(call("park", number, key=str(number))) for number in range(3)]
        assert (await client.post(call("echo", 9))).status == 503
        assert await other.tool("release", key="0") == {"released": True}
        await soon(waiting[0])
        assert await client.tool("echo", x=1) == {"label": "box", "x": 1}


async def test_a_slow_reader_is_bounded_and_alone() -> None:
    """Who does not read gets 503 in the end and is cut off; its neighbour is served all the while."""
    limits = Limits(max_queued_messages=8, write_stall_s=0.5)
    async with (
        travelling({"box": Toolbox("box")}, limits=limits) as travel,
        connected(travel.port, "/sse/box") as other,
    ):
        slow = await opened(travel, "/sse/box")
        listening = asyncio.gather(slow.listen(), return_exceptions=True)
        await slow.introduce()
        slow._wires[0].pause()
        statuses = set()
        async with asyncio.timeout(20):
            while statuses <= {202}:
                statuses.add((await slow.post(call("echo", text="x" * 500_000))).status)
                assert await other.tool("echo", x=1) == {"label": "box", "x": 1}
        assert statuses <= {202, 503, 404}
        async with asyncio.timeout(10):
            while (await slow.post(call("echo"))).status != 404:
                assert await other.tool("echo", x=1) == {"label": "box", "x": 1}
        slow._wires[0].resume()
        await soon(listening)
        slow.close()


async def test_a_stream_that_is_not_read_takes_few_calls() -> None:
    """What they end in waits in memory for the reader: answers of megabytes, for as long as it takes one byte now and
    then."""
    async with travelling({"box": Toolbox("box")}) as travel:
        slow = await opened(travel, "/sse/box")
        listening = asyncio.gather(slow.listen(), return_exceptions=True)
        await slow.introduce()
        slow._wires[0].pause()
        taken = 0
        while (await slow.post(call("echo", text="x" * 1_000_000))).status == 202:
            taken += 1
            assert taken < 64
        slow.close()
        await soon(listening)


async def test_sessions_are_bounded() -> None:
    """Beyond `max_sessions` a stream is refused with 503; one that ends makes room."""
    sessions = SessionSettings(max_sessions=1)
    async with travelling({"box": Toolbox("box")}, sessions=sessions) as travel:
        async with connected(travel.port):
            assert (await http(travel.port, "GET", "/sse", Accept="text/event-stream")).status == 503
        async with asyncio.timeout(5):
            while (answer := await http(travel.port, "GET", "/sse", Accept="text/event-stream")).status == 503:
                pass
        assert await soon(Stream(answer).next()) is not None
        answer.close()


async def test_a_stream_nobody_takes_is_refused() -> None:
    """The client has to take event streams."""
    async with travelling({"box": Toolbox("box")}) as travel:
        assert (await http(travel.port, "GET", "/sse", Accept="application/json")).status == 406


async def test_a_backend_that_is_gone_spoils_no_stream() -> None:
    """`initialize` on its route fails clearly, and again when it is tried again."""
    gone = BackendSettings(url="http://127.0.0.1:9/mcp")
    async with (
        travelling({"gone": gone, "box": Toolbox("box")}) as travel,
        connected(travel.port, "/sse/gone", introduces=False) as client,
    ):
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        for _ in range(2):
            answer = await client.ask("initialize", params)
            assert answer["error"]["code"] == -31002
