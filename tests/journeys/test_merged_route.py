"""The route that serves all backends, `/mcp`: one server out of many, and one that is down or slow harms no other."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from gatewright.backend.settings import BackendSettings
from gatewright.routing.settings import Routing
from journeys.host import deaf_port, hosting
from journeys.toolbox import META, Toolbox
from journeys.travel import over_stdio, travelling
from journeys.wire import Json, soon

pytestmark = pytest.mark.anyio
MISSING = "dev.gatewright/unavailable"
ERAS = ["handshake", "modern"]
NOBODY = BackendSettings(url="http://127.0.0.1:1/mcp", connect_timeout_s=0.5)


def boxes() -> dict[str, Toolbox]:
    """Two of different eras, with little in them."""
    found = {"zebra": Toolbox("zebra", "handshake"), "ant": Toolbox("ant", "modern")}
    for box in found.values():
        box.tools = ["echo", "announce", "seen"]
    return found


def names(result: Json, field: str = "tools", key: str = "name") -> list[str]:
    """What a list names."""
    return [item[key] for item in result[field]]


@pytest.mark.parametrize("era", ERAS)
async def test_names_are_prefixed_and_in_the_order_of_the_configuration(era: str) -> None:
    """Tools and prompts of all, each under its backend's name; URIs as they are; calls find their way back."""
    async with travelling(boxes()) as travel:
        client = await travel.client(era)
        tools = names(await client.result("tools/list"))
        assert tools == [f"{box}.{tool}" for box in ("zebra", "ant") for tool in ("echo", "announce", "seen")]
        assert names(await client.result("prompts/list"), "prompts") == ["zebra.greet", "ant.greet"]
        resources = await client.result("resources/list")
        assert names(resources, "resources", "uri") == ["zebra://note", "ant://note"]
        templates = await client.result("resources/templates/list")
        found = names(templates, "resourceTemplates", "uriTemplate")
        assert found == ["zebra://page/{number}", "ant://page/{number}"]
        for box in ("zebra", "ant"):
            assert (await client.tool(f"{box}.echo"))["label"] == box
            greeting = await client.result("prompts/get", {"name": f"{box}.greet"})
            assert greeting["messages"][0]["content"]["text"] == f"{box} greets you"


@pytest.mark.parametrize("separator", ["__", "/", "-"])
async def test_the_separator_can_be_set(separator: str) -> None:
    """For hosts that refuse dots in tool names."""
    async with travelling(boxes(), routing=Routing(separator=separator)) as travel:
        client = travel.modern()
        assert names(await client.result("tools/list"))[0] == f"zebra{separator}echo"
        assert (await client.tool(f"ant{separator}echo"))["label"] == "ant"


@pytest.mark.parametrize(
    "wrong", ["echo", "zebra", "zebra.", ".echo", "nobody.echo", "", "zebra.echo.more", "ZEBRA.echo"]
)
@pytest.mark.parametrize("era", ERAS)
async def test_unknown_names_are_refused(era: str, wrong: str) -> None:
    """-32602; when no backend can have the name the error shows how names are made."""
    async with travelling(boxes()) as travel:
        client = await travel.client(era)
        error = (await client.ask("tools/call", {"name": wrong, "arguments": {}}))["error"]
        assert error["code"] == -32602
        if not wrong.startswith("zebra."):
            assert "<backend>.<tool>" in error["message"]


@pytest.mark.parametrize("era", ERAS)
async def test_resources_are_read_from_their_owner(era: str) -> None:
    """By listed URI, by template, and by the tool that refers to it; an unknown one is not found."""
    behind = boxes()
    behind["ant"].tool_meta = {"_meta": {"ui": {"resourceUri": "ui://ant/view"}, "example.com/x": {"deep": [1]}}}
    async with travelling(behind) as travel:
        client = await travel.client(era)
        for uri, owner in [
            ("zebra://note", "zebra"),
            ("ant://note", "ant"),
            ("ant://page/7", "ant"),
            ("ui://ant/view", "ant"),
        ]:
            read = await client.result("resources/read", {"uri": uri})
            assert read["contents"][0]["text"] == f"{owner} has {uri}"
        error = (await client.ask("resources/read", {"uri": "nobody://x"}))["error"]
        assert error["code"] == (-32002 if era == "handshake" else -32602)
        [tool] = [one for one in (await client.result("tools/list"))["tools"] if one["name"] == "ant.echo"]
        assert tool["_meta"] == behind["ant"].tool_meta["_meta"]


