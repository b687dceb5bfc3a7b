"""From a call to its target: which backend, under which name.

`/mcp/<backend>` serves one backend, names as they are; `/mcp` serves all, tools and prompts prefixed. Names are never
guessed: what does not resolve is refused. Source: DESIGN section 7; S-82.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from gatewright.backend.backend import McpBackend
from gatewright.call import Call, Target
from gatewright.errors import InvalidParams
from gatewright.protocol import addressing
from gatewright.routing.catalog import split
from gatewright.routing.fanout import Fanout
from gatewright.routing.front import Front
from gatewright.routing.tasks import TaskRouter


@final
class Router:
    """Finds targets. Holds no state of its own."""

    def __init__(
        self, backends: Mapping[str, McpBackend], fanout: Fanout, front: Front, tasks: TaskRouter, separator: str
    ) -> None:
        self._backends = backends
        self._tasks = tasks
        self._fanout = fanout
        self._front = front
        self._separator = separator

    def has_route(self, route: str) -> bool:
        """Whether a path serves something: empty is the route of all."""
        return not route or route in self._backends

    def known(self, call: Call) -> Target | None:
        """Where a call goes, None when that takes a look at what backends list. Raises InvalidParams for a name that
        no backend can have, and what `TaskRouter.target` does."""
        row = call.row
        if row is None or row.kind != "addressed" or call.name is None:
            return self._unnamed(call)
        if call.route:
            return Target(self._backends[call.route], call.name)
        space = addressing.space_of(row, call.params)
        if space == "resources":
            return None
        found = split(call.name, self._separator)
        backend = None if found is None else self._backends.get(found[0])
        if found is None or backend is None:
            kind = "tool" if space == "tools" else "prompt"
            raise InvalidParams(
                f"Unknown {kind}: {call.name[:100]!r}. Names here have the form <backend>{self._separator}<{kind}>"
            )
        return Target(backend, found[1])

    def _unnamed(self, call: Call) -> Target:
        """Where a call goes that names no tool, prompt or resource."""
        row = call.row
        if row is not None and row.kind in ("local", "stream"):
            return Target(self._front, None)
        if row is not None and row.kind == "task":
            return self._tasks.target(call)
        if call.route:
            return Target(self._backends[call.route], call.name)
        return Target(self._fanout, None)

    async def found(self, call: Call) -> Target:
        """The backend that has the resource a call names. Raises ResourceNotFound."""
        assert call.name is not None
        return Target(await self._fanout.owner(call, call.name), call.name)
