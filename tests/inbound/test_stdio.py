"""The stdio front: eras, requests at once, cancellation, questions, subscriptions, garbage, bounds and ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gatewright.inbound.dialogue import Dialogue
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Limits
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.inbound.stdio import StdioFront, StdioHost
from gatewright.protocol.chain import Chain
from gatewright.routing.front import Front
from journeys.local import LocalHost, at_home
from journeys.toolbox import META, Toolbox
from journeys.wire import soon
from protocol.json_corpus import ACCEPTED, REFUSED

pytestmark = pytest.mark.anyio
ERAS = ["modern", "handshake"]
META_OF_ONE = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
PIECES = (
    *(b'{"jsonrpc":"2.0",', b'"id":', b"1,", b'"x",', b"null,", b'"method":', b'"tools/call",', b'"ping",', b"[", b"]"),
    *(
        b'"notifications/cancelled",',
        b'"initialize",',
        b'"params":',
        b'{"name":"box.echo"},',
        b"{}",
        b"}",
        b'"_meta":{}',
    ),
    *(b'"result":{}', b'"error":{"code":1}', b"\xff", b"\\ud800", b"1e999", b","),
)


async def opened(host: LocalHost, era: str) -> None:
    """With a session, where the era has one."""
    if era == "handshake":
        await host.shake_hands()


# --- eras


@pytest.mark.parametrize("behind", ERAS)
@pytest.mark.parametrize("era", ERAS)
async def test_a_host_of_either_era_calls_a_backend_of_either_era(era: str, behind: str) -> None:
    """Lists are merged and names prefixed, as on the route that serves all."""
    async with at_home({"box": Toolbox("box", behind), "other": Toolbox("other", behind)}) as host:
        await opened(host, era)
        listed = await host.ask("tools/list", era=era)
        assert {"box.echo", "other.echo"} <= {tool["name"] for tool in listed["result"]["tools"]}
        assert await host.tool("other.echo", {"text": "hé"}, era=era) == {"label": "other", "text": "hé"}


async def test_one_backend_is_served_with_its_own_names_and_introduction() -> None:
    """As on a path of its own."""
    async with at_home({"box": Toolbox("box"), "other": Toolbox("other")}, route="box") as host:
        introduction = await host.shake_hands()
        assert introduction["serverInfo"]["name"] == "box"
        assert introduction["instructions"] == "Use box well."
        assert await host.tool("echo", era="handshake") == {"label": "box"}


async def test_discovery_is_answered_with_what_the_backends_offer() -> None:
    """A modern host's first word."""
    async with at_home({"box": Toolbox("box")}) as host:
        found = (await host.ask("server/discover"))["result"]
        assert found["supportedVersions"] == ["2026-07-28"]
        assert set(found["capabilities"]) >= {"tools", "prompts", "resources"}


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_handshake_revision_is_spoken(revision: str) -> None:
    """The requested one is agreed to."""
    async with at_home({"box": Toolbox("box")}) as host:
        assert (await host.shake_hands(revision))["protocolVersion"] == revision
        assert await host.tool("box.echo", era="handshake") == {"label": "box"}


async def test_there_is_one_session_and_modern_requests_stand_beside_it() -> None:
    """A second initialize is refused, and changes nothing."""
    async with at_home({"box": Toolbox("box")}) as host:
        await host.shake_hands()
        again = await host.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, era="handshake")
        assert again["error"]["code"] == -32600
        assert await host.tool("box.echo", era="modern") == {"label": "box"}
        assert await host.tool("box.echo", era="handshake") == {"label": "box"}


async def test_a_wrong_initialize_opens_nothing_and_the_next_may() -> None:
    """Parameters without a version are refused."""
    async with at_home({"box": Toolbox("box")}) as host:
        assert (await host.ask("initialize", {}, era="handshake"))["error"]["code"] == -32602
        await host.shake_hands()


async def test_before_a_session_only_ping_and_modern_requests_are_served() -> None:
    """The refusal says what a request needs."""
    async with at_home({"box": Toolbox("box")}) as host:
        assert (await host.ask("ping", era="handshake"))["result"] == {}
        refused = (await host.ask("tools/list", era="handshake"))["error"]
        assert refused["code"] == -32602
        assert META + "protocolVersion" in refused["message"]
        host.tell("notifications/initialized")
        host.tell("notifications/roots/list_changed")
        host.send({"jsonrpc": "2.0", "id": 7, "result": {}})
        assert (await host.ask("ping", era="handshake"))["result"] == {}


