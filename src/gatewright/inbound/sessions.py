"""Handshake sessions of clients: who they are, what they wait for, and their standing streams.

A session is bound to the caller that opened it and to its path; anybody else is told what an unknown id is told. It
authenticates nobody. Messages that belong to no call go to one of its GET streams, never to several, and wait there
for that client alone: a slow one holds up no backend, and loses the oldest notifications when too many wait. A stream
that broke off can be resumed: what comes on it is kept meanwhile, and its questions stay open for a grace. Sources:
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
from gatewright.errors import GatewayError, InvalidRequest, MissingCapability, Overloaded, UnknownSession
from gatewright.inbound.events import Budget, EventLog, EventStream
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from gatewright.protocol.handshake import Event, State, advance
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ASKS, CANCELLED, LOG_MESSAGE
from gatewright.protocol.modern import LOG_LEVELS

SWEEP_S: Final = 15.0
"""How often idle sessions are looked for."""
MAX_ENDED_AT_ONCE: Final = 1_000
"""Idle sessions ended in one sweep: each end is work for every backend, and a crowd that left at once must not stop the
loop."""
GRACE_RETRIES: Final = 10
"""A client whose stream broke has this many times `retry_s` to resume it before its questions are taken for unanswered:
room for a change of network and a few failed attempts, and short enough for the backend that waits."""
EVENTS_KEPT_S: Final = 300.0
"""What was streamed to a session that was silent for this long is not kept on: a client that lost its connection comes
back within seconds, and 100,000 sessions that never will must not hold a full log each."""
DEFAULTS: Final = SessionSettings()
Send = Callable[[bytes], Awaitable[None]]
log = structlog.get_logger("gatewright.sessions")


class Unanswered(GatewayError):
    """The client cannot answer a question any more: its stream, its call or its session has ended."""


def is_loud(level: str | None, params: Json) -> bool:
    """Whether a log message reaches the level that was set. What has no known level is passed on, as is everything
    while none was set (server/utilities/logging of the handshake revisions)."""
    if level is None:
        return True
    said = bytes(jsonrpc.members(params).get("level", b"")).decode("latin-1").strip('"')
    return said not in LOG_LEVELS or LOG_LEVELS.index(said) >= LOG_LEVELS.index(level)


@final
class Ask(msgspec.Struct, frozen=True, eq=False):
    """A question that is open with the client."""

    answer: asyncio.Future[Result | Failure]
    owners: tuple[object, ...]
    """What it stands and falls with: its stream, and its call."""

    def fail(self, error: Unanswered) -> bool:
        """Nobody will answer it. False when it was answered already."""
        if self.answer.done():
            return False
        self.answer.set_exception(error)
        self.answer.exception()  # seen: whoever asked may be gone too
        return True


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
        "_budget",
        "_events",
        "_graces",
        "_loop",
        "_max_asks",
        "_settings",
        "caller",
        "calls",
        "client",
        "id",
        "last_active_at",
        "notices",
        "route",
        "state",
        "streams",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        route: str,
        caller: Caller,
        client: Client,
        max_asks: int,
        loop: asyncio.AbstractEventLoop,
        settings: SessionSettings = DEFAULTS,
        budget: Budget | None = None,
    ) -> None:
        self.id = session_id
        self.route = route
        self.caller = caller
        self.client = client
        self.state = State.NEW
        self.streams: list[Standing] = []
        self.calls: dict[Id, list[Running]] = {}
        self.last_active_at = loop.time()
        self.notices = 0
        """Notifications of the client on their way to its backends."""
        self._loop = loop
        self._asks: dict[int, Ask] = {}
        self._ask_ids = itertools.count(1)
        self._max_asks = max_asks
        self._settings = settings
        self._budget = Budget(settings.max_event_bytes_total) if budget is None else budget
        self._events: EventLog | None = None
        self._graces: dict[EventStream, asyncio.TimerHandle] = {}

    def now(self) -> float:
        """The time that `last_active_at` is measured in, in seconds."""
        return self._loop.time()

    def advance(self, event: Event) -> None:
        """Take the session where an event leads. Raises InvalidRequest."""
        self.state = advance(self.state, event)

    def join(self, stream: Standing) -> None:
        """A standing stream is open."""
        self.streams.append(stream)

    def leave(self, stream: Standing) -> None:
        """A standing stream has ended. Notifications it did not send go to another one; where there is none, they wait
        for the client to resume it, as its questions do. One that cannot be resumed takes its questions along."""
        self.streams.remove(stream)
        events, other = stream.events, self._stream()
        if events is None:
            self.withdraw(stream)
        for message in stream.unsent():
            if other is not None:
                other.put(message)
            elif events is not None:
                events.record(message)
        if events is not None:
            for message in stream.unasked():
                if events.is_attached and other is not None:
                    other.put_ask(message)
                else:
                    events.record(message)
        self.last_active_at = self.now()

    def open(self, *, is_standing: bool = False) -> EventStream:
        """A new stream that can be resumed. The first one of a session makes its log."""
        events = self._events
        if events is None:
            settings = self._settings
            events = self._events = EventLog(settings.max_events, settings.max_event_bytes, self._budget)
        return events.open(is_standing=is_standing)

    def prime(self, stream: EventStream, later_s: float = 0.0) -> bytes:
        """What a new stream begins with: nothing for clients of revisions that do not know the priming event. Before an
        end, what says to come back so much later than usual."""
        retry_s = self._settings.retry_s + later_s
        return stream.prime(round(retry_s * 1000)) if self.client.revision.has_priming else b""

    def resume(self, last_event_id: str) -> tuple[EventStream, list[bytes]]:
        """See EventLog.resume. Raises InvalidRequest."""
        if self._events is None:
            raise InvalidRequest("Last-Event-ID is unknown: that stream cannot be resumed")
        return self._events.resume(last_event_id)

    def attach(self, stream: EventStream, send: Send, end: Callable[[], object]) -> None:
        """A connection reads that stream from now on."""
        grace = self._graces.pop(stream, None)
        if grace is not None:
            grace.cancel()
        stream.attach(send, end)

    def detach(self, stream: EventStream, send: Send, *, can_return: bool = True) -> None:
        """That connection is gone. Unless the client returns in time, what is asked on the stream is withdrawn."""
        if stream.detach(send):
            self._part(stream, can_return)

    def expire(self, now: float) -> None:
        """Let go what was kept for a client that was silent too long and waits for nothing."""
        if (
            self._events is not None
            and not self.calls
            and not self.streams
            and now > self.last_active_at + EVENTS_KEPT_S
        ):
            self._events.clear()

    def finish(self, stream: EventStream) -> None:
        """Nothing more comes on that stream."""
        grace = self._graces.pop(stream, None)
        if grace is not None:
            grace.cancel()
        stream.finish()

    def is_near(self, stream: EventStream) -> bool:
        """Whether the client reads a stream, or may be about to resume it."""
        return stream.is_attached or stream in self._graces

    def _part(self, stream: EventStream, can_return: bool) -> None:
        if can_return and self.state is not State.ENDED:
            grace_s = self._settings.retry_s * GRACE_RETRIES
            self._graces[stream] = self._loop.call_later(grace_s, self._give_up, stream)
        else:
            self._give_up(stream)

    def _give_up(self, stream: EventStream) -> None:
        """The client did not return in time. Should it still come, it finds its questions taken back."""
        self._graces.pop(stream, None)
        for told in self.withdraw(stream):
            stream.record(told)

    def _parted(self) -> EventStream | None:
        """The standing stream that broke off last and may be resumed soon."""
        for stream in reversed(self._graces):
            if stream.is_standing and not stream.is_done:
                return stream
        return None

    def _stream(self) -> Standing | None:
        """The standing stream for what belongs to no call: the newest, as the older may be dead unnoticed."""
        for stream in reversed(self.streams):
            if not stream.is_closed:
                return stream
        return None

    def set_log_level(self, level: str) -> None:
        """The client set its log level."""
        self.client = msgspec.structs.replace(self.client, log_level=level)

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit: a notification that belongs to no call. Without a stream there is nobody to tell."""
        stream = self._stream()
        if method == LOG_MESSAGE and not is_loud(self.client.log_level, params):
            return
        if stream is not None:
            stream.put(jsonrpc.notification(method, params))
        elif (parted := self._parted()) is not None:
            parted.record(jsonrpc.notification(method, params))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask: a question that belongs to no call. Raises Unanswered as well."""
        stream = self._stream()
        if stream is not None:
            return await self.put(method, params, stream.ask, (stream.events or stream,))
        parted = self._parted()
        if parted is None:
            raise MissingCapability(f"{method}: the client has no stream open to be asked on", {})
        return await self.put(method, params, parted.send, (parted,))

    async def put(self, method: str, params: Json, send: Send, owners: tuple[object, ...]) -> Result | Failure:
        """Put a question to the client, and await its answer, which comes in a POST of its own.

        `owners` are what it stands and falls with: see `withdraw`. Raises MissingCapability when the client cannot be
        asked this, Overloaded when too many questions are open, Unanswered when it was withdrawn.
        """
        capability = ASKS[method]
        if capability not in jsonrpc.members(self.client.capabilities):
            raise MissingCapability(f"the client does not support {method}", {capability: {}})
        if len(self._asks) >= self._max_asks:
            raise Overloaded("too many questions are open in this session")
        if self.state is State.ENDED:
            raise Unanswered(f"{method}: the session has ended")
        ask_id = next(self._ask_ids)
        answer: asyncio.Future[Result | Failure] = self._loop.create_future()
        self._asks[ask_id] = Ask(answer, owners)
        try:
            await send(jsonrpc.request(ask_id, method, msgspec.Raw(bytes(params))))
            return await answer
        except asyncio.CancelledError:
            await send(_taken_back(ask_id))
            raise
        finally:
            self._asks.pop(ask_id, None)

    def withdraw(self, owner: object) -> list[bytes]:
        """A stream or a call has ended, and its open questions with it. Returns what tells the client so."""
        told = []
        for ask_id, ask in self._asks.items():
            if any(one is owner for one in ask.owners) and ask.fail(Unanswered("the client left before it answered")):
                told.append(_taken_back(ask_id))
        return told

    def answered(self, message: jsonrpc.Message) -> None:
        """The client answered a question. An answer to none is late, and dropped. Raises ProtocolError for one that
        is neither result nor error."""
        ask = self._asks.get(message.id) if isinstance(message.id, int) else None
        if ask is not None and not ask.answer.done():
            ask.answer.set_result(jsonrpc.answer_of(message))

    def cancel(self, request_id: Id) -> None:
        """The client cancelled a request of its own (basic/utilities/cancellation)."""
        for running in self.calls.get(request_id, ()):
            running.cancel()

    def end(self) -> None:
        """It is over: calls are cancelled, questions withdrawn, streams ended."""
        self.state = State.ENDED
        for calls in list(self.calls.values()):
            for running in calls:
                running.cancel()
        for ask in self._asks.values():
            ask.fail(Unanswered("the session has ended"))
        for stream in list(self.streams):
            stream.close()
        for grace in self._graces.values():
            grace.cancel()
        self._graces.clear()
        if self._events is not None:
            self._events.close()


@final
class Sessions:
    """All sessions of this process, by id."""

    def __init__(self, settings: SessionSettings, on_end: Callable[[str], None]) -> None:
        self._settings = settings
        self._budget = Budget(settings.max_event_bytes_total)
        self._sweep_s = min(SWEEP_S, settings.idle_s / 2)
        self._on_end = on_end
        self._by_id: dict[str, Session] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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
        loop = self._loop = self._loop or asyncio.get_running_loop()
        session = Session(
            session_id, route, caller, client, self._settings.max_pending_asks, loop, self._settings, self._budget
        )
        self._by_id[session_id] = session
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_s, self._sweep, loop)
        return session

    def find(self, session_id: bytes, route: str, caller: Caller) -> Session:
        """The caller's session of that id on that path. Raises UnknownSession for every other."""
        session = self._by_id.get(session_id.decode("latin-1"))
        if session is None or session.caller != caller or session.route != route:
            raise UnknownSession("Session not found: initialize a new one")
        session.last_active_at = session.now()
        return session

    def end(self, session: Session) -> None:
        """End a session everywhere at once."""
        if self._by_id.pop(session.id, None) is not None:
            session.end()
            self._on_end(session.id)

    def close(self) -> None:
        """Stop looking for idle sessions."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        oldest = now - self._settings.idle_s
        for session in self._by_id.values():
            session.expire(now)
        idle = [
            session
            for session in self._by_id.values()
            if session.last_active_at < oldest and not session.streams and not session.calls
        ]
        pause_s = self._sweep_s if len(idle) <= MAX_ENDED_AT_ONCE else min(self._sweep_s, 1.0)
        self._timer = loop.call_later(pause_s, self._sweep, loop) if self._by_id else None
        for session in idle[:MAX_ENDED_AT_ONCE]:
            log.info("session ended", reason="idle")
            self.end(session)


def _taken_back(ask_id: int) -> bytes:
    """What tells the client that a question needs no answer any more (basic/utilities/cancellation)."""
    return jsonrpc.notification(CANCELLED, jsonrpc.encode({"requestId": ask_id}))
