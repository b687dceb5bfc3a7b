"""Lists of one backend: read once for all, kept as long as they hold, stale when they change."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.call import Caller, Client
from gatewright.errors import BackendGarbage, BackendTimeout, BackendUnavailable
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28
from gatewright.routing.listings import sharing
from journeys.toolbox import Toolbox
from journeys.wire import soon
from routing.places import CLIENT, TOOLS, Place, placed

pytestmark = pytest.mark.anyio
ADA = Caller("ada")
CHANGED = "notifications/tools/list_changed"


async def read(place: Place, caller: Caller = ADA, client: Client = CLIENT) -> tuple[str, ...]:
    """The names in the list of the one backend."""
    return (await place.listings.read(place.backends["box"], TOOLS, client, caller)).keys


async def test_many_who_ask_at_once_share_one_read() -> None:
    """And those who ask later, while it holds."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place:
        found = await asyncio.gather(*(read(place) for _ in range(50)))
        assert len(set(found)) == 1
        await read(place)
        assert box.noted("asked").count("tools/list") == 1
        assert place.listings._reading == {}


async def test_callers_do_not_share_what_is_private() -> None:
    """Nor clients with other capabilities, nor sessions (S-51)."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place:
        await read(place)
        await read(place, Caller("bob"))
        await read(place, client=Client(MODERN_2026_07_28, b"{}", b'{"roots":{}}'))
        assert box.noted("asked").count("tools/list") == 3


def test_who_shares() -> None:
    """The same session; else the same caller, era and capabilities."""
    session = Client(HANDSHAKE_2025_11_25, b"{}", b"{}", "s1")
    assert sharing(session, ADA) == sharing(session, ADA)
    assert sharing(session, ADA) != sharing(Client(HANDSHAKE_2025_11_25, b"{}", b"{}", "s2"), ADA)
    assert sharing(CLIENT, ADA) == sharing(Client(MODERN_2026_07_28, b"other", b"{}"), ADA)
    assert sharing(CLIENT, ADA) != sharing(CLIENT, Caller("bob"))
    over = Client(MODERN_2026_07_28, b"{}", b"{}", chain='["a","here"]')
    assert sharing(over, ADA) != sharing(CLIENT, ADA)


async def test_what_is_not_to_be_kept_is_not() -> None:
    """A lifetime of zero is read every time."""
    box = Toolbox("box", "modern")
    box.hints = {"ttlMs": 0, "cacheScope": "private"}
    async with placed({"box": box}) as place:
        for _ in range(3):
            await read(place)
        assert box.noted("asked").count("tools/list") == 3
        assert len(place.listings._kept) == 0


async def test_what_is_kept_is_bounded() -> None:
    """The least recently used goes first."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}, max_cache_entries=2) as place:
        for name in ("a", "b", "a", "c", "a"):
            await read(place, Caller(name))
        assert box.noted("asked").count("tools/list") == 3
        await read(place, Caller("b"))
        assert box.noted("asked").count("tools/list") == 4
        assert len(place.listings._kept) == 2


async def test_what_is_kept_is_bounded_in_bytes() -> None:
    """Long lists push out others, and what is let go is not counted any more."""
    box = Toolbox("box", "modern")
    box.tool_meta = {"description": "x" * 1_000_000}
    box.tools = [f"tool-{number}" for number in range(20)]
    async with placed({"box": box}) as place:
        for name in "abcde":
            await read(place, Caller(name))
        assert len(place.listings._kept) == 3
        assert 60_000_000 < place.listings._bytes < 64 << 20
        place.listings.changed("box", "", CHANGED)
        assert place.listings._bytes == 0


async def test_what_is_over_is_let_go() -> None:
    """A list past its time is read anew."""
    box = Toolbox("box", "modern")
    box.hints = {"ttlMs": 1, "cacheScope": "private"}
    async with placed({"box": box}) as place:
        await read(place)
        async with asyncio.timeout(5):
            while box.noted("asked").count("tools/list") == 1:
                await read(place)
        assert len(place.listings._kept) <= 1


