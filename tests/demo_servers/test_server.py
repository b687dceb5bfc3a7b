"""The small server as conversations: both eras, errors, cancellation, progress."""

import asyncio
from typing import Any

import pytest

from demo_servers.conversation import MODERN_META, Conversation
from gatewright.demo_servers.server import Json, Progress, Server, Tool, ToolError, number_argument, text_argument

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Bench:
    """A server with a tool that waits until it is let go."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.was_cancelled = False
        tools = [
            Tool(name="wait", title="Wait", description="", properties={}, run=self._wait),
            Tool(
                name="echo", title="Echo", description="", properties={"text": {}}, required=("text",), run=self._echo
            ),
        ]
        self.server = Server(name="bench", title="Bench", version="1", instructions="none", tools=tools)

    async def _wait(self, arguments: Json, progress: Progress) -> str:
        self.started.set()
        progress(1, 2, "half")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "waited"

    async def _echo(self, arguments: Json, progress: Progress) -> Json:
        return {"text": text_argument(arguments, "text")}


def request(request_id: object, tool: str, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """A tools/call of the modern era."""
    params = {"name": tool, "arguments": arguments, "_meta": MODERN_META | (meta or {})}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


async def test_a_modern_client_discovers_and_calls_without_a_handshake() -> None:
    """Every result is complete, cacheable lists say for how long, and the server names itself."""
    async with Conversation(Bench().server) as talk:
        found = (await talk.modern("server/discover"))["result"]
        assert found["supportedVersions"] == ["2026-07-28"]
        assert found["resultType"] == "complete"
        assert found["capabilities"] == {"tools": {}}
        listed = (await talk.modern("tools/list"))["result"]
        assert [tool["name"] for tool in listed["tools"]] == ["wait", "echo"]
        assert (listed["ttlMs"] > 0, listed["cacheScope"]) == (True, "public")
        called = (await talk.modern("tools/call", name="echo", arguments={"text": "hi"}))["result"]
        assert called["structuredContent"] == {"text": "hi"}
        assert "ttlMs" not in called
        assert called["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "bench"


@pytest.mark.parametrize(("asked", "given"), [("2025-06-18", "2025-06-18"), ("2024-11-05", "2025-11-25")])
async def test_a_handshake_client_is_served_as_ever(asked: str, given: str) -> None:
    """Its revision when known, the latest otherwise, and none of the modern era's members."""
    async with Conversation(Bench().server) as talk:
        begun = await talk.ask("initialize", {"protocolVersion": asked, "capabilities": {}, "clientInfo": {}})
        assert begun["result"]["protocolVersion"] == given
        assert begun["result"]["serverInfo"]["name"] == "bench"
        talk.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (await talk.ask("ping"))["result"] == {}
        listed = (await talk.ask("tools/list"))["result"]
        assert set(listed) == {"tools"}


async def test_calls_before_the_handshake_are_refused_but_ping_is_not() -> None:
    """As the lifecycle says."""
    async with Conversation(Bench().server) as talk:
        assert (await talk.ask("ping"))["result"] == {}
        assert (await talk.ask("tools/list"))["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}, -32602),
        ("server/discover", {}, -32602),
        ("tools/list", {"_meta": MODERN_META | {"io.modelcontextprotocol/protocolVersion": "1900-01-01"}}, -32022),
        ("nothing/here", {"_meta": MODERN_META}, -32601),
        ("prompts/list", {"_meta": MODERN_META}, -32601),
        ("resources/read", {"_meta": MODERN_META, "uri": "x:"}, -32601),
        ("tools/call", {"_meta": MODERN_META, "name": "none"}, -32602),
        ("tools/call", {"_meta": MODERN_META, "name": "echo", "arguments": []}, -32602),
    ],
)
async def test_a_wrong_request_gets_the_error_of_the_specification(method: str, params: Json, code: int) -> None:
    """By its code."""
    async with Conversation(Bench().server) as talk:
        assert (await talk.ask(method, params))["error"]["code"] == code


