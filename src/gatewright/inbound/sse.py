"""Clients of the HTTP+SSE transport of 2024-11-05: one event stream out, POSTs in, together one handshake session.

`GET /sse` (all backends) or `/sse/<backend>` (one) opens a stream that begins with the address to POST to, on the same
origin. A POST is answered 202 when its message was taken; whatever there is to say to it comes on the stream, and so
does everything else. Ids are minted as for any session, bound to the caller and the path that opened the stream, and
never taken from a client; a second GET never joins a stream. The stream is the session: when it ends, so does all that
runs in it, and there is nothing to resume. One that no `initialize` follows within `body_timeout_s` ends. What is said
within the session is `Dialogue`'s, as in every handshake transport. A POST's connection is free while its call runs,
so calls are bounded here: by stream, by `max_queued_messages`.

Source: 2024-11-05 basic/transports, "HTTP with SSE"; its "Backwards Compatibility" since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, final

from msgspec import UNSET
from typing_extensions import override

from gatewright.call import ANONYMOUS, Call, Caller, Result
from gatewright.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotFound,
    Overloaded,
    ParseError,
    ProtocolError,
    SessionRequired,
    UnknownSession,
)
from gatewright.inbound import media
from gatewright.inbound.base import BaseReply
from gatewright.inbound.dialogue import Dialogue, SessionRules
from gatewright.inbound.handshake import MAX_BATCH
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.reply import HttpReply, Keepalive
from gatewright.inbound.responder import Responder
from gatewright.inbound.session import Session
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Limits
from gatewright.inbound.sse_far import FarPosts, FarResponder
from gatewright.inbound.standing import Standing
from gatewright.protocol import depth, handshake, http_sse, jsonrpc, refusals
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.revisions import HANDSHAKE, HANDSHAKE_2024_11_05

MAX_BEHIND: Final = 16
"""Calls on a stream whose client does not read it: each may end in the largest answer there is, and wait with it."""
ALLOW_GET: Final = b"Allow: GET\r\n"
ALLOW_POST: Final = b"Allow: POST\r\n"


@final
class SseStream:
    """One client's stream, and its session once it has introduced itself."""

    __slots__ = ("_is_draining", "_responder", "_working", "caller", "id", "route", "session", "standing")

    def __init__(self, stream_id: str, route: str, caller: Caller, responder: Responder, max_waiting: int) -> None:
        self.id = stream_id
        self.route = route
        self.caller = caller
        self.standing: Final = Standing(max_waiting)
        self.session: Session | None = None
        self._responder = responder
        self._working = 0
        self._is_draining = False

    @property
    def is_open(self) -> bool:
        """Whether the client can still be told anything."""
        return not self._responder.is_gone and not self._responder.is_ended

    async def send(self, message: bytes) -> None:
        """Send one message; return when the client takes more. Nothing after the end."""
        await self._responder.send(http_sse.message_event(message))

    def expect(self) -> None:
        """By now the client has introduced itself, or it never will: an empty stream is not held for it."""
        if self.session is None:
            self.standing.close()

    @property
    def is_draining(self) -> bool:
        """Whether it ends because the listener stops."""
        return self._is_draining

    def drain(self) -> None:
        """The listener stops: the stream ends with the last call that runs on it."""
        self._is_draining = True
        if not self._working:
            self.standing.close()

    def begin_work(self, calls: int, bound: int) -> None:
        """Calls begin, if any: answers and notifications are taken to the end. Raises Overloaded."""
        if calls and self._is_draining:
            raise Overloaded("the gateway is stopping: connect again")
        if calls and self._working + calls > bound:
            raise Overloaded(f"{bound} calls wait on this stream already")
        if calls and self._responder.is_behind and self._working + calls > MAX_BEHIND:
            raise Overloaded("the stream is not read: its answers wait for that")
        self._working += calls

    def end_work(self, calls: int) -> None:
        """They were answered."""
        self._working -= calls
        if self._is_draining and not self._working:
            self.standing.close()


class StreamReply(BaseReply):
    """The reply to one message, on the stream: its answer ends nothing."""

    __slots__ = ("_stream",)

    def __init__(self, stream: SseStream, request_id: Id, row: Method | None) -> None:
        revision = HANDSHAKE_2024_11_05 if stream.session is None else stream.session.client.revision
        super().__init__(request_id, row, revision)
        self._stream = stream

    @override
    async def send(self, message: bytes) -> None:
        await self._stream.send(message)

    @override
    async def finish(self, status: int, body: bytes) -> None:
        await self._stream.send(body)


@final
class SseReply(SessionRules, StreamReply):
    """The reply to one request of a session: questions can be asked on the same stream."""

    __slots__ = ("_session", "call")

    def __init__(self, stream: SseStream, session: Session, request_id: Id, row: Method | None) -> None:
        super().__init__(stream, request_id, row)
        self._session = session
        self.call: Call | None = None

    @override
    def channel(self) -> object | None:
        return self._stream if self._stream.is_open else None

    @override
    async def finish(self, status: int, body: bytes) -> None:
        await self.end_asks()
        await super().finish(status, body)


