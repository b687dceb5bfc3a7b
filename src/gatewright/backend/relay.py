"""A link through another replica: to a backend's process that only that one has.

The exchange is carried out there once, and what the backend says on the way comes back as it is said. When that replica
dies the exchange fails: as a lost session, to be opened anew, if it surely had not begun, and else with an error that
says that it may have run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
import structlog

from gatewright.backend.base import Request, SessionLost, Sink
from gatewright.call import Caller, Client, Failure, Params, Result
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.jsonrpc import Id
from gatewright.stores.post import Errand, Post, ReplicaGone

if TYPE_CHECKING:
    from gatewright.background import Background

EXCHANGE: Final = "exchange"
MESSAGE: Final = "message"
log = structlog.get_logger("gatewright.backend")


@final
class _Exchange(msgspec.Struct, frozen=True, array_like=True):
    """One request to a backend, in the session of a client session."""

    backend: str
    ref: str
    id: int
    method: str
    params: bytes
    is_retry_safe: bool
    is_cancellable: bool


@final
class _Heard(msgspec.Struct, frozen=True, array_like=True):
    """What the backend said on the way: a question when it has an id."""

    method: str
    params: bytes
    id: Id | None = None


@final
class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How it ended: a result, a failure, or neither when the session was lost."""

    value: bytes | None = None
    code: int = 0
    message: str | None = None
    data: bytes | None = None


@final
class _Message(msgspec.Struct, frozen=True, array_like=True):
    """What needs no answer."""

    backend: str
    ref: str
    message: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_exchange: Final = msgspec.msgpack.Decoder(_Exchange).decode
_decode_heard: Final = msgspec.msgpack.Decoder(_Heard).decode
_decode_outcome: Final = msgspec.msgpack.Decoder(_Outcome).decode
_decode_message: Final = msgspec.msgpack.Decoder(_Message).decode


