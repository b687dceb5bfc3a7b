"""Where calls about tasks go, and whose: routed by sealed ids, several callers before the same backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatewright.call import ANONYMOUS, Caller, Client, Failure
from gatewright.errors import BackendUnavailable, InvalidParams, MethodNotFound, MissingCapability
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28
from gatewright.protocol.tasks import EXTENSION, UNKNOWN
from journeys.task_box import TaskBox
from routing.places import Place, a_call, placed

pytestmark = pytest.mark.anyio
INFO = b'{"name":"x","version":"1"}'
MODERN = Client(MODERN_2026_07_28, INFO, b'{"extensions":{"%b":{}}}' % EXTENSION.encode())
OLD = Client(HANDSHAKE_2025_11_25, INFO, b"{}", "session-1")
ALICE, BOB = Caller("alice"), Caller("bob")


def boxes(era: str = "handshake", **more: bool) -> dict[str, TaskBox]:
    """Two of them."""
    return {name: TaskBox(name, era, **more) for name in ("ant", "bee")}


async def begin(place: Place, name: str, caller: Caller = ANONYMOUS, client: Client = OLD) -> str:
    """A task of 2025-11-25, as its caller knows it."""
    call: dict[str, Any] = {"name": f"{name}.slow_compute", "arguments": {}, "task": {}}
    task_id = (await place.result("tools/call", call, client=client, caller=caller))["task"]["taskId"]
    assert isinstance(task_id, str)
    return task_id


async def ids(place: Place, caller: Caller, route: str = "") -> list[str]:
    """The tasks that a caller is shown."""
    found = await place.result("tasks/list", client=OLD, caller=caller, route=route)
    return [task["taskId"] for task in found["tasks"]]


@pytest.mark.parametrize("route", ["", "ant"])
async def test_a_task_is_found_by_the_caller_it_was_made_for_alone(route: str) -> None:
    """S-27: to everybody else it is one that never was, whatever they ask for; its backend hears nothing of it."""
    behind = boxes()
    async with placed(behind) as place:
        task_id = await begin(place, "ant", ALICE)
        for method in ("tasks/get", "tasks/cancel", "tasks/result"):
            for caller in (BOB, ANONYMOUS):
                with pytest.raises(InvalidParams, match=UNKNOWN):
                    await place.call(method, {"taskId": task_id}, client=OLD, caller=caller, route=route)
        assert not {"tasks/get", "tasks/cancel", "tasks/result"} & set(behind["ant"].noted("asked"))
        found = await place.result("tasks/get", {"taskId": task_id}, client=OLD, caller=ALICE, route=route)
        assert found["taskId"] == task_id


async def test_targets_are_the_backend_and_its_own_id() -> None:
    """On every path that serves it, and on no other."""
    async with placed(boxes()) as place:
        task_id = await begin(place, "bee")
        for route in ("", "bee"):
            target = place.router.known(a_call("tasks/get", {"taskId": task_id}, client=OLD, route=route))
            assert target is not None
            assert (target.backend.name, target.name) == ("bee", "task-1")
        with pytest.raises(InvalidParams, match=UNKNOWN):
            place.router.known(a_call("tasks/get", {"taskId": task_id}, client=OLD, route="ant"))


async def test_a_task_of_a_backend_that_is_gone_is_unknown() -> None:
    """The configuration may have lost it since."""
    async with placed(boxes()) as place:
        task_id = await begin(place, "bee")
        place.router._tasks._backends = {"ant": place.backends["ant"]}
        with pytest.raises(InvalidParams, match=UNKNOWN):
            place.router.known(a_call("tasks/get", {"taskId": task_id}, client=OLD))


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_a_modern_client_that_did_not_declare_the_extension_is_told_so(method: str) -> None:
    """First of all, so that it says nothing of the id."""
    async with placed(boxes("modern")) as place:
        with pytest.raises(MissingCapability):
            await place.call(method, {"taskId": "x", "inputResponses": {}})
        with pytest.raises(InvalidParams, match=UNKNOWN):
            await place.call(method, {"taskId": "x", "inputResponses": {}}, client=MODERN)


async def test_waiting_for_a_result_is_bounded_in_all_alone() -> None:
    """It MUST block until the task has ended (basic/utilities/tasks, Result Retrieval): silence means nothing."""
    async with placed(boxes()) as place:
        task_id = await begin(place, "ant")
        bounds = place.backends["ant"].bounds
        waiting = place.router.known(a_call("tasks/result", {"taskId": task_id}, client=OLD))
        asking = place.router.known(a_call("tasks/get", {"taskId": task_id}, client=OLD))
        assert waiting is not None
        assert asking is not None
        assert waiting.backend.bounds.timeout_s == waiting.backend.bounds.max_total_s == bounds.max_total_s
        assert asking.backend.bounds is bounds


@pytest.mark.parametrize("route", ["", "ant"])
async def test_a_list_shows_each_caller_its_own_tasks(route: str) -> None:
    """S-27: all of them, under the ids it has, and nobody else's."""
    async with placed(boxes()) as place:
        mine = [await begin(place, "ant", ALICE), await begin(place, "ant", ALICE)]
        theirs = await begin(place, "ant", BOB)
        assert await ids(place, ALICE, route) == mine
        assert await ids(place, BOB, route) == [theirs]
        assert await ids(place, ANONYMOUS, route) == []


