"""Handshake clients (2025-03-26 to 2025-11-25) over HTTP: sessions, their POSTs, their standing streams.

A client that closes a POST's stream has not cancelled it: `notifications/cancelled` does. What comes on a stream, its
answer too, is kept for a client that lost the connection: GET with `Last-Event-ID` resumes it. Sources:
basic/lifecycle, basic/transports, basic/utilities/{cancellation,ping}.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, cast, final

import structlog
from msgspec import UNSET
from typing_extensions import override

from gatewright.call import ANONYMOUS, Call
from gatewright.errors import GatewayError, InvalidRequest, ProtocolError, SessionRequired
from gatewright.inbound import media
from gatewright.inbound.dialogue import Dialogue, SessionRules
from gatewright.inbound.events import EventStream
from gatewright.inbound.far import FarStreams, Rest
from gatewright.inbound.held import HeldStream
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.known_heads import Judged, judge
from gatewright.inbound.reply import HttpReply, Keepalive
from gatewright.inbound.responder import DONE, Responder, running_task
from gatewright.inbound.session import Session
from gatewright.inbound.sessions import Sessions
from gatewright.protocol import jsonrpc, refusals
from gatewright.protocol.handshake import State
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.revisions import HANDSHAKE, Revision

READY: Final = State.READY
"""Looked up once: a member of an enumeration is found by a search."""
MAX_BATCH: Final = 100
"""Messages in one array body: it is bounded by bytes, this bounds the calls at once."""
MAX_NOTICES: Final = 64
"""Notifications of one session on their way to slow backends at once, each a waiting task."""
log = structlog.get_logger("gatewright.inbound")


class SessionReply(SessionRules, HttpReply):
    """A reply within a session: questions can be asked on it, and its stream can be resumed."""

    stream: EventStream | None = None

    def __init__(
        self,
        responder: Responder,
        request_id: jsonrpc.Id,
        row: Method | None,
        revision: Revision,
        session: Session,
        keepalive: Keepalive | None = None,
    ) -> None:
        # All in one frame, as there is one per call.
        self._request_id = request_id
        self.row = row
        self._revision = revision
        self._least_level = None
        self._responder = responder
        self._is_old = False
        self._session = session
        self._keepalive = keepalive
        self.call: Call | None = None
        if keepalive is not None:
            keepalive.add(self)

    @override
    def over(self) -> None:
        SessionRules.over(self)  # by name: `super()` makes an object for each call
        if self._keepalive is not None:
            self._keepalive.remove(self)

    @override
    def finish(self, status: int, body: bytes) -> Awaitable[None]:
        """Respond, or end the stream with the answer."""
        responder = self._responder
        if responder.is_started:
            return self._end(body)
        responder.respond(status, body)
        if self.stream is not None:
            self.close()  # nothing was said on it
        return DONE

    @override
    def drop(self) -> Awaitable[None]:
        """No answer is owed, but the HTTP exchange must end."""
        if self._responder.is_started:
            return self._cut()
        self._responder.respond(202)
        return DONE

    async def _cut(self) -> None:
        """The end of a stream without an answer."""
        await self.end_asks()
        self.close()

    @override
    def channel(self) -> object | None:
        """The stream of this request, which ends what is asked on it when the client leaves and does not return."""
        stream = self._open()
        return stream if stream is not None and self._session.is_near(stream) else None

    @override
    async def send(self, message: bytes) -> None:
        """Put one message on the stream, beginning it if need be. One that the client left before it began is none:
        nobody could resume it."""
        stream = self._open()
        if stream is None:
            return
        if not self._responder.is_started:
            self.begin()
        await stream.send(message)

    @override
    def begin(self) -> None:
        stream = self._open()
        super().begin()
        if stream is not None:
            self._session.opened(stream, [self._request_id])
            prime(self._session, stream, self._responder)

    def _open(self) -> EventStream | None:
        """The stream of this request, whether or not it has begun: what is answered in JSON never has one."""
        if self.stream is None and not self._responder.is_gone:
            self.stream = attached(self._session, self._responder)
        return self.stream

    @override
    async def _end(self, body: bytes) -> None:
        await self.end_asks()
        await self.send(body)
        self.close()

    def close(self) -> None:
        """The call is over, and its stream with it."""
        if self.stream is not None and not self.stream.is_done:
            self._session.finish(self.stream)
        self._responder.on_gone = None


@final
class BatchedReply(SessionReply):
    """The reply of one request among others: its answer is an event, and ends nothing."""

    @override
    async def _end(self, body: bytes) -> None:
        await self.end_asks()
        await self.send(body)

    @override
    def drop(self) -> Awaitable[None]:
        """No answer is owed."""
        return self.end_asks()


@final
class HandshakeSide:
    """Serves handshake sessions."""

    def __init__(self, dialogue: Dialogue, sessions: Sessions, keepalive: Keepalive, max_queued_messages: int) -> None:
        self._dialogue = dialogue
        self._sessions = sessions
        self._far = None if sessions.elsewhere is None else FarStreams(sessions.elsewhere, sessions)
        self._keepalive = keepalive
        self._max_queued_messages = max_queued_messages

    def serve(self, message: jsonrpc.Message, responder: Responder, judged: Judged) -> Awaitable[None]:
        """Serve one POSTed message: a request of a session that is here at once, all else by a coroutine of its own."""
        if message.id is UNSET or message.method is UNSET or message.method == "initialize":
            return self._serve(message, responder, judged)
        try:
            session = self._session(judged)
            if session is None:
                return self._serve(message, responder, judged)
            if session.state is not READY:
                session.advance("message")
        except GatewayError as error:
            _refuse(responder, error, message.id)
            return DONE
        return self._request(session, message, responder)

    async def _serve(self, message: jsonrpc.Message, responder: Responder, judged: Judged) -> None:
        """Serve one message, whatever it is and wherever its session is."""
        try:
            if message.method == "initialize":
                await self._initialize(message, responder, judged.route)
                return
            session = self._session(judged) or await self._loaded(judged)
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

    async def batch(self, request: HttpRequest, responder: Responder, judged: Judged) -> None:
        """Serve an array of messages: 2025-03-26 only (basic, "Batching"). Its answers come on one stream."""
        try:
            session = self._session(judged) or await self._loaded(judged)
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
            stream = attached(session, responder)
            session.opened(stream, [one.id for one in requests if isinstance(one.id, (int, str))])
            responder.start_stream()
            prime(session, stream, responder)
        else:
            stream = None
            responder.respond(202)
        alive = HttpReply(responder, 0, None, session.client.revision)
        self._keepalive.add(alive)
        try:
            await asyncio.gather(
                *(self._batched(session, message, responder, stream) for message in requests),
                *(self._noticed(session, message) for message in notices),
            )
        finally:
            self._keepalive.remove(alive)
        if stream is not None:
            session.finish(stream)
            responder.on_gone = None

    async def stream(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """Serve a GET: a standing stream, or the rest of a stream that broke off."""
        last_event_id = request.headers.get(b"last-event-id")
        judged = judge(route, request.headers)
        try:
            session = self._session(judged) or await self._loaded(judged)
            if not media.takes_stream(request.headers.get(b"accept", b"*/*")):
                _refuse(responder, InvalidRequest("Accept must list text/event-stream"), None, status=406)
                return
            if last_event_id is None:
                stream = session.open(is_standing=True)
                begin = session.prime(stream)
            elif self._far is None or session.has_stream(last_event_id.decode("latin-1")):
                stream, missed = session.resume(last_event_id.decode("latin-1"))
                begin = b"".join(missed)
            else:
                rest = await self._far.resume(session, last_event_id.decode("latin-1"))
                if not rest.is_standing:
                    await self._carry_rest(self._far, rest, session, responder)
                    return
                stream = session.open(is_standing=True)
                begin = rest.missed + session.prime(stream)
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        responder.start_stream()
        if stream.is_standing and not stream.is_done:
            held = HeldStream(session, stream, responder, self._max_queued_messages, self._keepalive)
            await held.begin(begin)
            return
        alive = HttpReply(responder, 0, None, session.client.revision)
        self._keepalive.add(alive)
        self._keepalive.standing["get"] += 1
        try:
            await self._carry(session, stream, begin, responder)
        finally:
            self._keepalive.remove(alive)
            self._keepalive.standing["get"] -= 1
            responder.end()

    async def _carry_rest(self, far: FarStreams, rest: Rest, session: Session, responder: Responder) -> None:
        """Send the rest of a request's stream that is another replica's."""
        responder.start_stream()
        alive = HttpReply(responder, 0, None, session.client.revision)
        self._keepalive.add(alive)
        self._keepalive.standing["get"] += 1
        try:
            await far.carry(rest, responder)
        finally:
            self._keepalive.remove(alive)
            self._keepalive.standing["get"] -= 1
            responder.end()

    async def _carry(self, session: Session, stream: EventStream, begin: bytes, responder: Responder) -> None:
        """Send what a request's stream missed, and what follows until its answer."""
        over = asyncio.Event()
        if stream.is_done:
            over.set()
        else:
            responder.on_gone = over.set
            session.attach(stream, responder.send, over.set)
        try:
            await responder.send(begin)
            await over.wait()
        finally:
            session.detach(stream, responder.send, can_return=not responder.is_draining)

    async def end(self, request: HttpRequest, responder: Responder, route: str) -> None:
        """End a session (DELETE)."""
        judged = judge(route, request.headers)
        try:
            session = self._session(judged) or await self._loaded(judged)
            if session.elsewhere is not None:
                await session.elsewhere.end(session)
                self._sessions.drop(session)
            else:
                self._sessions.end(session)
        except GatewayError as error:
            _refuse(responder, error, None)
            return
        responder.respond(204)

    async def _loaded(self, judged: Judged) -> Session:
        """The session of a request, which another replica may know. Raises UnknownSession, StoreUnavailable."""
        return await self._sessions.load(_session_id(judged), judged.route, ANONYMOUS)

    def _session(self, judged: Judged) -> Session | None:
        """The session a request belongs to, None when it has to be loaded. Raises InvalidRequest, SessionRequired,
        UnknownSession."""
        if not judged.is_handshake:
            raise InvalidRequest(f"MCP-Protocol-Version is not served: use one of {', '.join(HANDSHAKE)}")
        return self._sessions.find(judged.session_id or _session_id(judged), judged.route, ANONYMOUS)

    async def _initialize(self, message: jsonrpc.Message, responder: Responder, route: str) -> None:
        if message.id is UNSET or message.id is None:
            raise InvalidRequest("initialize must be a request")
        session_id = self._sessions.mint()
        client = self._dialogue.client_of(jsonrpc.NO_PARAMS if message.params is UNSET else message.params, session_id)
        session = self._sessions.add(session_id, route, ANONYMOUS, client)
        session.advance("initialize")
        try:
            if session.elsewhere is not None:
                await session.elsewhere.begin(session)
            result = await self._dialogue.introduction(route, client)
        except BaseException:
            self._sessions.end(session)
            raise
        if responder.is_gone:
            self._sessions.end(session)  # nobody will ever know its id
        body = jsonrpc.result(message.id, result)
        responder.respond(200, body, headers=b"Mcp-Session-Id: %b\r\n" % session_id.encode())

    async def _notified(self, session: Session, method: str, message: jsonrpc.Message, responder: Responder) -> None:
        """A client's notification. It is accepted before backends are told, so that a slow one holds up nobody, until
        too many are on their way: then the client waits like everybody."""
        if self._dialogue.is_taken(session, method, message):
            responder.respond(202)
            return
        if session.notices < MAX_NOTICES:
            responder.respond(202)
        session.notices += 1
        try:
            await self._dialogue.tell(session, method, message)
        finally:
            session.notices -= 1
            if not responder.is_started:
                responder.respond(202)

    async def _noticed(self, session: Session, message: jsonrpc.Message) -> None:
        """A notification in a batch. One that is wrong is owed no answer (JSON-RPC 2.0, section 6)."""
        method = str(message.method)
        with contextlib.suppress(GatewayError):
            if not self._dialogue.is_taken(session, method, message):
                await self._dialogue.tell(session, method, message)

    def _request(self, session: Session, message: jsonrpc.Message, responder: Responder) -> Awaitable[None]:
        """Serve a request; that it is one was found out."""
        method = cast("str", message.method)
        request_id = cast("jsonrpc.Id", message.id)
        reply = SessionReply(
            responder, request_id, METHODS.get(method), session.client.revision, session, self._keepalive
        )
        task = responder.task or running_task(responder)
        return reply.answer(method, self._dialogue.outcome, session, message, method, reply, task)

    async def _batched(
        self, session: Session, message: jsonrpc.Message, responder: Responder, stream: EventStream | None
    ) -> None:
        """One request of a batch; its answer is an event on the batch's stream."""
        request_id, method = message.id, message.method
        assert isinstance(request_id, (int, str))
        assert isinstance(method, str)
        reply = BatchedReply(responder, request_id, METHODS.get(method), session.client.revision, session)
        reply.stream = stream
        task = asyncio.current_task()
        assert task is not None
        await reply.answer(method, self._dialogue.outcome, session, message, method, reply, task)


