"""Claims: a question on a shared wire is the one call's that can have asked it."""

import asyncio
from typing import Any, cast

import pytest

from gatewright.backend.claims import Claims
from gatewright.backend.sinks import CallSink

pytestmark = pytest.mark.anyio


def a_sink() -> CallSink:
    return CallSink(*cast("list[Any]", [None] * 7))  # only its identity is looked at


async def test_the_only_call_is_the_asker() -> None:
    """No waiting when nothing is in doubt."""
    claims, sink = Claims(), a_sink()
    claims.enter(sink)
    assert await claims.asker() is sink


async def test_nobody_is_the_asker_without_a_call() -> None:
    """A question after the last call ended belongs to none."""
    assert await Claims().asker() is None


async def test_a_question_waits_until_the_others_have_ended() -> None:
    """The asking call is the one that cannot end."""
    claims, asking, others = Claims(), a_sink(), [a_sink() for _ in range(3)]
    for sink in (asking, *others):
        claims.enter(sink)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        found = tasks.create_task(claims.asker())
        for sink in others:
            await asyncio.sleep(0)
            assert not found.done()
            claims.leave(sink)
    assert found.result() is asking


async def test_two_that_do_not_end_are_not_guessed_between() -> None:
    """No client gets what may be another's question: when patience ends it is refused."""
    claims = Claims(patience_s=0.01)
    claims.enter(a_sink())
    claims.enter(a_sink())
    assert await claims.asker() is None
