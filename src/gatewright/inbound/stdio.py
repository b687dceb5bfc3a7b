"""The stdio front: one local host on standard input and output, in either era, message by message.

The host decides the era: `initialize` opens the one handshake session of the process, and a request that says its
revision in `_meta` is served on its own, also beside a session. Requests run at once and are answered as they end;
`notifications/cancelled` is the cancel in both eras. The end of the input, like `stop`, is an orderly end: no request
is begun, subscriptions are closed, running calls may finish within the drain time, and their questions be answered
while there is input; a second `stop`, or a host that has left, ends them at once. Sources: basic/transports/stdio,
basic/patterns/{cancellation,subscriptions} of 2026-07-28; basic/lifecycle and basic/transports "stdio" of 2024-11-05
to 2025-11-25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

import msgspec
import structlog
from msgspec import UNSET

from gatewright.call import ANONYMOUS, Call, Handler
from gatewright.errors import GatewayError, InvalidRequest, Overloaded, ParseError, ProtocolError
from gatewright.inbound.base import closed, internal
from gatewright.inbound.dialogue import Dialogue, cancelled_id
from gatewright.inbound.modern import admitted
from gatewright.inbound.session import Session
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Limits
from gatewright.inbound.standing import Standing
from gatewright.inbound.stdio_reply import LineReply, ModernLineReply, SessionLineReply
from gatewright.inbound.stdio_wire import StdioWire
from gatewright.policy.patience import Patience
from gatewright.protocol import depth, jsonrpc, modern, refusals
from gatewright.protocol.methods import CANCELLED, METHODS

MAX_RUNNING: Final = 1_000
"""Requests of the host at once; the next is refused. Reading must go on meanwhile, for cancellations and answers."""
MAX_BATCH: Final = 100
"""Messages in one array (2025-03-26)."""
log = structlog.get_logger("gatewright.inbound")


@final
class _Running:
    """One request while it runs."""

    __slots__ = ("is_cancellable", "is_ended", "reply", "request_id", "task")

    def __init__(self, request_id: jsonrpc.Id, method: str) -> None:
        self.request_id = request_id
        self.is_cancellable = method != "initialize"
        """It MUST NOT be cancelled (basic/lifecycle)."""
        self.task: asyncio.Task[None] | None = None
        self.reply: LineReply | None = None
        self.is_ended = False
        """The gateway ends it: a subscription, in good order."""

    def cancel(self) -> None:
        """The host does not want it any more."""
        if self.reply is not None:
            self.reply.is_closed = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """End a subscription; any other request goes on."""
        if isinstance(self.reply, ModernLineReply) and self.reply.is_subscription and not self.is_ended:
            self.is_ended = True
            if self.task is not None:
                self.task.cancel()


@final
class StdioHost(msgspec.Struct, frozen=True):
    """What a host is given."""

    route: str = ""
    """The backend it sees; empty for all of them."""
    patience_s: float = 0.0
    """How long its requests wait for a server that cannot be reached."""


@final
class StdioFront:
    """Serves one host. Finishes what runs within `drain_s` when it ends."""

    def __init__(
        self,
        handle: Handler,
        dialogue: Dialogue,
        sessions: Sessions,
        limits: Limits,
        host: StdioHost,
        *,
        drain_s: float,
    ) -> None:
        self._patience = Patience(host.patience_s)
        self._handle = self._patience.around(handle)
        self._dialogue = dialogue
        self._sessions = sessions
        self._limits = limits
        self._route = host.route
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._wire = StdioWire(limits.max_body_bytes, self._take, self._input_ended)
        self._tasks: asyncio.TaskGroup
        self._session: Session | None = None
        self._running: dict[_Running, None] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._quiet = asyncio.Event()

    def stop(self) -> None:
        """Begin an orderly end; the second time, end at once. May be called by a signal handler."""
        self._loop.call_soon_threadsafe(self._stop)

    async def serve(self, source_fd: int, sink_fd: int, on_ready: Callable[[], None]) -> None:
        """Serve until the input ends or `stop`. Both descriptors are closed then. Raises OSError."""
        async with asyncio.TaskGroup() as self._tasks:
            await self._wire.open(source_fd, sink_fd)
            on_ready()
            try:
                await self._stopping.wait()
                await self._drain()
            finally:
                for running in list(self._running):
                    running.cancel()
                for task in self._beside:
                    task.cancel()
                if self._session is not None:
                    self._sessions.end(self._session)
        await self._wire.close()

    # --- the end

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._quiet.set()
        self._stopping.set()

    def _input_ended(self) -> None:
        """Nothing more will come: no answers to questions either."""
        self._stopping.set()
        if self._wire.is_gone:
            self._quiet.set()
        session = self._session
        if session is not None:
            for owner in (self._wire, *session.streams):
                session.withdraw(owner)

    async def _drain(self) -> None:
        """Let what runs come to its end."""
        for running in list(self._running):
            running.end()
        if self._running and not self._wire.is_gone:
            try:
                async with asyncio.timeout(self._drain_s):
                    await self._quiet.wait()
            except TimeoutError:
                log.info("calls cut off", count=len(self._running))

    # --- what the host says

    def _take(self, line: bytes | None) -> None:
        """One line of input. Never waits: what takes time becomes a task."""
        try:
            if line is None:
                raise InvalidRequest(f"a message may have at most {self._limits.max_body_bytes} bytes")
            depth.check_json(line, max_depth=self._limits.max_json_depth)
            if line.lstrip().startswith(b"["):
                self._take_batch(line)
            else:
                self._take_message(jsonrpc.decode_request(line))
        except (GatewayError, ProtocolError) as error:
            refusal = error if isinstance(error, GatewayError) else ParseError(str(error))
            self._refuse(refusal, None if line is None else jsonrpc.salvage_id(line))
        except Exception:  # noqa: BLE001 - the edge of a host: a bug ends one message, and is logged under an id
            self._refuse(internal("a message"), None if line is None else jsonrpc.salvage_id(line))

    def _take_batch(self, line: bytes) -> None:
        """An array of messages: lawful in sessions of 2025-03-26, where they MUST be taken. Answers come one by one."""
        if self._session is None or not self._session.client.revision.has_batches:
            raise InvalidRequest("an array of messages is not allowed in this revision: send one message per line")
        batch = jsonrpc.decode_batch(line)
        if not 0 < len(batch) <= MAX_BATCH:
            raise InvalidRequest(f"a batch holds 1 to {MAX_BATCH} messages")
        for message in [jsonrpc.decode_request(bytes(one)) for one in batch]:
            self._take_message(message)

    def _take_message(self, message: jsonrpc.Message) -> None:
        if message.method is UNSET:
            self._answered(message)
        elif message.id is UNSET or message.id is None:
            self._notified(message, message.method)
        elif self._stopping.is_set():
            raise Overloaded("the gateway is stopping")
        elif len(self._running) >= MAX_RUNNING:
            raise Overloaded(f"{MAX_RUNNING} requests run already")
        else:
            running = _Running(message.id, message.method)
            self._running[running] = None
            running.task = self._tasks.create_task(self._request(message, message.id, message.method, running))
            running.task.add_done_callback(lambda _: self._ended(running))

    def _ended(self, running: _Running) -> None:
        self._running.pop(running, None)
        if self._stopping.is_set() and not self._running:
            self._quiet.set()

    def _answered(self, message: jsonrpc.Message) -> None:
        """The host answered a question. Modern hosts are asked none and write no responses."""
        try:
            if self._session is not None:
                self._session.answered(message)
        except ProtocolError as error:
            log.info("answer dropped", reason=str(error))

    def _notified(self, message: jsonrpc.Message, method: str) -> None:
        """A notification: owed no answer, whatever is wrong with it."""
        try:
            if method == CANCELLED:
                params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
                self._cancel(cancelled_id(params))
            elif len(self._beside) >= MAX_RUNNING:
                raise Overloaded(f"{MAX_RUNNING} notifications wait for backends")
            elif self._session is not None and not self._dialogue.is_taken(self._session, method, message):
                self._start(self._tell(self._session, method, message))
        except GatewayError as error:
            log.info("notification dropped", method=method[:100], reason=error.message)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the requests. It does not hold up the end."""
        task = self._tasks.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _tell(self, session: Session, method: str, message: jsonrpc.Message) -> None:
        """Pass a notification on to the backends."""
        try:
            await self._dialogue.tell(session, method, message)
        except GatewayError as error:
            log.info("notification not delivered", method=method[:100], reason=error.message)
        except Exception:  # noqa: BLE001 - as for messages: nobody is owed an answer
            internal(method)

    def _cancel(self, request_id: jsonrpc.Id) -> None:
        """Of a request that is over or unknown nothing is said (basic/patterns/cancellation)."""
        for running in list(self._running):
            if running.request_id == request_id and running.is_cancellable:
                running.cancel()

    def _refuse(self, error: GatewayError, request_id: jsonrpc.Id | None) -> None:
        self._wire.write(jsonrpc.error(request_id, refusals.failure(error)))

    # --- requests

    async def _request(self, message: jsonrpc.Message, request_id: jsonrpc.Id, method: str, running: _Running) -> None:
        """Carry one request out and answer it."""
        try:
            if method == "initialize":
                await self._initialize(message, request_id)
            elif modern.is_claimed(message, None) or (self._session is None and method != "ping"):
                await self._modern(message, request_id, method, running)
            elif self._session is None:
                await self._wire.send(jsonrpc.result(request_id, b"{}"))
            else:
                await self._in_session(self._session, message, request_id, method, running)
        except GatewayError as error:
            self._refuse(error, request_id)
        except Exception:  # noqa: BLE001 - as for messages
            self._refuse(internal(method), request_id)

    async def _modern(self, message: jsonrpc.Message, request_id: jsonrpc.Id, method: str, running: _Running) -> None:
        """A request that stands alone. Raises ClientError, ChainRefused."""
        found = admitted(message, method, None, self._dialogue.chain)
        row, client, meta = found.row, found.client, found.meta
        reply = ModernLineReply(self._wire, request_id, row, client.revision, meta.get(modern.LOG_LEVEL_KEY))
        running.reply = reply
        if self._stopping.is_set():
            running.end()  # a subscription that came with the last words, before it began
        task = running.task
        assert task is not None
        call = Call(
            method=method,
            row=row,
            params=jsonrpc.NO_PARAMS if message.params is UNSET else message.params,
            meta=meta,
            name=found.name,
            client=client,
            reply=reply,
            task=task,
            route=self._route,
        )
        try:
            await reply.answer(method, self._handle, call)
        except asyncio.CancelledError:
            if not running.is_ended or reply.is_closed:
                raise
            task.uncancel()
            await reply.answer(method, closed)
        if running.is_ended:
            await reply.torn_down()

    async def _initialize(self, message: jsonrpc.Message, request_id: jsonrpc.Id) -> None:
        """Open the session. Raises GatewayError."""
        if self._session is not None:
            raise InvalidRequest("the session is open already: there is one in the life of this process")
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        session_id = self._sessions.mint()
        client = self._dialogue.client_of(params, session_id)
        session = self._session = self._sessions.add(session_id, self._route, ANONYMOUS, client)
        session.advance("initialize")
        try:
            result = await self._patience.through(lambda: self._dialogue.introduction(self._route, client))
        except BaseException:
            self._session = None
            self._sessions.end(session)
            raise
        await self._wire.send(jsonrpc.result(request_id, result))
        standing = Standing(self._limits.max_queued_messages)
        session.streams.append(standing)
        self._start(self._stand(standing))

    async def _stand(self, standing: Standing) -> None:
        """Carry what belongs to no request, until the session ends."""
        while not self._wire.is_gone and (messages := await standing.take()) is not None:
            for message in messages:
                await self._wire.send(message)

    async def _in_session(
        self, session: Session, message: jsonrpc.Message, request_id: jsonrpc.Id, method: str, running: _Running
    ) -> None:
        """A request within the session. Raises ClientError."""
        session.advance("message")
        reply = SessionLineReply(self._wire, request_id, METHODS.get(method), session.client.revision, session)
        running.reply = reply
        task = running.task
        assert task is not None
        try:
            await reply.answer(method, self._dialogue.outcome, session, message, method, reply, task)
        except asyncio.CancelledError:
            for told in session.withdraw(reply):
                self._wire.write(told)
