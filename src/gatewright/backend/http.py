"""The HTTP link: JSON-RPC over Streamable HTTP to one backend, either era.

Each message is a POST. An answer is JSON, or an event stream that carries notifications and asks before it. In the
handshake era the link keeps the backend's session id, follows `retry` and `Last-Event-ID` when a stream breaks off,
and holds a GET stream for what belongs to no exchange. Redirects are refused. Sources: basic/transports of
2025-03-26 to 2025-11-25, basic/transports/streamable-http of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import UNSET

from gatewright.backend.address import Address
from gatewright.backend.base import Link, Refused, Request, SessionLost, Sink
from gatewright.backend.channel import NOT_SENT, HttpChannel
from gatewright.backend.connection import Lost
from gatewright.backend.overheard import Overheard
from gatewright.backend.repeats import REPEATED, Repeats
from gatewright.backend.resume import Resume
from gatewright.background import Background
from gatewright.call import Failure, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable, ParseError, ProtocolError
from gatewright.protocol import jsonrpc, sse
from gatewright.protocol.methods import ASKS, CANCELLED

if TYPE_CHECKING:
    from gatewright.backend.response import HttpResponse, HttpStream
    from gatewright.backend.settings import BackendSettings
    from gatewright.outbox import Outbox

CLOSE_S: Final = 2.0
"""How long the courtesy of a DELETE, or of telling about a cancel, may take."""
MAX_ASIDES: Final = 16
"""Connections for messages that calls wait for (answers to asks, cancels) on top of `max_connections`: calls that hold
all connections and wait for such a message would wait for ever."""
RESUME_TRIES: Final = 4
"""How often in a row a broken stream may not be had before its call fails."""
LISTEN: Final = "subscriptions/listen"
_IS_ERA_NEUTRAL: Final = "initialize"
_SPECIAL: Final = frozenset({LISTEN, _IS_ERA_NEUTRAL})
_SESSION: Final = b"mcp-session-id: %b\r\n"
_NOT_CARRIED_OUT: Final = frozenset({401, 403, 405, 406, 413, 415, 421, 426, 429, 431, 503})
"""Besides 400, 404 and redirects: statuses that say that nothing ran, so that the call may be sent again."""
_TS_NO_SESSION: Final = -32000
"""What servers made after the TypeScript SDK's examples answer, with 400, to a session they do not know."""

log = structlog.get_logger("gatewright.backend.http")


@final
class HttpConnector:
    """Opens links to one endpoint; they share its pools of connections."""

    is_shared_wire = False

    def __init__(self, name: str, settings: BackendSettings, tasks: asyncio.TaskGroup, outbox: Outbox) -> None:
        address = Address(settings)
        self.name: Final = name
        self.start: Final = Background(tasks)
        self.repeats: Final = Repeats()
        self.max_event_bytes: Final = settings.max_response_bytes
        self.channel: Final = HttpChannel(name, address.origin, settings, outbox)
        self._streams = HttpChannel(name, address.origin, settings, outbox)
        asides = min(settings.max_connections, MAX_ASIDES)
        self._asides = HttpChannel(name, address.origin, settings, outbox, max_connections=asides)
        post = address.head("POST", "content-type: application/json\r\naccept: application/json, text/event-stream\r\n")
        self.post_format: Final = post.replace(b"%", b"%%") + b"%b%bcontent-length: %d\r\n\r\n%b"
        """A whole POST, to be filled with a link's lines, a request's lines, the body's length and the body."""
        self.send_standing: Final = self._streams.send
        """For streams that stand as long as somebody listens: a pool of their own, so that calls do not starve."""
        self.send_aside: Final = self._asides.send
        self._get = address.head("GET", "accept: text/event-stream\r\n")
        self._delete = address.head("DELETE")
        self._is_closed = False

    async def connect(self, sink: Sink) -> Link:
        """A link over the shared pools: nothing is sent until the first exchange."""
        if self._is_closed:
            raise BackendUnavailable(f"{self.name} is being closed")
        return HttpLink(self, sink)

    async def aclose(self) -> None:
        """Close the pools."""
        self._is_closed = True
        await asyncio.gather(self.channel.aclose(), self._streams.aclose(), self._asides.aclose())

    async def stand(self, headers: bytes) -> HttpResponse:
        """The GET of a standing stream."""
        return await self._streams.send(self._get + headers + b"\r\n", is_retry_safe=True)

    async def resume(self, headers: bytes) -> HttpResponse:
        """The GET that resumes a call's stream: it takes the place of the call's own connection."""
        return await self.channel.send(self._get + headers + b"\r\n", is_retry_safe=True)

    async def delete(self, headers: bytes) -> None:
        """One DELETE, within CLOSE_S."""
        async with asyncio.timeout(CLOSE_S):
            response = await self._asides.send(self._delete + headers + b"\r\n")
            response.abort()


