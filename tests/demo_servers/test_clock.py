"""The clock's tools and resources."""

import asyncio
from datetime import datetime, timedelta

import pytest

from demo_servers.conversation import MODERN_META, Conversation
from gatewright.demo_servers.clock import build, moment_of, zone_of
from gatewright.demo_servers.server import ToolError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_now_is_told_in_a_zone_as_structured_content() -> None:
    """The moment agrees with this machine's clock."""
    async with Conversation(build()) as talk:
        result = (await talk.modern("tools/call", name="now", arguments={"zone": "Asia/Tokyo"}))["result"]
        told = result["structuredContent"]
        moment = datetime.fromisoformat(told["iso"])
        assert moment.utcoffset() == timedelta(hours=9)
        assert abs(datetime.now().astimezone() - moment) < timedelta(seconds=30)
        assert told["zone"] == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("shift", {"time": "2026-02-27", "days": 2, "hours": -1}, "2026-02-28T23:00:00+00:00"),
        ("shift", {"time": "9999-12-31", "days": 2}, "the calendar ends there: years are 1 to 9999"),
        ("shift", {"time": "soon"}, "'soon' is not an ISO 8601 date or date and time"),
        ("convert", {"time": "2026-07-01T12:00:00Z", "zone": "Nowhere/City"}, "no time zone 'Nowhere/City'"),
        ("convert", {"time": "0001-01-01", "zone": "-12:00"}, "the calendar ends there"),
    ],
)
async def test_times_are_moved_or_the_reason_is_told(tool: str, arguments: dict[str, object], text: str) -> None:
    """Errors are for the model to read."""
    async with Conversation(build()) as talk:
        told, _ = await talk.text(tool, **arguments)
        assert told.startswith(text)


async def test_a_time_is_converted_over_a_change_of_clocks() -> None:
    """Berlin is two hours ahead of UTC in summer, one in winter."""
    async with Conversation(build()) as talk:
        for month, hour in (("07", "14"), ("01", "13")):
            arguments = {"time": f"2026-{month}-01T12:00:00Z", "zone": "Europe/Berlin"}
            result = (await talk.modern("tools/call", name="convert", arguments=arguments))["result"]
            assert result["structuredContent"]["iso"].startswith(f"2026-{month}-01T{hour}:00:00")


async def test_the_time_between_two_moments_is_told() -> None:
    """Whatever their offsets."""
    async with Conversation(build()) as talk:
        arguments = {"start": "2026-01-01T00:00:00+01:00", "end": "2026-01-02"}
        result = (await talk.modern("tools/call", name="between", arguments=arguments))["result"]
        assert result["structuredContent"] == {"days": 1, "seconds": 3600, "total_s": 90000.0}


async def test_a_countdown_reports_progress_and_can_be_cancelled() -> None:
    """Progress rises; nothing follows a cancellation."""
    async with Conversation(build()) as talk:
        meta = MODERN_META | {"progressToken": 7}
        talk.say(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "countdown", "_meta": meta, "arguments": {"seconds": 0}},
            }
        )
        assert [(await talk.hear())["params"]["progress"] for _ in range(2)] == [0, 1]
        assert (await talk.hear())["result"]["content"][0]["text"] == "Counted down 0 seconds."
        talk.say(
            {
                "jsonrpc": "2.0",
                "id": 2,
                "method": "tools/call",
                "params": {"name": "countdown", "_meta": meta, "arguments": {"seconds": 60}},
            }
        )
        assert (await talk.hear())["params"]["message"] == "60..."
        talk.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
        assert (await talk.ask("ping", request_id=3))["id"] == 3
        await asyncio.sleep(0)


async def test_zones_are_resources() -> None:
    """All of them, and the time in each by template."""
    async with Conversation(build()) as talk:
        listed = (await talk.modern("resources/list"))["result"]["resources"]
        zones = (await talk.modern("resources/read", uri=listed[0]["uri"]))["result"]["contents"][0]["text"]
        assert "Europe/Berlin" in zones.splitlines()
        now = (await talk.modern("resources/read", uri="clock://now/Europe/Berlin"))["result"]["contents"][0]
        assert datetime.fromisoformat(now["text"]).tzinfo is not None
        templates = (await talk.modern("resources/templates/list"))["result"]["resourceTemplates"]
        assert templates[0]["uriTemplate"] == "clock://now/{+zone}"
        for uri in ("clock://now/Nowhere", "clock://other", "clock://now/../../etc/passwd"):
            assert (await talk.modern("resources/read", uri=uri))["error"]["code"] == -32602


@pytest.mark.parametrize("name", ["", "Europe", "../etc", "/etc/localtime", "\x00", "+25:00", "x" * 300])
async def test_what_is_no_zone_is_refused(name: str) -> None:
    """Never a file outside the database."""
    with pytest.raises(ToolError, match="no time zone"):
        zone_of(name)


async def test_offsets_are_zones() -> None:
    """With and without a colon; UTC needs no database."""
    assert zone_of("+05:30").utcoffset(None) == timedelta(hours=5, minutes=30)
    assert zone_of("-0800").utcoffset(None) == timedelta(hours=-8)
    assert zone_of("utc").utcoffset(None) == timedelta(0)
    assert moment_of("2026-01-01").utcoffset() == timedelta(0)
