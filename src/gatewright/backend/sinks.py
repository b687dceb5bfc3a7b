"""Where a backend's messages go: to the call they belong to, or to the client session behind a backend session.

Only what a client may receive passes: progress under its own token, and never what concerns this hop alone. A question
becomes a task of its own, so that the stream it came on is read on meanwhile; the backend may withdraw it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import msgspec
import structlog

from gatewright.call import Call, Caller, Failure, Params, Reply, Result
from gatewright.errors import BackendError, GatewayError
from gatewright.protocol import bridge, jsonrpc, refusals
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ASKS, CANCELLED, LIST_CHANGED, PROGRESS
from gatewright.protocol.modern import PROGRESS_KEY
from gatewright.protocol.tasks import NOTICE, STATUS

if TYPE_CHECKING:
    from gatewright.backend.base import Link
    from gatewright.backend.tasks import Tasks

Start = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None] | None"]
"""Runs a coroutine in the gateway's task group; None when that is ending."""

UNASKABLE: Final = -32601
MAX_ASKS: Final = 64
"""Questions of one call, or of one session outside calls, that may be open at once."""
TASK_NOTICES: Final = frozenset({NOTICE, STATUS})
log = structlog.get_logger("gatewright.backend")


class Changes(Protocol):
    """Told when a backend says that a list changed. `session` is the client session it said so in, or empty."""

    def changed(self, backend: str, session: str, method: str) -> None: ...


@final
class OpenAsks:
    """A backend's questions while they are open with a client, so that it can take them back. Its ids are its own:
    the client knows a question under another."""

    __slots__ = ("_has_dropped", "_start", "_tasks")

    def __init__(self, start: Start) -> None:
        self._start = start
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._has_dropped = False

    def put(self, link: Link, reply: Reply | None, request_id: Id, method: str, params: Params) -> None:
        """Put a question to whoever `reply` is the way to. One too many, or under an id that is open, is dropped."""
        key = jsonrpc.encode_id(request_id)
        if key in self._tasks or len(self._tasks) >= MAX_ASKS:
            if not self._has_dropped:
                self._has_dropped = True  # said once: whoever floods must not flood the log as well
                log.warning("questions dropped", method=method, open=len(self._tasks))
            return
        task = self._start(answer(link, reply, request_id, method, params))
        if task is not None:
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def take_back(self, params: Params) -> None:
        """The backend cancelled a question: the client is told, and no answer is sent."""
        task = self._tasks.get(bytes(params.get("requestId", b"")))
        if task is not None:
            task.cancel()


@final
class CallSink(msgspec.Struct, eq=False):
    """What a backend says while it carries out one call. A struct because one is made per call."""

    _call: Call
    _tasks: Tasks
    _link: Link
    _start: Start
    _changes: Changes
    _token: int
    """The call's progress token on this hop."""
    _can_ask: bool
    """A backend that may not ask (2026-07-28) is not listened to when it does."""
    _asks: OpenAsks | None = None

    async def notified(self, method: str, params: Params) -> None:
        """Pass a notification on. Progress wants both tokens, the hop's and the client's; it counts as a sign of life,
        as everything does."""
        call = self._call
        call.heard_at = asyncio.get_running_loop().time()
        if method == PROGRESS:
            wanted = call.meta.get(PROGRESS_KEY)
            if wanted is None or bytes(params.get(PROGRESS_KEY, b"")) != b"%d" % self._token:
                wanted = self._tasks.progress_of(call.client.session, params.get(PROGRESS_KEY))
                if wanted is None:
                    return
            if "_meta" in params:
                params = self._tasks.told(call.caller, method, params) or params
            await call.reply.emit(method, bridge.retokened(params, wanted))
            return
        if method == CANCELLED:
            if self._asks is not None:
                self._asks.take_back(params)
            return
        if method in LIST_CHANGED:
            self._changes.changed(self._tasks.backend, call.client.session, method)
        told: Params | None = params
        if "_meta" in params or method in TASK_NOTICES:
            told = self._tasks.told(call.caller, method, params)
        if told is not None:
            await call.reply.emit(method, jsonrpc.encode(told))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """Put a question to the client of this call."""
        self._call.heard_at = asyncio.get_running_loop().time()
        if not self._can_ask:
            log.warning("question ignored", backend=self._tasks.backend, method=method)
            return
        if self._asks is None:
            self._asks = OpenAsks(self._start)
        reply, params = self._tasks.asking(self._call.caller, self._call.reply, params)
        self._asks.put(self._link, reply, request_id, method, params)

    def missed(self) -> None:
        """A call's own stream loses nothing without failing the call."""


