"""Modern calls that came to another replica than the one that can carry them out.

Retries of parked calls: the sealed state says where the call waits. Calls that belong to a process of one replica's own
(`own_process`). They are carried out there, and what they say and end in comes back. When that replica is dead, so is
what they belong to: the client is told to make the call again. Source: basic/patterns/mrtr of 2026-07-28.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol, final

import msgspec

from gatewright.call import Call, Caller, Client, Failure, InputRequired, Json, Outcome, Result
from gatewright.errors import InvalidParams, MissingCapability
from gatewright.protocol import bridge, jsonrpc
from gatewright.protocol.methods import METHODS
from gatewright.protocol.revisions import MODERN
from gatewright.stores.post import Errand, Post, ReplicaGone

RETRY: Final = "retry"
CALL: Final = "call"
GONE: Final = "params.requestState: the replica that held the call is gone, and the call with it, which may have run; "
AGAIN: Final = "make it again without requestState"


@final
class _Retry(msgspec.Struct, frozen=True, array_like=True):
    """A call on its way."""

    backend: str
    method: str
    params: bytes
    revision: str
    info: bytes
    capabilities: bytes
    subject: str
    roles: list[str]
    chain: str = ""


@final
class _Said(msgspec.Struct, frozen=True, array_like=True):
    """A notification on the way."""

    method: str
    params: bytes


@final
class _Ended(msgspec.Struct, frozen=True, array_like=True):
    """How it ended: with questions, a result or a failure."""

    asks: bytes | None = None
    value: bytes | None = None
    code: int = 0
    message: str = ""
    data: bytes | None = None
    is_typed: bool = False
    is_hinted: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_retry: Final = msgspec.msgpack.Decoder(_Retry).decode
_decode_said: Final = msgspec.msgpack.Decoder(_Said).decode
_decode_ended: Final = msgspec.msgpack.Decoder(_Ended).decode


async def retry(post: Post, replica: str, backend: str, call: Call) -> Outcome:
    """Carry a retry out where its call waits. Raises InvalidParams when that is gone, and what is raised there."""
    try:
        return await carry(post, replica, backend, call, RETRY)
    except ReplicaGone as gone:
        raise InvalidParams(GONE + AGAIN) from gone


async def carry(post: Post, replica: str, backend: str, call: Call, kind: str = CALL) -> Outcome:
    """Carry a call out at that replica, its parameters as the backend is to get them. Raises ReplicaGone, and what is
    raised there."""
    client = call.client
    asked = _Retry(
        backend,
        call.method,
        jsonrpc.encode(call.params),
        client.revision.name,
        bytes(client.info),
        bytes(client.capabilities),
        call.caller.subject,
        sorted(call.caller.roles),
        client.chain,
    )
    talk = post.ask(replica, kind, _encode(asked), is_lossy=True)
    try:
        while (heard := await talk.next()) is not None:
            said = _decode_said(heard)
            call.heard_at = asyncio.get_running_loop().time()
            await call.reply.emit(said.method, said.params)
    finally:
        talk.close()
    ended = _decode_ended(talk.outcome)
    if ended.asks is not None:
        return InputRequired(ended.asks)
    if ended.value is not None:
        return Result(ended.value, ended.is_typed, ended.is_hinted)
    return Failure(ended.code, ended.message, None if ended.data is None else msgspec.Raw(ended.data))


class Waits(Protocol):
    """A backend with parked calls."""

    async def __call__(self, call: Call) -> Outcome:
        """See Backend."""

    async def resume(self, call: Call) -> Outcome:
        """Go on with the call that the state of this one names. Raises GatewayError."""


@final
class RetryHost:
    """Carries out calls that came to other replicas."""

    def __init__(self, backends: Mapping[str, Waits], post: Post) -> None:
        self._backends = backends
        post.carry(RETRY, self._retry)
        post.carry(CALL, self._call)

    async def _retry(self, errand: Errand) -> bytes:
        backend, call = self._asked(errand)
        return _ended(await backend.resume(call))

    async def _call(self, errand: Errand) -> bytes:
        backend, call = self._asked(errand)
        return _ended(await backend(call))

    def _asked(self, errand: Errand) -> tuple[Waits, Call]:
        asked = _decode_retry(errand.body)
        backend, task = self._backends.get(asked.backend), asyncio.current_task()
        if backend is None:
            raise InvalidParams("params.requestState: that backend is not served any more")
        assert task is not None
        params = jsonrpc.members(asked.params)
        info, capabilities = msgspec.Raw(asked.info), msgspec.Raw(asked.capabilities)
        call = Call(
            method=asked.method,
            row=METHODS.get(asked.method),
            params=params,
            meta=bridge.meta_of(params),
            name=None,
            client=Client(MODERN[asked.revision], info, capabilities, chain=asked.chain),
            caller=Caller(asked.subject, frozenset(asked.roles)),
            reply=FarReply(errand),
            task=task,
        )
        return backend, call


def _ended(outcome: Outcome) -> bytes:
    if isinstance(outcome, InputRequired):
        return _encode(_Ended(asks=bytes(outcome.value)))
    if isinstance(outcome, Result):
        return _encode(_Ended(value=bytes(outcome.value), is_typed=outcome.is_typed, is_hinted=outcome.is_hinted))
    data = None if outcome.data is None else bytes(outcome.data)
    return _encode(_Ended(code=outcome.code, message=outcome.message, data=data))


@final
class FarReply:
    """The client's end of a call, on another replica."""

    __slots__ = ("_errand",)

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        self._errand.say(_encode(_Said(method, bytes(params))))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask: in that era a client is asked by outcomes only."""
        raise MissingCapability(f"{method}: the client is asked by the outcome of its call", {})