async def test_the_first_of_two_owners_is_asked() -> None:
    """A URI that two backends list belongs to the first in the configuration, always."""
    behind = boxes()
    for box in behind.values():
        box.resources = ["shared://x"]
    async with travelling(behind) as travel:
        client = travel.modern()
        for _ in range(3):
            read = await client.result("resources/read", {"uri": "shared://x"})
            assert read["contents"][0]["text"].startswith("zebra")


@pytest.mark.parametrize("era", ERAS)
async def test_completions_go_where_their_reference_points(era: str) -> None:
    """To the prompt's backend under its own name, or to the one with the template."""
    async with travelling(boxes()) as travel:
        client = await travel.client(era)
        for reference, value in [
            ({"type": "ref/prompt", "name": "ant.greet"}, "ant:greet:A"),
            ({"type": "ref/prompt", "name": "zebra.greet"}, "zebra:greet:A"),
            ({"type": "ref/resource", "uri": "ant://page/{number}"}, "ant:ant://page/{number}:A"),
            ({"type": "ref/resource", "uri": "zebra://page/{number}"}, "zebra:zebra://page/{number}:A"),
        ]:
            found = await client.result(
                "completion/complete", {"ref": reference, "argument": {"name": "n", "value": "A"}}
            )
            assert found["completion"]["values"] == [value]


@pytest.mark.parametrize("era", ERAS)
async def test_a_backend_that_is_down_is_missed_visibly(era: str) -> None:
    """The others' part comes, with a notice of what is missing, and is not to be cached."""
    async with travelling({"down": NOBODY, **boxes()}) as travel:
        client = await travel.client(era)
        result = await client.result("tools/list")
        assert len(result["tools"]) == 6
        [notice] = result["_meta"][MISSING]
        assert notice["backend"] == "down"
        assert "down" in notice["reason"]
        assert result["ttlMs"] == 0
        assert (await client.tool("ant.echo"))["label"] == "ant"
        error = (await client.ask("tools/call", {"name": "down.echo", "arguments": {}}))["error"]
        assert error["code"] == -31002


@pytest.mark.parametrize("era", ERAS)
async def test_a_backend_that_is_silent_holds_up_nobody(era: str) -> None:
    """Introduction and lists come within `list_timeout_s`; many at once wait no longer than one; and when it is known
    to be late, nobody waits for it again."""
    async with deaf_port() as port:
        silent = BackendSettings(url=f"http://127.0.0.1:{port}/mcp", timeout_s=20)
        async with travelling({"silent": silent, **boxes()}, routing=Routing(list_timeout_s=0.4)) as travel:
            client = await soon(travel.client(era), 2)
            answers = await soon(asyncio.gather(*(client.result("tools/list") for _ in range(20))), 2)
            for result in answers:
                assert len(result["tools"]) == 6
                assert [one["backend"] for one in result["_meta"][MISSING]] == ["silent"]
            again = await soon(asyncio.gather(*(client.result("prompts/list") for _ in range(20))), 2)
            assert all(len(result["prompts"]) == 2 for result in again)
            assert (await client.tool("ant.echo"))["label"] == "ant"


async def test_when_all_are_down_the_list_is_an_error() -> None:
    """An empty list would say that there is nothing."""
    async with travelling({"down": NOBODY}) as travel:
        client = await travel.handshake()
        assert "tools" in client.introduction["capabilities"]
        error = (await client.ask("tools/list"))["error"]
        assert error["code"] == -31002
        assert error["data"][0]["backend"] == "down"


async def test_a_late_backend_is_there_for_the_next() -> None:
    """A list that comes after the bound is kept for whoever asks then."""
    late = Toolbox("late", "modern")
    late.mute.add("tools/list")
    behind: dict[str, Toolbox | BackendSettings] = {"late": late, **boxes()}
    async with travelling(behind, routing=Routing(list_timeout_s=0.2)) as travel:
        client = travel.modern()
        assert len((await client.result("tools/list"))["tools"]) == 6
        late.mute.clear()
        for conversation in late.conversations:
            conversation.catch_up()
        async with asyncio.timeout(5):
            while len((await client.result("tools/list"))["tools"]) == 6:
                pass