@final
class HttpLink:
    """One HTTP client of a backend, with its session when it is given one."""

    __slots__ = ("_agreed", "_channel", "_connector", "_is_closed", "_is_handshake", "_is_lost", "_name", "_overheard",
                 "_post", "_session", "_sink", "_standing", "is_open", "session_id")  # fmt: skip

    def __init__(self, connector: HttpConnector, sink: Sink, session_id: bytes = b"") -> None:
        """`session_id`: of a session that was opened elsewhere."""
        self._connector = connector
        self._name = connector.name
        self._sink = sink
        self._post = connector.post_format
        self._channel = connector.channel
        self.session_id = session_id
        """The backend's id of the session, empty when it gave none."""
        self._session = _SESSION % session_id if session_id else b""
        self._agreed = b""
        self._standing = b""
        self._overheard: Overheard | None = None
        self._is_handshake = False
        self._is_lost = False
        self._is_closed = False
        self.is_open = True
        """Until it is closed or its session is lost: connections come and go below it."""

    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        """See Link.exchange. A cancelled exchange closes its connection; in the handshake era the backend is told."""
        if not self.is_open:
            raise self._gone()
        method = request.method
        body = jsonrpc.request(request.id, method, request.params)
        payload = self._post % (self._standing, request.headers, len(body), body)
        try:
            connection = None if method in _SPECIAL else self._channel.ready()
            if connection is None:
                response = await self._sent(payload, request)
            else:  # as HttpChannel.send does, without a coroutine more
                waiter = connection.ask(payload)
                try:
                    got = await waiter
                    if isinstance(got, bytes):
                        answer = self._answer(request, got)
                        return answer if answer is not None else await self._batched(request, got, sink)
                    response = got
                except Lost as lost:
                    response = await self._channel.send_again(payload, lost, request.is_retry_safe)
                except asyncio.CancelledError:
                    connection.left(waiter)
                    raise
            if response.status != 200:
                return self._refused(request, response)
            if response.events:
                told = _only_answer(response.events, request.id)
                if told is not None:
                    return told
                response.unfold()
            if response.stream is not None:
                return await self._streamed(request, response, sink)
            answer = self._answer(request, response.body)
            return answer if answer is not None else await self._batched(request, response.body, sink)
        except asyncio.CancelledError as cancelled:
            is_told = self._is_handshake and request.is_cancellable and cancelled.args != (NOT_SENT,)
            if is_told and self.is_open:
                self._connector.start(self._cancel(request.id))
            raise

    async def _sent(self, payload: bytes, request: Request) -> HttpResponse:
        """The response to a request that is not like most, or that has to wait for a connection."""
        if request.method == LISTEN:
            return await self._connector.send_standing(payload, False)
        response = await self._channel.send(payload, request.is_retry_safe)
        if request.method == _IS_ERA_NEUTRAL and response.status == 200:
            self._note_session(response)
        return response

    async def tell(self, message: bytes) -> None:
        """See Link.tell."""
        if not self.is_open:
            raise self._gone()
        payload = self._post % (self._standing, b"", len(message), message)
        response = await self._connector.send_aside(payload, False)
        response.abort()
        if response.status >= 300:
            raise self._refusal(response, _error_in(response.body, None))

    def agree(self, headers: bytes) -> None:
        """See Link.agree. From here on the link is in the handshake era."""
        self._agreed = headers
        self._standing = self._session + headers
        self._is_handshake = True

    def overhear(self, over: Callable[[], None]) -> None:
        """Hold the GET stream and resume it when it breaks, until the link closes or the backend has none (405); then
        `over` is called."""
        if not self.is_open:
            over()
            return
        self._overheard = Overheard(self, self._connector.start, self._connector.max_event_bytes, over)
        self._overheard.begin()

    async def listen(self) -> None:
        """See Link.listen."""
        over = asyncio.Event()
        self.overhear(over.set)
        await over.wait()

    async def stand(self, headers: bytes) -> HttpStream:
        """See Overhears.stand."""
        response = await self._connector.stand(self._standing + headers)
        if response.status == 200 and response.stream is not None:
            return response.stream
        response.abort()
        if self._is_session_lost(response, None):
            self._lose()
        told = f"{self._name} answered HTTP status {response.status}"
        raise Refused(told, response.status, None) if response.status < 500 else BackendUnavailable(told)

    async def hear(self, data: bytes) -> None:
        """See Overhears.hear."""
        for message in _messages(data):
            if message.method is not UNSET:
                await self._dispatch(message, message.method, self._sink)

    def missed(self) -> None:
        """See Overhears.missed."""
        self._sink.missed()

    async def aclose(self) -> None:
        """End the backend's session, if it gave one."""
        if self._is_closed:
            return
        self._close()
        try:
            if self._session and not self._is_lost:
                with contextlib.suppress(BackendError, TimeoutError, OSError):
                    await self._connector.delete(self._standing)
        finally:
            self.leave()  # after the DELETE, which ends the stream in order

    def leave(self) -> None:
        """Close it, and leave the session to others."""
        self._close()
        if self._overheard is not None:
            self._overheard.close()

    def _close(self) -> None:
        self._is_closed = True
        self.is_open = False

    def _lose(self) -> None:
        """The backend does not know its session any more."""
        self._is_lost = True
        self.is_open = False

    async def _cancel(self, request_id: int) -> None:
        """Tell a handshake backend: there, a closed stream is not a cancel (basic/utilities/cancellation)."""
        params = jsonrpc.encode({"requestId": request_id, "reason": "the client cancelled"})
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.tell(jsonrpc.notification(CANCELLED, params))

    # answers

    def _answer(self, request: Request, body: bytes) -> Result | Failure | None:
        """The outcome in a JSON response; None when that is an array."""
        is_list = request.method in REPEATED
        if is_list:
            known = self._connector.repeats.find(request.method, request.id, body)
            if known is not None:
                return known
        try:
            message = jsonrpc.decode(body)
            if message.id != request.id:
                raise ProtocolError("the answer carries another id")
            answer = jsonrpc.answer_of(message)
        except ProtocolError as error:
            if body.startswith(b"["):
                return None
            raise BackendGarbage(f"{self._name}: {error}") from error
        if is_list:
            self._connector.repeats.learn(request.method, request.id, body, answer)
        return answer

    async def _batched(self, request: Request, body: bytes, sink: Sink) -> Result | Failure:
        """The outcome in an array of messages (2025-03-26 only)."""
        answer: _Answer = None
        try:
            for message in _messages(body):
                if message.method is not UNSET:
                    await self._dispatch(message, message.method, sink)
                elif message.id == request.id:
                    answer = jsonrpc.answer_of(message)
        except ProtocolError as error:
            raise BackendGarbage(f"{self._name}: {error}") from error
        if answer is None:
            raise BackendGarbage(f"{self._name} answered without an answer")
        return answer

    async def _streamed(self, request: Request, response: HttpResponse, sink: Sink) -> Result | Failure:
        """The outcome at the end of an event stream. In the handshake era a stream that broke off is resumed where the
        backend allows it; a modern one is lost with its request (2026-07-28, streamable-http)."""
        resume = Resume() if self._is_handshake or request.method == _IS_ERA_NEUTRAL else None
        while True:
            answer = await self._pump(response, sink, resume, request.id)
            if answer is not None:
                return answer
            if resume is None or not resume.is_possible:
                raise BackendGarbage(f"{self._name} ended its stream without an answer")
            response = await self._resumed(resume)

    async def _resumed(self, resume: Resume) -> HttpResponse:
        """The stream of a call again. Raises BackendGarbage: the call may have run, so it is never unavailable."""
        reason = ""
        for _ in range(RESUME_TRIES):
            await asyncio.sleep(resume.pause_s())
            resume.fruitless += 1
            if not self.is_open:
                break
            try:
                response = await self._connector.resume(self._standing + resume.header())
            except BackendError as error:
                reason = f": {error.message}"
                continue
            if response.status == 200 and response.stream is not None:
                return response
            response.abort()
            reason = f": HTTP status {response.status}"
            if response.status < 500:
                if self._is_session_lost(response, None):
                    self._lose()
                break
        raise BackendGarbage(f"{self._name} broke off its stream without an answer and does not resume it{reason}")

    async def _pump(self, response: HttpResponse, sink: Sink, resume: Resume | None, awaited: int) -> _Answer:
        """Carry a stream's messages to `sink` until the awaited answer or the end. Whatever ends it, the connection
        is free or closed after. A connection that died is an end: the caller knows whether it may be resumed."""
        bound = self._connector.max_event_bytes
        decoder = sse.Decoder(max_line_bytes=bound, max_event_bytes=bound)
        stream = response.stream
        assert stream is not None
        try:
            while piece := await stream.read():
                events = decoder.feed(piece)
                if resume is not None:
                    resume.note(decoder)
                for event in events:
                    if not event.data or event.event != "message":
                        continue
                    if resume is not None:
                        resume.fruitless = 0
                    for message in _messages(event.data):
                        if message.method is not UNSET:
                            if self._is_handshake and message.method in ASKS:
                                stream.lend()
                            await self._dispatch(message, message.method, sink)
                        elif message.id == awaited:
                            answer = jsonrpc.answer_of(message)
                            stream.finish()
                            return answer
        except ProtocolError as error:
            response.abort()
            raise BackendGarbage(f"{self._name}: {error}") from error
        except BackendGarbage:
            return None
        except BaseException:
            response.abort()
            raise
        return None

    async def _dispatch(self, message: jsonrpc.Message, method: str, sink: Sink) -> None:
        """A message of the backend's own."""
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        if message.id is UNSET:
            await sink.notified(method, params)
        elif message.id is not None:
            sink.asked(message.id, method, params)

    def _note_session(self, response: HttpResponse) -> None:
        session = response.headers.get(b"mcp-session-id")
        if not session:
            return
        if not is_visible(session):
            response.abort()
            raise BackendGarbage(f"{self._name} gave a session id that is not visible ASCII")
        self.session_id = session
        self._session = _SESSION % session
        self._standing = self._session + self._agreed

    # refusals

    def _gone(self) -> BackendError:
        if self._is_lost:  # also when it was closed for that: whoever comes late opens another
            return SessionLost(f"{self._name} no longer knows the session")
        return BackendUnavailable(f"{self._name}: the link is closed")

    def _is_session_lost(self, response: HttpResponse, failure: Failure | None) -> bool:
        """Whether a refusal says that our session is unknown: 404, unless it says that the method is."""
        if not self._session:
            return False
        if response.status == 404:
            return failure is None or failure.code != -32601
        is_told = failure is not None and failure.code == _TS_NO_SESSION and "session" in failure.message.lower()
        return response.status == 400 and is_told

    def _refused(self, request: Request, response: HttpResponse) -> Failure:
        """The backend's own error under a status that decides nothing, or the refusal raised."""
        response.abort()
        error = _error_in(response.body, request.id)
        if error is not None and error.id == request.id and response.status not in (400, 401, 403, 404):
            return error.failure
        raise self._refusal(response, error)

    def _refusal(self, response: HttpResponse, error: _Error | None) -> BackendError:
        """What a status other than 200 means."""
        status = response.status
        failure = None if error is None else error.failure
        if self._is_session_lost(response, failure):
            self._lose()
            return self._gone()
        if 300 <= status < 400:
            return Refused(f"{self._name} answered a redirect ({status}): redirects are not followed", status, None)
        if status in (401, 403):
            return Refused(f"{self._name} refused the gateway's credentials ({status})", status, failure)
        if status in (400, 404) or status in _NOT_CARRIED_OUT:
            return Refused(f"{self._name} answered HTTP status {status}", status, failure)
        return BackendGarbage(f"{self._name} answered HTTP status {status}")


