"""Backends of the HTTP+SSE transport of 2024-11-05: one event stream in, POSTs out, together one duplex wire.

A link is one GET stream, and one session of the backend. Its first event names where to POST; that address is refused
unless it is of the stream's own origin, because the configured headers go there too. Messages are posted in the order
they were written: the next one leaves when the one before it was accepted. What the backend says comes on the stream
alone, so who a message belongs to is `PipeLink`'s business; what a POST is answered beside its status is not read.
A stream that breaks takes its link with it, there is nothing to resume in this transport: the next `connect` starts
afresh. Redirects are refused. Source: 2024-11-05 basic/transports, "HTTP with SSE".
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, final

import structlog
from msgspec import UNSET
from typing_extensions import override

from gatewright.backend.address import Address
from gatewright.backend.base import Connector, Link, Refused, Request, SessionLost, Sink
from gatewright.backend.channel import HttpChannel
from gatewright.backend.pipe import Bounds, PipeLink, Wire
from gatewright.backend.response import HttpResponse, HttpStream
from gatewright.backend.settings import BackendSettings
from gatewright.background import Background
from gatewright.call import Failure, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable, ProtocolError
from gatewright.outbox import Outbox
from gatewright.protocol import http_sse, jsonrpc, sse

MAX_WAITING: Final = 64
"""Messages that may wait to be posted before whoever writes the next one waits."""
ACCEPT_S: Final = 1.0
"""How long the next message waits for the one before it to be accepted. Servers accept at once; one that answers a
POST when the work is done would otherwise never get the answer to its own question."""
UNDELIVERED: Final = -31_002
"""The code under which an exchange is told that its request was refused; no client ever sees it."""
log = structlog.get_logger("gatewright.backend.sse")


@final
class Incoming:
    """The events of one stream, in order."""

    def __init__(self, stream: HttpStream, max_event_bytes: int) -> None:
        self._stream = stream
        self._decoder = sse.Decoder(max_line_bytes=max_event_bytes, max_event_bytes=max_event_bytes)
        self._ready: deque[sse.Event] = deque()

    async def next(self) -> sse.Event | None:
        """The next event, None at the end. Raises BackendGarbage, ProtocolError."""
        while not self._ready:
            piece = await self._stream.read()
            if not piece:
                return None
            self._ready.extend(self._decoder.feed(piece))
        return self._ready.popleft()

    def abort(self) -> None:
        """Nothing more of it is wanted."""
        self._stream.abort()


@final
class SseConnector(Connector):
    """Opens streams to one backend. Used from one event loop; `tasks` outlives every link."""

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        tasks: asyncio.TaskGroup,
        outbox: Outbox,
        *,
        bounds: Bounds | None = None,
    ) -> None:
        if settings.url is None:
            raise ValueError(f"backend {name} has no url")
        self.name: Final = name
        self.settings: Final = settings
        self.start: Final = Background(tasks)
        self._url = settings.url
        self._tasks = tasks
        self._bounds = bounds
        self._address = Address(settings)
        self.posts: Final = HttpChannel(name, self._address.origin, settings, outbox)
        self._streams = HttpChannel(name, self._address.origin, settings, outbox)
        self._get = self._address.head("GET", "accept: text/event-stream\r\ncache-control: no-cache\r\n") + b"\r\n"
        self._wires: set[SseWire] = set()
        self._opening = 0
        self._is_closed = False

    @property
    @override
    def is_shared_wire(self) -> bool:
        return True

    @override
    async def connect(self, sink: Sink) -> Link:
        bound = self.settings.max_connections
        if self._is_closed:
            raise BackendUnavailable(f"{self.name}: the gateway is stopping")
        if len(self._wires) + self._opening >= bound:
            raise BackendUnavailable(f"{self.name}: {bound} streams are open already (max_connections)")
        self._opening += 1
        try:
            incoming, target = await self._open()
        finally:
            self._opening -= 1
        if self._is_closed:
            incoming.abort()
            raise BackendUnavailable(f"{self.name}: the gateway is stopping")
        wire = SseWire(self, incoming, self._head(target))
        wire.link = PipeLink(self.name, wire, sink, tasks=self._tasks, bounds=self._bounds)
        self._wires.add(wire)
        wire.begin()
        return SseLink(wire)

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        for wire in list(self._wires):
            await wire.link.aclose()
        await self.posts.aclose()
        await self._streams.aclose()

    def forget(self, wire: SseWire) -> None:
        """A stream has ended."""
        self._wires.discard(wire)

    def refusal(self, response: HttpResponse) -> Refused:
        """The error for a response that is not what was asked for. Its body stays unread: nothing in it counts."""
        status = response.status
        response.abort()
        if 300 <= status < 400:
            return Refused(f"{self.name} answered a redirect ({status}): redirects are not followed", status, None)
        if status in (401, 403):
            return Refused(f"{self.name} refused the gateway's credentials ({status})", status, None)
        return Refused(f"{self.name} answered HTTP status {status}", status, None)

    def _head(self, target: str) -> bytes:
        """What stands before each message, but for its length."""
        return self._address.head("POST", "content-type: application/json\r\naccept: */*\r\n", target=target)

    async def _open(self) -> tuple[Incoming, str]:
        """A stream whose first event was read: it, and where to POST. Raises BackendError."""
        bound_s = self.settings.connect_timeout_s
        incoming: Incoming | None = None
        try:
            async with asyncio.timeout(bound_s):
                response = await self._streams.send(self._get, True)
                if response.status != 200 or response.stream is None:
                    raise self._no_stream(response)
                incoming = Incoming(response.stream, self.settings.max_response_bytes)
                first = await incoming.next()
            if first is None or first.event != http_sse.ENDPOINT:
                raise BackendGarbage(f"{self.name}: its stream does not begin with an endpoint event")
            return incoming, http_sse.target_of(self._url, first.data)
        except BaseException as error:
            if incoming is not None:
                incoming.abort()
            if isinstance(error, TimeoutError):
                raise BackendUnavailable(f"{self.name} did not name its endpoint within {bound_s:g} s") from None
            if isinstance(error, ProtocolError):
                raise BackendGarbage(f"{self.name}: {error}") from error
            raise

    def _no_stream(self, response: HttpResponse) -> BackendError:
        if response.status == 200:
            return BackendGarbage(f"{self.name} answered something else than an event stream")
        return self.refusal(response)


@final
class SseWire(Wire):
    """The two halves of one link. Ends with its stream."""

    link: PipeLink

    def __init__(self, connector: SseConnector, incoming: Incoming, head: bytes) -> None:
        self._connector = connector
        self._incoming = incoming
        self._head = head
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_dead = False
        self._has_accepted = False
        self._halves: set[asyncio.Task[None]] = set()
        self._posting: set[asyncio.Task[None]] = set()
        self.pending: dict[int, Request] = {}
        """The requests in flight, by id."""
        self.refused: dict[int, BackendError] = {}
        """Why one of them was not delivered."""
        self.token: Final = secrets.token_hex(16)
        """Marks what the wire itself says about an exchange: no backend can say it."""

    def begin(self) -> None:
        """Read and post until the end."""
        for work in (self._read(), self._post_all()):
            self._begin(work, self._halves)

    # --- what the link calls

    @override
    def write(self, message: bytes) -> bool:
        if self._is_dead:
            return False
        self._waiting.append(message)
        self._arrived.set()
        if len(self._waiting) >= MAX_WAITING:
            self._has_room.clear()
        return True

    @override
    async def drain(self) -> None:
        await self._has_room.wait()

    @override
    def hold(self, is_held: bool, /) -> None:
        if is_held:
            self._may_read.clear()
        else:
            self._may_read.set()

    @override
    async def close(self) -> None:
        self._die("the link was closed")

    # --- incoming

    async def _read(self) -> None:
        reason = "the backend ended its event stream"
        try:
            while (event := await self._incoming.next()) is not None:
                if not self._may_read.is_set():
                    await self._may_read.wait()
                if event.event == http_sse.MESSAGE and event.data:
                    self.link.feed(event.data)
        except BackendGarbage as error:
            reason = error.message
        except ProtocolError as error:
            reason = f"its stream holds {error}"
        finally:
            self._die(reason)

    def _die(self, reason: str) -> None:
        """The wire carries nothing more, in either direction."""
        if self._is_dead:
            return
        self._is_dead = True
        self._incoming.abort()
        self._waiting.clear()
        self._has_room.set()
        self._connector.forget(self)
        self.link.fail(reason)
        current = asyncio.current_task()
        for task in (*self._halves, *self._posting):
            if task is not current:
                task.cancel()

    # --- outgoing

    async def _post_all(self) -> None:
        """Post what is written, in order."""
        waiting = self._waiting
        while not self._is_dead:
            if not waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            message = waiting.popleft()
            if len(waiting) < MAX_WAITING:
                self._has_room.set()
            posting = self._begin(self._post(message), self._posting)
            if posting is not None:
                await asyncio.wait((posting,), timeout=ACCEPT_S)
            while len(self._posting) >= self._connector.settings.max_connections:
                await asyncio.wait(self._posting, return_when=asyncio.FIRST_COMPLETED)

    async def _post(self, message: bytes) -> None:
        """Post one message. One that is not accepted fails its own exchange, or the link when the session is gone."""
        connector = self._connector
        sent = jsonrpc.decode(message)
        request = self.pending.get(sent.id) if sent.method is not UNSET and isinstance(sent.id, int) else None
        payload = b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(message), message)
        bound_s = connector.settings.max_total_s  # whatever it was about has been given up by then
        try:
            async with asyncio.timeout(bound_s):
                # A notification or an answer that comes twice does no harm.
                response = await connector.posts.send(payload, request is None or request.is_retry_safe)
        except TimeoutError:
            self._undelivered(request, BackendGarbage(f"{connector.name} did not accept a message in {bound_s:g} s"))
        except BackendError as error:
            self._undelivered(request, error)
        else:
            response.abort()
            if response.status < 300:
                self._has_accepted = True
            elif response.status in (404, 410) and self._has_accepted:
                self._undelivered(request, SessionLost(f"{connector.name} no longer knows the session"))
                self._die("the backend no longer knows the session")
            elif response.status >= 500 and response.status != 503:  # it may have run
                self._undelivered(request, BackendGarbage(f"{connector.name} answered HTTP status {response.status}"))
            else:
                self._undelivered(request, connector.refusal(response))

    def _undelivered(self, request: Request | None, error: BackendError) -> None:
        """Tell the exchange, if it was one, in the only way that reaches it: as its answer."""
        if request is None:
            log.info("message not delivered", backend=self._connector.name, reason=error.message)
        elif self.pending.get(request.id) is request:
            self.refused[request.id] = error
            self.link.feed(jsonrpc.error(request.id, Failure(UNDELIVERED, self.token)))

    def _begin(self, work: Coroutine[Any, Any, None], where: set[asyncio.Task[None]]) -> asyncio.Task[None] | None:
        task = self._connector.start(work)
        if task is not None:
            where.add(task)
            task.add_done_callback(where.discard)
            task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began
        return task


@final
class SseLink(Link):
    """A `PipeLink` that also says when a request was refused at the door."""

    def __init__(self, wire: SseWire) -> None:
        self._wire = wire
        self._pipe = wire.link

    @property
    @override
    def is_open(self) -> bool:
        return self._pipe.is_open

    @override
    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        wire = self._wire
        wire.pending[request.id] = request
        try:
            outcome = await self._pipe.exchange(request, sink)
        finally:
            del wire.pending[request.id]
            error = wire.refused.pop(request.id, None)
        if error is not None and isinstance(outcome, Failure) and outcome.message == wire.token:
            raise error
        return outcome

    @override
    async def tell(self, message: bytes) -> None:
        await self._pipe.tell(message)

    @override
    def agree(self, headers: bytes) -> None:
        """This transport has no header of the protocol's own."""

    @override
    async def listen(self) -> None:
        """The stream carries everything from the start."""

    @override
    async def aclose(self) -> None:
        await self._pipe.aclose()
