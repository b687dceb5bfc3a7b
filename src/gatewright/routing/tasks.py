"""From a task's id to the backend that has it, and the tasks of all backends as one list.

A client knows a task by an id of the gateway's making; nothing reaches a backend for an id that does not open for its
caller and for the route it came on. Sources: basic/utilities/tasks of 2025-11-25; SEP-2663; S-27.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, final

import msgspec
import structlog

from gatewright.backend.backend import McpBackend
from gatewright.call import Bounds, Call, Failure, Outcome, Result, Target
from gatewright.errors import (
    BackendError,
    BackendGarbage,
    BackendUnavailable,
    InvalidParams,
    MethodNotFound,
    ProtocolError,
)
from gatewright.protocol import jsonrpc, tasks
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.sealed import Sealer
from gatewright.routing.catalog import Page, read_page
from gatewright.routing.cursors import Cursors
from gatewright.routing.fanout import MISSING_KEY
from gatewright.routing.settings import Routing

LIST: Final = METHODS["tasks/list"]
WAITS: Final = "tasks/result"
"""It blocks until the task has ended: the backend's silence means nothing."""
log = structlog.get_logger("gatewright.routing")


@final
class Patient(msgspec.Struct, frozen=True):
    """The bounds of a call that may be silent for as long as it may take."""

    timeout_s: float
    max_total_s: float


@final
class TaskRouter:
    """Finds the targets of calls about tasks."""

    def __init__(
        self, backends: Mapping[str, McpBackend], sealer: Sealer, cursors: Cursors, settings: Routing, bounds: Bounds
    ) -> None:
        self._backends = backends
        self._sealer = sealer
        self._list = TaskLists(backends, cursors, settings, bounds)

    def target(self, call: Call) -> Target:
        """Where a call about tasks goes. Raises MissingCapability, and InvalidParams for an id that is no task of this
        caller's on this route."""
        era = call.client.revision.era
        tasks.check_client(call.client)
        if call.name is None:
            return Target(self._list if not call.route else TaskCalls(self._backends[call.route], call.method), None)
        task = tasks.found(self._sealer, call.caller, era, call.name)
        backend = self._backends.get(task.backend)
        if backend is None or call.route not in ("", task.backend):
            raise InvalidParams(tasks.UNKNOWN)
        return Target(TaskCalls(backend, call.method), task.own)


@final
class TaskCalls:
    """One backend, for a call about tasks: what it answers names them as the client does."""

    def __init__(self, backend: McpBackend, method: str) -> None:
        self._backend = backend
        self.name: Final = backend.name
        self.bounds: Final[Bounds] = (
            Patient(backend.bounds.max_total_s, backend.bounds.max_total_s) if method == WAITS else backend.bounds
        )

    async def __call__(self, call: Call) -> Outcome:
        """See Backend."""
        outcome = await self._backend(call)
        if not isinstance(outcome, Result):
            return outcome
        try:
            if call.name is None:
                return Result(self._listed(call, outcome))
            return _named(outcome, call.name)
        except ProtocolError as error:
            raise BackendGarbage(f"{self.name}: {error}") from error

    def _listed(self, call: Call, outcome: Result) -> bytes:
        """A page of the backend's own list, less what is not this caller's."""
        page = read_page(LIST, outcome.value)
        items = [self._backend.tasks.listed(call.caller, item) for item in page.items]
        shown = [msgspec.Raw(item) for item in items if item is not None]
        return jsonrpc.encode({**jsonrpc.members(outcome.value), "tasks": shown})


@final
class TaskLists:
    """All backends of the shared route, for `tasks/list`: never cached, as tasks move on by themselves."""

    name = "*"

    def __init__(self, backends: Mapping[str, McpBackend], cursors: Cursors, settings: Routing, bounds: Bounds) -> None:
        self._backends = backends
        self._cursors = cursors
        self._settings = settings
        self.bounds = bounds

    async def __call__(self, call: Call) -> Outcome:
        """The caller's tasks, backend by backend. Raises MethodNotFound where no backend lists any, and
        BackendUnavailable where none could be asked."""
        offset = self._cursors.offset(LIST.name, call.caller.subject, call.params.get("cursor"))
        answers = await asyncio.gather(*(self._of(call, backend) for backend in self._backends.values()))
        found = dict(zip(self._backends, answers, strict=True))
        missing = [{"backend": name, "reason": why} for name, why in found.items() if isinstance(why, str)]
        lists = [answer for answer in found.values() if isinstance(answer, list)]
        if not lists and not missing:
            raise MethodNotFound("no backend here lists tasks")
        if not lists:
            raise BackendUnavailable("no backend could list its tasks", data=missing)
        items = [item for one in lists for item in one]
        end = offset + self._settings.page_size
        result: dict[str, object] = {"tasks": [msgspec.Raw(item) for item in items[offset:end]]}
        if end < len(items):
            result["nextCursor"] = self._cursors.make(LIST.name, call.caller.subject, end)
        if missing:
            result["_meta"] = {MISSING_KEY: missing}
        return Result(jsonrpc.encode(result))

    async def _of(self, call: Call, backend: McpBackend) -> list[bytes] | str | None:
        """One backend's part, None when it lists no tasks, or why it is missing."""
        try:
            async with asyncio.timeout(self._settings.list_timeout_s):
                offer = await backend.offer(call.client, call.caller)
                if not tasks.offers(offer.capabilities, "list"):
                    return None
                pages = await self._pages(call, backend, LIST)
            items = [backend.tasks.listed(call.caller, item) for page in pages for item in page.items]
        except (BackendError, TimeoutError, ProtocolError) as error:
            reason = str(error) or f"{backend.name} did not list its tasks in time"
            log.warning("list incomplete", backend=backend.name, method=LIST.name, reason=reason)
            return reason
        return [item for item in items if item is not None]

    async def _pages(self, call: Call, backend: McpBackend, method: Method) -> list[Page]:
        pages: list[Page] = []
        cursor: msgspec.Raw | None = None
        count = 0
        while not pages or (cursor is not None and count < self._settings.max_items_per_backend):
            answer = await backend.request(
                method.name, {} if cursor is None else {"cursor": cursor}, call.client, call.caller
            )
            if isinstance(answer, Failure):
                raise BackendGarbage(f"{backend.name} failed {method.name}: {answer.message[:200]}")
            page = read_page(method, answer.value)
            if not page.items and pages:
                raise BackendGarbage(f"{backend.name} pages {method.name} without end")
            pages.append(page)
            count += len(page.items)
            cursor = page.next_cursor
        return pages


def _named(outcome: Result, task_id: str) -> Result:
    """A result about one task, under the client's id for it."""
    result = jsonrpc.members(outcome.value)
    if "taskId" in result:
        result = tasks.named(result, task_id)
    if tasks.related_in(result) is not None:
        result = tasks.related(result, task_id)
    return Result(jsonrpc.encode(result), outcome.is_typed, outcome.is_hinted)
