"""Parked calls over the wire: modern clients, a handshake backend that asks in the middle of its calls."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from journeys.host import hosting
from journeys.toolbox import Toolbox
from journeys.travel import Travel, over_http, travelling
from journeys.wire import Json, ModernClient, soon

pytestmark = pytest.mark.anyio
AT_ONCE = 100
ABLE = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
STATE = "requestState"


@asynccontextmanager
async def parked_behind(drain_s: float = 1.0, **more: Any) -> AsyncIterator[tuple[Travel, Toolbox]]:
    """A gateway before a handshake toolbox; `more` are settings of the backend."""
    box = Toolbox("box", "handshake")
    async with hosting(box) as host, travelling({"box": over_http(host, **more)}, drain_s=drain_s) as travel:
        yield travel, box


async def test_parked_calls_keep_nobody_from_calling() -> None:
    """More of them than connections, all waiting for people: other calls are made as ever, and each gets its answer."""
    async with parked_behind(max_connections=4, timeout_s=3) as (travel, _):
        askers = [Asker(travel, number) for number in range(12)]
        await asyncio.gather(*(asker.ask() for asker in askers))
        other = travel.modern("/mcp/box")
        assert await asyncio.gather(*(other.tool("echo", n=n) for n in range(8))) == [
            {"label": "box", "n": n} for n in range(8)
        ]
        assert await asyncio.gather(*(asker.answer() for asker in askers)) == [True] * 12


class Asker:
    """A caller with a question of its own: the tool asks for `word`, and only this caller knows what to say."""

    def __init__(self, travel: Travel, number: int = 0) -> None:
        self.client: ModernClient = travel.modern("/mcp/box", ABLE)
        self.word = f"word {number}"
        form = {"message": self.word, "requestedSchema": {"type": "object", "properties": {}}}
        self.params: Json = {
            "name": "ask",
            "arguments": {"method": "elicitation/create", "params": form, "number": number},
        }
        self.state = ""
        self.key = ""

    async def ask(self) -> None:
        """Make the call: it must come back as a question."""
        result = await self.client.result("tools/call", self.params)
        assert result["resultType"] == "input_required", result
        [(self.key, question)] = result["inputRequests"].items()
        assert question["params"]["message"] == self.word
        self.state = result[STATE]

    def retry(self, **changes: Any) -> Json:
        """The parameters of the retry that answers."""
        answer = {"action": "accept", "content": {"said": self.word}}
        return {**self.params, "inputResponses": {self.key: answer}, STATE: self.state, **changes}

    async def answer(self) -> bool:
        """Answer; whether the call's result is the answer that was given here."""
        result = await self.client.result("tools/call", self.retry())
        return self.word in result["content"][0]["text"] and result["content"][0]["text"].count("word ") == 1

    async def refused(self, params: Json, method: str = "tools/call") -> str:
        """The reason of a refusal, which is InvalidParams in a 400."""
        answer = await self.client.post(self.client.request(method, params))
        assert answer.status == 400
        error = (await answer.last())["error"]
        assert error["code"] == -32602, error
        assert isinstance(error["message"], str)
        return error["message"]


def sockets() -> int:
    """Sockets that this process holds."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the descriptor of the listing itself
            continue
    return found


async def until(is_so: Callable[[], bool], bound_s: float = 5.0) -> None:
    """Return when it is so, after whatever the loop has to do first."""
    async with asyncio.timeout(bound_s):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_parked_calls_are_answered_by_their_own_callers() -> None:
    """A hundred at once, answered in any order: every result is its caller's own, and nothing is left of them."""
    async with parked_behind(max_connections=AT_ONCE + 10, keep_alive_s=0.2) as (travel, box):
        first = Asker(travel)
        await first.ask()
        assert await first.answer()
        first.client.close()
        tasks = len(asyncio.all_tasks())
        askers = [Asker(travel, number) for number in range(1, AT_ONCE + 1)]
        await soon(asyncio.gather(*(asker.ask() for asker in askers)), 20)
        assert len(box.noted("answered")) == 1
        random.Random(1).shuffle(askers)
        assert all(await soon(asyncio.gather(*(asker.answer() for asker in askers)), 20))
        assert len({asker.state for asker in askers}) == AT_ONCE
        for asker in askers:
            asker.client.close()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        said = [one["answer"]["content"]["said"] for one in box.noted("answered")]
        assert sorted(said) == sorted(["word 0", *(asker.word for asker in askers)])
        assert not box.noted("cancelled")


