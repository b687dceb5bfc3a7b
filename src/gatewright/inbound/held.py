"""A standing stream (GET) on its connection: held by callbacks, so that one that is silent costs no task and no timer.

What waits in its `Standing` is sent by a task that lives as long as something waits, so that a slow client holds up
nobody else. It ends when the client leaves or resumes it elsewhere, the session ends or the listener stops. Sources:
basic/transports "Listening for Messages from the Server" of 2025-03-26 to 2025-11-25.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from gatewright.inbound.events import EventStream
from gatewright.inbound.reply import KEEPALIVE, Keepalive
from gatewright.inbound.responder import Responder
from gatewright.inbound.session import Session
from gatewright.inbound.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class HeldStream:
    """One standing stream and the connection that reads it."""

    __slots__ = ("_call_soon", "_is_over", "_is_woken", "_keepalive", "_responder", "_sending",
                 "_session", "_standing", "_stream")  # fmt: skip

    def __init__(
        self,
        session: Session,
        stream: EventStream,
        responder: Responder,
        max_queued_messages: int,
        keepalive: Keepalive,
    ) -> None:
        self._session = session
        self._stream = stream
        self._responder = responder
        self._keepalive = keepalive
        self._call_soon: Callable[[Callable[[], None]], object] = asyncio.get_running_loop().call_soon
        self._standing = Standing(max_queued_messages, stream, self._wake)
        self._is_woken = False
        self._is_over = False
        self._sending = False

    async def begin(self, begin: bytes) -> None:
        """Attach to the stream, and send what it begins with; return when that is on its way."""
        session, responder, standing = self._session, self._responder, self._standing
        session.join(standing)
        session.attach(self._stream, responder.send, standing.close)
        self._keepalive.add(self)
        self._keepalive.standing["get"] += 1
        responder.is_held = True
        responder.on_gone, responder.on_drain = self._leave, self._drain
        await responder.send(begin)  # before anything else: what is written is written before this waits

    def keep_alive(self) -> None:
        """A comment, so that proxies do not take it for dead."""
        self._responder.send_nowait(KEEPALIVE)

    def _leave(self) -> None:
        """The client left, or broke off and will resume."""
        self._standing.close()
        self._detach()

    def _drain(self) -> None:
        """The listener stops: the client is told when to come back."""
        again = self._session.prime(self._stream, self._responder.spread_s())
        if again:
            self._responder.send_nowait(again)
        self._standing.close()

    def _detach(self) -> None:
        responder = self._responder
        self._session.detach(self._stream, responder.send, can_return=not responder.is_draining)

    def _wake(self) -> None:
        """Something waits, or it is to end: looked at in the next turn of the loop, once for all that came."""
        if not self._is_woken:
            self._is_woken = True
            self._call_soon(self._look)

    def _look(self) -> None:
        self._is_woken = False
        if self._sending or self._is_over:
            return
        standing = self._standing
        if self._responder.is_gone or (standing.is_closed and not standing.has_waiting):
            self._end()
        elif standing.has_waiting:
            self._sending = self._responder.run(self._send())

    async def _send(self) -> None:
        """Send what waits, and what comes meanwhile."""
        standing, stream = self._standing, self._stream
        try:
            while standing.has_waiting and not self._responder.is_gone:
                for message in standing.taken():
                    await stream.send(message)
        finally:
            self._sending = False
            self._wake()

    def _end(self) -> None:
        self._is_over = True
        self._keepalive.remove(self)
        self._keepalive.standing["get"] -= 1
        self._detach()
        self._session.leave(self._standing)
        self._responder.end()
