"""One subscription stream, fed by all backends of its route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewright.backend.settings import BackendSettings
from gatewright.call import Client
from gatewright.errors import BackendError, InvalidParams, MissingCapability
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import ACKNOWLEDGED
from gatewright.protocol.revisions import MODERN_2026_07_28
from gatewright.protocol.tasks import EXTENSION, NOTICE
from gatewright.routing.listening import MAX_HELD, Waiting
from journeys.task_box import TaskBox
from journeys.toolbox import Toolbox
from routing.places import CLIENT, Heard, Place, a_call, placed

pytestmark = pytest.mark.anyio
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
DECLARED = {"extensions": {EXTENSION: {}}}
TAKING = Client(MODERN_2026_07_28, b'{"name":"x","version":"1"}', jsonrpc.encode(DECLARED))
NOBODY = BackendSettings(url="http://127.0.0.1:1/mcp", connect_timeout_s=0.5)


@asynccontextmanager
async def listening(
    place: Place, wants: dict[str, Any], route: str = "", client: Client = CLIENT
) -> AsyncIterator[Heard]:
    """A subscription that was acknowledged."""
    heard = Heard()

    async def carry() -> None:
        await place.front(
            a_call("subscriptions/listen", {"notifications": wants}, route=route, client=client, reply=heard)
        )

    task = asyncio.get_running_loop().create_task(carry())
    try:
        await until(heard, lambda it: bool(it.messages))
        yield heard
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


async def until(heard: Heard, is_so: Callable[[Heard], bool]) -> None:
    """Return when it is so, within 5 s."""
    async with asyncio.timeout(5):
        while not is_so(heard):
            heard.arrived.clear()
            await heard.arrived.wait()


def announce(box: Toolbox, method: str, params: dict[str, Any] | None = None) -> None:
    """The backend says so, to everybody."""
    for conversation in list(box.conversations):
        conversation.announce(method, params)


def listeners(place: Place) -> int:
    """Who listens to any backend."""
    return sum(len(backend.feed._listeners) for backend in place.backends.values())


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_what_was_agreed_is_acknowledged_first(era: str) -> None:
    """Of all backends together; then come announcements, and only those that were asked for."""
    behind = {"a": Toolbox("a", era), "b": Toolbox("b", era)}
    async with placed(behind) as place:
        wants = {"toolsListChanged": True, "resourceSubscriptions": ["b://note", "nobody://x"]}
        async with listening(place, wants) as heard:
            agreed = {"toolsListChanged": True, "resourceSubscriptions": ["b://note"]}
            assert heard.messages == [(ACKNOWLEDGED, {"notifications": agreed})]
            announce(behind["a"], "notifications/prompts/list_changed")
            announce(behind["b"], UPDATED, {"uri": "b://note"})
            await until(heard, lambda it: len(it.messages) == 2)
            announce(behind["a"], TOOLS)
            await until(heard, lambda it: len(it.messages) == 3)
            assert [method for method, _ in heard.messages[1:]] == [UPDATED, TOOLS]
        assert listeners(place) == 0


async def test_tasks_are_acknowledged_and_told_under_the_clients_ids() -> None:
    """Of several backends with equal ids of their own; what is nobody's, or another route's, is not agreed to."""
    boxes = {"a": TaskBox("a", "modern"), "b": TaskBox("b", "modern")}
    async with placed(boxes) as place:
        ids = []
        for name in ("a", "b", "b"):
            call = {"name": f"{name}.slow_compute", "arguments": {}}
            ids.append((await place.result("tools/call", call, client=TAKING, capabilities=DECLARED))["taskId"])
        wants = {"taskIds": [*ids[:2], "task-1", "garbage"]}
        async with listening(place, wants, client=TAKING) as heard:
            assert heard.messages == [(ACKNOWLEDGED, {"notifications": {"taskIds": sorted(ids[:2])}})]
            boxes["b"].finish("task-2")
            boxes["b"].finish("task-1")
            await until(heard, lambda it: len(it.messages) == 2)
            boxes["a"].finish("task-1")
            await until(heard, lambda it: len(it.messages) == 3)
            assert [params["taskId"] for _, params in heard.messages[1:]] == [ids[1], ids[0]]
        async with listening(place, {**wants, "toolsListChanged": True}, "b", client=TAKING) as heard:
            assert heard.messages[0][1]["notifications"]["taskIds"] == [ids[1]]


async def test_tasks_are_told_to_who_declared_the_extension() -> None:
    """Else the request is refused (SEP-2663, Protocol Errors)."""
    async with placed({"a": TaskBox("a", "modern")}) as place:
        with pytest.raises(MissingCapability):
            await place.front(a_call("subscriptions/listen", {"notifications": {"taskIds": ["x"]}}))


async def test_each_task_waits_for_itself() -> None:
    """Its newest state, not another's."""
    waiting = Waiting()
    for task_id, status in (("1", "working"), ("2", "working"), ("1", "completed")):
        waiting.put(NOTICE, {"taskId": jsonrpc.raw(task_id), "status": jsonrpc.raw(status)})
    found = [(bytes(params["taskId"]), bytes(params["status"])) for _, params in await waiting.take()]
    assert found == [(b'"1"', b'"completed"'), (b'"2"', b'"working"')]


