"""What the client's end of a call does whatever carries it: outcomes and refusals become JSON-RPC answers.

A transport adds how a message is sent and how the answer ends the exchange. A policy or backend that fails with
anything but a refusal is a bug: its call is answered with an internal error whose id the log has too, and nothing else
is harmed. Sources: basic/index of every revision; basic/patterns/subscriptions of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, TypeVarTuple

import structlog
from msgspec import Raw
from typing_extensions import override

from gatewright.call import Failure, Json, Outcome, Result
from gatewright.errors import GatewayError, MissingCapability
from gatewright.inbound.responder import DONE
from gatewright.protocol import bridge, jsonrpc, refusals, subscriptions, tasks
from gatewright.protocol.jsonrpc import Id
from gatewright.protocol.methods import ACKNOWLEDGED, CANCELLED, LIST_CHANGED, LOG_MESSAGE, RESOURCE_UPDATED, Method
from gatewright.protocol.modern import LOG_LEVELS
from gatewright.protocol.revisions import Revision

ELSEWHERE: Final = frozenset({*LIST_CHANGED, RESOURCE_UPDATED, ACKNOWLEDGED, CANCELLED, tasks.NOTICE, tasks.STATUS})
"""What no modern request is told on its own stream: it is said on a subscription, or not at all (S-07, S-40)."""
Arguments = TypeVarTuple("Arguments")
log = structlog.get_logger("gatewright.inbound")


class InternalError(GatewayError):
    """A bug of ours, as a client may see it: under an id, and nothing else."""


def internal(method: str) -> InternalError:
    """The error for the exception at hand, which is logged under the same id."""
    error_id = secrets.token_hex(8)
    log.exception("call failed", error_id=error_id, method=method[:100])
    return InternalError("Internal error", data={"errorId": error_id})


def rank(log_level: Raw) -> int:
    """How grave a level is that was found to be one."""
    return LOG_LEVELS.index(bytes(log_level).decode().strip('"'))


class BaseReply(ABC):
    """One request's reply. Subclasses say how a message is sent (`send`) and the answer is (`finish`)."""

    __slots__ = ("_least_level", "_request_id", "_revision", "row")

    def __init__(self, request_id: Id, row: Method | None, revision: Revision, log_level: Raw | None = None) -> None:
        self._request_id = request_id
        self.row = row
        """The method's row in the table, None for one that is not in it."""
        self._revision = revision
        self._least_level = None if log_level is None else rank(log_level)

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send the client one message that belongs to this request. Awaiting is back-pressure."""

    @abstractmethod
    def finish(self, status: int, body: bytes) -> Awaitable[None]:
        """Send the answer: `status` is the HTTP status that says the same."""

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit."""
        await self.send(jsonrpc.notification(method, params))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask. Without a way to ask, the question is refused as the client would refuse it."""
        raise MissingCapability(f"{method} cannot be asked of this client", {})

    async def answer(
        self, method: str, begin: Callable[[*Arguments], Awaitable[Outcome]], *arguments: *Arguments
    ) -> None:
        """Await the outcome that `begin` gives for these arguments and answer with it, with the refusal that either
        raises, or with an internal error."""
        finishing: Awaitable[None]
        try:
            status, body = self.rendered(await begin(*arguments))
        except GatewayError as error:
            status, body = self.refusal(error)
        except Exception:  # noqa: BLE001 - the edge of a call: a bug ends this call, and is logged under an id
            status, body = self.refusal(internal(method))
        except asyncio.CancelledError as cancelled:
            outcome = self.cancelled(cancelled)
            if outcome is None:
                status, body = 0, b""
            else:
                status, body = self.rendered(outcome)
        finally:
            self.over()
        finishing = self.finish(status, body) if status else self.drop()
        if finishing is not DONE:
            await finishing

    def cancelled(self, error: asyncio.CancelledError) -> Outcome | None:
        """The task that carries the call out was cancelled. The outcome to answer with instead, None if no answer is
        owed. Raises the error when the cancellation is not the client's doing."""
        raise error

    def over(self) -> None:  # noqa: B027 - most have nothing to do
        """The call is over; what it is answered with, if it is owed anything, comes next."""

    def drop(self) -> Awaitable[None]:
        """No answer is owed."""
        return DONE

    def rendered(self, outcome: Outcome) -> tuple[int, bytes]:
        """HTTP status and body of the answer that says the outcome."""
        if isinstance(outcome, Result):
            row = self.row
            value = bridge.result_for(self._revision, row, outcome)
            if row is not None and row.kind == "stream":
                value = subscriptions.tagged(value, self._request_id)
            return 200, jsonrpc.result(self._request_id, value)
        if isinstance(outcome, Failure):
            failure = bridge.failure_for(self._revision, outcome, self.row)
            return refusals.failure_status(failure, self._revision.era), jsonrpc.error(self._request_id, failure)
        return 200, jsonrpc.result(self._request_id, outcome.value)

    def refusal(self, error: GatewayError) -> tuple[int, bytes]:
        """HTTP status and body of the answer that says one of our own refusals."""
        failure = refusals.failure(error, not_found_code=self._revision.not_found_code)
        return refusals.status(error, self._revision.era), jsonrpc.error(self._request_id, failure)


class ModernRules(BaseReply):
    """What may be said to a modern client: nothing is asked, log messages only pass at the level that was asked for,
    and what comes on a subscription bears the client's own id for it."""

    __slots__ = ()

    @override
    async def emit(self, method: str, params: Json) -> None:
        """Send a notification, if the request allows it (S-43); on a subscription, under the client's own id."""
        if self.is_subscription:
            params = subscriptions.tagged(params, self._request_id)
        elif method in ELSEWHERE or (method == LOG_MESSAGE and not self._is_wanted(params)):
            return
        await self.send(jsonrpc.notification(method, params))

    @property
    def is_subscription(self) -> bool:
        """Whether the request is one long stream."""
        return self.row is not None and self.row.kind == "stream"

    def _is_wanted(self, params: Json) -> bool:
        if self._least_level is None:
            return False
        level = bytes(jsonrpc.members(params).get("level", b"")).decode("latin-1").strip('"')
        return level in LOG_LEVELS and LOG_LEVELS.index(level) >= self._least_level


async def closed() -> Result:
    """The outcome of a subscription that the gateway ends (basic/patterns/subscriptions, "Graceful Closure")."""
    return Result(b"{}")
