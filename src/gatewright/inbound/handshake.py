"""Handshake clients (2025-03-26 to 2025-11-25) over HTTP: sessions, their POSTs, their standing streams.

A client that closes a POST's stream has not cancelled it: `notifications/cancelled` does. Sources: basic/lifecycle,
basic/transports, basic/utilities/{cancellation,ping}.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import UNSET
from typing_extensions import override

from gatewright.call import ANONYMOUS, Call, Client, Failure, Handler, Json, Outcome, Params, Result
from gatewright.errors import (
    GatewayError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ProtocolError,
    SessionRequired,
)
from gatewright.inbound import media
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.reply import HttpReply, Keepalive
from gatewright.inbound.responder import Responder, running_task
from gatewright.inbound.sessions import Running, Session, Sessions, Standing, Unanswered, is_loud
from gatewright.protocol import addressing, bridge, handshake, jsonrpc, refusals
from gatewright.protocol.methods import CANCELLED, INITIALIZED, LOG_MESSAGE, METHODS, Method
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.protocol.revisions import HANDSHAKE, Revision

if TYPE_CHECKING:
    from gatewright.routing.front import Front

_decode_id: Final[Callable[[bytes | msgspec.Raw], jsonrpc.Id]] = msgspec.json.Decoder(jsonrpc.Id).decode
MAX_BATCH: Final = 100
"""Messages in one array body: it is bounded by bytes, this bounds the calls at once."""
log = structlog.get_logger("gatewright.inbound")


class CancelledCall(BaseException):
    """The client cancelled this call: it is owed no answer. No Exception: nobody on the way may take it for a bug."""


class SessionReply(HttpReply):
    """A reply within a session: questions can be asked on it."""

    __slots__ = ("_session", "call")

    def __init__(
        self, responder: Responder, request_id: jsonrpc.Id, row: Method | None, revision: Revision, session: Session
    ) -> None:
        super().__init__(responder, request_id, row, revision)
        self._session = session
        self.call: Call | None = None
        """The call it is the reply of, once there is one."""

    @override
    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit. Log messages below the level that the session set go no further."""
        if method != LOG_MESSAGE or is_loud(self._session.client.log_level, params):
            await self.send(jsonrpc.notification(method, params))

    @override
    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Ask on this call's own stream (basic/transports: related requests go there). Raises Unanswered as well,
        when the stream ends first."""
        responder, call = self._responder, self.call
        if responder.is_gone or responder.is_ended or call is None:
            raise Unanswered(f"{method}: the client has left")
        if responder.on_gone is None:
            responder.on_gone = lambda: self._session.withdraw(responder)
        call.open_asks += 1
        try:
            return await self._session.put(method, params, self.send, (responder, self))
        finally:
            call.open_asks -= 1
            call.heard_at = self._session.now()

    async def end_asks(self) -> None:
        """The call is over: what it still asks needs no answer."""
        if self.call is not None and self.call.open_asks:
            for told in self._session.withdraw(self):
                await self.send(told)

    @override
    async def _end(self, body: bytes) -> None:
        await self.end_asks()
        await super()._end(body)


@final
class BatchedReply(SessionReply):
    """The reply of one request among others: its answer is an event, and ends nothing."""

    __slots__ = ()

    @override
    async def _end(self, body: bytes) -> None:
        await self.end_asks()
        await self.send(body)


@final
class HandshakeSide:
    """Serves handshake sessions."""

    def __init__(
        self, handle: Handler, sessions: Sessions, front: Front, keepalive: Keepalive, max_queued_messages: int
    ) -> None:
        self._handle = handle
        self._sessions = sessions
        self._front = front
        self._keepalive = keepalive
        self._max_queued_messages = max_queued_messages

    async def serve(self, message: jsonrpc.Message, request: HttpRequest, responder: Responder, route: str) -> None:
        """Serve one POSTed message."""
        try:
            if message.method == "initialize":
                await self._initialize(message, responder, route)
                return
            session = self._session(request, route)
            if message.method is UNSET:
                session.answered(message)
                responder.respond(202)
            elif message.id is UNSET:
                await self._notified(session, message.method, message, responder)
            else:
                session.advance("message")
                await self._request(session, message, responder)
        except (GatewayError, ProtocolError) as error:
            _refuse(responder, error, None if message.id is UNSET else message.id)

    async def batch(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """Serve an array of messages: 2025-03-26 only (basic, "Batching"). Its answers come on one stream."""
        try:
            session = self._session(request, route)
            if not session.client.revision.has_batches:
                raise InvalidRequest("an array of messages is not allowed in this revision: send one message per POST")
            messages = [jsonrpc.decode_request(bytes(one)) for one in jsonrpc.decode_batch(request.body)]
            if not 0 < len(messages) <= MAX_BATCH:
                raise InvalidRequest(f"a batch holds 1 to {MAX_BATCH} messages")
            session.advance("message")
            for message in messages:
                if message.method is UNSET:
                    session.answered(message)
        except (GatewayError, ProtocolError) as error:
            _refuse(responder, error, None)
            return
        requests = [one for one in messages if one.method is not UNSET and one.id is not UNSET]
        notices = [one for one in messages if one.method is not UNSET and one.id is UNSET]
        if requests:
            responder.start_stream()
            responder.on_gone = lambda: session.withdraw(responder)
        else:
            responder.respond(202)
        alive = HttpReply(responder, 0, None, session.client.revision)
        self._keepalive.add(alive)
        try:
            await asyncio.gather(
                *(self._batched(session, message, responder) for message in requests),
                *(self._noticed(session, message) for message in notices),
            )
        finally:
            self._keepalive.remove(alive)
        responder.end()

    async def stream(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """Hold a standing stream (GET) until the client leaves, the session ends or the listener stops."""
        try:
            session = self._session(request, route)
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        if not media.takes_stream(request.headers.get(b"accept", b"*/*")):
            _refuse(responder, InvalidRequest("Accept must list text/event-stream"), None, status=406)
            return
        reply = HttpReply(responder, 0, None, session.client.revision)
        standing = Standing(self._max_queued_messages)
        responder.start_stream()
        responder.on_gone = responder.on_drain = standing.close
        session.streams.append(standing)
        self._keepalive.add(reply)
        try:
            while not responder.is_gone and (messages := await standing.take()) is not None:
                for message in messages:
                    await reply.send(message)
        finally:
            self._keepalive.remove(reply)
            session.streams.remove(standing)
            session.withdraw(standing)
            session.last_active_at = session.now()
            responder.end()

    def end(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """End a session (DELETE)."""
        try:
            self._sessions.end(self._session(request, route))
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        responder.respond(204)

    def _session(self, request: HttpRequest, route: str) -> Session:
        """The session a request belongs to. Raises InvalidRequest, SessionRequired, UnknownSession."""
        version = request.headers.get(b"mcp-protocol-version")
        if not handshake.is_version_header_served(version):
            raise InvalidRequest(f"MCP-Protocol-Version is not served: use one of {', '.join(HANDSHAKE)}")
        session_id = request.headers.get(b"mcp-session-id")
        if session_id is None:
            raise SessionRequired("Mcp-Session-Id is missing: send initialize first")
        return self._sessions.find(session_id, route, ANONYMOUS)

    async def _initialize(self, message: jsonrpc.Message, responder: Responder, route: str) -> None:
        if message.id is UNSET or message.id is None:
            raise InvalidRequest("initialize must be a request")
        session_id = self._sessions.mint()
        client = handshake.client_of(jsonrpc.NO_PARAMS if message.params is UNSET else message.params, session_id)
        session = self._sessions.add(session_id, route, ANONYMOUS, client)
        session.advance("initialize")
        try:
            result = await self._introduction(route, client)
        except BaseException:
            self._sessions.end(session)
            raise
        if responder.is_gone:
            self._sessions.end(session)  # nobody will ever know its id
        body = jsonrpc.result(message.id, result)
        responder.respond(200, body, headers=b"Mcp-Session-Id: %b\r\n" % session_id.encode())

    async def _introduction(self, route: str, client: Client) -> bytes:
        """What the gateway says of itself on this route: what its backends offer this client."""
        offer = await self._front.offer(route, client, ANONYMOUS)
        result: dict[str, object] = {
            "protocolVersion": client.revision.name,
            "capabilities": offer.capabilities,
            "serverInfo": self._front.info if not route or bytes(offer.info) == b"{}" else offer.info,
        }
        if offer.instructions:
            result["instructions"] = offer.instructions
        return jsonrpc.encode(result)

    async def _notified(self, session: Session, method: str, message: jsonrpc.Message, responder: Responder) -> None:
        """A client's notification. It is accepted before backends are told, so that a slow one holds up nobody."""
        is_for_backends = _is_taken(session, method, message)
        responder.respond(202)
        if is_for_backends:
            await self._tell(session, method, message)

    async def _noticed(self, session: Session, message: jsonrpc.Message) -> None:
        """A notification in a batch. One that is wrong is owed no answer (JSON-RPC 2.0, section 6)."""
        method = str(message.method)
        with contextlib.suppress(GatewayError):
            if _is_taken(session, method, message):
                await self._tell(session, method, message)

    async def _tell(self, session: Session, method: str, message: jsonrpc.Message) -> None:
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        await self._front.tell(session.route, session.client, jsonrpc.notification(method, jsonrpc.encode(params)))

    async def _request(self, session: Session, message: jsonrpc.Message, responder: Responder) -> None:
        request_id, method = message.id, message.method
        assert isinstance(request_id, (int, str))
        assert isinstance(method, str)
        reply = SessionReply(responder, request_id, METHODS.get(method), session.client.revision, session)
        self._keepalive.add(reply)
        try:
            outcome = self._outcome(session, message, request_id, method, reply, running_task(responder))
            await reply.answer(method, outcome)
        except CancelledCall:
            # No answer is owed, but the HTTP exchange must end.
            if responder.is_started:
                await reply.end_asks()
                responder.end()
            else:
                responder.respond(202)
        finally:
            self._keepalive.remove(reply)

    async def _batched(self, session: Session, message: jsonrpc.Message, responder: Responder) -> None:
        """One request of a batch; its answer is an event on the batch's stream."""
        request_id, method = message.id, message.method
        assert isinstance(request_id, (int, str))
        assert isinstance(method, str)
        reply = BatchedReply(responder, request_id, METHODS.get(method), session.client.revision, session)
        task = asyncio.current_task()
        assert task is not None
        try:
            await reply.answer(method, self._outcome(session, message, request_id, method, reply, task))
        except CancelledCall:
            await reply.end_asks()

    async def _outcome(
        self,
        session: Session,
        message: jsonrpc.Message,
        request_id: jsonrpc.Id,
        method: str,
        reply: SessionReply,
        task: asyncio.Task[object],
    ) -> Outcome:
        """The outcome of one request in a session. Raises GatewayError."""
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        if method == "ping":
            return Result(b"{}")
        row = METHODS.get(method)
        if row is not None and not row.is_handshake:
            raise MethodNotFound(f"Method not found: {method}")
        if method == "logging/setLevel":
            session.set_log_level(_level(params))
        call = Call(
            method=method,
            row=row,
            params=params,
            meta=bridge.meta_of(params),
            name=None if row is None else addressing.name_of(row, params),
            client=session.client,
            reply=reply,
            task=task,
            route=session.route,
            caller=session.caller,
        )
        reply.call = call
        running = Running(task)
        alike = session.calls.setdefault(request_id, [])
        alike.append(running)
        try:
            return await self._handle(call)
        except asyncio.CancelledError:
            if not running.is_cancelled:
                raise
            running.is_cancelled = False
            if task.uncancel():
                raise
            raise CancelledCall from None
        finally:
            if running.is_cancelled:
                task.uncancel()  # the cancel was lost on the way: the task serves other requests after this one
            alike.remove(running)
            if not alike:
                session.calls.pop(request_id, None)