async def test_a_change_makes_lists_stale_before_it_is_told() -> None:
    """Whoever asks because of it gets the new list."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place, listening(place, {"toolsListChanged": True}) as heard:
        await place.result("tools/list")
        assert place.listings._kept
        announce(box, TOOLS)
        await until(heard, lambda it: len(it.messages) == 2)
        assert not place.listings._kept


async def test_what_waits_is_told_once() -> None:
    """The same announcement, while it waits for a slow client, is one."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place, listening(place, {"toolsListChanged": True}) as heard:
        for _ in range(100):
            announce(box, TOOLS)
        await until(heard, lambda it: len(it.messages) >= 2)
        announce(box, TOOLS)
        await until(heard, lambda it: len(it.messages) >= 3)
        assert len(heard.messages) < 50


async def test_one_that_is_down_does_not_stop_the_others() -> None:
    """On the shared route it is left out; on its own path the request fails."""
    behind = {"a": Toolbox("a", "modern"), "down": NOBODY}
    async with placed(behind) as place:
        async with listening(place, {"toolsListChanged": True}) as heard:
            assert heard.messages[0][1] == {"notifications": {"toolsListChanged": True}}
        call = a_call("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, route="down")
        with pytest.raises(BackendError):
            await place.front(call)
        assert listeners(place) == 0


async def test_who_leaves_while_joining_leaves_nothing_behind() -> None:
    """Whatever it had joined by then is left again."""
    behind = {"quick": Toolbox("quick", "modern"), "slow": Toolbox("slow", "modern")}
    behind["slow"].mute.add("subscriptions/listen")
    async with placed(behind) as place:
        call = a_call("subscriptions/listen", {"notifications": {"toolsListChanged": True}})

        async def carry() -> None:
            await place.front(call)

        task = asyncio.get_running_loop().create_task(carry())
        await behind["slow"].until(lambda it: it.noted("muted"))
        await behind["quick"].until(lambda it: it.noted("listening"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        assert listeners(place) == 0
        await behind["quick"].until(lambda it: it.noted("cancelled"))


@pytest.mark.parametrize("params", [{}, {"notifications": []}, {"notifications": {"resourceSubscriptions": [1]}}])
async def test_a_filter_that_is_none_is_refused(params: dict[str, Any]) -> None:
    """It says what it needs."""
    async with placed({"a": Toolbox("a", "modern")}) as place:
        with pytest.raises(InvalidParams, match="notifications"):
            await place.front(a_call("subscriptions/listen", params))


async def test_what_is_held_for_a_slow_client_is_bounded() -> None:
    """A backend that announces ever more resources pushes out its own oldest announcements."""
    waiting = Waiting()
    for number in range(MAX_HELD + 10):
        waiting.put(UPDATED, {"uri": jsonrpc.raw(f"box://{number}")})
    taken = await waiting.take()
    assert len(taken) == MAX_HELD
    assert bytes(taken[0][1]["uri"]) == b'"box://10"'
    waiting.put(TOOLS, {})
    waiting.put(TOOLS, {})
    assert [method for method, _ in await waiting.take()] == [TOOLS]