@final
class _Error(msgspec.Struct, frozen=True):
    """A JSON-RPC error in the body of a refusal."""

    id: jsonrpc.Id | None
    failure: Failure


_Answer = Result | Failure | None


def _only_answer(events: bytes, request_id: int) -> Result | Failure | None:
    """The answer to a request, when a whole stream holds nothing else. None says nothing: the long way decides."""
    event = sse.whole(events)
    if event is None:
        return None
    try:
        message = jsonrpc.decode(event.data)
        return jsonrpc.answer_of(message) if message.method is UNSET and message.id == request_id else None
    except ProtocolError:
        return None


def _messages(data: bytes) -> list[jsonrpc.Message]:
    """The message, or the messages of an array (2025-03-26 only). Raises ProtocolError."""
    if not data.startswith(b"["):
        return [jsonrpc.decode(data)]
    try:
        return [jsonrpc.decode(bytes(one)) for one in jsonrpc.decode_batch(data)]
    except ParseError as error:
        raise ProtocolError(error.message) from error


def is_visible(value: bytes) -> bool:
    """Whether it may be a session id: visible ASCII (S-20)."""
    return all(0x21 <= byte <= 0x7E for byte in value)


def _error_in(body: bytes, request_id: int | None) -> _Error | None:
    """The JSON-RPC error that a refusal's body holds, if it is one and not another request's."""
    try:
        message = jsonrpc.decode(body)
        if message.error is UNSET or message.id not in (UNSET, None, request_id):
            return None
        answer = jsonrpc.answer_of(message)
    except ProtocolError:
        return None
    return _Error(None if message.id is UNSET else message.id, answer) if isinstance(answer, Failure) else None
