"""Handshake sessions of clients: who they are, what they wait for, and their standing stream.

A session is bound to the caller that opened it and to its path; anybody else is told what an unknown id is told. It
authenticates nobody. Messages that belong to no call go to one of its GET streams, never to several. Sources:
basic/lifecycle and basic/transports of 2024-11-05 to 2025-11-25; S-20 to S-26.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec
import structlog

from gatewright.call import Caller, Client, Failure, Json, Reply, Result
from gatewright.errors import MissingCapability, Overloaded, UnknownSession
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.protocol import jsonrpc
from gatewright.protocol.handshake import Event, State, advance
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ASKS, CANCELLED

SWEEP_S: Final = 15.0
"""How often idle sessions are looked for."""
Send = Callable[[bytes], Awaitable[None]]
log = structlog.get_logger("gatewright.sessions")


@final
class Running:
    """One call of a session while it runs, so that the client can cancel it."""

    __slots__ = ("is_cancelled", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.is_cancelled = False

    def cancel(self) -> None:
        """Stop it. Whoever runs it answers the HTTP exchange and goes on."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()


@final
class Session:
    """One client session."""

    __slots__ = (
        "_ask_ids",
        "_asks",
        "_max_asks",
        "caller",
        "calls",
        "client",
        "id",
        "is_busy",
        "last_active_at",
        "route",
        "state",
        "streams",
    )  # fmt: skip

    def __init__(self, session_id: str, route: str, caller: Caller, client: Client, max_asks: int) -> None:
        self.id = session_id
        self.route = route
        self.caller = caller
        self.client = client
        self.state = State.NEW
        self.streams: list[Send] = []
        self.calls: dict[Id, list[Running]] = {}
        self.last_active_at = asyncio.get_running_loop().time()
        self._asks: dict[int, asyncio.Future[Result | Failure]] = {}
        self._ask_ids = itertools.count(1)
        self._max_asks = max_asks

    def advance(self, event: Event) -> None:
        """Take the session where an event leads. Raises InvalidRequest."""
        self.state = advance(self.state, event)

    def set_log_level(self, level: str) -> None:
        """The client set its log level."""
        self.client = msgspec.structs.replace(self.client, log_level=level)

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit: a notification that belongs to no call. Without a stream there is nobody to tell."""
        if self.streams:
            await self.streams[-1](jsonrpc.notification(method, params))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask: a question that belongs to no call."""
        if not self.streams:
            raise MissingCapability(f"{method}: the client has no stream open to be asked on", {})
        return await self.put(method, params, self.streams[-1])

    async def put(self, method: str, params: Json, send: Send) -> Result | Failure:
        """Put a question to the client on a stream, and await its answer, which comes in a POST of its own.

        Raises MissingCapability when the client cannot be asked this, Overloaded when too many questions are open.
        """
        capability = ASKS[method]
        if capability not in jsonrpc.members(self.client.capabilities):
            raise MissingCapability(f"the client does not support {method}", {capability: {}})
        if len(self._asks) >= self._max_asks:
            raise Overloaded("too many questions are open in this session")
        ask_id = next(self._ask_ids)
        answer: asyncio.Future[Result | Failure] = asyncio.get_running_loop().create_future()
        self._asks[ask_id] = answer
        try:
            await send(jsonrpc.request(ask_id, method, msgspec.Raw(bytes(params))))
            return await answer
        except asyncio.CancelledError:
            await send(jsonrpc.notification(CANCELLED, jsonrpc.encode({"requestId": ask_id})))
            raise
        finally:
            self._asks.pop(ask_id, None)

    def answered(self, message: jsonrpc.Message) -> None:
        """The client answered a question. An answer to none is late, and dropped."""
        waiting = self._asks.get(message.id) if isinstance(message.id, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(jsonrpc.answer_of(message))

    def cancel(self, request_id: Id) -> None:
        """The client cancelled a request of its own (basic/utilities/cancellation)."""
        for running in self.calls.get(request_id, ()):
            running.cancel()


@final
class Sessions:
    """All sessions of this process, by id."""

    def __init__(self, settings: SessionSettings, on_end: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_end = on_end
        self._by_id: dict[str, Session] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session: str) -> Reply | None:
        """See Outlets.get."""
        return self._by_id.get(session)

    def mint(self) -> str:
        """A new session id: 192 random bits in visible ASCII (S-20). Raises Overloaded when there are too many."""
        if len(self._by_id) >= self._settings.max_sessions:
            raise Overloaded("too many sessions")
        return secrets.token_urlsafe(24)

    def add(self, session_id: str, route: str, caller: Caller, client: Client) -> Session:
        """A session that begins."""
        session = Session(session_id, route, caller, client, self._settings.max_pending_asks)
        self._by_id[session_id] = session
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SWEEP_S, self._sweep, loop)
        return session

    def find(self, session_id: bytes, route: str, caller: Caller) -> Session:
        """The caller's session of that id on that path. Raises UnknownSession for every other."""
        session = self._by_id.get(session_id.decode("latin-1"))
        if session is None or session.caller != caller or session.route != route:
            raise UnknownSession("Session not found: initialize a new one")
        session.last_active_at = asyncio.get_running_loop().time()
        return session

    def end(self, session: Session) -> None:
        """End a session everywhere at once."""
        if self._by_id.pop(session.id, None) is None:
            return
        session.state = State.ENDED
        for calls in list(session.calls.values()):
            for running in calls:
                running.cancel()
        self._on_end(session.id)

    def close(self) -> None:
        """Stop looking for idle sessions."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - self._settings.idle_s
        for session in list(self._by_id.values()):
            if session.last_active_at < oldest and not session.streams and not session.calls:
                log.info("session ended", reason="idle")
                self.end(session)
        self._timer = loop.call_later(SWEEP_S, self._sweep, loop) if self._by_id else None
