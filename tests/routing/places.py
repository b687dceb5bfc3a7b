"""Routing as `app.py` builds it, before in-process toolboxes, without a listener."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from msgspec import Raw

from gatewright.app import Gateway
from gatewright.backend.backend import McpBackend
from gatewright.backend.settings import BackendSettings
from gatewright.background import Background
from gatewright.call import ANONYMOUS, Call, Caller, Client, Failure, Json, Outcome, Params, Result
from gatewright.config import Config
from gatewright.errors import MissingCapability
from gatewright.protocol import addressing, bridge, jsonrpc
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.modern import CAPABILITIES_KEY, INFO_KEY, VERSION_KEY
from gatewright.protocol.revisions import MODERN_2026_07_28
from gatewright.routing.fanout import Fanout
from gatewright.routing.front import Front
from gatewright.routing.listings import Listings
from gatewright.routing.router import Router
from gatewright.routing.settings import Routing
from journeys import shelf
from journeys.toolbox import Toolbox

_NUMBERS = count(1)
TOOLS = METHODS["tools/list"]
CLIENT = Client(MODERN_2026_07_28, b'{"name":"x","version":"1"}', b"{}")


class Heard:
    """A client that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.arrived = asyncio.Event()

    async def emit(self, method: str, params: Json) -> None:
        self.messages.append((method, json.loads(bytes(params))))
        self.arrived.set()

    async def ask(self, method: str, params: Json) -> Result | Failure:
        raise MissingCapability("nobody is here", {})


class Place:
    """What is to be tested."""

    def __init__(self, router: Router, backends: Mapping[str, McpBackend]) -> None:
        self.router = router
        self.backends = backends

    @property
    def fanout(self) -> Fanout:
        return self.router._fanout

    @property
    def front(self) -> Front:
        return self.router._front

    @property
    def listings(self) -> Listings:
        return self.fanout._listings

    async def call(self, method: str, params: dict[str, Any] | None = None, *, route: str = "", **more: Any) -> Outcome:
        """What a call comes to, by the router alone."""
        call = a_call(method, params, route=route, **more)
        call.target = self.router.known(call) or await self.router.found(call)
        return await call.target.backend(call)

    async def result(self, method: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Its result."""
        outcome = await self.call(method, params, **more)
        assert isinstance(outcome, Result), outcome
        found = json.loads(bytes(outcome.value))
        assert isinstance(found, dict)
        return found


def a_call(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    route: str = "",
    caller: Caller = ANONYMOUS,
    client: Client = CLIENT,
    reply: Heard | None = None,
    capabilities: dict[str, Any] | None = None,
) -> Call:
    """A call that the running task carries out."""
    task = asyncio.current_task()
    assert task is not None
    meta = {VERSION_KEY: "2026-07-28", INFO_KEY: {"name": "x", "version": "1"}, CAPABILITIES_KEY: capabilities or {}}
    given: Params = jsonrpc.members(json.dumps({**(params or {}), "_meta": meta}).encode())
    row: Method | None = METHODS.get(method)
    return Call(
        method=method,
        row=row,
        params=given,
        meta=bridge.meta_of(given),
        name=None if row is None else addressing.name_of(row, given),
        client=client,
        caller=caller,
        reply=reply or Heard(),
        task=task,
        route=route,
    )


def raw(value: object) -> Raw:
    """A JSON value, undecoded."""
    return jsonrpc.raw(value)


@asynccontextmanager
async def placed(behind: Mapping[str, Toolbox | BackendSettings], **routing: Any) -> AsyncIterator[Place]:
    """Routing before these, until the end."""
    settings: dict[str, BackendSettings] = {}
    names = []
    for name, one in behind.items():
        if isinstance(one, Toolbox):
            attribute = f"place_{next(_NUMBERS)}"
            names.append(attribute)
            setattr(shelf, attribute, one)
            settings[name] = BackendSettings(python=f"journeys.shelf:{attribute}", stop_grace_s=0.5)
        else:
            settings[name] = one
    try:
        async with asyncio.TaskGroup() as tasks:
            config = Config(admin=None, backends=settings, routing=Routing(**routing))
            built = Gateway(config)._build(tasks, Background(tasks))
            try:
                yield Place(built.router, built.backends)
            finally:
                await built.aclose()
    finally:
        for attribute in names:
            delattr(shelf, attribute)