async def test_a_merged_list_has_pages_of_the_gateways_own() -> None:
    """Each task once, whatever the backends' pages; a cursor is its caller's."""
    behind = boxes()
    async with placed(behind, page_size=2) as place:
        made = [await begin(place, name) for name in ("ant", "bee", "ant", "bee", "bee")]
        behind["bee"].page_size = 1
        shown: list[str] = []
        params: dict[str, Any] = {}
        while True:
            found = await place.result("tasks/list", params, client=OLD)
            shown += [task["taskId"] for task in found["tasks"]]
            if "nextCursor" not in found:
                break
            params = {"cursor": found["nextCursor"]}
            with pytest.raises(InvalidParams):
                await place.call("tasks/list", params, client=OLD, caller=BOB)
        assert shown == [made[0], made[2], made[1], made[3], made[4]]


async def test_a_list_without_end_is_cut_or_refused() -> None:
    """At the bound; a backend that pages emptily has failed."""
    behind = boxes()
    async with placed(behind, max_items_per_backend=2) as place:
        for _ in range(3):
            await begin(place, "ant")
        behind["ant"].page_size = 1
        assert len(await ids(place, ANONYMOUS)) == 2
        behind["ant"].page_size = 0
        found = await place.result("tasks/list", client=OLD)
        assert [one["backend"] for one in found["_meta"]["dev.gatewright/unavailable"]] == ["ant"]


async def test_a_list_needs_a_backend_that_lists() -> None:
    """Where none does the method does not exist; where all that do fail, they are named."""
    async with placed(boxes(is_listing=False)) as place:
        with pytest.raises(MethodNotFound):
            await place.call("tasks/list", client=OLD)
    behind = boxes()
    for box in behind.values():
        box.unknown.add("tasks/list")
    async with placed(behind) as place:
        with pytest.raises(BackendUnavailable) as refused:
            await place.call("tasks/list", client=OLD)
        assert [one["backend"] for one in refused.value.data] == ["ant", "bee"]  # type: ignore[attr-defined]


async def test_a_slow_backend_costs_its_own_part_of_the_list() -> None:
    """Within the bound of lists."""
    behind = boxes()
    async with placed(behind, list_timeout_s=0.3) as place:
        task_id = await begin(place, "bee")
        await begin(place, "ant")
        behind["ant"].mute.add("tasks/list")
        async with asyncio.timeout(5):
            found = await place.result("tasks/list", client=OLD)
        assert [task["taskId"] for task in found["tasks"]] == [task_id]
        assert [one["backend"] for one in found["_meta"]["dev.gatewright/unavailable"]] == ["ant"]


@pytest.mark.parametrize("route", ["", "bee"])
async def test_a_backends_garbage_is_its_own_fault(route: str) -> None:
    """A list that is none."""
    behind = boxes()
    async with placed(behind) as place:
        await begin(place, "ant")
        behind["bee"].broken.add("tasks/list")
        if route:
            with pytest.raises(Exception, match="bee"):
                await place.call("tasks/list", client=OLD, route=route)
        else:
            assert len(await ids(place, ANONYMOUS)) == 1


async def test_a_backends_own_error_passes() -> None:
    """As it was said: here, that the task has ended."""
    behind = boxes()
    async with placed(behind) as place:
        task_id = await begin(place, "ant")
        behind["ant"].finish()
        outcome = await place.call("tasks/cancel", {"taskId": task_id}, client=OLD)
        assert isinstance(outcome, Failure)
        assert outcome.code == -32602
        assert "terminal" in outcome.message
