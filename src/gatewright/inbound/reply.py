"""The client's end of one call over HTTP: JSON if the outcome comes first, else an event stream.

A stream is begun by the first notification or question, or by the keep-alive of a call that stays silent long, so that
proxies do not take it for dead. Sources: basic/transports of the handshake revisions, basic/transports/streamable-http
of 2026-07-28.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

from msgspec import Raw
from typing_extensions import override

from gatewright.call import Result
from gatewright.inbound.base import BaseReply, ModernRules, rank
from gatewright.inbound.responder import DONE, Responder, running_task
from gatewright.protocol import sse
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import Method
from gatewright.protocol.revisions import Revision

KEEPALIVE: Final = sse.comment()
STEP_S: Final = 0.02
"""How often some of the streams are kept alive, when it is time: a comment on each of 15,000 at once would stop the
loop for a seventh of a second."""


class Silent(Protocol):
    """A response that may be silent for long."""

    def keep_alive(self) -> None:
        """Say something that means nothing. Called once per interval."""


@final
class Keepalive:
    """Keeps silent streams alive: one timer for all, a comment line each `interval_s`, spread over half of it."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._replies: set[Silent] = set()
        self.remove: Final[Callable[[Silent], None]] = self._replies.discard
        """This one has ended: said of every call, so it is the set's own method."""
        self._due: list[Silent] = []
        self._timer: asyncio.TimerHandle | None = None
        self.standing: Final = {"get": 0, "sse": 0}
        """How many streams stand open that are no call's, by kind; whoever holds one counts it."""

    def add(self, reply: Silent) -> None:
        """Keep this one alive until it is removed."""
        self._replies.add(reply)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._interval_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # First of all the next visit: a connection that fails in this one must not be the last that is kept alive.
        self._timer = loop.call_later(self._interval_s, self._tick, loop) if self._replies else None
        is_visiting = bool(self._due)
        self._due = list(self._replies)
        if not is_visiting:
            self._visit(loop)

    def _visit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep some alive now, so many that all have had their turn after half the interval."""
        due = self._due
        count = max(1, round(len(self._replies) * STEP_S / (self._interval_s / 2)))
        some, self._due = due[-count:], due[:-count]
        if self._due:
            loop.call_later(STEP_S, self._visit, loop)
        for reply in some:
            if reply in self._replies:
                reply.keep_alive()


class HttpReply(BaseReply):
    """One HTTP response as a call's reply. The eras differ in what may be sent on it."""

    __slots__ = ("_is_old", "_responder")

    def __init__(
        self,
        responder: Responder,
        request_id: Id,
        row: Method | None,
        revision: Revision,
        log_level: Raw | None = None,
    ) -> None:
        super().__init__(request_id, row, revision, log_level)
        self._responder = responder
        self._is_old = False

    @override
    async def send(self, message: bytes) -> None:
        """Put one message on the stream, beginning it if need be."""
        if not self._responder.is_started:
            self.begin()
        await self._responder.send(sse.encode(message))

    def begin(self) -> None:
        """Begin the stream."""
        self._responder.start_stream()

    def keep_alive(self) -> None:
        """A comment on a stream; a call that was silent for a whole interval becomes a stream."""
        responder = self._responder
        if responder.is_started:
            responder.send_nowait(KEEPALIVE)
        elif self._is_old and not responder.is_gone:
            self.begin()
            responder.send_nowait(KEEPALIVE)
        self._is_old = True

    @override
    def finish(self, status: int, body: bytes) -> Awaitable[None]:
        """Respond, or end the stream with the answer."""
        if self._responder.is_started:
            return self._end(body)
        self._responder.respond(status, body)
        return DONE

    async def _end(self, body: bytes) -> None:
        """The answer at the end of the stream."""
        await self._responder.send(sse.encode(body))
        self._responder.end()


@final
class ModernReply(ModernRules, HttpReply):
    """A reply in the modern era, and what ends with it: the client leaving cancels the call (2026-07-28,
    basic/patterns/cancellation)."""

    __slots__ = ("_keepalive", "_task")

    def __init__(
        self,
        responder: Responder,
        request_id: Id,
        row: Method | None,
        revision: Revision,
        log_level: Raw | None,
        keepalive: Keepalive,
    ) -> None:
        # All in one frame, as there is one per call.
        self._request_id = request_id
        self.row = row
        self._revision = revision
        self._least_level = None if log_level is None else rank(log_level)
        self._responder = responder
        self._is_old = False
        self._keepalive = keepalive
        self._task = task = responder.task or running_task(responder)
        responder.task = task
        responder.is_tied = True
        if responder.is_gone:
            task.cancel()
        if row is not None and row.kind == "stream":
            responder.on_drain = task.cancel
        keepalive.add(self)

    @override
    def cancelled(self, error: asyncio.CancelledError) -> Result | None:
        """Nothing more is sent to a client that left; a subscription that the listener ends, ends well
        (basic/patterns/subscriptions, "Graceful Closure")."""
        responder = self._responder
        if not responder.is_gone and not (self.is_subscription and responder.is_draining):
            raise error
        self._task.uncancel()
        return None if responder.is_gone else Result(b"{}")

    @override
    def over(self) -> None:
        self._keepalive.remove(self)