async def test_an_unserved_revision_is_refused_with_those_that_are() -> None:
    """The modern error of the modern era: no host may take it for a handshake server."""
    async with at_home({"box": Toolbox("box")}) as host:
        meta = {META + "protocolVersion": "2199-01-01"}
        error = (await host.ask("server/discover", {"_meta": meta}))["error"]
        assert (error["code"], error["data"]["supported"]) == (-32022, ["2026-07-28"])


# --- requests


@pytest.mark.parametrize("era", ERAS)
async def test_requests_run_at_once_and_each_answer_finds_its_request(era: str) -> None:
    """A call that waits holds up nobody; ids may be texts."""
    async with at_home({"box": Toolbox("box")}) as host:
        await opened(host, era)
        slow = host.call("box.park", {"key": "a"}, era=era)
        ids = [host.begin("tools/call", {"name": "box.echo", "arguments": {"n": n}}, era=era, request_id=f"n{n}")
               for n in range(20)]  # fmt: skip
        for n, request_id in enumerate(ids):
            answer = await host.answer(request_id)
            assert json.loads(answer["result"]["content"][0]["text"])["n"] == n
        assert not any(one.get("id") == slow for one in host.said)
        await host.tool("box.release", {"key": "a"}, era=era)
        assert "result" in await host.answer(slow)


@pytest.mark.parametrize("era", ERAS)
async def test_progress_comes_before_the_answer(era: str) -> None:
    """Under the host's own token."""
    async with at_home({"box": Toolbox("box")}) as host:
        await opened(host, era)
        own = host.call("box.progress", {"steps": 3}, era=era, _meta={"progressToken": "mine"})
        await host.answer(own)
        steps = [one["params"] for one in host.said if one.get("method") == "notifications/progress"]
        assert [step["progress"] for step in steps] == [1, 2, 3]
        assert {step["progressToken"] for step in steps} == {"mine"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_request_is_stopped_and_never_answered(era: str) -> None:
    """On a channel that all share, the notification is the cancel in both eras; the backend is told."""
    box = Toolbox("box")
    async with at_home({"box": box}) as host:
        await opened(host, era)
        own = host.call("box.park", {"key": "a"}, era=era)
        await box.until(lambda it: bool(it.noted("parked")))
        host.tell("notifications/cancelled", {"requestId": own, "reason": "enough"})
        await box.until(lambda it: bool(it.noted("cancelled")))
        await host.tool("box.echo", era=era)
        assert not any(one.get("id") == own for one in host.said)


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancel_right_behind_its_request_counts(era: str) -> None:
    """Both in one read: the request had not begun."""
    box = Toolbox("box")
    async with at_home({"box": box}) as host:
        await opened(host, era)
        await host.tool("box.echo", era=era)
        own = host.call("box.park", {"key": "a"}, era=era)
        host.tell("notifications/cancelled", {"requestId": own})
        await host.tool("box.echo", era=era)
        assert not any(one.get("id") == own for one in host.said)


async def test_cancels_of_nothing_are_ignored() -> None:
    """Unknown ids, no id, the wrong type."""
    async with at_home({"box": Toolbox("box")}) as host:
        for params in ({"requestId": 99}, {}, {"requestId": [1]}, {"requestId": None}):
            host.tell("notifications/cancelled", params)
        assert await host.tool("box.echo") == {"label": "box"}
        assert len(host.said) == 1


# --- questions


async def test_a_question_is_put_on_the_channel_and_its_answer_taken() -> None:
    """In the handshake era the backend's question is a request to the host."""
    async with at_home({"box": Toolbox("box", "handshake")}) as host:
        host.capabilities = {"elicitation": {}}
        await host.shake_hands()
        own = host.call("box.ask", {"method": "elicitation/create", "params": {"message": "Who?"}}, era="handshake")
        asked = await host.notice("elicitation/create")
        assert asked["params"]["message"] == "Who?"
        host.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ada"}}})
        told = json.loads((await host.answer(own))["result"]["content"][0]["text"])
        assert told["answer"]["content"] == {"name": "Ada"}


async def test_a_modern_host_is_asked_by_the_outcome_and_never_by_a_request() -> None:
    """Also when its backend can only ask by requests."""
    async with at_home({"box": Toolbox("box", "handshake")}) as host:
        host.capabilities = {"elicitation": {}}
        params = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
        given = {"name": "box.ask", "arguments": {"method": "elicitation/create", "params": params}}
        first = (await host.ask("tools/call", given))["result"]
        assert first["resultType"] == "input_required"
        answers = {key: {"action": "accept", "content": {}} for key in first["inputRequests"]}
        again = {**given, "inputResponses": answers, "requestState": first["requestState"]}
        assert (await host.ask("tools/call", again))["result"]["resultType"] == "complete"
        assert not any("method" in one and "id" in one for one in host.said)


async def test_a_cancelled_call_takes_its_question_back() -> None:
    """The host may close its dialogue."""
    async with at_home({"box": Toolbox("box", "handshake")}) as host:
        host.capabilities = {"elicitation": {}}
        await host.shake_hands()
        own = host.call("box.ask", {"method": "elicitation/create", "params": {"message": "Who?"}}, era="handshake")
        asked = await host.notice("elicitation/create")
        host.tell("notifications/cancelled", {"requestId": own})
        assert (await host.notice("notifications/cancelled"))["params"] == {"requestId": asked["id"]}


async def test_what_belongs_to_no_request_comes_on_the_same_channel() -> None:
    """Announcements and questions outside of any call."""
    box = Toolbox("box", "handshake")
    async with at_home({"box": box}) as host:
        host.capabilities = {"roots": {}}
        await host.shake_hands()
        await host.tool("box.echo", era="handshake")
        box.conversations[-1].announce("notifications/tools/list_changed")
        await host.notice("notifications/tools/list_changed")
        host.tell("notifications/roots/list_changed")
        await box.until(lambda it: any(one["method"] == "notifications/roots/list_changed" for one in it.noted("told")))


# --- subscriptions


async def test_a_subscription_is_acknowledged_first_and_everything_on_it_bears_its_id() -> None:
    """Several share the channel."""
    box = Toolbox("box", "modern")
    async with at_home({"box": box}) as host:
        first = host.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, request_id="one")
        second = host.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, request_id=2)
        for own in (first, second):
            ack = await host.until(lambda one, own=own: _tag(one) == own)  # type: ignore[misc]
            assert ack["method"] == "notifications/subscriptions/acknowledged"
        box.conversations[-1].announce("notifications/tools/list_changed")
        for own in (first, second):
            await host.until(
                lambda one, own=own: _tag(one) == own and one["method"].endswith("list_changed")  # type: ignore[misc]
            )


