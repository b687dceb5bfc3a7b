"""The tasks of one backend, as its clients know them: ids sealed on the way out, opened on the way in.

A backend takes the gateway for one client, so it cannot tell callers apart: that a task is its caller's is seen to
here, on every path. Nothing is done for calls and messages that have no task. Sources: basic/utilities/tasks of
2025-11-25; SEP-2663; S-27.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias, final

import msgspec
import structlog

from gatewright.call import ANONYMOUS, Call, Caller, Failure, Json, Outcome, Params, Reply, Result
from gatewright.errors import BackendGarbage, ProtocolError
from gatewright.protocol import jsonrpc, sealed, tasks
from gatewright.protocol.modern import PROGRESS_KEY
from gatewright.protocol.tasks import Task

if TYPE_CHECKING:
    from msgspec import Raw

    from gatewright.backend.own_process import OwnProcess
    from gatewright.backend.sinks import CallSink
    from gatewright.protocol.revisions import Era
    from gatewright.protocol.sealed import Sealer

MAX_KEPT: Final = 10_000
"""Tasks of one backend whose owners are remembered: about 1.5 MB."""
Exchange: TypeAlias = "Callable[[Call, Params, CallSink, int, Raw | None], Awaitable[Result | Failure]]"
"""One call to the backend, under that id, and that progress token if it is not the id."""
_PROGRESS: Final = "progress"
_decode_text: Final = msgspec.json.Decoder(str).decode
log = structlog.get_logger("gatewright.tasks")


@final
class Tasks:
    """The tasks of the backend of that name."""

    def __init__(self, backend: str, sealer: Sealer, process: OwnProcess | None = None) -> None:
        self.backend: Final = backend
        self.process: Final = process
        """Where each replica has one: what a modern server gives its clients to bring back belongs to one of them."""
        self._sealer = sealer
        self._owners: OrderedDict[str, str] = OrderedDict()
        """Whose a task of 2025-11-25 is, by the backend's own id: a list of tasks says nothing of it."""

    def shown(self, caller: Caller, era: Era, own: str) -> str:
        """The id under which a caller knows a task."""
        return tasks.shown(self._sealer, caller, Task(self.backend, era, own))

    def own(self, caller: Caller, task_id: str) -> str | None:
        """The backend's own id of a caller's task, None when it is none of this backend's."""
        try:
            task = tasks.opened(self._sealer, caller, task_id)
        except ProtocolError:
            return None
        return task.own if task.backend == self.backend else None

    # --- modern

    def begun(self, call: Call, value: bytes) -> Outcome:
        """A CreateTaskResult of the modern era, as the client is shown it. Raises BackendGarbage for one that the
        client did not say it can take (SEP-2663, Capability Negotiation: MUST NOT)."""
        if not tasks.takes_tasks(call.client):
            raise BackendGarbage(
                f"{self.backend} answered with a task, but a client of {call.client.revision.name} takes none without "
                f"{tasks.EXTENSION}, which is an extension of the modern era"
            )
        try:
            result = jsonrpc.members(value)
            own = tasks.id_in(result)
        except ProtocolError as error:
            raise BackendGarbage(f"{self.backend}: {error}") from error
        if self.process is not None:
            own = self.process.marked(own)
        return Result(jsonrpc.encode(tasks.named(result, self.shown(call.caller, "modern", own))), True)

    def here(self, own: str) -> str | None:
        """The id of a modern task at the backend's process in this replica, None when it is in another one's."""
        return own if self.process is None else self.process.own(own)

    # --- 2025-11-25

    async def carry(
        self, exchange: Exchange, call: Call, params: Params, sink: CallSink, token: int
    ) -> Result | Failure:
        """A call that asks to be made a task. A backend may carry it out as any other.

        Progress outlives the call (basic/utilities/tasks, "Task Progress Notifications"), and may be heard by another
        replica: so the token of this hop is the client's, sealed, and nothing needs to be remembered.
        """
        wanted, progress = call.meta.get(PROGRESS_KEY), None
        if wanted is not None and call.client.session:
            told = self._sealer.seal_alike(bytes(wanted), self._progress_context(call.client.session))
            progress = jsonrpc.raw(told)
        return self._created(call, await exchange(call, params, sink, token, progress))

    def _created(self, call: Call, answer: Result | Failure) -> Result | Failure:
        """The answer to a call that asked for a task, as the client is shown it."""
        try:
            if isinstance(answer, Failure):
                raise ProtocolError(answer.message)
            result = jsonrpc.members(answer.value)
            task = jsonrpc.members(result.get("task", jsonrpc.EMPTY))
            own = tasks.id_in(task)
        except ProtocolError:  # it became no task
            return answer
        self._keep(own, call.caller.subject)
        shown = self.shown(call.caller, "handshake", own)
        if tasks.related_in(result) is not None:
            result = tasks.related(result, shown)
        return Result(jsonrpc.encode({**result, "task": jsonrpc.raw(tasks.named(task, shown))}))

    def is_owned(self, caller: Caller, own: str) -> bool:
        """Whether a task that the backend lists may be shown to a caller: its own, and where nobody has a name, what
        nobody else is known to have (basic/utilities/tasks, "Task Isolation and Access Control")."""
        owner = self._owners.get(own)
        return owner == caller.subject or (owner is None and caller == ANONYMOUS)

    def listed(self, caller: Caller, item: Json) -> bytes | None:
        """An item of the backend's list of tasks as a caller is shown it, None when it is not to be shown. Raises
        ProtocolError for one that is no task."""
        members = jsonrpc.members(item)
        own = tasks.id_in(members)
        if not self.is_owned(caller, own):
            return None
        return jsonrpc.encode(tasks.named(members, self.shown(caller, "handshake", own)))

    def progress_of(self, session: str, token: Raw | None) -> Raw | None:
        """The progress token that a client session gave to the call whose task the backend reports on."""
        if token is None or not session:
            return None
        try:
            return msgspec.Raw(self._sealer.open(_decode_text(token), self._progress_context(session)))
        except (ProtocolError, *jsonrpc.UNREADABLE):
            return None

    def _progress_context(self, session: str) -> bytes:
        return sealed.context(_PROGRESS, self.backend, session)

    def _keep(self, own: str, subject: str) -> None:
        """Remember whose a task is; the oldest make room."""
        self._owners[own] = subject
        self._owners.move_to_end(own)
        if len(self._owners) > MAX_KEPT:
            self._owners.popitem(last=False)

    def told(self, caller: Caller, method: str, params: Params) -> Params | None:
        """A notification as the client is told it: a task by the id that it knows. None for one that has no place
        outside a subscription."""
        if method == tasks.NOTICE:
            return None
        if method == tasks.STATUS:
            try:
                params = tasks.named(params, self.shown(caller, "handshake", tasks.id_in(params)))
            except ProtocolError as error:
                log.warning("status without a task", backend=self.backend, reason=str(error))
                return None
        own = tasks.related_in(params)
        return params if own is None else tasks.related(params, self.shown(caller, "handshake", own))

    def asking(self, caller: Caller, reply: Reply, params: Params) -> tuple[Reply, Params]:
        """A question as the client is asked it, and where to ask it: in both directions it names its task by the id
        that the other side knows. Clients' own tasks are not offered to backends: one that asks for a task gets an
        answer (basic/utilities/tasks, "Task Support and Handling")."""
        if "task" in params:
            params = tasks.plain(params)
        own = tasks.related_in(params)
        if own is None:
            return reply, params
        shown = self.shown(caller, "handshake", own)
        return _Related(reply, shown, own), tasks.related(params, shown)


@final
class _Related:
    """The way to a client for a question that belongs to a task."""

    def __init__(self, reply: Reply, shown: str, own: str) -> None:
        self._reply = reply
        self._shown = shown
        self._own = own

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        await self._reply.emit(method, params)

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask."""
        answer = await self._reply.ask(method, params)
        if isinstance(answer, Failure):
            return answer
        try:
            result = jsonrpc.members(answer.value)
        except ProtocolError:
            return answer
        if tasks.related_in(result) != self._shown:
            return answer
        return Result(jsonrpc.encode(tasks.related(result, self._own)))
