"""The route that serves all: merged lists, owners of resources, what all are told."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from gatewright.backend.settings import BackendSettings
from gatewright.call import Caller
from gatewright.errors import BackendUnavailable, InvalidParams, MethodNotFound, ResourceNotFound
from gatewright.routing.fanout import MISSING_KEY
from journeys.toolbox import Toolbox
from journeys.wire import soon
from routing.places import Place, a_call, placed

pytestmark = pytest.mark.anyio
NOBODY = BackendSettings(url="http://127.0.0.1:1/mcp", connect_timeout_s=0.5)


def boxes(*names: str) -> dict[str, Toolbox]:
    """Backends with one tool each."""
    found = {name: Toolbox(name, "modern") for name in names}
    for box in found.values():
        box.tools = ["echo"]
    return found


async def owner(place: Place, uri: str) -> str:
    """Whose resource it is."""
    return (await place.fanout.owner(a_call("resources/read", {"uri": uri}), uri)).name


async def test_lists_are_in_the_order_of_the_configuration() -> None:
    """Whoever answers first."""
    async with placed(boxes("b", "a", "c")) as place:
        result = await place.result("tools/list")
        assert [tool["name"] for tool in result["tools"]] == ["b.echo", "a.echo", "c.echo"]
        assert "nextCursor" not in result
        assert "_meta" not in result


async def test_nothing_at_all_is_an_empty_list() -> None:
    """A gateway without backends has no tools."""
    async with placed({}) as place:
        result = await place.result("tools/list")
        assert result == {"tools": [], "ttlMs": 0, "cacheScope": "private"}


async def test_what_is_missing_is_named() -> None:
    """With its reason, and the list is not to be cached nor shared."""
    async with placed({**boxes("a"), "down": NOBODY}) as place:
        result = await place.result("prompts/list")
        assert [one["backend"] for one in result["_meta"][MISSING_KEY]] == ["down"]
        assert result["ttlMs"] == 0


async def test_what_is_missing_is_logged_once() -> None:
    """However many ask; and once more when it is there again."""
    behind = boxes("a", "b")
    behind["a"].broken.add("tools/list")
    with structlog.testing.capture_logs() as logged:
        async with placed(behind) as place:
            for _ in range(5):
                await place.result("tools/list")
            behind["a"].broken.clear()
            assert len((await place.result("tools/list"))["tools"]) == 2
    said = [(one["event"], one["backend"]) for one in logged if one["event"].startswith("list ")]
    assert said == [("list incomplete", "a"), ("list complete again", "a")]


async def test_when_all_are_missing_there_is_no_list() -> None:
    """An error that names them."""
    async with placed({"down": NOBODY}) as place:
        with pytest.raises(BackendUnavailable) as refused:
            await place.result("tools/list")
        assert "down" in str(refused.value.data)


async def test_pages_fit_together() -> None:
    """Every item once; a cursor is its caller's alone; a list that shrank meanwhile ends."""
    behind = boxes("a", "b", "c")
    async with placed(behind, page_size=2) as place:
        first = await place.result("tools/list", caller=Caller("ada"))
        cursor = first["nextCursor"]
        second = await place.result("tools/list", {"cursor": cursor}, caller=Caller("ada"))
        assert [tool["name"] for tool in first["tools"] + second["tools"]] == ["a.echo", "b.echo", "c.echo"]
        with pytest.raises(InvalidParams):
            await place.result("tools/list", {"cursor": cursor}, caller=Caller("bob"))
        with pytest.raises(InvalidParams, match="must be a string"):
            await place.result("tools/list", {"cursor": 2})
        for name, box in behind.items():
            box.tools = []
            place.listings.changed(name, "", "notifications/tools/list_changed")
        assert (await place.result("tools/list", {"cursor": cursor}, caller=Caller("ada")))["tools"] == []


async def test_owners_are_found_in_order_of_certainty() -> None:
    """Listed, then the template that is written so, then the one that fits best, then the tool that refers to it."""
    behind = boxes("a", "b", "c")
    behind["a"].templates = ["files://{+path}"]
    behind["b"].templates = ["files://deep/{+path}", "db://{table}/{row}"]
    behind["c"].resources = ["files://deep/listed"]
    behind["c"].tool_meta = {"_meta": {"ui": {"resourceUri": "ui://c/view"}}}
    async with placed(behind) as place:
        assert await owner(place, "files://deep/listed") == "c"
        assert await owner(place, "files://deep/other") == "b"
        assert await owner(place, "files://shallow") == "a"
        assert await owner(place, "files://{+path}") == "a"
        assert await owner(place, "db://{table}/{row}") == "b"
        assert await owner(place, "ui://c/view") == "c"
        for uri in ("ui://c/vie", "ui://c/view/x", "nobody://x", ""):
            with pytest.raises(ResourceNotFound):
                await owner(place, uri)


async def test_the_only_one_with_resources_has_those_it_does_not_list() -> None:
    """Servers may serve more than they list."""
    behind = boxes("a", "b")
    behind["a"].resources, behind["a"].templates = [], []
    async with placed(behind) as place:
        assert await owner(place, "b://unlisted") == "b"


async def test_a_resource_that_may_be_a_missing_backends_is_not_called_missing() -> None:
    """The error says whom it could not ask; what others have is read all the same."""
    async with placed({**boxes("a"), "down": NOBODY}) as place:
        assert await owner(place, "a://note") == "a"
        with pytest.raises(BackendUnavailable, match="unavailable: down"):
            await owner(place, "down://note")


async def test_what_cannot_be_routed_is_refused_with_a_way_out() -> None:
    """An extension's method has no backend here, and has one on its own path."""
    async with placed(boxes("a", "b")) as place:
        with pytest.raises(MethodNotFound, match="/mcp/<backend>"):
            await place.call("example.com/method")


async def test_a_silent_backend_costs_its_own_part() -> None:
    """Many lists at once are answered within the bound, not one after the other."""
    behind = boxes("a", "silent")
    behind["silent"].mute.add("tools/list")
    async with placed(behind, list_timeout_s=0.2) as place:
        found = await soon(asyncio.gather(*(place.result("tools/list") for _ in range(30))), 2)
        assert all([tool["name"] for tool in one["tools"]] == ["a.echo"] for one in found)
