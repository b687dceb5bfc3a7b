"""Background work: it runs, it may fail, and it cannot be begun when all is ending."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog

from gatewright.background import Background

pytestmark = pytest.mark.anyio


async def test_work_runs_beside() -> None:
    """The group waits for it, as for any task."""
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    async with asyncio.TaskGroup() as tasks:
        assert Background(tasks)(work()) is not None
        assert done == []
    assert done == [1]


async def test_work_that_fails_ends_alone_and_is_logged_under_an_id() -> None:
    """The group and what else runs in it go on."""

    async def broken() -> None:
        raise ZeroDivisionError

    with structlog.testing.capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            background = Background(tasks)
            background(broken())
            going_on = background(asyncio.sleep(0))
        assert going_on is not None
        assert not going_on.cancelled()
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert len(logs[0]["error_id"]) == 16
    assert "broken" in logs[0]["work"]


async def test_work_that_is_cancelled_is_no_failure() -> None:
    """Nothing is logged."""
    with structlog.testing.capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            task = Background(tasks)(asyncio.Event().wait())  # type: ignore[arg-type]
            assert task is not None
            task.cancel()
    assert task.cancelled()
    assert logs == []


async def test_what_ends_the_process_is_not_held_back() -> None:
    """Only Exception is."""

    async def leaving() -> None:
        raise Leaving

    with pytest.raises(BaseExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            Background(tasks)(leaving())


class Leaving(BaseException):
    """Like SystemExit, but no business of the loop's."""


async def test_work_is_not_begun_when_the_group_has_ended() -> None:
    """It is told so, and the coroutine is closed without a warning."""
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
    made: Coroutine[Any, Any, None] = work()
    assert background(made) is None
    assert begun == []
    assert made.cr_frame is None  # type: ignore[attr-defined]