async def test_an_unknown_version_is_answered_with_the_known_ones() -> None:
    """So that the client can choose."""
    async with Conversation(Bench().server) as talk:
        meta = MODERN_META | {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        data = (await talk.ask("tools/list", {"_meta": meta}))["error"]["data"]
        assert data["requested"] == "2099-01-01"
        assert "2026-07-28" in data["supported"]


async def test_bad_arguments_are_a_result_the_model_can_read() -> None:
    """Missing, unknown, of the wrong type: `isError`, not a protocol error."""
    async with Conversation(Bench().server) as talk:
        assert await talk.text("echo") == ("text is required and must be text", True)
        assert await talk.text("echo", text=5) == ("text is required and must be text", True)
        told, is_error = await talk.text("echo", text="a", txt="b")
        assert is_error
        assert "unknown argument txt; known are text" in told


@pytest.mark.parametrize(
    ("message", "answer_id", "code"),
    [(b"{", None, -32700), (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600)],
)
async def test_garbage_is_answered_and_the_connection_lives_on(message: bytes, answer_id: object, code: int) -> None:
    """What cannot be matched to a request is answered without an id."""
    async with Conversation(Bench().server) as talk:
        talk.say(message)
        answer = await talk.hear()
        assert (answer["id"], answer["error"]["code"]) == (answer_id, code)
        assert (await talk.ask("ping"))["result"] == {}


async def test_answers_nobody_asked_for_are_ignored() -> None:
    """A response, a batch, a notification about nothing."""
    async with Conversation(Bench().server) as talk:
        talk.say({"jsonrpc": "2.0", "id": 1, "result": {}})
        talk.say([1])
        talk.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}})
        assert (await talk.ask("ping", request_id="after"))["id"] == "after"


async def test_calls_run_side_by_side_and_report_progress_to_their_own_token() -> None:
    """A call that waits holds up no other."""
    bench = Bench()
    async with Conversation(bench.server) as talk:
        talk.say(request(1, "wait", {"progressToken": "t"}))
        progress = await talk.hear()
        assert progress["params"] == {"progressToken": "t", "progress": 1, "total": 2, "message": "half"}
        talk.say(request(2, "echo", text="x"))
        assert (await talk.hear())["id"] == 2
        bench.release.set()
        assert (await talk.hear())["id"] == 1


async def test_a_cancelled_call_stops_and_says_nothing_more() -> None:
    """Its id is free again afterwards."""
    bench = Bench()
    async with Conversation(bench.server) as talk:
        talk.say(request(1, "wait"))
        await asyncio.wait_for(bench.started.wait(), 5)
        talk.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        talk.say(request(2, "echo", text="x"))
        assert (await talk.hear())["id"] == 2
        assert bench.was_cancelled
        assert (await talk.ask("ping"))["id"] == 1


async def test_an_id_in_use_is_refused() -> None:
    """The first call keeps it."""
    bench = Bench()
    async with Conversation(bench.server) as talk:
        talk.say(request(1, "wait"))
        talk.say(request(1, "echo", text="x"))
        assert (await talk.hear())["error"]["code"] == -32600
        bench.release.set()
        assert (await talk.hear())["result"]["content"][0]["text"] == "waited"


async def test_the_end_of_messages_ends_running_calls() -> None:
    """Nothing outlives its connection."""
    bench = Bench()
    async with Conversation(bench.server) as talk:
        talk.say(request(1, "wait"))
        await asyncio.wait_for(bench.started.wait(), 5)
    assert bench.was_cancelled


@pytest.mark.parametrize("value", [True, "5", None, -1, 11, float("nan")])
async def test_a_number_out_of_range_is_refused(value: object) -> None:
    """With the range."""
    with pytest.raises(ToolError, match="must be a number from 0 to 10"):
        number_argument({"n": value}, "n", 1, low=0, high=10)