async def test_a_cancelled_subscription_ends_without_a_word() -> None:
    """The host ended it: nothing more is sent for it (S-10)."""
    box = Toolbox("box", "modern")
    async with at_home({"box": box}) as host:
        own = host.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await host.notice("notifications/subscriptions/acknowledged")
        host.tell("notifications/cancelled", {"requestId": own})
        await host.tool("box.echo")
        box.conversations[-1].announce("notifications/tools/list_changed")
        await host.tool("box.echo")
        assert len([one for one in host.said if _tag(one) == own]) == 1


@pytest.mark.parametrize("how", ["end of input", "stop"])
async def test_a_subscription_that_the_gateway_ends_is_completed_and_then_cancelled(how: str) -> None:
    """A result that tells a graceful end, and the notification that the clause demands."""
    async with at_home({"box": Toolbox("box", "modern")}) as host:
        own = host.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await host.notice("notifications/subscriptions/acknowledged")
        if how == "stop":
            host.gateway.stop()
        else:
            host.close_input()
        await host.end()
        *_, completed, cancelled = host.said
        assert completed["id"] == own
        assert completed["result"] == {"resultType": "complete", "_meta": {META + "subscriptionId": own}}
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"] == {"requestId": own}


# --- garbage and bounds


async def test_garbage_is_answered_without_an_id_and_the_next_line_is_served() -> None:
    """Lines that are no message; what has an id gets it back."""
    async with at_home({"box": Toolbox("box")}, limits=Limits(max_json_depth=8)) as host:
        host.write(b"nonsense\n\n\r\n")
        host.write(b'{"jsonrpc":"2.0","id":5}\n')
        host.write(b'{"jsonrpc":"1.0","id":6,"method":"ping"}\n')
        host.write(b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n')
        host.write(b'{"jsonrpc":"2.0","id":8,"method":"ping","params":' + b'{"a":' * 9 + b"1" + b"}" * 9 + b"}\n")
        host.write(b'{"jsonrpc":"2.0","method":"x","params":"\xff"}\n')
        host.write(b'[{"jsonrpc":"2.0","id":9,"method":"ping"}]\n')
        assert (await host.ask("ping", era="handshake"))["result"] == {}
        told = [(one.get("id"), one["error"]["code"]) for one in host.said if "error" in one]
        assert told == [
            (None, -32700),
            (5, -32600),
            (6, -32600),
            (None, -32600),
            (8, -32700),
            (None, -32700),
            (None, -32600),
        ]


@pytest.mark.parametrize("era", ERAS)
async def test_no_line_breaks_the_front(era: str) -> None:
    """Bodies that parsers disagree on, and pieces of real messages put together at random: what is answered is
    JSON-RPC, and what comes after is served."""
    chance = random.Random(20260728)
    made = [b"".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(1_000)]
    lines = made + [value.replace(b"\n", b" ") for value in (*REFUSED, *ACCEPTED) if len(value) < 1_000]
    async with at_home({"box": Toolbox("box")}) as host:
        await opened(host, era)
        for start in range(0, len(lines), 50):
            host.write(b"\n".join(lines[start : start + 50]) + b"\n")
            assert (await host.ask("ping", era="handshake"))["result"] == {}
        assert await host.tool("box.echo") == {"label": "box"}
        assert all(one["jsonrpc"] == "2.0" for one in host.said)


async def test_a_line_that_is_too_long_is_refused_and_skipped() -> None:
    """Whatever it holds, and however it was cut into reads."""
    async with at_home({"box": Toolbox("box")}, limits=Limits(max_body_bytes=1024)) as host:
        host.write(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"y" * 2_000)
        await host.until(lambda one: one.get("error", {}).get("code") == -32600)
        host.write(b"z" * 2_000 + b'"}}\n')
        assert (await host.ask("ping", era="handshake"))["result"] == {}
        assert [one.get("id") for one in host.said if "error" in one] == [None]


async def test_arrays_are_served_in_the_one_revision_that_has_them() -> None:
    """2025-03-26: every request in it is answered, notifications are taken."""
    async with at_home({"box": Toolbox("box")}) as host:
        await host.shake_hands("2025-03-26")
        ping = {"jsonrpc": "2.0", "method": "ping"}
        host.send([{**ping, "id": "a"}, {"jsonrpc": "2.0", "method": "notifications/x"}, {**ping, "id": "b"}])
        for own in ("a", "b"):
            assert (await host.answer(own))["result"] == {}
        host.send([])
        host.send([{**ping, "id": n} for n in range(101)])
        await host.until(lambda one: len([it for it in host.said if "error" in it]) == 2)


async def test_a_host_that_does_not_read_is_not_read_either() -> None:
    """Back-pressure: what waits for it stays bounded, and nothing is lost once it reads again."""
    box = Toolbox("box")
    async with at_home({"box": box}) as host:
        await host.tool("box.echo")
        host.plug_ears()
        text = "x" * 2_000
        sent = 0
        is_held = False
        while not is_held and sent < 5_000:
            try:
                await asyncio.wait_for(asyncio.to_thread(host.call, "box.echo", {"text": text}), 0.5)
                sent += 1
            except TimeoutError:
                is_held = True
        assert is_held, "the gateway went on reading"
        assert sent < 2_000
        host.hear()
        await host.until(lambda one: len([it for it in host.said if "result" in it]) > sent)


@pytest.mark.parametrize("method", ["initialize", "tools/list"])
async def test_a_bug_ends_one_message_and_not_the_process(method: str) -> None:
    """The host is told under an id, and served on."""

    async def broken(*_: object) -> Any:
        raise ZeroDivisionError("secret")

    sessions = Sessions(SessionSettings(), lambda _: None)
    dialogue = Dialogue(broken, cast("Front", SimpleNamespace(offer=broken, info=b"{}")), Chain("here", 8))
    front = StdioFront(broken, dialogue, sessions, Limits(), StdioHost(), drain_s=1.0)
    (source, to_front), (from_front, sink) = os.pipe(), os.pipe()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(front.serve(source, sink, lambda: None))
        params = {"protocolVersion": "2025-11-25", "_meta": META_OF_ONE if method != "initialize" else {}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        os.write(to_front, json.dumps(asked).encode() + b'\n{"jsonrpc":"2.0","id":2,"method":"ping"}')
        os.close(to_front)
    with os.fdopen(from_front, "rb") as heard:
        told = {one["id"]: one for one in map(json.loads, heard)}
    assert told[1]["error"]["message"] == "Internal error"
    assert set(told[1]["error"]["data"]) == {"errorId"}
    assert told[2]["result"] == {}
    assert not sessions


# --- the end


async def test_the_end_of_input_lets_running_calls_finish() -> None:
    """Their answers are written before the gateway ends."""
    box = Toolbox("box")
    async with at_home({"box": box}, drain_s=5.0) as host:
        own = host.call("box.park", {"key": "a"})
        await box.until(lambda it: bool(it.noted("parked")))
        host.close_input()
        box.conversations[-1].take({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": _release("a")})
        assert "result" in await host.answer(own)
        await host.end()
        assert not box.conversations


async def test_a_call_that_does_not_finish_is_cut_off_after_the_drain_time() -> None:
    """The backend is told."""
    box = Toolbox("box")
    async with at_home({"box": box}, drain_s=0.2) as host:
        host.call("box.park", {"key": "a"})
        await box.until(lambda it: bool(it.noted("parked")))
        host.close_input()
        await host.end()
        assert box.noted("cancelled")


async def test_a_second_stop_ends_at_once() -> None:
    """Without waiting for the drain."""
    box = Toolbox("box")
    async with at_home({"box": box}, drain_s=60.0) as host:
        host.call("box.park", {"key": "a"})
        await box.until(lambda it: bool(it.noted("parked")))
        host.gateway.stop()
        host.gateway.stop()
        await host.end()


async def test_a_question_that_nobody_can_answer_any_more_is_withdrawn() -> None:
    """The input has ended, so the call goes on with a refusal instead of waiting for the drain."""
    async with at_home({"box": Toolbox("box", "handshake")}, drain_s=60.0) as host:
        host.capabilities = {"elicitation": {}}
        await host.shake_hands()
        own = host.call("box.ask", {"method": "elicitation/create", "params": {"message": "Who?"}}, era="handshake")
        await host.notice("elicitation/create")
        host.close_input()
        assert "error" in json.loads((await host.answer(own))["result"]["content"][0]["text"])["answer"]
        await host.end()


async def test_a_stopping_gateway_begins_nothing_and_takes_answers() -> None:
    """A call that has asked may still be answered; a new one is refused."""
    async with at_home({"box": Toolbox("box", "handshake")}, drain_s=60.0) as host:
        host.capabilities = {"elicitation": {}}
        await host.shake_hands()
        own = host.call("box.ask", {"method": "elicitation/create", "params": {"message": "Who?"}}, era="handshake")
        asked = await host.notice("elicitation/create")
        host.gateway.stop()
        while "error" not in (refused := await host.ask("tools/list", era="handshake")):
            continue  # it had not stopped yet
        assert refused["error"]["code"] == -31001
        host.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})
        assert "result" in await host.answer(own)
        await host.end()


async def test_a_last_line_without_an_end_is_served() -> None:
    """What a person pipes in by hand."""
    async with at_home({"box": Toolbox("box")}) as host:
        host.write(b'{"jsonrpc":"2.0","id":"p","method":"ping"}')
        host.close_input()
        assert (await host.answer("p"))["result"] == {}


async def test_a_host_that_has_gone_is_not_waited_for() -> None:
    """Its output is closed as well: nobody would read the answer."""
    box = Toolbox("box")
    async with at_home({"box": box}, drain_s=60.0) as host:
        host.call("box.park", {"key": "a"})
        await box.until(lambda it: bool(it.noted("parked")))
        host.leave()
        await soon(asyncio.shield(host.running))
        assert box.noted("cancelled")


def _tag(message: dict[str, Any]) -> Any:
    return message.get("params", {}).get("_meta", {}).get(META + "subscriptionId")


def _release(key: str) -> dict[str, Any]:
    return {
        "name": "release",
        "arguments": {"key": key},
        "_meta": META_OF_ONE,
    }
