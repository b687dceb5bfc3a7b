"""kill -9 of a replica under load: what was in it fails, everything else goes on, nothing is answered twice or wrong.

Rounds, sessions and streams are few here, so that it runs with every change; `GATEWRIGHT_LOSS_ROUNDS`,
`GATEWRIGHT_LOSS_SESSIONS` make it long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from pathlib import Path

import pytest

from journeys.host import hosting
from journeys.replicas import Replicas, replicas
from journeys.test_replicas import called
from journeys.toolbox import Toolbox
from journeys.wire import Answer, HandshakeClient

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
ROUNDS = int(os.environ.get("GATEWRIGHT_LOSS_ROUNDS", "2"))
SESSIONS = int(os.environ.get("GATEWRIGHT_LOSS_SESSIONS", "24"))
REPLICAS = 3
CALLS_A_SECOND = int(os.environ.get("GATEWRIGHT_LOSS_CALLS", "100"))
BACK_S = 30.0
NOTICE = "notifications/resources/updated"


class Soul:
    """One client with its session, its standing stream and its calls."""

    def __init__(self, there: Replicas, client: HandshakeClient, number: int) -> None:
        self.there = there
        self.client = client
        self.number = number
        self.rng = random.Random(number)
        self.done = 0
        self.failed: list[float] = []
        self.wrong: list[object] = []
        self.heard: list[str] = []
        self.last_id = ""
        self.is_listening = False

    def aim(self) -> None:
        """Whichever replica the balancer would choose: one that takes connections."""
        self.client.port = self.rng.choice(self.there.serving)

    async def call(self, is_over: asyncio.Event) -> None:
        """Call on and on; every answer must be this client's own, and no session may be unknown."""
        loop = asyncio.get_running_loop()
        turn = 0
        while not is_over.is_set():
            turn += 1
            text = f"{self.number}:{turn}"
            self.aim()
            answer: Answer | None = None
            try:
                answer = await self.client.post(called(self.client, "echo", text=text))
                if answer.status == 503:
                    await answer.body()
                    await asyncio.sleep(0.1)
                    continue
                message = await answer.last()
            except (OSError, TimeoutError, ValueError):
                self.failed.append(loop.time())
                continue
            finally:
                if answer is not None:
                    answer.close()
            if answer.status != 200 or "result" not in message:
                self.wrong.append((answer.status, message))
            elif json.loads(message["result"]["content"][0]["text"]) != {"label": "box", "text": text}:
                self.wrong.append(message)
            self.done += 1
            await asyncio.sleep(2 * SESSIONS / CALLS_A_SECOND * self.rng.random())

    async def listen(self, is_over: asyncio.Event) -> None:
        """Hold a standing stream, and resume it where it broke off."""
        while not is_over.is_set():
            self.aim()
            fields = {"Accept": "text/event-stream", **self.client.headers({})}
            if self.last_id:
                fields["Last-Event-ID"] = self.last_id
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(10):
                    answer = await (await self.client.wire()).send("GET", self.client.path, fields)
                if answer.status == 400:
                    self.wrong.append(("resume", self.last_id))
                    self.last_id = ""
                elif answer.status == 200:
                    await self.hear(answer, is_over)
            self.is_listening = False
            await asyncio.sleep(0.05)

    async def hear(self, answer: Answer, is_over: asyncio.Event) -> None:
        """What comes on it, until it ends."""
        while not is_over.is_set():
            self.is_listening = True
            try:
                message = await answer.event(0.2)
            except TimeoutError:
                continue
            finally:
                self.last_id = answer.last_id or self.last_id
            if message is None:
                return
            self.heard.append(message["params"]["uri"])


async def told(box: Toolbox, souls: list[Soul], mark: str) -> set[int]:
    """Have the backend say something to every session; who heard it, once all did or the time is over."""
    for conversation in box.conversations:
        introduction = conversation.introduction.get("clientInfo", {})
        if introduction.get("name") == "traveller":
            conversation._notify(NOTICE, {"uri": mark}, None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            while not all(mark in soul.heard for soul in souls):
                await asyncio.sleep(0.05)
    return {soul.number for soul in souls if mark in soul.heard}


async def test_a_killed_replica_costs_what_was_in_it(tmp_path: Path) -> None:
    """Round after round one of three is killed and started again: sessions live on without `initialize`, streams are
    back with what they missed, nothing comes twice, nobody gets another one's answer."""
    async with (
        hosting(Toolbox("box", "handshake")) as host,
        replicas(tmp_path, {"box": {"url": host.url}}, REPLICAS) as it,
    ):
        souls = [Soul(it, await it.handshake(number % REPLICAS), number) for number in range(SESSIONS)]
        is_over = asyncio.Event()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work) for soul in souls for work in (soul.call(is_over), soul.listen(is_over))]
        rng = random.Random(1)
        try:
            for number in range(ROUNDS):
                async with asyncio.timeout(BACK_S):
                    while not all(soul.is_listening for soul in souls):
                        await asyncio.sleep(0.05)
                before = sum(soul.done for soul in souls)
                victim = it[rng.choice([index for index in range(len(it)) if it[index].process.returncode is None])]
                it.serving.remove(victim.port)
                victim.signal(signal.SIGKILL)
                killed_at = loop.time()
                await victim.ended()
                await it.start()
                heard: set[int] = set()
                async with asyncio.timeout(BACK_S):
                    attempt = 0
                    while heard != {soul.number for soul in souls}:
                        attempt += 1
                        heard = await told(host.box, souls, f"mark:{number}:{attempt}")
                assert sum(soul.done for soul in souls) > before
                print(f"round {number}: {attempt} marks, {loop.time() - killed_at:.1f} s, {len(souls[0].heard)} heard")
                late = [at for soul in souls for at in soul.failed if at > killed_at + 2]
                assert not late, late
        finally:
            is_over.set()
            await asyncio.wait(tasks, timeout=15)
        assert [soul.wrong for soul in souls if soul.wrong] == []
        for soul in souls:
            assert len(soul.heard) == len(set(soul.heard)), "an event came twice"
        assert sum(len(soul.failed) for soul in souls) <= 3 * SESSIONS * ROUNDS
