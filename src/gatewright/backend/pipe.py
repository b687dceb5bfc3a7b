"""One duplex wire shared by every exchange: who a message belongs to, whatever carries the bytes.

`PipeLink` is the link of a child's pipes and of an in-process server. A wire carries whole messages; this module knows
neither processes nor framing, starts no task of its own but one for what concerns no exchange, and never waits for a
sink while it reads. Sources: 2026-07-28 basic/transports/stdio, basic/patterns/cancellation and subscriptions;
2025-11-25 basic/transports "stdio", basic/utilities/cancellation.

Whose message is it?

    response                                   the exchange with that id; none: dropped, counted
    notifications/progress                     the exchange whose id is the token; none: dropped, counted
    `_meta` with a subscription id             the listen exchange with that id; none: dropped, counted
    notifications/cancelled of a listen        ends that exchange as a graceful close would
    notifications/cancelled of an ask          whoever was asked
    list_changed, resources/updated            the link's own sink: never about one request
    any other notification, any ask            the only exchange in flight (listens not counted), else the link's sink
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import Final, Protocol, final

import msgspec
import structlog
from msgspec import UNSET, Raw
from typing_extensions import override

from gatewright.backend.base import Link, Request, Sink
from gatewright.call import Failure, Params, Result
from gatewright.errors import (
    BackendError,
    BackendGarbage,
    BackendUnavailable,
    GatewrightError,
    ParseError,
    ProtocolError,
)
from gatewright.protocol import jsonrpc
from gatewright.protocol.jsonrpc import Id, Message
from gatewright.protocol.methods import CANCELLED, LIST_CHANGED, PROGRESS, RESOURCE_UPDATED
from gatewright.protocol.modern import SUBSCRIPTION_KEY

LISTEN: Final = "subscriptions/listen"
_ABOUT_NO_REQUEST: Final = frozenset({*LIST_CHANGED, RESOURCE_UPDATED})
_SUBSCRIPTION_BYTES: Final = SUBSCRIPTION_KEY.encode()
_MAX_ASKS_KEPT: Final = 64
"""Asks of one exchange that a later `notifications/cancelled` of the backend can still be matched to."""
_MAX_EXCERPT: Final = 200
"""Characters of a backend's broken message that a log line shows."""

_decode_id: Final = msgspec.json.Decoder(Id).decode


class WireDied(BackendGarbage):
    """The wire died while an exchange was on it: it may have run, and no answer will come."""


@final
class Bounds(msgspec.Struct, frozen=True):
    """How much of what a backend says may wait for one slow reader."""

    queued_messages: int = 256
    """Per exchange. A terminal that redraws progress 30 times a second is some eight seconds behind then."""
    queued_bytes: int = 1 << 20
    """Per exchange; one message may exceed it. 256 messages of the greatest size would be gigabytes."""
    stall_s: float = 1.0
    """How long a full queue may stop the wire for its neighbours. Then its own notifications are dropped until it has
    caught up: they are advisory, the answer is not and is never dropped."""


class Wire(Protocol):
    """What carries the messages of a `PipeLink`. It calls the link's `feed` and, once, `fail`."""

    def write(self, message: bytes) -> bool:
        """Send one message, which has no line break. Never blocks, never raises; False when it surely went nowhere."""

    async def drain(self) -> None:
        """Return as soon as the wire has room for another message, or is dead."""

    def hold(self, is_held: bool, /) -> None:
        """Stop or continue reading."""

    async def close(self) -> None:
        """End the wire within its grace. Idempotent; never raises."""


class _Inbox:
    """What waits for one sink, in the order in which it came."""

    __slots__ = ("asks", "is_lossy", "items", "lost", "queued_bytes", "sink", "stall", "waiter")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.items: deque[tuple[Message, int]] = deque()
        self.queued_bytes = 0
        self.waiter: asyncio.Future[None] | None = None
        self.asks: deque[Id] | None = None
        self.stall: asyncio.TimerHandle | None = None
        self.is_lossy = False
        self.lost = 0

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)


