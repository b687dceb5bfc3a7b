"""The HTTP link: JSON-RPC over Streamable HTTP to one backend, either era.

Each message is a POST. An answer is JSON, or an event stream that carries notifications and asks before it. In the
handshake era the link keeps the backend's session id, follows `retry` and `Last-Event-ID` when a stream breaks off,
and holds a GET stream for what belongs to no exchange. Redirects are refused. Sources: basic/transports of
2025-03-26 to 2025-11-25, basic/transports/streamable-http of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final, final

import structlog
from msgspec import UNSET

from gatewright.backend.address import Address
from gatewright.backend.base import Link, Refused, Request, SessionLost, Sink
from gatewright.backend.channel import HttpChannel
from gatewright.backend.response import HttpResponse
from gatewright.background import Background
from gatewright.call import Failure, Result
from gatewright.errors import BackendError, BackendGarbage, ProtocolError
from gatewright.protocol import jsonrpc, sse
from gatewright.protocol.methods import CANCELLED

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings

RETRY_ASKED_MAX_S: Final = 300.0
"""The longest pause that a backend may ask for: beyond it, it is gone for every purpose."""
CLOSE_S: Final = 2.0
"""How long the courtesy of a DELETE may take when a session ends."""
RETRY_S: Final = 1.0
"""The first pause before a broken stream is resumed when the backend named none; it doubles up to RETRY_MAX_S."""
RETRY_MAX_S: Final = 30.0

log = structlog.get_logger("gatewright.backend.http")


@final
class HttpConnector:
    """Opens links to one endpoint; they share its pool of connections."""

    is_shared_wire = False

    def __init__(self, name: str, settings: BackendSettings, tasks: asyncio.TaskGroup) -> None:
        address = Address(settings)
        self._name = name
        self.start: Final = Background(tasks)
        self._channel = HttpChannel(name, address.origin, settings)
        self._streams = HttpChannel(name, address.origin, settings)
        post = address.head("POST", "content-type: application/json\r\naccept: application/json, text/event-stream\r\n")
        self.post_format: Final = post.replace(b"%", b"%%") + b"%b%bcontent-length: %d\r\n\r\n%b"
        """A whole POST, to be filled with a link's lines, a request's lines, the body's length and the body."""
        self.send: Final = self._channel.send
        self._get = address.head("GET", "accept: text/event-stream\r\n")
        self._delete = address.head("DELETE")
        self._settings = settings

    async def connect(self, sink: Sink) -> Link:
        """A link over the shared pool: nothing is sent until the first exchange."""
        return HttpLink(self, sink)

    async def aclose(self) -> None:
        """Close the pools."""
        await self._channel.aclose()
        await self._streams.aclose()

    async def get(self, headers: bytes) -> HttpResponse:
        """One GET, on a pool of its own: standing streams must not starve calls."""
        return await self._streams.send(self._get + headers + b"\r\n", is_retry_safe=True)

    async def delete(self, headers: bytes) -> None:
        """One DELETE, within CLOSE_S."""
        async with asyncio.timeout(CLOSE_S):
            response = await self._channel.send(self._delete + headers + b"\r\n")
            response.abort()

    @property
    def settings(self) -> BackendSettings:
        """The backend's settings."""
        return self._settings

    @property
    def name(self) -> str:
        """The backend's name."""
        return self._name


