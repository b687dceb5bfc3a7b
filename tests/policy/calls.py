"""Calls, targets and replies for tests of policies: nothing is carried anywhere."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from gatewright.call import ANONYMOUS, Call, Caller, Client, Failure, Json, Outcome, Params, Result, Target
from gatewright.errors import MissingCapability
from gatewright.protocol import addressing
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import MODERN_2026_07_28, Revision


class NoReply:
    """A client that hears nothing and answers nothing."""

    async def emit(self, method: str, params: Json) -> None:
        """It is not told."""

    async def ask(self, method: str, params: Json) -> Result | Failure:
        raise MissingCapability("nobody is here", {})


@dataclass(frozen=True)
class Bounds:
    """How long a call may take."""

    timeout_s: float = 60.0
    max_total_s: float = 600.0


@dataclass
class Behind:
    """A backend that answers every call alike."""

    name: str = "box"
    bounds: Bounds = field(default_factory=Bounds)
    outcome: Outcome = field(default_factory=lambda: Result(b"{}"))
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, call: Call) -> Outcome:
        self.calls.append(call)
        return self.outcome


def a_call(
    method: str = "tools/call",
    params: Params | None = None,
    *,
    route: str = "",
    caller: Caller = ANONYMOUS,
    target: Target | None = None,
    revision: Revision = MODERN_2026_07_28,
    **more: Any,
) -> Call:
    """A call that the running task carries out."""
    task = asyncio.current_task()
    assert task is not None
    if params is None:
        params = {"name": Raw(b'"tool"')} if method == "tools/call" else {}
    row = METHODS.get(method)
    return Call(
        method=method,
        row=row,
        params=params,
        name=None if row is None else addressing.name_of(row, params),
        client=Client(revision, b"{}", b"{}"),
        reply=NoReply(),
        task=task,
        route=route,
        caller=caller,
        target=target,
        **more,
    )
