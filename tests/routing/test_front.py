"""The gateway as a server in its own right."""

from __future__ import annotations

import json

import pytest

from gatewright.backend.backend import Offer
from gatewright.backend.settings import BackendSettings
from gatewright.call import ANONYMOUS
from gatewright.errors import BackendUnavailable, MethodNotFound
from gatewright.protocol import jsonrpc
from gatewright.routing.front import merge
from journeys.host import deaf_port
from journeys.toolbox import CAPABILITIES, Toolbox
from journeys.wire import soon
from routing.places import CLIENT, a_call, placed, raw

pytestmark = pytest.mark.anyio
NOBODY = BackendSettings(url="http://127.0.0.1:1/mcp", connect_timeout_s=0.5)


def offer(instructions: str | None = None, **capabilities: object) -> Offer:
    """What a backend says of itself."""
    return Offer({name: raw(value) for name, value in capabilities.items()}, jsonrpc.EMPTY, instructions)


def united(*offers: Offer) -> dict[str, object]:
    """The capabilities of all."""
    merged = merge({str(number): one for number, one in enumerate(offers)})
    found = json.loads(jsonrpc.encode(merged.capabilities))
    assert isinstance(found, dict)
    return found


def test_capabilities_are_united() -> None:
    """What any has, with the flags that any sets; unknown ones are kept."""
    found = united(
        offer(tools={}, resources={"subscribe": False, "listChanged": True}),
        offer(tools={"listChanged": True}, resources={"subscribe": True}, extensions={"a": {"x": 1}}),
        offer(extensions={"b": {}}, experimental={"y": []}),
    )
    assert found == {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "extensions": {"a": {"x": 1}, "b": {}},
        "experimental": {"y": []},
    }


def test_tasks_can_be_listed_where_all_that_have_some_list_them() -> None:
    """What `tasks/get` finds MUST be in the list (basic/utilities/tasks of 2025-11-25); the rest is what any has."""
    calls = {"requests": {"tools": {"call": {}}}}
    listing = {"list": {}, "requests": {"x": {}}}
    both = {"requests": {"tools": {"call": {}}, "x": {}}}
    assert united(offer(tasks=calls), offer(tools={}), offer(tasks=listing)) == {"tools": {}, "tasks": both}
    assert united(offer(tools={}), offer(tasks=listing)) == {"tools": {}, "tasks": listing}
    assert united(offer(tasks=listing), offer(tasks={**calls, "list": {}})) == {"tasks": {"list": {}, **both}}
    assert united(offer(tasks=True)) == {"tasks": {}}


@pytest.mark.parametrize("odd", [True, [], "x", 1])
def test_an_odd_capability_harms_no_other(odd: object) -> None:
    """The first that was said stays."""
    assert united(offer(tools={"listChanged": True}), offer(tools=odd)) == {"tools": {"listChanged": True}}


def test_instructions_stand_under_their_backends_names() -> None:
    """Those that have some."""
    merged = merge({"a": offer("Do A."), "b": offer(), "c": offer("Do C.")})
    assert merged.instructions == "# a\nDo A.\n\n# c\nDo C."
    assert merge({"b": offer()}).instructions is None


async def test_discovery_says_what_the_route_offers() -> None:
    """On a backend's own path it is the backend's, on the shared one the gateway's."""
    async with placed({"one": Toolbox("one", "modern"), "two": Toolbox("two", "modern")}) as place:
        shared = await place.result("server/discover")
        own = await place.result("server/discover", route="two")
        assert shared["capabilities"] == own["capabilities"] == CAPABILITIES
        names = [found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] for found in (shared, own)]
        assert names == ["gatewright", "two"]
        assert (shared["ttlMs"], shared["cacheScope"]) == (0, "private")
        assert shared["supportedVersions"] == ["2026-07-28"]


async def test_lists_are_offered_for_whoever_cannot_be_reached() -> None:
    """A client that was not offered tools would never hear that they are missing."""
    async with placed({"down": NOBODY}) as place:
        assert set((await place.front.offer("", CLIENT, ANONYMOUS)).capabilities) == {"tools", "prompts", "resources"}
        with pytest.raises(BackendUnavailable):
            await place.front.offer("down", CLIENT, ANONYMOUS)
    async with placed({}) as place:
        assert (await place.front.offer("", CLIENT, ANONYMOUS)).capabilities == {}


async def test_a_silent_backend_is_not_waited_for() -> None:
    """The offer of the others comes within the bound."""
    async with deaf_port() as port:
        silent = BackendSettings(url=f"http://127.0.0.1:{port}/mcp")
        async with placed({"silent": silent, "one": Toolbox("one", "modern")}, list_timeout_s=0.1) as place:
            found = await soon(place.front.offer("", CLIENT, ANONYMOUS), 2)
            assert found.instructions == "# one\nUse one well."


async def test_the_front_serves_its_own_methods_only() -> None:
    """Whatever else comes here does not exist."""
    async with placed({}) as place:
        with pytest.raises(MethodNotFound):
            await place.front(a_call("no/such"))
