"""One handshake session of a client: who it is, what it waits for, its calls and its streams.

Messages that belong to no call go to one of its GET streams, never to several, and wait there
for that client alone: a slow one holds up no backend, and loses the oldest notifications when too many wait. A stream
that broke off can be resumed: what comes on it is kept meanwhile, and its questions stay open for a grace. Sources:
basic/lifecycle and basic/transports of 2024-11-05 to 2025-11-25; S-20 to S-26. What it needs of other replicas that
have it too is asked of `Elsewhere`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, final

import msgspec

from gatewright.call import Caller, Client, Failure, Json, Result
from gatewright.errors import GatewayError, InvalidRequest, MissingCapability, Overloaded
from gatewright.inbound.elsewhere import Elsewhere, SessionTape
from gatewright.inbound.events import Budget, EventLog, EventStream
from gatewright.inbound.settings import Sessions as SessionSettings
from gatewright.inbound.standing import Standing
from gatewright.protocol import jsonrpc
from gatewright.protocol.handshake import Event, State, advance
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ASKS, CANCELLED, LOG_MESSAGE
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.stores.base import reference

GRACE_RETRIES: Final = 10
"""A client whose stream broke has this many times `retry_s` to resume it before its questions are taken for unanswered:
room for a change of network and a few failed attempts, and short enough for the backend that waits."""
EVENTS_KEPT_S: Final = 300.0
"""What was streamed to a session that was silent for this long is not kept on: a client that lost its connection comes
back within seconds, and 100,000 sessions that never will must not hold a full log each."""
ALONE: Final = 0
"""Without other replicas what is in memory is what there is."""
DEFAULTS: Final = SessionSettings()
Send = Callable[[bytes], Awaitable[None]]


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


class Running(Protocol):
    """One call of a session while it runs."""

    def cancel(self) -> None:
        """The client cancelled it: stop it. Whoever runs it answers the HTTP exchange and goes on."""


@final
class Session:
    """One client session."""

    __slots__ = (
        "_ask_ids",
        "_asks",
        "_budget",
        "_events",
        "_graces",
        "_guests",
        "_loop",
        "_max_asks",
        "_settings",
        "caller",
        "calls",
        "client",
        "elsewhere",
        "id",
        "last_active_at",
        "notices",
        "ref",
        "route",
        "seen",
        "state",
        "streams",
        "touched_at",
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
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.id = session_id
        self.elsewhere = elsewhere
        """The other replicas; None where there are none."""
        self.ref = "" if elsewhere is None else reference(session_id, route, caller)
        self.seen = ALONE
        """When it was last known to be as the store has it: see `Sessions.trust`."""
        self.touched_at = loop.time()
        """When the store was last told that it is used."""
        self.route = route
        self.caller = caller
        self.client = client
        self.state = State.NEW
        self.streams: list[Standing] = []
        self.calls: dict[Running, Id] = {}
        """Those that run, and the client's id of each."""
        self.last_active_at = loop.time()
        self.notices = 0
        """Notifications of the client on their way to its backends."""
        self._loop = loop
        self._asks: dict[Id, Ask] = {}
        self._ask_ids = itertools.count(1)
        self._guests: dict[str, object] | None = None
        """Questions of other replicas that are put on a stream here, by id, with that stream."""
        self._max_asks = max_asks
        self._settings = settings
        self._budget = Budget(settings.max_event_bytes_total) if budget is None else budget
        self._events: EventLog | None = None
        self._graces: dict[EventStream, asyncio.TimerHandle] = {}

    def now(self) -> float:
        """The time that `last_active_at` is measured in, in seconds."""
        return self._loop.time()

    @property
    def is_idle(self) -> bool:
        """Nothing goes on, nothing waits, nothing is kept: what there is to know of it is in the store."""
        events = self._events
        waits = self.calls or self.streams or self.notices or self._asks or self._graces or self._guests
        return not waits and (events is None or not len(events))

    def advance(self, event: Event) -> None:
        """Take the session where an event leads. Raises InvalidRequest."""
        self.state = advance(self.state, event)

    def join(self, stream: Standing) -> None:
        """A standing stream is open."""
        self.streams.append(stream)
        if self.elsewhere is not None:
            self.elsewhere.joined(self)

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
        self.left()

    @property
    def has_standing(self) -> bool:
        """Whether something can be put on a standing stream here: one that is open, or may be resumed soon."""
        return bool(self.streams) or self._parted() is not None

    def left(self) -> None:
        """Say so when nothing can be put on a stream here any more."""
        if self.elsewhere is not None and not self.has_standing:
            self.elsewhere.stand(self, is_standing=False)

    def open(self, *, is_standing: bool = False) -> EventStream:
        """A new stream that can be resumed. The first one of a session makes its log."""
        events = self._events
        if events is None:
            settings = self._settings
            tape = None if self.elsewhere is None else SessionTape(self.elsewhere.store, self.ref)
            events = self._events = EventLog(settings.max_events, settings.max_event_bytes, self._budget, tape)
        return events.open(is_standing=is_standing)

    def prime(self, stream: EventStream, later_s: float = 0.0) -> bytes:
        """What a new stream begins with: nothing for clients of revisions that do not know the priming event. Before an
        end, what says to come back so much later than usual."""
        retry_s = self._settings.retry_s + later_s
        return stream.prime(round(retry_s * 1000)) if self.client.revision.has_priming else b""

    def opened(self, stream: EventStream, request_ids: Sequence[Id]) -> None:
        """A stream that answers these requests begins: told to whoever has to end it when this replica is gone."""
        if self._events is not None and self._events.tape is not None:
            self._events.tape.opened(stream.number, msgspec.json.encode(request_ids))

    def has_stream(self, last_event_id: str) -> bool:
        """Whether the stream that an event id belongs to is one of this replica's."""
        return self._events is not None and self._events.has(last_event_id)

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
        if stream.is_standing:
            self.left()

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
        elif self.elsewhere is not None:
            self.elsewhere.put(self, jsonrpc.notification(method, params))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask: a question that belongs to no call. Raises Unanswered as well."""
        stream = self._stream()
        if stream is not None:
            return await self.put(method, params, stream.ask, (stream.events or stream,))
        parted = self._parted()
        if parted is not None:
            return await self.put(method, params, parted.send, (parted,))
        replica = None if self.elsewhere is None else await self.elsewhere.standing(self)
        if replica is None or self.elsewhere is None:
            raise MissingCapability(f"{method}: the client has no stream open to be asked on", {})
        return await self.put(method, params, partial(self.elsewhere.ask_on, replica, self), (replica,))

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
        number = next(self._ask_ids)
        ask_id = number if self.elsewhere is None else f"{self.elsewhere.replica}.{number}"
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
        for guest in [guest for guest, stream in (self._guests or {}).items() if stream is owner]:
            told.append(_taken_back(guest))
            self.unhost(guest)
        return told

    def answered(self, message: jsonrpc.Message) -> None:
        """The client answered a question. An answer to none is late, and dropped. Raises ProtocolError for one that
        is neither result nor error."""
        if not isinstance(message.id, (int, str)):
            return
        ask = self._asks.get(message.id)
        if ask is not None and not ask.answer.done():
            ask.answer.set_result(jsonrpc.answer_of(message))
        elif self.elsewhere is not None and isinstance(message.id, str):
            if self._guests is not None:
                self._guests.pop(message.id, None)
            self.elsewhere.answered(self, message.id, message)

    def cancel(self, request_id: Id) -> None:
        """The client cancelled a request of its own (basic/utilities/cancellation), wherever it runs."""
        if not self.cancel_here(request_id) and self.elsewhere is not None:
            self.elsewhere.cancel(self, request_id)

    def cancel_here(self, request_id: Id) -> bool:
        """Cancel it if it runs here. False when it does not."""
        alike = [running for running, its_id in self.calls.items() if its_id == request_id]
        for running in alike:
            running.cancel()
        return bool(alike)

    def host(self, message: bytes) -> bool:
        """Put a message of another replica on a standing stream here. False when there is none."""
        stream, parted = self._stream(), self._parted()
        ask_id = jsonrpc.decode(message).id
        if stream is None and parted is None:
            return False
        if isinstance(ask_id, str):
            guests = self._guests = self._guests or {}
            guests[ask_id] = parted if stream is None else stream.events or stream
            if len(guests) > self._max_asks:
                self.unhost(next(iter(guests)))
        if stream is None:
            assert parted is not None
            parted.record(message)
        elif isinstance(ask_id, str):
            stream.put_ask(message)
        else:
            stream.put(message)
        return True

    def unhost(self, ask_id: str) -> None:
        """Nobody will answer that question here: its replica is told."""
        if self._guests is not None and self._guests.pop(ask_id, None) is not None and self.elsewhere is not None:
            self.elsewhere.unput(self, ask_id)

    def unanswered(self, ask_id: str) -> None:
        """Nobody will answer that question: its stream, on another replica, has ended."""
        ask = self._asks.get(ask_id)
        if ask is not None:
            ask.fail(Unanswered("the client left before it answered"))

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died, and with them the streams that questions were put on."""
        for ask in self._asks.values():
            if any(isinstance(one, str) and one in replicas for one in ask.owners):
                ask.fail(Unanswered("the client's stream ended before it answered"))

    def end(self) -> None:
        """It is over: calls are cancelled, questions withdrawn, streams ended."""
        self.state = State.ENDED
        self._guests = None
        for running in list(self.calls):
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


def _taken_back(ask_id: Id) -> bytes:
    """What tells the client that a question needs no answer any more (basic/utilities/cancellation)."""
    return jsonrpc.notification(CANCELLED, jsonrpc.encode({"requestId": ask_id}))