@final
class HttpLink:
    """One HTTP client of a backend, with its session when it is given one."""

    def __init__(self, connector: HttpConnector, sink: Sink) -> None:
        self._connector = connector
        self._name = connector.name
        self._sink = sink
        self._post = connector.post_format
        self._send = connector.send
        self._session = b""
        self._agreed = b""
        self._standing = b""
        self._standing_stream: HttpResponse | None = None
        self._is_handshake = False
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Until it is closed: connections come and go below it."""
        return not self._is_closed

    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        """See Link.exchange. A cancelled exchange closes its connection; in the handshake era the backend is told."""
        body = jsonrpc.request(request.id, request.method, request.params)
        payload = self._post % (self._standing, request.headers, len(body), body)
        try:
            response = await self._send(payload, request.is_retry_safe)
            if response.is_stream and response.status == 200:
                return await self._streamed(request, response, sink)
            return self._answer(request, response)
        except asyncio.CancelledError:
            if self._is_handshake and request.is_cancellable and not self._is_closed:
                self._connector.start(self._cancel(request.id))
            raise

    async def tell(self, message: bytes) -> None:
        """See Link.tell."""
        response = await self._send(self._post % (self._standing, b"", len(message), message), False)
        if response.is_stream:
            response.abort()
        if response.status >= 300:
            raise self._refusal(response, None)

    def agree(self, headers: bytes) -> None:
        """See Link.agree. From here on the link is in the handshake era."""
        self._agreed = headers
        self._standing = self._session + headers
        self._is_handshake = True

    async def listen(self) -> None:
        """Hold the GET stream and resume it when it breaks, until the link closes or the backend has none (405)."""
        pause_s = RETRY_S
        resume = _Resume()
        while not self._is_closed:
            try:
                response = await self._connector.get(self._standing + resume.header())
                if response.status != 200 or not response.is_stream:
                    response.abort()
                    return
                self._standing_stream = response
                await self._pump(response, self._sink, resume, None)
                pause_s = RETRY_S
            except BackendError as error:
                log.debug("stream broke off", backend=self._name, reason=error.message)
            await asyncio.sleep(resume.pause_s(pause_s))
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def aclose(self) -> None:
        """End the backend's session, if it gave one."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._standing_stream is not None:
            self._standing_stream.abort()
        if self._session:
            with contextlib.suppress(BackendError, TimeoutError, OSError):
                await self._connector.delete(self._standing)

    async def _cancel(self, request_id: int) -> None:
        """Tell a handshake backend: there, a closed stream is not a cancel (basic/utilities/cancellation)."""
        params = jsonrpc.encode({"requestId": request_id, "reason": "the client cancelled"})
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.tell(jsonrpc.notification(CANCELLED, params))

    def _answer(self, request: Request, response: HttpResponse) -> Result | Failure:
        """The outcome in a JSON response."""
        if response.status != 200:
            return self._refused(request, response)
        self._note_session(request, response)
        try:
            message = jsonrpc.decode(response.body)
            if message.id != request.id:
                raise ProtocolError("the answer carries another id")
            return jsonrpc.answer_of(message)
        except ProtocolError as error:
            raise BackendGarbage(f"{self._name}: {error}") from error

    async def _streamed(self, request: Request, response: HttpResponse, sink: Sink) -> Result | Failure:
        """The outcome at the end of an event stream, resumed where the backend allows it."""
        self._note_session(request, response)
        resume = _Resume()
        pause_s = RETRY_S
        while True:
            answer = await self._pump(response, sink, resume, request.id)
            if answer is not None:
                return answer
            if not resume.is_possible:
                raise BackendGarbage(f"{self._name} ended its stream without an answer")
            await asyncio.sleep(resume.pause_s(pause_s))
            pause_s = min(pause_s * 2, RETRY_MAX_S)
            response = await self._connector.get(self._standing + resume.header())
            if response.status != 200 or not response.is_stream:
                response.abort()
                raise BackendGarbage(f"{self._name} ended its stream without an answer and does not resume it")

    async def _pump(
        self, response: HttpResponse, sink: Sink, resume: _Resume, awaited: int | None
    ) -> Result | Failure | None:
        """Carry a stream's messages to `sink` until the awaited answer or the end. Whatever ends it, the connection
        is free or closed after."""
        bound = self._connector.settings.max_response_bytes
        decoder = sse.Decoder(max_line_bytes=bound, max_event_bytes=bound)
        try:
            while piece := await response.read():
                events = decoder.feed(piece)
                resume.note(decoder)
                for event in events:
                    if not event.data or event.event != "message":
                        continue
                    answer = await self._dispatch(jsonrpc.decode(event.data), sink, awaited)
                    if answer is not None:
                        response.finish()
                        return answer
        except ProtocolError as error:
            response.abort()
            raise BackendGarbage(f"{self._name}: {error}") from error
        except BackendGarbage:
            if resume.is_possible:
                return None
            raise
        except BaseException:
            response.abort()
            raise
        return None

    async def _dispatch(self, message: jsonrpc.Message, sink: Sink, awaited: int | None) -> Result | Failure | None:
        if message.method is UNSET:
            if awaited is not None and message.id == awaited:
                return jsonrpc.answer_of(message)
            return None
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        if message.id is UNSET:
            await sink.notified(message.method, params)
        elif message.id is not None:
            sink.asked(message.id, message.method, params)
        return None

    def _note_session(self, request: Request, response: HttpResponse) -> None:
        session = response.headers.get(b"mcp-session-id")
        if session and request.method == "initialize":
            self._session = b"mcp-session-id: %b\r\n" % session
            self._standing = self._session + self._agreed

    def _refused(self, request: Request, response: HttpResponse) -> Failure:
        """The JSON-RPC error in a refusal, or the refusal raised."""
        raise_as = self._refusal(response, request)
        if isinstance(raise_as, Refused) and raise_as.failure is not None and response.status in (400, 404):
            return raise_as.failure
        raise raise_as

    def _refusal(self, response: HttpResponse, request: Request | None) -> BackendError:
        status = response.status
        failure = _failure_in(response.body, None if request is None else request.id)
        if status == 404 and self._session and (failure is None or failure.code != -32601):
            return SessionLost(f"{self._name} no longer knows the session")
        if 300 <= status < 400:
            return Refused(f"{self._name} answered a redirect ({status}): redirects are not followed", status, None)
        if status in (401, 403):
            return Refused(f"{self._name} refused the gateway's credentials ({status})", status, failure)
        return Refused(f"{self._name} answered HTTP status {status}", status, failure)


@final
class _Resume:
    """Where a stream broke off, and how long the backend asked to wait (basic/transports, resumability)."""

    __slots__ = ("_event_id", "_retry_ms")

    def __init__(self) -> None:
        self._event_id: str | None = None
        self._retry_ms: int | None = None

    @property
    def is_possible(self) -> bool:
        """Whether the backend gave an event id to resume from."""
        return bool(self._event_id)

    def note(self, decoder: sse.Decoder) -> None:
        """Keep what the stream said about resuming."""
        if decoder.last_event_id:
            self._event_id = decoder.last_event_id
        if decoder.retry_ms is not None:
            self._retry_ms = decoder.retry_ms

    def header(self) -> bytes:
        """The header line that resumes the stream."""
        return b"last-event-id: %b\r\n" % self._event_id.encode() if self._event_id else b""

    def pause_s(self, otherwise_s: float) -> float:
        """How long to wait before resuming: what the backend asked for, else `otherwise_s` with jitter."""
        if self._retry_ms is not None:
            return min(self._retry_ms / 1000, RETRY_ASKED_MAX_S)
        return otherwise_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _failure_in(body: bytes, request_id: int | None) -> Failure | None:
    """The JSON-RPC error that a refusal's body holds, if it is one and not another request's."""
    try:
        message = jsonrpc.decode(body)
    except ProtocolError:
        return None
    if message.error is UNSET or message.id not in (UNSET, None, request_id):
        return None
    answer = jsonrpc.answer_of(message)
    return answer if isinstance(answer, Failure) else None
