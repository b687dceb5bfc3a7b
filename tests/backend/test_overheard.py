"""The GET stream of a session as it is held: without a task while it is silent. What it does on the wire is seen in
`test_http_sessions`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.raw_server import until
from gatewright.backend.base import Refused
from gatewright.backend.overheard import Overheard
from gatewright.backend.response import HttpStream
from gatewright.background import Background
from gatewright.errors import BackendGarbage, BackendUnavailable, ProtocolError

pytestmark = pytest.mark.anyio
SOON = b"retry: 10\n\n"


class Source:
    """The connection below a stream."""

    def __init__(self) -> None:
        self.is_closed = False

    def resume_reading(self) -> None:
        """Nothing was paused."""

    def rest(self) -> None:
        """Nothing is held."""

    def lend(self) -> None:
        """It takes nobody's place."""

    def drain_or_close(self) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


class Link:
    """A link whose streams the test makes."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[bytes] = []
        self.streams: list[HttpStream] = []
        self.sources: list[Source] = []
        self.heard: list[bytes] = []
        self.gaps: list[int] = []
        self.errors: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def stand(self, headers: bytes) -> HttpStream:
        """See Overhears."""
        self.asked.append(headers)
        await self.may_answer.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.sources.append(Source())
        self.streams.append(HttpStream(self.sources[-1]))
        return self.streams[-1]

    async def hear(self, data: bytes) -> None:
        """See Overhears."""
        if data == b"odd":
            raise ProtocolError("odd")
        self.heard.append(data)

    def missed(self) -> None:
        """See Overhears."""
        self.gaps.append(len(self.streams))


class Held:
    """One stream that is held."""

    def __init__(self, background: Background) -> None:
        self.link = Link()
        self.ends = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._background = background
        self.overheard = Overheard(self.link, self._start, 1_000, self._over)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        task = self._background(work)
        assert task is not None
        self.tasks.append(task)
        return task

    def _over(self) -> None:
        self.ends += 1

    def say(self, text: bytes) -> None:
        """On the newest stream."""
        self.link.streams[-1].push(text)

    @property
    def running(self) -> int:
        """Tasks."""
        return sum(not task.done() for task in self.tasks)

    async def quiet(self, streams: int = 1) -> None:
        """So many streams were opened, and nothing runs."""
        await until(lambda: len(self.link.streams) == streams and not self.running)


@asynccontextmanager
async def holding() -> AsyncIterator[Held]:
    """A stream that is not asked for yet."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        held = Held(Background(tasks))
        yield held
        held.overheard.close()
        assert held.ends == 1


async def test_a_silent_stream_has_no_task() -> None:
    """Before the first event, and after every one, whole or in pieces."""
    async with holding() as held:
        held.overheard.begin()
        await held.quiet()
        held.say(b"data: a\n\ndata: b")
        held.say(b"b\n\ndata: c\r\n\r")
        await until(lambda: held.link.heard == [b"a", b"bb", b"c"])
        await held.quiet()
        held.say(b"\ndata: d\n\nevent: other\ndata: e\n\n: silence\n\n")
        await until(lambda: held.link.heard == [b"a", b"bb", b"c", b"d"])
        await held.quiet()
        assert held.overheard._decoder is None
        assert held.overheard._resume is None
        assert held.link.asked == [b""]


async def test_a_stream_that_ends_is_had_again() -> None:
    """Where it was, if it says how; else what was missed is said. However it ended."""
    async with holding() as held:
        held.overheard.begin()
        await held.quiet()
        held.say(SOON)
        held.link.streams[-1].complete()
        await held.quiet(2)
        assert held.link.gaps == [2]
        held.say(b"id: 7\ndata: a\n\n")
        await until(lambda: held.link.heard == [b"a"])
        held.link.streams[-1].fail(BackendGarbage("died"))
        await held.quiet(3)
        held.say(b"data: odd\n\n")
        await held.quiet(4)
        assert held.link.sources[2].is_closed
        held.say(b"data: %b\n\n" % (b"x" * 2_000))
        await held.quiet(5)
        assert held.link.asked == [b"", b"", *[b"last-event-id: 7\r\n"] * 3]
        assert held.link.gaps == [2]
        assert held.ends == 0


async def test_a_backend_that_has_none_later_ends_it() -> None:
    """One that is away is asked again."""
    async with holding() as held:
        held.overheard.begin()
        await held.quiet()
        held.say(SOON)
        held.link.errors = [BackendUnavailable("away"), Refused("no", 405, None)]
        held.link.streams[-1].complete()
        await until(lambda: held.ends)
        assert len(held.link.asked) == 3


async def test_closing_ends_it_wherever_it_is() -> None:
    """While it is silent, while it is asked for, while it waits; closed again, nothing happens."""
    for streams in (0, 1):
        async with holding() as held:
            if not streams:
                held.link.may_answer.clear()
            held.overheard.begin()
            await until(lambda held=held, streams=streams: held.link.asked and held.running == 1 - streams)
            held.overheard.close()
            await until(lambda held=held: not held.running)
            assert all(source.is_closed for source in held.link.sources)
            held.overheard.close()
    async with holding() as held:
        held.overheard.begin()
        await held.quiet()
        held.say(b"retry: 60000\n\n")
        held.link.streams[-1].complete()
        await until(lambda: held.running)
        held.link.is_open = False
        held.overheard.close()
        await until(lambda: not held.running)


async def test_a_link_that_was_lost_ends_it() -> None:
    """It is not asked for again."""
    async with holding() as held:
        held.overheard.begin()
        await held.quiet()
        held.link.is_open = False
        held.link.streams[-1].complete()
        await until(lambda: held.ends)
        assert len(held.link.asked) == 1


async def test_a_gateway_that_is_ending_hears_nothing() -> None:
    """What is held is let go."""
    ended = asyncio.TaskGroup()
    async with ended:
        pass
    link, over = Link(), asyncio.Event()
    Overheard(link, Background(ended), 1_000, over.set).begin()
    assert over.is_set()
    assert not link.asked