@final
class _Exchange(_Inbox):
    """One request in flight."""

    __slots__ = ("is_listen", "outcome")

    def __init__(self, sink: Sink, is_listen: bool) -> None:
        super().__init__(sink)
        self.is_listen = is_listen
        self.outcome: Result | Failure | BackendError | None = None


@final
class PipeLink(Link):
    """A link over one shared wire. `strays` counts what belonged to nobody, `garbage` what was no message at all.

    `feed` and `fail` are the wire's; everything else is the contract of `Link`. Used from one event loop only.
    """

    def __init__(
        self, name: str, wire: Wire, sink: Sink, *, tasks: asyncio.TaskGroup, bounds: Bounds | None = None
    ) -> None:
        self._name = name
        self._wire = wire
        self._bounds = bounds or Bounds()
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(__name__).bind(backend=name)
        self._exchanges: dict[int, _Exchange] = {}
        self._own = _Inbox(sink)
        self._full = 0
        self._death: str | None = None
        self._closing = False
        self.strays = 0
        self.garbage = 0
        # A context of its own: notices have nothing to do with the call that happened to open the link.
        self._carrier = tasks.create_task(self._carry_own(), name=f"notices of {name}", context=contextvars.Context())

    # --- the contract of Link

    @property
    @override
    def is_open(self) -> bool:
        return self._death is None and not self._closing

    @override
    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        await self._wire.drain()
        self._check_open()
        if request.id in self._exchanges:
            raise ValueError(f"request id {request.id} is in flight already")
        message = jsonrpc.request(request.id, request.method, request.params)
        if not self._write(message):
            raise BackendUnavailable(f"{self._name}: it is going away")
        exchange = _Exchange(sink, request.method == LISTEN)
        self._exchanges[request.id] = exchange
        try:
            return await self._carry(exchange)
        except BaseException:
            # Cancelled, or a sink that failed: either way nobody waits for the answer any more.
            if exchange.outcome is None and request.is_cancellable:
                self._write(jsonrpc.notification(CANCELLED, b'{"requestId":%d}' % request.id))
            raise
        finally:
            del self._exchanges[request.id]
            self._unfill(exchange)

    @override
    async def tell(self, message: bytes) -> None:
        await self._wire.drain()
        self._check_open()
        if not self._write(message):
            raise BackendUnavailable(f"{self._name}: it is going away")

    @override
    def agree(self, headers: bytes) -> None:
        """A wire has no headers."""

    @override
    async def listen(self) -> None:
        """The wire carries everything from the start."""

    @override
    async def aclose(self) -> None:
        self._closing = True
        await self._wire.close()
        self.fail("the link was closed")
        if asyncio.current_task() is not self._carrier:
            self._carrier.cancel()

    # --- what the wire calls

    def feed(self, message: bytes, about: int | None = None) -> bool:
        """Take one message from the backend. False when it was not one (the wire may count and give up).

        `about` is the exchange that it surely belongs to, from a wire that knows: then nothing has to be guessed.
        """
        if message[:1] == b"[":
            return self._feed_batch(message)
        try:
            parsed = jsonrpc.decode(message)
        except ProtocolError as error:
            self._reject(message, error)
            return False
        if parsed.method is not UNSET:
            if parsed.id is UNSET:
                self._notified(parsed, parsed.method, len(message), about)
            elif parsed.id is not None:
                self._asked(parsed, parsed.id, len(message), about)
            else:
                self.strays += 1
            return True
        exchange = self._find(parsed.id)
        if exchange is None or exchange.outcome is not None:
            self.strays += 1
            return True
        try:
            exchange.outcome = jsonrpc.answer_of(parsed)
        except ProtocolError as error:
            exchange.outcome = BackendGarbage(f"{self._name}: {error}")
        exchange.wake()
        return True

    def fail(self, reason: str) -> None:
        """The wire is dead: `reason` is what every exchange on it is told. Only the first reason counts."""
        if self._death is not None:
            return
        self._death = reason
        for exchange in self._exchanges.values():
            if exchange.outcome is None:
                exchange.outcome = WireDied(f"{self._name}: {reason}")
                exchange.wake()
        self._own.wake()

    # --- outgoing

    def _check_open(self) -> None:
        if self._death is not None:
            raise BackendUnavailable(f"{self._name}: {self._death}")
        if self._closing:
            raise BackendUnavailable(f"{self._name}: the link is closing")

    def _write(self, message: bytes) -> bool:
        # A line break between tokens is lawful JSON but would end the message here; none can stand inside a string.
        # Text-mode readers end a line at a lone CR as well.
        if b"\n" in message or b"\r" in message:
            message = message.replace(b"\n", b" ").replace(b"\r", b" ")
        return self._wire.write(message)

    async def _carry(self, exchange: _Exchange) -> Result | Failure:
        """Hand everything to the exchange's sink, in order, until its outcome is there and nothing precedes it."""
        while True:
            if exchange.items:
                await self._deliver(exchange)
            outcome = exchange.outcome
            if outcome is None:
                waiter = exchange.waiter = self._loop.create_future()
                await waiter
            elif not exchange.items:
                if isinstance(outcome, BackendError):
                    raise outcome
                return outcome

    async def _carry_own(self) -> None:
        """Hand everything that belongs to no exchange to the link's own sink, until the wire is dead."""
        inbox = self._own
        while True:
            try:
                await self._deliver(inbox)
            except Exception:  # noqa: BLE001  a bug in a sink must cost this notice, not the gateway's task group
                self._log.exception("notice_undelivered")
            if inbox.items:
                continue
            if self._death is not None:
                return
            waiter = inbox.waiter = self._loop.create_future()
            await waiter

    async def _deliver(self, inbox: _Inbox) -> None:
        items = inbox.items
        while items:
            message, size = items.popleft()
            inbox.queued_bytes -= size
            if inbox.stall is not None and len(items) <= self._bounds.queued_messages // 2:
                self._unfill(inbox)
            if not items and inbox.is_lossy:
                self._log.warning("slow_reader_caught_up", notifications_dropped=inbox.lost)
                inbox.is_lossy = False
                inbox.lost = 0
            method = message.method
            assert method is not UNSET
            params: Params = {} if message.params is UNSET else message.params
            if message.id is UNSET or message.id is None:
                await inbox.sink.notified(method, params)
            else:
                inbox.sink.asked(message.id, method, params)

    # --- incoming

    def _feed_batch(self, message: bytes) -> bool:
        """A JSON-RPC batch: lawful in 2025-03-26 only, harmless elsewhere."""
        try:
            batch = jsonrpc.decode_batch(message)
        except ParseError as error:
            self._reject(message, error)
            return False
        is_whole = True
        for one in map(bytes, batch):
            if one[:1] == b"[" or not self.feed(one):
                is_whole = False
        return is_whole

    def _reject(self, message: bytes, error: GatewrightError) -> None:
        """Something that is no message. When it answers an exchange all the same, that one need not wait for ever."""
        self.garbage += 1
        exchange = self._find(jsonrpc.salvage_id(message)) if message[:1] == b"{" else None
        if exchange is not None and exchange.outcome is None:
            exchange.outcome = BackendGarbage(f"{self._name}: its answer is {error}")
            exchange.wake()
        if self.garbage & (self.garbage - 1) == 0:  # the 1st, 2nd, 4th, 8th...: the log stays bounded
            excerpt = ascii(message[: _MAX_EXCERPT * 4].decode("utf-8", "replace")[:_MAX_EXCERPT])
            self._log.warning("garbage_on_wire", text=excerpt, count=self.garbage, problem=str(error)[:_MAX_EXCERPT])

    def _find(self, request_id: object) -> _Exchange | None:
        if request_id.__class__ is str:
            # Some servers echo our number as a string; the official SDKs accept that too.
            text = str(request_id)
            request_id = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
        return self._exchanges.get(request_id) if isinstance(request_id, int) else None

    def _notified(self, message: Message, method: str, size: int, about: int | None) -> None:
        params: Params = {} if message.params is UNSET else message.params
        meta = params.get("_meta")
        inbox: _Inbox | None
        if method == PROGRESS:
            inbox = self._named(params.get("progressToken"))
        elif meta is not None and _SUBSCRIPTION_BYTES in bytes(meta):
            inbox = self._subscribed(meta)
        elif method == CANCELLED:
            inbox = self._cancelled(params.get("requestId"))
        elif method in _ABOUT_NO_REQUEST:
            inbox = self._own
        elif about is not None:
            inbox = self._exchanges.get(about)
        else:
            inbox = self._only()
        if inbox is None:
            self.strays += 1
        else:
            self._queue(inbox, message, size)

    def _asked(self, message: Message, request_id: Id, size: int, about: int | None) -> None:
        inbox: _Inbox = self._exchanges.get(about, self._own) if about is not None else self._only()
        asks = inbox.asks
        if asks is None:
            asks = inbox.asks = deque(maxlen=_MAX_ASKS_KEPT)
        asks.append(request_id)
        self._queue(inbox, message, size)

    def _only(self) -> _Inbox:
        """The one exchange that an unmarked message can be about, or the link's own inbox when that is not certain."""
        found: _Inbox | None = None
        for exchange in self._exchanges.values():
            if not exchange.is_listen and exchange.outcome is None:
                if found is not None:
                    return self._own
                found = exchange
        return found or self._own

    def _named(self, value: Raw | None) -> _Exchange | None:
        """The exchange whose id this undecoded value is."""
        if value is None:
            return None
        try:
            return self._find(_decode_id(value))
        except msgspec.DecodeError:
            return None

    def _subscribed(self, meta: Raw) -> _Exchange | None:
        try:
            return self._named(jsonrpc.members(meta).get(SUBSCRIPTION_KEY))
        except ProtocolError:
            return None

    def _cancelled(self, value: Raw | None) -> _Inbox | None:
        """A cancellation by the backend: of a listen (its end), or of one of its own asks (whoever was asked)."""
        exchange = self._named(value)
        if exchange is not None and exchange.is_listen:
            if exchange.outcome is None:
                request_id = next(key for key, one in self._exchanges.items() if one is exchange)
                meta = b'{"%b":%d}' % (_SUBSCRIPTION_BYTES, request_id)
                exchange.outcome = Result(b'{"resultType":"complete","_meta":%b}' % meta)
                exchange.wake()
            return None
        if value is None:
            return None
        try:
            ask = _decode_id(value)
        except msgspec.DecodeError:
            return None
        for inbox in (*self._exchanges.values(), self._own):
            if inbox.asks is not None and ask in inbox.asks:
                return inbox
        return None

    # --- slow readers

    def _queue(self, inbox: _Inbox, message: Message, size: int) -> None:
        if isinstance(inbox, _Exchange) and inbox.outcome is not None:
            self.strays += 1
            return
        if inbox.is_lossy:
            inbox.lost += 1
            if message.id is not UNSET:
                refusal = Failure(-32603, "The gateway's client reads too slowly to be asked")
                self._write(jsonrpc.error(message.id, refusal))
            return
        inbox.items.append((message, size))
        inbox.queued_bytes += size
        inbox.wake()
        bounds = self._bounds
        if inbox.stall is None and (
            len(inbox.items) >= bounds.queued_messages or inbox.queued_bytes >= bounds.queued_bytes
        ):
            inbox.stall = self._loop.call_later(bounds.stall_s, self._give_up, inbox)
            self._full += 1
            if self._full == 1:
                self._wire.hold(True)

    def _unfill(self, inbox: _Inbox) -> None:
        if inbox.stall is not None:
            inbox.stall.cancel()
            inbox.stall = None
            self._full -= 1
            if self._full == 0:
                self._wire.hold(False)

    def _give_up(self, inbox: _Inbox) -> None:
        """The wire has stood still long enough for one slow reader: its neighbours go on, it loses notifications."""
        inbox.is_lossy = True
        self._unfill(inbox)