async def test_who_was_answered_without_a_list_hears_when_it_is_there() -> None:
    """Most hosts list once: the session's stream and the subscription are told of a change."""
    late = Toolbox("late")
    late.mute.add("tools/list")
    behind: dict[str, Toolbox | BackendSettings] = {"late": late, **boxes()}
    async with travelling(behind, routing=Routing(list_timeout_s=0.2)) as travel:
        session, modern = await travel.handshake(), travel.modern()
        standing = await session.listen()
        wants = {"notifications": {"toolsListChanged": True}}
        listening = await modern.post(modern.request("subscriptions/listen", wants))
        assert await listening.event() is not None
        for client in (session, modern):
            assert len((await client.result("tools/list"))["tools"]) == 6
        late.mute.clear()
        for conversation in list(late.conversations):
            conversation.catch_up()
        for stream in (standing, listening):
            heard = await stream.event()
            assert heard is not None
            assert heard["method"] == "notifications/tools/list_changed"
        for client in (session, modern):
            assert len((await client.result("tools/list"))["tools"]) > 6


@pytest.mark.parametrize("era", ERAS)
async def test_long_lists_come_in_pages(era: str) -> None:
    """Every item once, in order; the cursor is good for this list and caller alone."""
    async with travelling(boxes(), routing=Routing(page_size=4)) as travel:
        client = await travel.client(era)
        whole = [f"{box}.{tool}" for box in ("zebra", "ant") for tool in ("echo", "announce", "seen")]
        first = await client.result("tools/list")
        assert names(first) == whole[:4]
        second = await client.result("tools/list", {"cursor": first["nextCursor"]})
        assert names(second) == whole[4:]
        assert "nextCursor" not in second
        cursor = first["nextCursor"]
        wrong = [cursor[:-1], cursor + "A", "", "AAAA", "é", "0", 4]
        for one in wrong:
            assert (await client.ask("tools/list", {"cursor": one}))["error"]["code"] == -32602, one
        assert (await client.ask("prompts/list", {"cursor": cursor}))["error"]["code"] == -32602


async def test_all_pages_of_a_backend_are_read() -> None:
    """Its own paging does not show."""
    behind = boxes()
    behind["ant"].page_size = 1
    async with travelling(behind) as travel:
        assert len((await travel.modern().result("tools/list"))["tools"]) == 6


async def test_lists_are_kept_until_they_change() -> None:
    """One read serves many; a change notice makes the next one read anew."""
    behind = boxes()
    async with travelling(behind) as travel:
        client = await travel.handshake()
        for _ in range(3):
            await client.result("tools/list")
        assert behind["zebra"].noted("asked").count("tools/list") == 1
        behind["zebra"].tools.append("late")
        standing = await client.listen()
        await client.tool("zebra.announce", method="notifications/tools/list_changed")
        assert await standing.event() is not None
        assert "zebra.late" in names(await client.result("tools/list"))
        assert "zebra.late" in names(await client.result("tools/list"))


async def test_hints_are_the_strictest_of_all() -> None:
    """The smallest lifetime, what is left of it, and `private` unless every part is public (S-54)."""
    behind = {"a": Toolbox("a", "modern"), "b": Toolbox("b", "modern")}
    behind["a"].hints = {"ttlMs": 50_000, "cacheScope": "public"}
    behind["b"].hints = {"ttlMs": 9_000, "cacheScope": "public"}
    async with travelling(behind) as travel:
        client = travel.modern()
        first = await client.result("tools/list")
        assert (first["ttlMs"], first["cacheScope"]) == (9_000, "public")
        second = await client.result("tools/list")
        assert 0 < second["ttlMs"] <= 9_000
        behind["b"].hints["cacheScope"] = "private"
        prompts = await client.result("prompts/list")
        assert prompts["cacheScope"] == "private"


async def test_sessions_do_not_share_lists() -> None:
    """Each has a backend session of its own, which may show it other tools."""
    behind = {"one": Toolbox("one", "handshake")}
    async with travelling(behind) as travel:
        for _ in range(2):
            await (await travel.handshake()).result("tools/list")
        assert behind["one"].noted("asked").count("tools/list") == 2