@final
class RelayLink:
    """A link to the backend session that a client session has on another replica. See `Link`."""

    def __init__(self, post: Post, replica: str, backend: str, ref: str) -> None:
        self._post = post
        self._replica = replica
        self._backend = backend
        self._ref = ref
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Until its replica has died, or lost the session."""
        return self._is_open and not self._post.is_dead(self._replica)

    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        """See Link.exchange."""
        if not self.is_open:
            raise self._lost()
        params = jsonrpc.encode(request.params)
        asked = _Exchange(self._backend, self._ref, request.id, request.method, params, request.is_retry_safe,
                          request.is_cancellable)  # fmt: skip
        talk = self._post.ask(self._replica, EXCHANGE, _encode(asked), is_lossy=True)
        try:
            while (said := await talk.next()) is not None:
                heard = _decode_heard(said)
                if heard.id is None:
                    await sink.notified(heard.method, jsonrpc.members(heard.params))
                else:
                    sink.asked(heard.id, heard.method, jsonrpc.members(heard.params))
            outcome = _decode_outcome(talk.outcome)
        except ReplicaGone as gone:
            self._is_open = False
            if gone.may_have_run:
                raise BackendGarbage(f"{self._backend}: its replica is gone; the call may have run") from gone
            raise self._lost() from gone
        finally:
            talk.close()
        if outcome.value is not None:
            return Result(outcome.value)
        if outcome.message is None:
            raise self._lost()
        return Failure(outcome.code, outcome.message, None if outcome.data is None else msgspec.Raw(outcome.data))

    async def tell(self, message: bytes) -> None:
        """See Link.tell."""
        if not self.is_open:
            raise self._lost()
        self._post.tell(self._replica, MESSAGE, _encode(_Message(self._backend, self._ref, message)))

    def agree(self, headers: bytes) -> None:
        """It was agreed there."""

    async def listen(self) -> None:
        """What is said outside exchanges is carried there."""

    async def aclose(self) -> None:
        """The session ends there, when its client session does."""
        self._is_open = False

    def _lost(self) -> BackendError:
        self._is_open = False
        return SessionLost(f"{self._backend}: its session is no longer on that replica")


class Face(Protocol):
    """The backend sessions of one backend that are here."""

    async def relay(self, request: Request, client: Client, caller: Caller, sink: Sink) -> Result | Failure:
        """One exchange in that client's session, opened if need be. Raises BackendError."""

    async def tell(self, client: Client, caller: Caller, message: bytes) -> None:
        """A message in it, if it is open."""

    async def hear(self, client: Client, caller: Caller) -> None:
        """A client listens here: carry what the backend says to it outside calls, if who did is dead."""

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died."""

    def recheck(self) -> None:
        """The others took this replica for dead: what was opened here may have been opened elsewhere since."""


Member = Callable[[str], "tuple[Client, Caller] | None"]
"""Whose session a reference names, if it is here."""


@final
class RelayHost:
    """Carries out what other replicas ask of the backend sessions here."""

    def __init__(self, faces: Mapping[str, Face], member: Member, post: Post, background: Background) -> None:
        self._faces = faces
        self._member = member
        self._background = background
        self.is_leaving: Callable[[], bool] = lambda: False
        """Whether this replica ends: what it is asked is better done elsewhere then."""
        self._running = 0
        self._quiet = asyncio.Event()
        post.carry(EXCHANGE, self._exchange)
        post.hear(MESSAGE, self._message)

    async def finish(self, within_s: float) -> None:
        """Return when what runs here for others has ended, or the time is over."""
        try:
            async with asyncio.timeout(within_s):
                while self._running:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            log.info("calls of other replicas cut off", count=self._running)

    def hear(self, route: str, client: Client, caller: Caller) -> None:
        """A client listens here: see to it that what its backends say outside calls is heard by somebody."""
        faces = self._faces.values() if not route else [self._faces[route]]
        for face in faces:
            self._background(face.hear(client, caller))

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died: what they did for all is done here, if here is first."""
        for face in self._faces.values():
            face.bereave(replicas)

    def recheck(self) -> None:
        """The others took this replica for dead."""
        for face in self._faces.values():
            face.recheck()

    async def _exchange(self, errand: Errand) -> bytes:
        asked = _decode_exchange(errand.body)
        face, member = self._faces.get(asked.backend), self._member(asked.ref)
        if face is None or member is None or self.is_leaving():
            return _encode(_Outcome())
        request = Request(
            asked.id,
            asked.method,
            jsonrpc.members(asked.params),
            is_retry_safe=asked.is_retry_safe,
            is_cancellable=asked.is_cancellable,
        )
        self._running += 1
        try:
            outcome = await face.relay(request, *member, RelaySink(errand))
        except SessionLost:
            return _encode(_Outcome())
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()
        if isinstance(outcome, Result):
            return _encode(_Outcome(bytes(outcome.value)))
        return _encode(
            _Outcome(None, outcome.code, outcome.message, None if outcome.data is None else bytes(outcome.data))
        )

    def _message(self, sender: str, body: bytes) -> None:
        told = _decode_message(body)
        face, member = self._faces.get(told.backend), self._member(told.ref)
        if face is not None and member is not None:
            self._background(_delivered(face.tell(*member, told.message), told.backend))


async def _delivered(telling: Awaitable[None], backend: str) -> None:
    try:
        await telling
    except BackendUnavailable as error:
        log.info("a message could not be delivered", backend=backend, reason=error.message)


@final
class RelaySink:
    """Says to another replica what the backend says. Whoever asked there takes it in its own time."""

    __slots__ = ("_errand",)

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    async def notified(self, method: str, params: Params) -> None:
        """See Sink.notified."""
        self._errand.say(_encode(_Heard(method, jsonrpc.encode(params))))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """See Sink.asked."""
        self._errand.say(_encode(_Heard(method, jsonrpc.encode(params), request_id)))

    def missed(self) -> None:
        """See Sink.missed."""
