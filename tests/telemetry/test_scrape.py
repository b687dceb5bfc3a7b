"""A scrape: the process alone, or the sum of its gateway's workers, which never goes backward."""

from __future__ import annotations

import asyncio
import shutil
from itertools import count
from pathlib import Path

import pytest

from gatewright.telemetry.board import Board
from gatewright.telemetry.families import Family, counted, measured
from gatewright.telemetry.scrape import Scrape
from journeys.wire import soon

pytestmark = pytest.mark.anyio


class Worker:
    """A process that has counted something."""

    def __init__(self, folder: Path | None = None, name: str = "worker-0", *, now: float = 100.0) -> None:
        self.calls = 0
        self.sessions = 0
        self.now = now
        self.reads = 0
        self.is_read = asyncio.Event()
        board = None if folder is None else Board(folder, name)
        self.scrape = Scrape(self.read, board, now=lambda: self.now, post_s=0.001)

    def read(self) -> list[Family]:
        self.reads += 1
        if self.reads >= 3:
            self.is_read.set()
        return [counted("calls_total", "", self.calls), measured("sessions", "", self.sessions)]

    async def shown(self, worker: str | None = None) -> dict[str, float]:
        """The answer, by name."""
        text = await self.scrape.text(worker)
        assert text is not None
        return {
            name: float(value)
            for name, value in (line.split(" ") for line in text.decode().splitlines() if not line.startswith("#"))
        }


async def test_one_process_answers_for_itself() -> None:
    """Without a board; with what the kernel knows of it."""
    worker = Worker()
    worker.calls, worker.sessions = 3, 2
    found = await worker.shown()
    assert (found["calls_total"], found["sessions"], found["gatewright_workers"]) == (3, 2, 1)
    assert found["process_open_fds"] > 0
    assert await worker.shown("worker-0") == pytest.approx(found, rel=0.5)
    assert await worker.scrape.text("worker-1") is None


async def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    """The same sums whoever is asked; one by its name as well."""
    one, two = Worker(tmp_path, "worker-0"), Worker(tmp_path, "worker-1")
    one.calls, one.sessions, two.calls, two.sessions = 1, 10, 2, 20
    assert (await one.shown())["calls_total"] == 1  # the other has posted nothing yet
    for worker in (two, one):
        found = await worker.shown()
        assert (found["calls_total"], found["sessions"], found["gatewright_workers"]) == (3, 30, 2)
    assert (await one.shown("worker-1"))["calls_total"] == 2
    assert (await two.shown("worker-1"))["calls_total"] == 2
    assert await two.scrape.text("worker-2") is None


async def test_no_answer_is_behind_the_one_before(tmp_path: Path) -> None:
    """Who answers has posted first: whoever is asked next knows at least as much."""
    workers = [Worker(tmp_path, f"worker-{number}") for number in range(3)]
    last = 0.0
    for number in count():
        workers[number % 3].calls += number
        found = (await workers[(number * 2) % 3].shown())["calls_total"]
        assert found >= last
        last = found
        if number == 30:
            break


async def test_a_worker_that_is_replaced_takes_nothing_along(tmp_path: Path) -> None:
    """What it counted stays: first on the board, then with its successor. What it measured is over."""
    one, two = Worker(tmp_path, "worker-0"), Worker(tmp_path, "worker-1")
    one.calls, one.sessions, two.calls, two.sessions = 100, 10, 1, 1
    await one.shown()  # it dies after this
    two.now += 60
    found = await two.shown()
    assert (found["calls_total"], found["sessions"], found["gatewright_workers"]) == (101, 1, 1)
    successor = Worker(tmp_path, "worker-0", now=160)
    successor.calls, successor.sessions = 5, 2
    found = await successor.shown()
    assert (found["calls_total"], found["sessions"], found["gatewright_workers"]) == (106, 3, 2)
    found = await two.shown()
    assert (found["calls_total"], found["sessions"]) == (106, 3)


async def test_a_worker_that_leaves_says_so(tmp_path: Path) -> None:
    """At once its gauges count no more, its calls still do."""
    one, two = Worker(tmp_path, "worker-0"), Worker(tmp_path, "worker-1")
    one.calls, one.sessions, two.sessions = 100, 10, 1
    await one.shown()
    one.calls = 101
    await one.scrape.leave()
    found = await two.shown()
    assert (found["calls_total"], found["sessions"], found["gatewright_workers"]) == (101, 1, 1)


async def test_it_posts_by_itself(tmp_path: Path) -> None:
    """Again and again until it is cancelled; without a board there is nothing to do."""
    worker = Worker(tmp_path)
    posting = asyncio.get_running_loop().create_task(worker.scrape.keep_posting())
    await soon(worker.is_read.wait())
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting
    assert [one.worker for one in Board(tmp_path, "worker-1").others()] == ["worker-0"]
    await soon(Worker().scrape.keep_posting())
    await soon(Worker().scrape.leave())


async def test_a_lost_board_costs_no_answer(tmp_path: Path) -> None:
    """It answers for itself; when the board is back, for all."""
    folder = tmp_path / "board"
    folder.mkdir()
    one, two = Worker(folder, "worker-0"), Worker(folder, "worker-1")
    one.calls, two.calls = 1, 2
    await two.shown()
    shutil.rmtree(folder)
    assert (await one.shown())["calls_total"] == 1
    folder.mkdir()
    await two.shown()
    assert (await one.shown())["calls_total"] == 3