async def test_levels_and_roots_reach_every_backend() -> None:
    """`logging/setLevel` and notifications of the client go to all of its backend sessions."""
    behind = {"one": Toolbox("one", "handshake"), "two": Toolbox("two", "handshake")}
    async with travelling(behind) as travel:
        client = await travel.handshake("/mcp", {"roots": {"listChanged": True}})
        assert await client.result("logging/setLevel", {"level": "error"}) == {}
        await client.tell("notifications/roots/list_changed")
        for name, box in behind.items():
            assert (await client.tool(f"{name}.client"))["log_level"] == "error"
            told = [one["method"] for one in box.noted("told")]
            await box.until(
                lambda it: "notifications/roots/list_changed" in [one["method"] for one in it.noted("told")]
            )
            assert told[0] == "notifications/initialized"


async def test_a_silent_backend_does_not_hold_up_what_all_are_told() -> None:
    """`logging/setLevel` and notifications are done when those that could be reached have them."""
    mute = Toolbox("mute", "handshake")
    mute.mute.add("logging/setLevel")
    behind = {"mute": mute, "one": Toolbox("one", "handshake")}
    async with travelling(behind, routing=Routing(list_timeout_s=0.3)) as travel:
        client = await travel.handshake()
        assert await soon(client.result("logging/setLevel", {"level": "error"}), 2) == {}
        assert (await client.tool("one.client"))["log_level"] == "error"


async def test_the_route_offers_what_its_backends_do() -> None:
    """Capabilities united, instructions under each one's name, the gateway's own identity."""
    async with travelling(boxes()) as travel:
        client = await travel.handshake()
        assert client.introduction["serverInfo"]["name"] == "gatewright"
        assert client.introduction["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
        assert client.introduction["instructions"] == "# zebra\nUse zebra well.\n\n# ant\nUse ant well."
        found = await travel.modern().result("server/discover")
        assert found["capabilities"] == client.introduction["capabilities"]


async def test_one_subscription_hears_all_backends() -> None:
    """Lists of every one and each resource of its owner, one stream, one id; what nobody has is not promised."""
    behind = {**boxes(), "down": NOBODY}
    async with travelling(behind) as travel:
        client = travel.modern()
        wants = {"toolsListChanged": True, "resourceSubscriptions": ["zebra://note", "ant://note", "nobody://x"]}
        answer = await client.post(client.request("subscriptions/listen", {"notifications": wants}))
        first = await answer.event()
        assert first is not None
        agreed = first["params"]["notifications"]
        assert agreed == {"toolsListChanged": True, "resourceSubscriptions": ["ant://note", "zebra://note"]}
        for owner in ("ant", "zebra"):
            params = {"uri": f"{owner}://note"}
            method = "notifications/resources/updated"
            await client.tool(f"{owner}.announce", method=method, params=params, is_to_all=True)
            heard = await answer.event()
            assert heard is not None
            assert heard["params"]["uri"] == f"{owner}://note"
            assert heard["params"]["_meta"] == {META + "subscriptionId": 1}


async def test_kinds_mix() -> None:
    """An in-process, an HTTP and a stdio backend on one route: one list, every call answered by its own."""
    async with hosting(Toolbox("web", "modern")) as host:
        behind = {
            "here": Toolbox("here"),
            "web": BackendSettings(url=host.url),
            "child": over_stdio("child", "handshake"),
        }
        async with travelling(behind) as travel:
            client = await travel.handshake()
            assert {name.partition(".")[0] for name in names(await client.result("tools/list"))} == set(behind)
            labels = await asyncio.gather(*(client.tool(f"{name}.echo") for name in list(behind) * 5))
            assert [one["label"] for one in labels] == list(behind) * 5


async def test_a_thousand_tools_come_quickly() -> None:
    """A long list from the cache costs no more than joining it: hundreds of answers fit into the bound."""
    box = Toolbox("big", "modern")
    box.tools = [f"tool-{number}" for number in range(1_000)]
    async with travelling({"big": box}) as travel:
        client = travel.modern()
        began = time.monotonic()
        for _ in range(50):
            assert len((await client.result("tools/list"))["tools"]) == 1_000
        assert json.dumps(box.noted("asked").count("tools/list")) == "1"
        assert time.monotonic() - began < 5
