"""The host's end of one call over standard input and output: every message is a line on the channel that all share.

Nothing more is said of a request that was cancelled, except that its own questions need no answer any more. Source:
basic/transports/stdio and basic/patterns/cancellation of 2026-07-28; basic/utilities/cancellation of 2025-11-25.
"""

from __future__ import annotations

from typing import final

from msgspec import Raw
from typing_extensions import override

from gatewright.call import Call, Json
from gatewright.inbound.base import BaseReply, ModernRules
from gatewright.inbound.dialogue import SessionRules
from gatewright.inbound.session import Session
from gatewright.inbound.stdio_wire import StdioWire
from gatewright.protocol import jsonrpc
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import CANCELLED, Method
from gatewright.protocol.revisions import Revision


class LineReply(BaseReply):
    """One request's reply on the shared channel."""

    def __init__(
        self, wire: StdioWire, request_id: Id, row: Method | None, revision: Revision, log_level: Raw | None = None
    ) -> None:
        super().__init__(request_id, row, revision, log_level)
        self._wire = wire
        self.is_closed = False
        """The host cancelled the request: it is owed nothing."""

    @override
    async def send(self, message: bytes) -> None:
        """Send one line."""
        await self._wire.send(message)

    @override
    async def finish(self, status: int, body: bytes) -> None:
        """Send the answer; a channel has no status."""
        if not self.is_closed:
            await self._wire.send(body)


@final
class ModernLineReply(ModernRules, LineReply):
    """A reply in the modern era."""

    @override
    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        if not self.is_closed:
            await super().emit(method, params)

    async def torn_down(self) -> None:
        """Say that the gateway ends this subscription (basic/patterns/cancellation: it MUST). The result goes first:
        it is what tells a graceful end from a lost one."""
        await self.send(jsonrpc.notification(CANCELLED, jsonrpc.encode({"requestId": self._request_id})))


@final
class SessionLineReply(SessionRules, LineReply):
    """A reply within the session."""

    def __init__(
        self, wire: StdioWire, request_id: Id, row: Method | None, revision: Revision, session: Session
    ) -> None:
        super().__init__(wire, request_id, row, revision)
        self._session = session
        self.call: Call | None = None

    @override
    def channel(self) -> object | None:
        """The wire, while the host is there."""
        return None if self._wire.is_gone or self.is_closed else self._wire

    @override
    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        if not self.is_closed:
            await super().emit(method, params)

    @override
    async def finish(self, status: int, body: bytes) -> None:
        """Send the answer, after the ends of questions that nobody needs any more."""
        await self.end_asks()
        await super().finish(status, body)
