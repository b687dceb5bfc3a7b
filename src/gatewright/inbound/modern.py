"""Modern clients (2026-07-28) over HTTP: every POST stands alone, and closing its stream cancels it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import final

import structlog
from msgspec import UNSET

from gatewright.call import Call, Handler
from gatewright.errors import GatewayError, InvalidParams, InvalidRequest, MethodNotFound
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.known_heads import Judged
from gatewright.inbound.reply import Keepalive, ModernReply
from gatewright.inbound.responder import DONE, Responder, running_task
from gatewright.protocol import addressing, jsonrpc, modern, refusals
from gatewright.protocol.chain import Chain
from gatewright.protocol.methods import METHODS
from gatewright.protocol.modern import Admitted, Agreed

log = structlog.get_logger("gatewright.inbound")


@final
class ModernSide:
    """Serves modern requests."""

    def __init__(self, handle: Handler, keepalive: Keepalive, chain: Chain) -> None:
        self._handle = handle
        self._chain = chain
        self._keepalive = keepalive

    def serve(
        self, message: jsonrpc.Message, request: HttpRequest, responder: Responder, judged: Judged
    ) -> Awaitable[None]:
        """Serve one message: a request is answered, a notification accepted, anything else refused."""
        if message.id is UNSET or message.id is None or message.method is UNSET:
            self._accept(message, responder)
            return DONE
        method = message.method
        params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
        found = judged.agreed.again(method, params)
        if found is None:
            try:
                agreed = None if request.known is None else judged.agreed
                found = admitted(message, method, request.headers, self._chain, agreed)
            except GatewayError as error:
                failure = refusals.failure(error)
                responder.respond(refusals.status(error, "modern"), jsonrpc.error(message.id, failure))
                return DONE
        row, client, meta = found.row, found.client, found.meta
        log_level = meta.get(modern.LOG_LEVEL_KEY)
        reply = ModernReply(responder, message.id, row, client.revision, log_level, self._keepalive)
        call = Call(
            method=method,
            row=row,
            params=params,
            meta=meta,
            name=found.name,
            client=client,
            reply=reply,
            task=responder.task or running_task(responder),
            route=judged.route,
            param_headers=judged.param_headers,
        )
        return reply.answer(method, self._handle, call)

    def _accept(self, message: jsonrpc.Message, responder: Responder) -> None:
        """Core notifications do nothing over HTTP in this revision, and responses are not allowed."""
        if message.method is UNSET:
            error = InvalidRequest("the body must be a request or a notification")
            responder.respond(400, jsonrpc.error(None, refusals.failure(error)))
            return
        responder.respond(202)


def admitted(
    message: jsonrpc.Message,
    method: str,
    headers: Mapping[bytes, bytes] | None,
    chain: Chain,
    agreed: Agreed | None = None,
) -> Admitted:
    """The request, if it may be served. `headers` are None on a transport that has none; `agreed` is what they are
    known to agree with. Raises ClientError, ChainRefused."""
    params = jsonrpc.NO_PARAMS if message.params is UNSET else message.params
    row = METHODS.get(method)
    name, unnamed = None, None
    if row is not None and row.name_field is not None:
        try:
            name = addressing.name_of(row, params)
        except InvalidParams as error:
            unnamed = error  # the ladder's own failures come first
    client, meta = modern.admit(message, name, headers, chain, agreed)
    if row is not None and not row.is_modern:
        raise MethodNotFound(f"Method not found: {method}")
    if unnamed is not None:
        raise unnamed
    found = Admitted(row, name, client, meta)
    if agreed is not None:
        agreed.keep(found, params)
    return found
