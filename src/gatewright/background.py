"""Work that runs beside calls: in the gateway's one task group, and never able to take it down.

A task group ends everything when one task fails, which is right for what must not fail and wrong for a backend's
stream. Work started here that fails is logged under an id, and only it ends. Work started while the gateway stops is
not begun.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any, final

import structlog

log = structlog.get_logger("gatewright")


@final
class Background:
    """Starts background work in a task group."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def __call__(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Start it. Returns its task, None when the group is ending."""
        guarded = self._guarded(work)
        try:
            task = self._tasks.create_task(guarded)
        except RuntimeError:  # the group is ending
            guarded.close()
            work.close()
            return None
        task.add_done_callback(lambda _: work.close())  # one that is cancelled before its first step never began it
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            name = getattr(work, "__qualname__", repr(work))
            log.exception("background work failed", error_id=secrets.token_hex(8), work=name)