async def test_no_socket_is_left_of_parked_calls() -> None:
    """Neither of those that were answered nor of those that expired."""
    async with parked_behind(parked_s=0.3, keep_alive_s=0.2, max_connections=100) as (travel, box):
        first = Asker(travel)
        await first.ask()
        assert await first.answer()
        first.client.close()
        askers = [Asker(travel, number) for number in range(1, 21)]
        before = sockets()
        await soon(asyncio.gather(*(asker.ask() for asker in askers)))
        await soon(asyncio.gather(*(asker.answer() for asker in askers[:10])))
        await box.until(lambda box: len(box.noted("cancelled")) == 10)
        for asker in askers:
            asker.client.close()
        await until(lambda: sockets() <= before)


WRONG: dict[str, tuple[Callable[[Asker], Json], str, str]] = {
    "tampered": (lambda asker: asker.retry(requestState=flipped(asker.state)), "tools/call", "altered"),
    "not ours": (lambda asker: asker.retry(requestState="e30"), "tools/call", "not one of this server's"),
    "empty": (lambda asker: asker.retry(requestState=""), "tools/call", "not one of this server's"),
    "endless": (lambda asker: asker.retry(requestState="A" * 70_000), "tools/call", "too long"),
    "no string": (lambda asker: asker.retry(requestState={"a": 1}), "tools/call", "must be a string"),
    "other arguments": (
        lambda asker: asker.retry(arguments={**asker.params["arguments"], "number": -1}),
        "tools/call",
        "made for another request",
    ),
    "another tool": (lambda asker: asker.retry(name="echo"), "tools/call", "made for another request"),
    "another method": (lambda asker: asker.retry(), "prompts/get", "made for another request"),
    "answers that are none": (lambda asker: asker.retry(inputResponses=[]), "tools/call", "inputResponses"),
}


def flipped(state: str) -> str:
    """The state with one bit of its middle changed."""
    middle = len(state) // 2
    return state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_state_reaches_nothing(wrong: str) -> None:
    """A precise error; the backend hears nothing, and the call's own client still gets its result."""
    build, method, said = WRONG[wrong]
    async with parked_behind() as (travel, box):
        asker = Asker(travel)
        await asker.ask()
        before = list(box.seen)
        assert said in await asker.refused(build(asker), method)
        assert box.seen == before
        assert await asker.answer()


async def test_a_replayed_state_reaches_nothing() -> None:
    """The retry of an answered call is refused, whoever sends it."""
    async with parked_behind() as (travel, box):
        asker, thief = Asker(travel), Asker(travel)
        await asker.ask()
        assert await asker.answer()
        before = list(box.seen)
        for one in (asker, thief):
            assert "has ended; make it again without it" in await one.refused(asker.retry())
        assert box.seen == before


async def test_an_expired_call_is_cancelled_at_the_backend() -> None:
    """`notifications/cancelled` for the parked request; its state is refused with the way out."""
    async with parked_behind(parked_s=0.2) as (travel, box):
        asker = Asker(travel)
        await asker.ask()
        await box.until(lambda box: len(box.noted("cancelled")) == 1)
        before = box.noted("asked")
        assert "has expired: make the call again without it" in await asker.refused(asker.retry())
        assert box.noted("asked") == before
        await asker.ask()
        assert await asker.answer()


async def test_too_many_parked_calls_are_refused() -> None:
    """One more than may be is told to come later, and reaches nothing; a place that is freed is taken."""
    async with parked_behind(max_parked=3) as (travel, box):
        askers = [Asker(travel, number) for number in range(4)]
        for asker in askers[:3]:
            await asker.ask()
        before = list(box.seen)
        answer = await askers[3].client.post(askers[3].client.request("tools/call", askers[3].params))
        assert (answer.status, (await answer.last())["error"]["code"]) == (503, -31001)
        assert box.seen == before
        assert await askers[0].answer()
        await askers[3].ask()


async def test_a_drain_does_not_wait_for_parked_calls() -> None:
    """Nobody may ever answer them: the gateway ends in its time, and ends its session with the backend."""
    async with parked_behind(drain_s=0.5) as (travel, box):
        askers = [Asker(travel, number) for number in range(20)]
        await soon(asyncio.gather(*(asker.ask() for asker in askers)))
        since = time.monotonic()
        travel.gateway.stop()
        await soon(asyncio.shield(travel.running), 5)
        assert time.monotonic() - since < 4
        assert box.noted("deleted")
