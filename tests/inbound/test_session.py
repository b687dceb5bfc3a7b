"""One session among replicas: whose its questions are. What it does alone is tested with `sessions`."""

from __future__ import annotations

import pytest

from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from inbound.neighbours import neighbours, until

pytestmark = pytest.mark.anyio
QUESTION = jsonrpc.request("b.1", "roots/list", {})


async def test_a_guest_is_put_on_the_newest_stream() -> None:
    """A question is never dropped, a notification is like any other; without a stream neither is taken."""
    async with neighbours("a") as (a,):
        session = await a.begin()
        assert not session.host(QUESTION)
        old, new = Standing(1), Standing(1)
        session.join(old)
        session.join(new)
        assert session.host(QUESTION)
        assert session.host(b'{"jsonrpc":"2.0","method":"x"}')
        assert (old.unasked(), new.unasked(), len(new.unsent())) == ([], [QUESTION], 1)


async def test_a_guest_waits_for_a_stream_that_broke_off() -> None:
    """It comes with what was missed."""
    async with neighbours("a") as (a,):
        session = await a.begin()
        stream = session.open(is_standing=True)

        async def send(chunk: bytes) -> None:
            """Nobody looks."""

        session.attach(stream, send, lambda: None)
        session.detach(stream, send)
        assert session.host(QUESTION)
        assert QUESTION in session.resume(f"{stream.number}-0")[1][0]


async def test_guests_are_bounded_and_sent_home() -> None:
    """Whoever asked is told of each that nobody will answer: for want of room, or with its stream."""
    async with neighbours("a", "b") as (a, b):
        told: list[bytes] = []
        b.post.hear("unput", lambda sender, body: told.append(body))
        session = await a.begin()
        standing = Standing(1)
        session.join(standing)
        for number in range(66):
            assert session.host(jsonrpc.request(f"b.{number}", "roots/list", {}))
        await until(lambda: len(told) == 2)
        assert len(session.withdraw(standing)) == 64
        await until(lambda: len(told) == 66)


async def test_each_replica_has_its_own_question_ids() -> None:
    """So that an answer finds who asked."""
    async with neighbours("a", "b") as (a, b):
        session, standing = await a.begin(), Standing(9)
        session.join(standing)
        for one in (a, b):
            one.post.alive = frozenset({"a", "b"})
        found = await b.found()
        assert session.open().number != found.open().number
        assert found.open(is_standing=True).number.startswith("b.s")