async def test_a_change_makes_it_stale() -> None:
    """Its own lists, for every caller, and no other backend's or kind's."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place:
        await read(place)
        place.listings.changed("other", "", CHANGED)
        place.listings.changed("box", "", "notifications/prompts/list_changed")
        await read(place)
        assert box.noted("asked").count("tools/list") == 1
        place.listings.changed("box", "", CHANGED)
        await read(place)
        assert box.noted("asked").count("tools/list") == 2


async def test_a_change_during_a_read_is_not_lost() -> None:
    """Who asks after the change gets a list that was read after it; the older one is not kept."""
    box = Toolbox("box", "modern")
    box.mute.add("tools/list")
    async with placed({"box": box}) as place, asyncio.TaskGroup() as tasks:
        before = tasks.create_task(read(place))
        await box.until(lambda it: it.noted("muted"))
        box.mute.clear()
        place.listings.changed("box", "", CHANGED)
        box.tools.append("fresh")
        assert "fresh" in await read(place)
        box.tools.remove("fresh")
        for conversation in box.conversations:
            conversation.catch_up()
        assert "fresh" not in await soon(before)
        box.tools.append("fresh")
        assert "fresh" in await read(place)
        assert place.listings._reading == {}


async def test_who_asked_first_may_leave() -> None:
    """The read goes on for the others."""
    box = Toolbox("box", "modern")
    box.mute.add("tools/list")
    async with placed({"box": box}) as place, asyncio.TaskGroup() as tasks:
        first, second = [tasks.create_task(read(place)) for _ in range(2)]
        await box.until(lambda it: it.noted("muted"))
        first.cancel()
        for conversation in box.conversations:
            box.mute.clear()
            conversation.catch_up()
        assert await soon(second)
        assert box.noted("muted") == ["tools/list"]


async def test_nobody_waits_longer_than_the_bound_for_one_read() -> None:
    """Whoever comes late to a read that is late is told at once; when it ends it is kept for the next."""
    box = Toolbox("box", "modern")
    box.mute.add("tools/list")
    async with placed({"box": box}, list_timeout_s=0.1) as place:
        with pytest.raises(BackendTimeout, match=r"box did not list its tools within 0.1 s"):
            await read(place)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(20):
            with pytest.raises(BackendTimeout):
                await read(place)
        assert loop.time() - began < 1
        assert box.noted("muted") == ["tools/list"]
        box.mute.clear()
        for conversation in box.conversations:
            conversation.catch_up()
        async with asyncio.timeout(5):
            while place.listings._reading:
                await asyncio.sleep(0)
        assert await read(place)


@pytest.mark.parametrize(("ttl_ms", "told"), [(60_000, [("", CHANGED)]), (0, []), (10, [])])
async def test_a_late_list_is_announced_if_it_holds(ttl_ms: int, told: list[tuple[str, str]]) -> None:
    """One that would be late again for whoever asks because of it is not."""
    box = Toolbox("box", "modern")
    box.hints = {"ttlMs": ttl_ms, "cacheScope": "private"}
    box.mute.add("tools/list")
    heard: list[tuple[str, str]] = []
    async with placed({"box": box}, list_timeout_s=0.05) as place:
        leave = place.listings.listen(lambda session, method: heard.append((session, method)))
        with pytest.raises(BackendTimeout):
            await read(place)
        box.mute.clear()
        for conversation in box.conversations:
            conversation.catch_up()
        async with asyncio.timeout(5):
            while place.listings._reading:
                await asyncio.sleep(0)
        assert heard == told
        leave()
        assert len(place.listings._arrived) == 1  # the sessions'


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    """All who waited hear it; the next read may succeed."""
    box = Toolbox("box", "modern")
    box.broken.add("tools/list")
    async with placed({"box": box}) as place:
        failed = await asyncio.gather(*(read(place) for _ in range(5)), return_exceptions=True)
        assert {type(one) for one in failed} == {BackendGarbage}
        assert place.listings._reading == {}
        box.broken.clear()
        assert await read(place)


async def test_a_backend_without_the_capability_lists_nothing() -> None:
    """And one that does not know the method neither."""
    box = Toolbox("box", "modern")
    async with placed({"box": box}) as place:
        box.unknown.add("prompts/list")
        found = await place.listings.read(place.backends["box"], METHODS["prompts/list"], CLIENT, ADA)
        assert found.keys == ()


async def test_a_list_without_end_is_cut() -> None:
    """At the bound of items; and pages without items do not go on for ever."""
    box = Toolbox("box", "modern")
    box.page_size = 1
    async with placed({"box": box}, max_items_per_backend=3) as place:
        assert len(await read(place)) == 3
    box.page_size = 0
    async with placed({"box": box}) as place:
        with pytest.raises(BackendGarbage, match="without end"):
            await read(place)


async def test_reading_ends_with_the_gateway() -> None:
    """Nobody waits for what will not come."""
    box = Toolbox("box", "modern")
    box.mute.add("tools/list")
    async with placed({"box": box}) as place:
        waiting = asyncio.get_running_loop().create_task(read(place))
        await box.until(lambda it: it.noted("muted"))
        await asyncio.gather(*(backend.aclose() for backend in place.backends.values()))
        with pytest.raises((BackendUnavailable, BackendGarbage)):
            await soon(waiting)
