"""The client's end of one call over HTTP: JSON if the outcome comes first, else an event stream.

A stream is begun by the first notification or question, or by the keep-alive of a call that stays silent long, so that
proxies do not take it for dead. A policy or backend that fails with anything but a refusal is a bug: its call is
answered with an internal error whose id the log has too, and nothing else is harmed. Sources: basic/transports of the
handshake revisions, basic/transports/streamable-http of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Final, final

import structlog
from msgspec import Raw
from typing_extensions import override

from gatewright.call import Failure, Json, Outcome, Result
from gatewright.errors import GatewayError, MissingCapability
from gatewright.inbound.responder import Responder
from gatewright.protocol import bridge, jsonrpc, refusals, sse, subscriptions
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ACKNOWLEDGED, CANCELLED, LIST_CHANGED, LOG_MESSAGE, RESOURCE_UPDATED, Method
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.protocol.revisions import Revision

KEEPALIVE: Final = sse.comment()
ELSEWHERE: Final = frozenset({*LIST_CHANGED, RESOURCE_UPDATED, ACKNOWLEDGED, CANCELLED})
"""What no modern request is told on its own stream: it is said on a subscription, or not at all (S-07, S-40)."""
log = structlog.get_logger("gatewright.inbound")


class InternalError(GatewayError):
    """A bug of ours, as a client may see it: under an id, and nothing else."""


def internal(method: str) -> InternalError:
    """The error for the exception at hand, which is logged under the same id."""
    error_id = secrets.token_hex(8)
    log.exception("call failed", error_id=error_id, method=method[:100])
    return InternalError("Internal error", data={"errorId": error_id})


@final
class Keepalive:
    """Keeps silent streams alive: one timer for all, a comment line each `interval_s`."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._replies: set[HttpReply] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, reply: HttpReply) -> None:
        """Keep this one alive until it is removed."""
        self._replies.add(reply)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._interval_s, self._tick, loop)

    def remove(self, reply: HttpReply) -> None:
        """It has ended."""
        self._replies.discard(reply)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for reply in self._replies:
            reply.keep_alive()
        self._timer = loop.call_later(self._interval_s, self._tick, loop) if self._replies else None


class HttpReply:
    """One HTTP response as a call's reply. The eras differ in what may be sent on it."""

    __slots__ = ("_is_old", "_least_level", "_request_id", "_responder", "_revision", "_row")

    def __init__(
        self,
        responder: Responder,
        request_id: Id,
        row: Method | None,
        revision: Revision,
        log_level: Raw | None = None,
    ) -> None:
        self._responder = responder
        self._request_id = request_id
        self._row = row
        self._revision = revision
        self._is_old = False
        self._least_level = None if log_level is None else LOG_LEVELS.index(bytes(log_level).decode().strip('"'))

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        await self.send(jsonrpc.notification(method, params))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask. Without a way to ask, the question is refused as the client would refuse it."""
        raise MissingCapability(f"{method} cannot be asked of this client", {})

    async def send(self, message: bytes) -> None:
        """Put one message on the stream, beginning it if need be."""
        responder = self._responder
        if not responder.is_started:
            responder.start_stream()
        await responder.send(sse.encode(message))

    def keep_alive(self) -> None:
        """A comment on a stream; a call that was silent for a whole interval becomes a stream."""
        responder = self._responder
        if responder.is_started:
            responder.send_nowait(KEEPALIVE)
        elif self._is_old:
            responder.start_stream()
            responder.send_nowait(KEEPALIVE)
        self._is_old = True

    async def answer(self, method: str, outcome: Awaitable[Outcome]) -> None:
        """Await the outcome and answer with it, with the refusal it raises, or with an internal error."""
        try:
            status, body = self.rendered(await outcome)
        except GatewayError as error:
            status, body = self.refusal(error)
        except Exception:  # noqa: BLE001 - the edge of a call: a bug ends this call, and is logged under an id
            status, body = self.refusal(internal(method))
        if not self._responder.is_started:
            self._responder.respond(status, body)
        else:
            await self._end(body)

    def rendered(self, outcome: Outcome) -> tuple[int, bytes]:
        """HTTP status and body of the answer that says the outcome."""
        if isinstance(outcome, Result):
            value = self._last(bridge.result_for(self._revision, self._row, outcome))
            return 200, jsonrpc.result(self._request_id, value)
        if isinstance(outcome, Failure):
            failure = bridge.failure_for(self._revision, outcome, self._row)
            return refusals.failure_status(failure, self._revision.era), jsonrpc.error(self._request_id, failure)
        return 200, jsonrpc.result(self._request_id, outcome.value)

    def refusal(self, error: GatewayError) -> tuple[int, bytes]:
        """HTTP status and body of the answer that says one of our own refusals."""
        failure = refusals.failure(error, not_found_code=self._revision.not_found_code)
        return refusals.status(error, self._revision.era), jsonrpc.error(self._request_id, failure)

    def _last(self, value: Json) -> Json:
        """The result as it is to be sent."""
        return value

    async def _end(self, body: bytes) -> None:
        """The answer at the end of the stream."""
        await self._responder.send(sse.encode(body))
        self._responder.end()


@final
class ModernReply(HttpReply):
    """A reply in the modern era: nothing is asked on it, and log messages only pass at the level that was asked for."""

    __slots__ = ()

    @override
    async def emit(self, method: str, params: Json) -> None:
        """Send a notification, if the request allows it (S-43); on a subscription, under the client's own id."""
        if self._is_subscription():
            params = subscriptions.tagged(params, self._request_id)
        elif method in ELSEWHERE or (method == LOG_MESSAGE and not self._is_wanted(params)):
            return
        await self.send(jsonrpc.notification(method, params))

    def _is_subscription(self) -> bool:
        return self._row is not None and self._row.kind == "stream"

    def _is_wanted(self, params: Json) -> bool:
        if self._least_level is None:
            return False
        level = bytes(jsonrpc.members(params).get("level", b"")).decode("latin-1").strip('"')
        return level in LOG_LEVELS and LOG_LEVELS.index(level) >= self._least_level

    @override
    def _last(self, value: Json) -> Json:
        return subscriptions.tagged(value, self._request_id) if self._is_subscription() else value