def _session_id(judged: Judged) -> str:
    """The session that a request names. Raises SessionRequired."""
    if judged.session_id is None:
        raise SessionRequired("Mcp-Session-Id is missing: send initialize first")
    return judged.session_id


def prime(session: Session, stream: EventStream, responder: Responder) -> None:
    """Begin a response with the priming event, if the client's revision has it."""
    event = session.prime(stream)
    if event:
        responder.send_nowait(event)


def attached(session: Session, responder: Responder) -> EventStream:
    """A new stream of the session, read by the client of a POST until it leaves."""
    stream = session.open()

    def end() -> None:
        if responder.is_started:
            responder.end()

    session.attach(stream, responder.send, end)
    # What had not begun has no id that the client could resume it by.
    responder.on_gone = lambda: session.detach(
        stream, responder.send, can_return=responder.is_started and not responder.is_draining
    )
    return stream


def _refuse(
    responder: Responder, error: GatewayError | ProtocolError, request_id: jsonrpc.Id | None, status: int | None = None
) -> None:
    if isinstance(error, ProtocolError):
        error = InvalidRequest(str(error))
    body = jsonrpc.error(request_id, refusals.failure(error))
    if status is None:  # a notification that is not accepted is an HTTP error (basic/transports)
        status = refusals.status(error, "handshake") if request_id is not None else refusals.row(error).modern_status
    responder.respond(status, body)