@final
class SseSide:
    """Serves the paths of the 2024-11-05 transport."""

    def __init__(
        self,
        dialogue: Dialogue,
        sessions: Sessions,
        keepalive: Keepalive,
        has_route: Callable[[str], bool],
        limits: Limits,
    ) -> None:
        self._dialogue = dialogue
        self._sessions = sessions
        self._keepalive = keepalive
        self._has_route = has_route
        self._limits = limits
        self._streams: dict[str, SseStream] = {}
        self._far = None if sessions.elsewhere is None else FarPosts(sessions.elsewhere, self._take_far)

    async def serve(self, request: HttpRequest, responder: Responder) -> bool:
        """Serve one request whose Origin was checked. False when its path is not of this transport."""
        path = request.path
        route = self._route_of(path, http_sse.STREAM_PATH)
        is_stream = route is not None
        if route is None:
            route = self._route_of(path, http_sse.MESSAGES_PATH)
        if route is None:
            return False
        if request.method != ("GET" if is_stream else "POST"):
            responder.respond(405, headers=ALLOW_GET if is_stream else ALLOW_POST)
            return True
        try:
            if not handshake.is_version_header_served(request.headers.get(b"mcp-protocol-version")):
                raise InvalidRequest(f"MCP-Protocol-Version is not served: use one of {', '.join(HANDSHAKE)}")
            if is_stream:
                await self._stream(request, responder, route, ANONYMOUS)
            else:
                await self._post(request, responder, route, ANONYMOUS)
        except (GatewayError, ProtocolError) as error:
            _refuse(responder, error)
        return True

    def _route_of(self, path: str, prefix: str) -> str | None:
        if path == prefix:
            return ""
        route = path.removeprefix(prefix + "/")
        return route if route != path and route and self._has_route(route) else None

    # --- the stream

    async def _stream(self, request: HttpRequest, responder: Responder, route: str, caller: Caller) -> None:
        """Hold a stream until the client leaves, its session ends or the listener stops."""
        if not media.takes_stream(request.headers.get(b"accept", b"*/*")):
            _refuse(responder, InvalidRequest("Accept must list text/event-stream"), 406)
            return
        if responder.is_draining:
            raise Overloaded("the gateway is stopping: connect again")
        stream_id = self._sessions.mint()
        ref = None if self._far is None else await self._far.opened(stream_id, route, caller)
        stream = SseStream(stream_id, route, caller, responder, self._limits.max_queued_messages)
        alive = HttpReply(responder, 0, None, HANDSHAKE_2024_11_05)
        responder.start_stream()
        responder.on_gone = stream.standing.close
        responder.on_drain = stream.drain
        self._streams[stream_id] = stream
        self._keepalive.add(alive)
        self._keepalive.standing["sse"] += 1
        introduction = asyncio.get_running_loop().call_later(self._limits.body_timeout_s, stream.expect)
        try:
            await responder.send(http_sse.endpoint_event(route, stream_id))
            while stream.is_open and (messages := await stream.standing.take()) is not None:
                for message in messages:
                    await stream.send(message)
            if stream.is_draining:  # clients that return by themselves (EventSource) must not all do so at once
                responder.send_nowait(http_sse.retry_line(self._sessions.retry_s + responder.spread_s()))
        finally:
            introduction.cancel()
            del self._streams[stream_id]
            self._keepalive.remove(alive)
            self._keepalive.standing["sse"] -= 1
            responder.end()
            if stream.session is not None:
                self._sessions.end(stream.session)
            if self._far is not None and ref is not None:
                await self._far.closed(ref)

    # --- what is posted

    async def _post(self, request: HttpRequest, responder: Responder, route: str, caller: Caller) -> None:
        """Take what a client posts. Raises GatewayError, ProtocolError when it is refused, before a call of it ran."""
        stream_id = http_sse.session_of(request.query)
        if stream_id is None:
            raise SessionRequired(f"session_id is missing: GET {http_sse.STREAM_PATH} says where to POST")
        stream = self._find(stream_id, route, caller)
        if not media.is_json(request.headers.get(b"content-type", b"")):
            _refuse(responder, InvalidRequest("Content-Type must be application/json"), 415)
        elif stream is not None:
            await self._take(stream, request.body, responder)
        elif self._far is not None:
            answer = await self._far.post(stream_id, route, caller, request.body)
            responder.respond(answer.status, answer.body)

    async def _take_far(self, stream_id: str, body: bytes, responder: FarResponder) -> None:
        """Take what came to another replica."""
        try:
            await self._take(self._streams[stream_id], body, responder)
        except (GatewayError, ProtocolError) as error:
            _refuse(responder, error)

    async def _take(self, stream: SseStream, body: bytes, responder: Responder | FarResponder) -> None:
        """Take a body for that stream, and carry out what it asks for."""
        try:
            depth.check_json(body, max_depth=self._limits.max_json_depth)
            is_batch = body.lstrip().startswith(b"[")
            messages = self._unpacked(stream, body) if is_batch else [jsonrpc.decode_request(body)]
        except ProtocolError as error:
            raise ParseError(str(error)) from error
        for message in messages:
            if message.method is UNSET:
                self._session(stream).answered(message)
            elif message.id is not UNSET and stream.session is not None:
                stream.session.advance("message")
        requests = [one for one in messages if one.method is not UNSET and one.id is not UNSET]
        stream.begin_work(len(requests), self._limits.max_queued_messages)
        try:
            notices = [
                one
                for one in messages
                if one.method is not UNSET and one.id is UNSET and not self._is_taken(stream, one)
            ]
            responder.respond(202)
            if len(requests) == 1 and not notices:
                await self._request(stream, requests[0], responder.task)
            else:
                await asyncio.gather(
                    *(self._request(stream, one, None) for one in requests),
                    *(self._dialogue.tell(self._session(stream), str(one.method), one) for one in notices),
                )
        finally:
            stream.end_work(len(requests))

    def _find(self, stream_id: bytes, route: str, caller: Caller) -> SseStream | None:
        """The caller's stream on that path, None when another replica may have it. Raises UnknownSession: one answer
        for every other."""
        stream = self._streams.get(stream_id.decode("latin-1"))
        if stream is None or stream.caller != caller or stream.route != route:
            if self._far is not None:
                return None
            raise UnknownSession("Session not found: open a new stream")
        if stream.session is not None:
            self._sessions.find(stream.session.id, route, caller)
        return stream

    def _session(self, stream: SseStream) -> Session:
        """Its session. Raises InvalidRequest while it has none."""
        if stream.session is None:
            raise InvalidRequest("the session has not begun: send initialize first")
        return stream.session

    def _unpacked(self, stream: SseStream, body: bytes) -> list[jsonrpc.Message]:
        """The messages of an array: 2025-03-26 only (basic, "Batching")."""
        if not self._session(stream).client.revision.has_batches:
            raise InvalidRequest("an array of messages is not allowed in this revision: send one message per POST")
        messages = [jsonrpc.decode_request(bytes(one)) for one in jsonrpc.decode_batch(body)]
        if not 0 < len(messages) <= MAX_BATCH:
            raise InvalidRequest(f"a batch holds 1 to {MAX_BATCH} messages")
        return messages

    def _is_taken(self, stream: SseStream, message: jsonrpc.Message) -> bool:
        return self._dialogue.is_taken(self._session(stream), str(message.method), message)

    async def _request(self, stream: SseStream, message: jsonrpc.Message, task: asyncio.Task[object] | None) -> None:
        """Carry one request out; its answer, a refusal too, comes on the stream."""
        request_id, method = message.id, message.method
        assert isinstance(request_id, (int, str))
        assert isinstance(method, str)
        row = METHODS.get(method)
        session = stream.session
        if method == "initialize" or session is None:
            await StreamReply(stream, request_id, row).answer(method, self._opened, stream, message, method, row)
            return
        reply = SseReply(stream, session, request_id, row)
        task = task or asyncio.current_task()
        assert task is not None
        await reply.answer(method, self._dialogue.outcome, session, message, method, reply, task)

    async def _opened(self, stream: SseStream, message: jsonrpc.Message, method: str, row: Method | None) -> Result:
        """What is answered to requests that find no session. Raises GatewayError."""
        if method == "ping":
            return Result(b"{}")
        if row is not None and not row.is_handshake:
            raise MethodNotFound(f"Method not found: {method}")
        if method != "initialize":
            raise InvalidRequest("the session has not begun: send initialize first")
        if stream.session is not None:
            raise InvalidRequest("the session has begun already")
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        client = self._dialogue.client_of(params, stream.id)
        session = stream.session = self._sessions.add(stream.id, stream.route, stream.caller, client, is_shared=False)
        session.streams.append(stream.standing)
        session.advance("initialize")
        try:
            return Result(await self._dialogue.introduction(stream.route, client))
        except BaseException:
            session.streams.remove(stream.standing)  # the stream stays: the client may try again
            stream.session = None
            self._sessions.end(session)
            raise


def _refuse(
    responder: Responder | FarResponder, error: GatewayError | ProtocolError, status: int | None = None
) -> None:
    """Refuse a request before anything of it ran. No id: the answers to requests come on the stream."""
    refused = InvalidRequest(str(error)) if isinstance(error, ProtocolError) else error
    body = jsonrpc.error(None, refusals.failure(refused))
    # An error that answers a request would be a 200, but a POST that was not taken is an HTTP error.
    responder.respond(status or max(400, refusals.status(refused, http_sse.ERA)), body)
