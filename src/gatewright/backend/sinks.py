"""Where a backend's messages go: to the call they belong to, or to the client session behind a backend session.

Only what a client may receive passes: progress for its own token, log messages at the level it asked for, change
notices. A question becomes a task of its own, so that the stream it came on is read on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import structlog

from gatewright.call import Call, Failure, Params, Reply, Result
from gatewright.errors import BackendError, GatewayError
from gatewright.protocol import bridge, jsonrpc, refusals
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ASKS, CANCELLED, LIST_CHANGED, PROGRESS
from gatewright.protocol.modern import PROGRESS_KEY

if TYPE_CHECKING:
    from gatewright.backend.base import Link

Start = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None] | None"]
"""Runs a coroutine in the gateway's task group; None when that is ending."""

UNASKABLE: Final = -32601
log = structlog.get_logger("gatewright.backend")


class Changes(Protocol):
    """Told when a backend says that a list changed. `session` is the client session it said so in, or empty."""

    def changed(self, backend: str, session: str, method: str) -> None: ...


@final
class OpenAsks:
    """A backend's questions while they are open with a client, so that it can take them back. Its ids are its own:
    the client knows a question under another."""

    __slots__ = ("_start", "_tasks")

    def __init__(self, start: Start) -> None:
        self._start = start
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def put(self, link: Link, reply: Reply | None, request_id: Id, method: str, params: Params) -> None:
        """Put a question to whoever `reply` is the way to."""
        task = self._start(answer(link, reply, request_id, method, params))
        if task is not None:
            key = jsonrpc.encode_id(request_id)
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def take_back(self, params: Params) -> None:
        """The backend cancelled a question: the client is told, and no answer is sent."""
        task = self._tasks.pop(bytes(params.get("requestId", b"")), None)
        if task is not None:
            task.cancel()


@final
class CallSink:
    """What a backend says while it carries out one call."""

    __slots__ = ("_asks", "_backend", "_call", "_changes", "_link", "_start", "_token")

    def __init__(self, call: Call, backend: str, link: Link, start: Start, changes: Changes) -> None:
        self._call = call
        self._backend = backend
        self._link = link
        self._start = start
        self._changes = changes
        self._token = call.meta.get(PROGRESS_KEY)
        self._asks: OpenAsks | None = None

    async def notified(self, method: str, params: Params) -> None:
        """Pass a notification on. Progress wants the client's own token, and counts as a sign of life."""
        call = self._call
        call.heard_at = asyncio.get_running_loop().time()
        if method == PROGRESS:
            if self._token is not None:
                await call.reply.emit(method, bridge.retokened(params, self._token))
            return
        if method == CANCELLED:
            if self._asks is not None:
                self._asks.take_back(params)
            return
        if method in LIST_CHANGED:
            self._changes.changed(self._backend, call.client.session, method)
        await call.reply.emit(method, jsonrpc.encode(params))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """Put a question to the client of this call."""
        self._call.heard_at = asyncio.get_running_loop().time()
        if self._asks is None:
            self._asks = OpenAsks(self._start)
        self._asks.put(self._link, self._call.reply, request_id, method, params)


@final
class SessionSink:
    """What a backend says outside any call, for the client session its backend session belongs to (or for none)."""

    __slots__ = ("_asks", "_backend", "_changes", "_outlets", "_session", "hears", "link")

    def __init__(self, backend: str, session: str, outlets: Outlets, start: Start, changes: Changes) -> None:
        self._backend = backend
        self._session = session
        self._outlets = outlets
        self._asks = OpenAsks(start)
        self._changes = changes
        self.link: Link | None = None
        self.hears: set[Callable[[str, Params], None]] = set()
        """Feeds that listen in this session."""

    async def notified(self, method: str, params: Params) -> None:
        """Pass a notification to the client session, and to feeds."""
        for heard in list(self.hears):
            heard(method, params)
        if method == CANCELLED:
            self._asks.take_back(params)
            return
        if method in LIST_CHANGED:
            self._changes.changed(self._backend, self._session, method)
        reply = self._outlets.get(self._session)
        if reply is not None:
            await reply.emit(method, jsonrpc.encode(params))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """Put a question to the client session."""
        if self.link is not None:
            self._asks.put(self.link, self._outlets.get(self._session), request_id, method, params)


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