def _is_taken(session: Session, method: str, message: jsonrpc.Message) -> bool:
    """Take what concerns the session itself; true when the notification is for its backends. Raises ClientError."""
    if method == INITIALIZED:
        session.advance("initialized")
    elif method == CANCELLED:
        session.cancel(_request_id(jsonrpc.NO_PARAMS if message.params is UNSET else message.params))
    else:
        return True
    return False


def _request_id(params: Params) -> jsonrpc.Id:
    """Which request a cancellation is about. Raises InvalidParams."""
    try:
        return _decode_id(params.get("requestId", b""))
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams("notifications/cancelled needs params.requestId, a string or an integer") from error


def _level(params: dict[str, msgspec.Raw]) -> str:
    level = bytes(params.get("level", b"")).decode("latin-1").strip('"')
    if level not in LOG_LEVELS:
        raise InvalidParams(f"level must be one of {', '.join(LOG_LEVELS)}")
    return level


def _refuse(
    responder: Responder, error: GatewayError | ProtocolError, request_id: jsonrpc.Id | None, status: int | None = None
) -> None:
    if isinstance(error, ProtocolError):
        error = InvalidRequest(str(error))
    failure = refusals.failure(error)
    responder.respond(status or refusals.status(error, "handshake"), jsonrpc.error(request_id, failure))
