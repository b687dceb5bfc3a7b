"""Every answer belongs to its asker: 200 clients at once, every JSON-RPC id 1, cancellations in between.

A backend answers with a digest of the asker's secret and a nonce, which nobody else can know; a progress notice carries
the nonce. JSON and event streams, both eras, two transports and the shared route are mixed, and one in ten calls is
abandoned half-way on a connection that others then use.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import Counter

import pytest
import structlog

from gatewright.backend.settings import BackendSettings
from journeys.host import hosting
from journeys.toolbox import Toolbox, digest
from journeys.travel import Travel, travelling
from journeys.wire import ACCEPT, Client, HandshakeClient, Json, Wire, soon

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
CLIENTS = 200
ANSWERS = 5_000
ABANDONED = 0.1
TOKEN = "same-for-all"


class Asker:
    """One client, which knows its own secret."""

    def __init__(self, client: Client, prefix: str, chance: random.Random, tally: Counter[str]) -> None:
        self._client = client
        self._name = prefix + "digest"
        self._chance = chance
        self._tally = tally
        self._secret = secrets.token_hex(16)
        self._wire: Wire | None = None

    async def work(self) -> None:
        """Ask until enough was answered to all together."""
        while self._tally["answers"] < ANSWERS:
            if self._wire is None or not self._wire.is_open:
                self._wire = await soon(self._client.wire(), 20)
            await self._turn(self._wire)

    async def _turn(self, wire: Wire) -> None:
        nonce = secrets.token_hex(8)
        arguments = {"secret": self._secret, "nonce": nonce, "is_loud": self._chance.random() < 0.5}
        params = {"name": self._name, "arguments": arguments, "_meta": {"progressToken": TOKEN}}
        request = self._client.request("tools/call", params, request_id=1)
        fields = {"Content-Type": "application/json", "Accept": ACCEPT, **self._client.headers(request)}
        answer = wire.begin("POST", self._client.path, fields, json.dumps(request).encode())
        if self._chance.random() < ABANDONED:
            await self._abandon(wire)
            return
        await soon(answer.started, 20)
        *notices, last = [message async for message in answer.messages()]
        self._tally["answers"] += 1
        self._tally["streams" if answer.is_stream else "json"] += 1
        self._tally["wrong"] += bool(wire.stray)
        self._judge(nonce, notices, last)

    async def _abandon(self, wire: Wire) -> None:
        """Leave at a random moment; at times, in a session, say so first."""
        for _ in range(self._chance.randrange(20)):
            await asyncio.sleep(0)
        if isinstance(self._client, HandshakeClient) and self._chance.random() < 0.5:
            await soon(self._client.tell("notifications/cancelled", {"requestId": 1}), 20)
        wire.close()
        self._tally["abandoned"] += 1

    def _judge(self, nonce: str, notices: list[Json], last: Json) -> None:
        for notice in notices:
            self._tally["notices"] += 1
            if (notice["params"]["message"], notice["params"]["progressToken"]) != (nonce, TOKEN):
                self._tally["wrong"] += 1
        found = json.loads(last["result"]["content"][0]["text"]) if "result" in last else last
        if last["id"] != 1 or found != {"digest": digest(self._secret, nonce)}:
            self._tally["wrong"] += 1


async def asker(travel: Travel, number: int, tally: Counter[str]) -> Asker:
    """The client of that number: eras, backends and routes in turn."""
    era = ("handshake", "modern")[number % 2]
    backend = ("here", "web")[number // 2 % 2]
    is_shared = number // 4 % 3 == 0
    client = await travel.client(era, "/mcp" if is_shared else f"/mcp/{backend}")
    return Asker(client, f"{backend}." if is_shared else "", random.Random(number), tally)


async def test_every_answer_belongs_to_its_asker() -> None:
    """5,000 answers, none wrong, none missing; every backend has let go of everything at the end."""
    tally: Counter[str] = Counter()
    with structlog.testing.capture_logs() as logged:
        await press(tally)
    assert [one for one in logged if one["log_level"] == "error"] == []
    assert tally["wrong"] == 0
    assert tally["answers"] >= ANSWERS
    assert min(tally["json"], tally["streams"], tally["abandoned"], tally["notices"]) > 100, tally


async def press(tally: Counter[str]) -> None:
    """All clients at once, until there are enough answers."""
    async with hosting(Toolbox("web")) as host:
        behind = {"here": Toolbox("here"), "web": BackendSettings(url=host.url)}
        async with travelling(behind) as travel:
            askers = [await asker(travel, number, tally) for number in range(CLIENTS)]
            async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
                for one in askers:
                    tasks.create_task(one.work())
