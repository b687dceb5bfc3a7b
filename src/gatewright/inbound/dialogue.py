"""What is said within a handshake session, whatever carries it: introductions, requests, notifications, questions.

A transport finds the session and sends the answers; what they are is decided here. Only `notifications/cancelled`
cancels a call. Sources: basic/lifecycle, basic/utilities/{cancellation,ping}, server/utilities/logging of 2024-11-05 to
2025-11-25.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
from msgspec import UNSET
from typing_extensions import override

from gatewright.call import ANONYMOUS, NO_META, Call, Client, Failure, Handler, Json, Outcome, Params, Result
from gatewright.errors import InvalidParams, MethodNotFound, Overloaded
from gatewright.inbound.base import BaseReply
from gatewright.inbound.session import Session, Unanswered, is_loud
from gatewright.protocol import addressing, bridge, handshake, jsonrpc
from gatewright.protocol.chain import Chain
from gatewright.protocol.methods import CANCELLED, INITIALIZED, LOG_MESSAGE
from gatewright.protocol.modern import LOG_LEVELS

if TYPE_CHECKING:
    from gatewright.routing.front import Front

_decode_id: Final[Callable[[bytes | msgspec.Raw], jsonrpc.Id]] = msgspec.json.Decoder(jsonrpc.Id).decode


class SessionRules(BaseReply):
    """What may be said to a client within its session: everything, questions too."""

    # Without slots: what a transport's own reply adds has some, and Python lays out those of one parent only.
    _session: Session
    call: Call | None
    """The call it is the reply of, once there is one."""
    _is_asking = False
    """Questions were open when the call ended."""
    _is_cancelled = False
    """The client cancelled the call, and its task was not told back yet that this is dealt with."""

    def begun(self, call: Call) -> None:
        """The call begins: from here on the client can cancel it."""
        self.call = call
        self._session.calls[self] = self._request_id

    def cancel(self) -> None:
        """See Running.cancel."""
        if self.call is not None and not self._is_cancelled:
            self._is_cancelled = True
            self.call.task.cancel()

    @override
    def cancelled(self, error: asyncio.CancelledError) -> None:
        """A call that the client cancelled is owed no answer."""
        if self.call is None or not self._is_cancelled:
            raise error
        self._is_cancelled = False
        if self.call.task.uncancel():
            raise error

    @override
    def over(self) -> None:
        call = self.call
        if call is None:
            return
        self.call = None  # it refers back: what is kept would be left to the garbage collector
        if call.open_asks:
            self._is_asking = True
        if self._is_cancelled:
            call.task.uncancel()  # the cancel was lost on the way: the task serves other requests after this one
        del self._session.calls[self]

    @abstractmethod
    def channel(self) -> object | None:
        """What questions are asked on and stand and fall with; None when nothing can be asked any more."""

    @override
    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit. Log messages below the level that the session set go no further."""
        if method != LOG_MESSAGE or is_loud(self._session.client.log_level, params):
            await self.send(jsonrpc.notification(method, params))

    @override
    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Ask on this call's own stream (basic/transports: related requests go there). Raises Unanswered as well,
        when the stream ends first."""
        channel, call = self.channel(), self.call
        if channel is None or call is None:
            raise Unanswered(f"{method}: the client has left")
        call.open_asks += 1
        try:
            return await self._session.put(method, params, self.send, (channel, self))
        finally:
            call.open_asks -= 1
            call.heard_at = self._session.now()

    @override
    def drop(self) -> Awaitable[None]:
        """No answer is owed, and what is still asked needs none."""
        return self.end_asks()

    async def end_asks(self) -> None:
        """The call is over: what it still asks needs no answer."""
        if self._is_asking or (self.call is not None and self.call.open_asks):
            for told in self._session.withdraw(self):
                await self.send(told)


@final
class Dialogue:
    """Serves what clients say in their sessions."""

    def __init__(self, handle: Handler, front: Front, chain: Chain, max_calls: int = 1_000) -> None:
        """`max_calls`: that one session may have running."""
        self._handle = handle
        self._front = front
        self._max_calls = max_calls
        self.chain: Final = chain
        """The gateway's place in chains of gateways."""

    def client_of(self, params: Params, session_id: str) -> Client:
        """The client that an `initialize` introduces. Raises InvalidParams; ChainRefused when the session would lead
        in a circle: it is not opened then, and without it no call goes round."""
        client = handshake.client_of(params, session_id)
        return msgspec.structs.replace(client, chain=self.chain.after(bridge.meta_of(params)))

    async def introduction(self, route: str, client: Client) -> bytes:
        """What the gateway says of itself on this route: what its backends offer this client. Raises BackendError."""
        offer = await self._front.offer(route, client, ANONYMOUS)
        result: dict[str, object] = {
            "protocolVersion": client.revision.name,
            "capabilities": offer.capabilities,
            "serverInfo": self._front.info if not route or bytes(offer.info) == b"{}" else offer.info,
        }
        if offer.instructions:
            result["instructions"] = offer.instructions
        return jsonrpc.encode(result)

    def outcome(
        self, session: Session, message: jsonrpc.Message, method: str, reply: SessionRules, task: asyncio.Task[object]
    ) -> Awaitable[Outcome]:
        """The outcome of one request, which `task` carries out. Raises GatewayError."""
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        if method == "ping":
            return _pong()
        row = reply.row
        if row is not None and not row.is_handshake:
            raise MethodNotFound(f"Method not found: {method}")
        if len(session.calls) >= self._max_calls:
            raise Overloaded(f"{self._max_calls} calls of this session run already (limits.max_calls_per_session)")
        call = Call(
            method=method,
            row=row,
            params=params,
            meta=bridge.meta_of(params) if "_meta" in params else NO_META,
            name=None if row is None else addressing.name_of(row, params),
            client=session.client,
            reply=reply,
            task=task,
            route=session.route,
            caller=session.caller,
        )
        if method == "logging/setLevel":
            return self._levelled(session, call, reply)
        reply.begun(call)
        return self._handle(call)

    async def _levelled(self, session: Session, call: Call, reply: SessionRules) -> Outcome:
        """The client sets its log level, here and at its backends."""
        await _set_level(session, _level(call.params))
        call.client = session.client
        reply.begun(call)
        return await self._handle(call)

    def is_taken(self, session: Session, method: str, message: jsonrpc.Message) -> bool:
        """Take a notification that concerns the session itself; false when it is for its backends. Raises
        ClientError."""
        if method == INITIALIZED:
            session.advance("initialized")
        elif method == CANCELLED:
            session.cancel(cancelled_id(jsonrpc.NO_PARAMS if message.params is UNSET else message.params))
        else:
            return False
        return True

    async def tell(self, session: Session, method: str, message: jsonrpc.Message) -> None:
        """Pass a notification on to the session's backends."""
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        await self._front.tell(session.route, session.client, jsonrpc.notification(method, jsonrpc.encode(params)))


async def _pong() -> Result:
    return Result(b"{}")


def cancelled_id(params: Params) -> jsonrpc.Id:
    """Which request a cancellation is about. Raises InvalidParams."""
    try:
        return _decode_id(params.get("requestId", b""))
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams("notifications/cancelled needs params.requestId, a string or an integer") from error


async def _set_level(session: Session, level: str) -> None:
    """Here, and on other replicas."""
    session.set_log_level(level)
    if session.elsewhere is not None:
        await session.elsewhere.set_log_level(session, level)


def _level(params: Params) -> str:
    level = bytes(params.get("level", b"")).decode("latin-1").strip('"')
    if level not in LOG_LEVELS:
        raise InvalidParams(f"level must be one of {', '.join(LOG_LEVELS)}")
    return level