@final
class Ear(msgspec.Struct, frozen=True, eq=False):
    """A feed that listens in a session."""

    heard: Callable[[str, Params], None]
    missed: Callable[[], None]


@final
class SessionSink:
    """What a backend says outside any call, for the client session its backend session belongs to (or for none)."""

    __slots__ = ("_asks", "_caller", "_changes", "_outlets", "_tasks", "ears", "link", "session", "unclaimed")

    def __init__(
        self, tasks: Tasks, session: str, caller: Caller, outlets: Outlets, start: Start, changes: Changes
    ) -> None:
        self._tasks = tasks
        self.session = session
        self._caller = caller
        self._outlets = outlets
        self._changes = changes
        self._asks = OpenAsks(start)
        self.link: Link | None = None
        self.ears: list[Ear] = []
        self.unclaimed: Callable[[Id, str, Params], None] | None = None
        """Takes the questions of a session that belongs to no client session: one of its calls asks them."""

    async def notified(self, method: str, params: Params) -> None:
        """Pass a notification to the client session, and to feeds."""
        if method == CANCELLED:
            self._asks.take_back(params)
            return
        reply = self._outlets.get(self.session)
        if method == PROGRESS:  # of a task, or of a request of the gateway's own
            wanted = self._tasks.progress_of(self.session, params.get(PROGRESS_KEY))
            if reply is not None and wanted is not None:
                params = self._tasks.told(self._caller, method, params) or params
                await reply.emit(method, bridge.retokened(params, wanted))
            return
        for ear in list(self.ears):
            ear.heard(method, params)
        if method in LIST_CHANGED:
            self._changes.changed(self._tasks.backend, self.session, method)
        told = None if reply is None else self._tasks.told(self._caller, method, params)
        if reply is not None and told is not None:
            await reply.emit(method, jsonrpc.encode(told))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """Put a question to the client session."""
        if self.unclaimed is not None and method in ASKS:
            self.unclaimed(request_id, method, params)
        elif self.link is not None:
            reply = self._outlets.get(self.session)
            if reply is not None:
                reply, params = self._tasks.asking(self._caller, reply, params)
            self._asks.put(self.link, reply, request_id, method, params)

    def missed(self) -> None:
        """Lists may have changed unheard."""
        for method in LIST_CHANGED:
            self._changes.changed(self._tasks.backend, self.session, method)
        for ear in list(self.ears):
            ear.missed()


class Outlets(Protocol):
    """The standing channels to client sessions, by session id."""

    def get(self, session: str) -> Reply | None:
        """The channel of a session that is still there."""


async def answer(link: Link, reply: Reply | None, request_id: Id, method: str, params: Params) -> None:
    """Put a backend's question to a client and send the answer back. Never raises: a backend that left is logged."""
    outcome: Result | Failure
    if method == "ping":
        outcome = Result(b"{}")
    elif method not in ASKS or reply is None:
        outcome = Failure(UNASKABLE, f"{method} cannot be answered here")
    else:
        try:
            outcome = await reply.ask(method, jsonrpc.encode(params))
        except GatewayError as error:
            outcome = refusals.failure(error)
    try:
        await link.tell(jsonrpc.response(request_id, outcome))
    except BackendError as error:
        log.info("an answer could not be delivered", method=method, reason=error.message)
