"""Handshake clients (2025-03-26 to 2025-11-25) over HTTP: sessions, their POSTs, their standing streams.

A client that closes a POST's stream has not cancelled it: `notifications/cancelled` does. Sources: basic/lifecycle,
basic/transports, basic/utilities/{cancellation,ping}.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import UNSET
from typing_extensions import override

from gatewright.call import ANONYMOUS, Call, Client, Failure, Handler, Json, Outcome, Result
from gatewright.errors import (
    GatewayError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ProtocolError,
    SessionRequired,
)
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.reply import HttpReply, Keepalive
from gatewright.inbound.responder import Responder, running_task
from gatewright.inbound.sessions import Running, Session, Sessions
from gatewright.protocol import addressing, bridge, handshake, jsonrpc, refusals, sse
from gatewright.protocol.methods import CANCELLED, INITIALIZED, METHODS, Method
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.protocol.revisions import HANDSHAKE, Revision

if TYPE_CHECKING:
    from gatewright.routing.front import Front

MAX_BATCH: Final = 100
"""Messages in one array body: it is bounded by bytes, this bounds the calls at once."""
log = structlog.get_logger("gatewright.inbound")


class CancelledCall(Exception):
    """The client cancelled this call: it is owed no answer."""


@final
class SessionReply(HttpReply):
    """A reply within a session: questions can be asked on it."""

    __slots__ = ("_session",)

    def __init__(
        self, responder: Responder, request_id: jsonrpc.Id, row: Method | None, revision: Revision, session: Session
    ) -> None:
        super().__init__(responder, request_id, row, revision)
        self._session = session

    @override
    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Ask on this call's own stream (basic/transports: related requests go there)."""
        return await self._session.put(method, params, self.send)


@final
class HandshakeSide:
    """Serves handshake sessions."""

    def __init__(self, handle: Handler, sessions: Sessions, front: Front, keepalive: Keepalive) -> None:
        self._handle = handle
        self._sessions = sessions
        self._front = front
        self._keepalive = keepalive

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
                await self._notified(session, message.method, message)
                responder.respond(202)
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
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        requests = []
        for message in messages:
            if message.method is UNSET:
                session.answered(message)
            elif message.id is UNSET:
                await self._notified(session, message.method, message)
            else:
                requests.append(message)
        if not requests:
            responder.respond(202)
            return
        responder.start_stream()
        await asyncio.gather(*(self._batched(session, message, responder) for message in requests))
        responder.end()

    async def stream(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """Hold a standing stream (GET) until the client leaves or the session ends."""
        try:
            session = self._session(request, route)
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        if b"text/event-stream" not in request.headers.get(b"accept", b"*/*").replace(b"*/*", b"text/event-stream"):
            _refuse(responder, InvalidRequest("Accept must list text/event-stream"), None, status=406)
            return
        reply = HttpReply(responder, 0, None, session.client.revision)
        closed = asyncio.get_running_loop().create_future()
        responder.on_gone = responder.on_drain = lambda: None if closed.done() else closed.set_result(None)
        responder.start_stream()
        session.streams.append(reply.send)
        self._keepalive.add(reply)
        try:
            if not responder.is_draining:
                await closed
        finally:
            self._keepalive.remove(reply)
            session.streams.remove(reply.send)
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

    async def _notified(self, session: Session, method: str, message: jsonrpc.Message) -> None:
        """A client's notification: its own life cycle is ours, the rest concerns its backends."""
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        if method == INITIALIZED:
            session.advance("initialized")
        elif method == CANCELLED:
            request_id = msgspec.json.decode(params.get("requestId", b"null"))
            if isinstance(request_id, (int, str)):
                session.cancel(request_id)
        else:
            await self._front.tell(session.route, session.client, jsonrpc.notification(method, jsonrpc.encode(params)))

    async def _request(self, session: Session, message: jsonrpc.Message, responder: Responder) -> None:
        request_id, method = message.id, message.method
        assert isinstance(request_id, (int, str))
        assert isinstance(method, str)
        reply = SessionReply(responder, request_id, METHODS.get(method), session.client.revision, session)
        self._keepalive.add(reply)
        try:
            outcome = await self._outcome(session, message, request_id, method, reply, running_task(responder))
            await reply.finish(outcome)
        except GatewayError as error:
            await reply.refuse(error)
        except CancelledCall:
            # No answer is owed, but the HTTP exchange must end.
            if responder.is_started:
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
        reply = SessionReply(responder, request_id, METHODS.get(method), session.client.revision, session)
        task = asyncio.current_task()
        assert task is not None
        try:
            outcome = await self._outcome(session, message, request_id, method, reply, task)
            body = jsonrpc.response(request_id, outcome if isinstance(outcome, Failure) else Result(outcome.value))
        except GatewayError as error:
            failure = refusals.failure(error, not_found_code=session.client.revision.not_found_code)
            body = jsonrpc.error(request_id, failure)
        except CancelledCall:
            return
        await responder.send(sse.encode(body))

    async def _outcome(
        self,
        session: Session,
        message: jsonrpc.Message,
        request_id: jsonrpc.Id,
        method: str,
        reply: HttpReply,
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
        running = Running(task)
        alike = session.calls.setdefault(request_id, [])
        alike.append(running)
        try:
            return await self._handle(call)
        except asyncio.CancelledError:
            if running.is_cancelled and task.uncancel() == 0:
                raise CancelledCall from None
            raise
        finally:
            alike.remove(running)
            if not alike:
                session.calls.pop(request_id, None)


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
