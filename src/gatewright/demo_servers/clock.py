"""The clock: what time it is anywhere, how far apart two moments are, and a countdown that reports progress.

Contract: reads the system clock and the time-zone database, keeps nothing. `server` is the `python:` target.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from gatewright.demo_servers.server import (
    Json,
    Progress,
    Server,
    Tool,
    ToolError,
    UnknownResourceError,
    number_argument,
    text_argument,
)

_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):?([0-5][0-9])")
_MAX_COUNTDOWN_S = 60.0
_ZONE = {"type": "string", "description": "IANA name such as Europe/Berlin, or an offset such as +02:00"}
_MOMENT = {"type": "string", "description": "ISO 8601 date or date and time; UTC unless it says otherwise"}
_NOW_SHAPE: Json = {
    "type": "object",
    "properties": {
        "iso": {"type": "string", "description": "ISO 8601 with offset"},
        "zone": {"type": "string"},
        "weekday": {"type": "string"},
        "week": {"type": "integer", "description": "ISO week number"},
        "unix_s": {"type": "integer", "description": "seconds since 1970"},
    },
    "required": ["iso", "zone", "weekday", "week", "unix_s"],
}


def zone_of(name: str) -> tzinfo:
    """The zone of that name or offset. Raises `ToolError`."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    if found := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(offset if found[1] == "+" else -offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; a folder of the database
        raise ToolError(f"no time zone {name!r}; zones are named like Europe/Berlin or America/New_York") from None


def moment_of(text: str) -> datetime:
    """The moment that text names, in UTC unless it carries an offset. Raises `ToolError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ToolError(f"{text!r} is not an ISO 8601 date or date and time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def describe(moment: datetime, zone: str) -> Json:
    """A moment in the words of the `now` tool's output schema."""
    return {
        "iso": moment.isoformat(timespec="seconds"),
        "zone": zone,
        "weekday": moment.strftime("%A"),
        "week": moment.isocalendar().week,
        "unix_s": int(moment.timestamp()),
    }


async def _now(arguments: Json, progress: Progress) -> Json:
    zone = text_argument(arguments, "zone", "UTC", max_chars=64)
    return describe(datetime.now(zone_of(zone)), zone)


async def _convert(arguments: Json, progress: Progress) -> Json:
    zone = text_argument(arguments, "zone", max_chars=64)
    moment = moment_of(text_argument(arguments, "time", max_chars=64))
    try:
        return describe(moment.astimezone(zone_of(zone)), zone)
    except OverflowError:
        raise ToolError("the calendar ends there: years are 1 to 9999") from None


async def _shift(arguments: Json, progress: Progress) -> str:
    start = moment_of(text_argument(arguments, "time", max_chars=64))
    parts = {key: number_argument(arguments, key, 0, low=-1e6, high=1e6) for key in ("days", "hours", "minutes")}
    try:
        return (start + timedelta(**parts)).isoformat(timespec="seconds")
    except OverflowError:
        raise ToolError("the calendar ends there: years are 1 to 9999") from None


async def _between(arguments: Json, progress: Progress) -> Json:
    start, end = (moment_of(text_argument(arguments, key, max_chars=64)) for key in ("start", "end"))
    span = end - start
    return {"days": span.days, "seconds": span.seconds, "total_s": span.total_seconds()}


async def _countdown(arguments: Json, progress: Progress) -> str:
    total_s = number_argument(arguments, "seconds", 3, low=0, high=_MAX_COUNTDOWN_S)
    steps = max(1, round(total_s))
    for step in range(steps):
        progress(step, steps, f"{steps - step}...")
        await asyncio.sleep(total_s / steps)
    progress(steps, steps, "done")
    return f"Counted down {total_s:g} seconds."


class Zones:
    """Resources: the list of zones, and the time now in each."""

    def listed(self) -> list[Json]:
        return [{"uri": "clock://zones", "name": "zones", "title": "All time zones", "mimeType": "text/plain"}]

    def templates(self) -> list[Json]:
        template = {"uriTemplate": "clock://now/{+zone}", "name": "now", "title": "The time in a zone"}
        return [template | {"mimeType": "text/plain"}]

    def read(self, uri: str) -> Json:
        if uri == "clock://zones":
            return {"mimeType": "text/plain", "text": "\n".join(sorted(available_timezones()))}
        try:
            zone = zone_of(uri.removeprefix("clock://now/")) if uri.startswith("clock://now/") else None
        except ToolError:
            zone = None
        if zone is None:
            raise UnknownResourceError(uri)
        return {"mimeType": "text/plain", "text": datetime.now(zone).isoformat(timespec="seconds")}


TOOLS = (
    Tool(
        name="now",
        title="Time now",
        description="The date and time now in a time zone.",
        properties={"zone": _ZONE | {"default": "UTC"}},
        output=_NOW_SHAPE,
        run=_now,
    ),
    Tool(
        name="convert",
        title="Convert a time",
        description="A moment as the clocks of another zone show it.",
        properties={"time": _MOMENT, "zone": _ZONE},
        required=("time", "zone"),
        output=_NOW_SHAPE,
        run=_convert,
    ),
    Tool(
        name="shift",
        title="Add to a time",
        description="A moment plus (or, with negative numbers, minus) days, hours and minutes.",
        properties={"time": _MOMENT} | {key: {"type": "number"} for key in ("days", "hours", "minutes")},
        required=("time",),
        run=_shift,
    ),
    Tool(
        name="between",
        title="Time between",
        description="How much time lies between two moments.",
        properties={"start": _MOMENT, "end": _MOMENT},
        required=("start", "end"),
        run=_between,
    ),
    Tool(
        name="countdown",
        title="Count down",
        description="Waits that many seconds and reports progress every second.",
        properties={"seconds": {"type": "number", "minimum": 0, "maximum": _MAX_COUNTDOWN_S, "default": 3}},
        run=_countdown,
    ),
)


def build() -> Server:
    """A new clock."""
    return Server(
        name="clock",
        title="Clock",
        version="1.0.0",
        instructions="Ask for the time in any zone, convert and add times, or count down.",
        resources=Zones(),
        tools=TOOLS,
    )


server = build()
