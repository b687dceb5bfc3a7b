"""The answer to a scrape: this process alone, or the sum of all workers of its gateway.

Contract: with a board, any worker answers for all. It posts what it counted itself before it answers, so that whoever
is asked next has seen at least as much: no counter goes backward from one answer to the next. Reading counts happens
on the loop, files and text in a thread. A board that cannot be written costs freshness, never an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar, final

import structlog

from gatewright.telemetry.board import Board
from gatewright.telemetry.exposition import render
from gatewright.telemetry.families import Family, Snapshot, measured, merge
from gatewright.telemetry.process import process_families

POST_S: Final = 2.0
"""Between posts: what a worker counts is in the others' answers this much later, and its gauges as old."""
SINGLE: Final = "worker-0"
"""The name of the one process that there is without a board."""
T = TypeVar("T")
log = structlog.get_logger("gatewright.telemetry")


@final
class Scrape:
    """What `/metrics` shows. `read` takes the readings of this process."""

    def __init__(
        self,
        read: Callable[[], list[Family]],
        board: Board | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        post_s: float = POST_S,
    ) -> None:
        self._read = read
        self._board = board
        self._now = now
        self._post_s = post_s
        self._turn = asyncio.Lock()
        self._is_failing = False
        self._has_left = False

    async def text(self, worker: str | None = None) -> bytes | None:
        """The metrics of all workers together, or of one by its name: None when there is none of that name."""
        return await self._in_turn(lambda families: self._render(families, worker))

    async def keep_posting(self) -> None:
        """Post at intervals, until cancelled; without a board there is nobody to post for."""
        while self._board is not None:
            await self._in_turn(self._posted)
            await asyncio.sleep(self._post_s)

    async def leave(self) -> None:
        """The last post: what was counted stays, what was measured is over."""
        self._has_left = True
        if self._board is not None:
            await self._in_turn(self._posted)

    async def _in_turn(self, work: Callable[[list[Family]], T]) -> T:
        """Do that with the readings of now in a thread; never two at once, so that posts stay in order."""
        async with self._turn:
            running = asyncio.get_running_loop().run_in_executor(None, work, self._read())
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])  # a thread cannot be cancelled: the turn ends with it
                raise

    def _render(self, families: list[Family], worker: str | None) -> bytes | None:
        own = self._posted(families)
        found = [own] if self._board is None else [own, *self._board.others()]
        if worker is not None:
            found = [one for one in found if one.worker == worker]
            if not found:
                return None
        now = self._now()
        workers = sum(one.is_fresh(now) for one in found)
        return render([*merge(found, now), measured("gatewright_workers", "Processes that are counted here.", workers)])

    def _posted(self, families: list[Family]) -> Snapshot:
        """What this process has to tell, with what was counted in its place before; it stands on the board then."""
        board, now = self._board, self._now()
        families = families + process_families()
        if board is None:
            return Snapshot(SINGLE, now, families)
        posted_at = -inf if self._has_left else now
        parts = [Snapshot(board.name, posted_at, part) for part in (board.before, families)]
        snapshot = Snapshot(board.name, posted_at, merge(parts, now))
        try:
            board.post(snapshot)
        except OSError as error:
            if not self._is_failing:
                log.warning("metrics not shared with the other workers", reason=str(error))
            self._is_failing = True
        else:
            self._is_failing = False
        return snapshot
