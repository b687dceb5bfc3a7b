"""The MCP endpoint: from an HTTP request to the era that serves it.

`POST`, `GET` and `DELETE` on `/mcp` (all backends) and `/mcp/<backend>` (one); the paths of 2024-11-05 are `SseSide`'s,
those of probes `Probes`'.
What every request must be, whatever its era, is checked here; which era it is in is decided once, by
`protocol.modern.is_claimed`. Sources: basic/transports of 2025-03-26 to 2025-11-25, basic/transports/streamable-http of
2026-07-28.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

from gatewright.errors import GatewayError, InvalidRequest, OriginRefused, ParseError, ProtocolError
from gatewright.inbound import media
from gatewright.inbound.handshake import HandshakeSide
from gatewright.inbound.http import HttpRequest
from gatewright.inbound.known_heads import Judged, judge
from gatewright.inbound.modern import ModernSide
from gatewright.inbound.origins import Origins
from gatewright.inbound.probes import Probes
from gatewright.inbound.responder import DONE, Responder
from gatewright.inbound.sse import SseSide
from gatewright.protocol import depth, jsonrpc, modern, refusals

PATH: Final = "/mcp"
ALLOW: Final = b"Allow: GET, POST, DELETE\r\n"
ALLOW_POST: Final = b"Allow: POST\r\n"


@final
class Endpoint:
    """Serves the MCP paths of the listener."""

    def __init__(
        self,
        modern_side: ModernSide,
        handshake_side: HandshakeSide,
        sse_side: SseSide,
        has_route: Callable[[str], bool],
        max_json_depth: int,
        probes: Probes,
    ) -> None:
        self._modern = modern_side
        self._handshake = handshake_side
        self._sse = sse_side
        self._has_route = has_route
        self._max_json_depth = max_json_depth
        self._probes = probes
        self._accepts: dict[bytes, bool] = {}
        self._routes = {PATH: ""}
        self.origins = Origins((), 0)

    def route_of(self, path: str) -> str | None:
        """The route a path names (empty: all backends), None when the path is not an MCP endpoint."""
        known = self._routes.get(path)
        if known is not None:
            return known
        route = path.removeprefix(PATH + "/")
        if route == path or not route or not self._has_route(route):
            return None
        self._routes[path] = route  # only of configured backends, so bounded by their number
        return route

    def serve(self, request: HttpRequest, responder: Responder) -> Awaitable[None]:
        """Serve one HTTP request: what can be answered at once is, the rest is to be awaited."""
        if request.known is not None and request.known.judged is not None:
            return self._read(request, responder, request.known.judged)
        origin = request.headers.get(b"origin")
        if origin is not None and not self.origins.is_allowed(origin):
            if self._probes.serve(request, responder):
                return DONE
            return _refuse(responder, OriginRefused("this Origin may not be here; see listen.allowed_origins"))
        route = self.route_of(request.path)
        if route is None:
            return self._elsewhere(request, responder)
        if request.method == "POST":
            return self._post(request, responder, route)
        if modern.is_named(request.headers.get(b"mcp-protocol-version")):
            responder.respond(405, headers=ALLOW_POST)
        elif request.method == "GET":
            return self._handshake.stream(request, responder, route)
        elif request.method == "DELETE":
            return self._handshake.end(request, responder, route)
        else:
            responder.respond(405, headers=ALLOW)
        return DONE

    async def _elsewhere(self, request: HttpRequest, responder: Responder) -> None:
        """A path that is not this endpoint's: probes and the transport of 2024-11-05 have their own."""
        if not self._probes.serve(request, responder) and not await self._sse.serve(request, responder):
            _refuse(responder, InvalidRequest(f"nothing is served here: use {PATH} or {PATH}/<backend>"), 404)

    def _post(self, request: HttpRequest, responder: Responder, route: str) -> Awaitable[None]:
        headers = request.headers
        content_type = headers.get(b"content-type", b"")
        if content_type != b"application/json" and not media.is_json(content_type):
            return _refuse(responder, InvalidRequest("Content-Type must be application/json"), 415)
        if not self._is_acceptable(headers.get(b"accept", b"*/*")):
            return _refuse(responder, InvalidRequest("Accept must list application/json and text/event-stream"), 406)
        judged = judge(route, headers)
        if request.known is not None:
            request.known.judged = judged
        return self._read(request, responder, judged)

    def _read(self, request: HttpRequest, responder: Responder, judged: Judged) -> Awaitable[None]:
        """Serve a POST whose head is as it must be."""
        body = request.body
        try:
            depth.check_json(body, max_depth=self._max_json_depth)
            if body[:1] != b"{" and body.lstrip().startswith(b"["):
                if judged.is_modern:
                    raise InvalidRequest("the body must be one request or notification: this revision has no batches")
                return self._handshake.batch(request, responder, judged)
            message = jsonrpc.decode_request(body)
        except ProtocolError as error:
            return _refuse(responder, ParseError(str(error)))
        except GatewayError as error:
            return _refuse(responder, error, request_id=jsonrpc.salvage_id(body))
        params = message.params
        if judged.is_modern or (params and "_meta" in params and modern.is_claimed(message, None)):
            return self._modern.serve(message, request, responder, judged)
        return self._handshake.serve(message, responder, judged)

    def _is_acceptable(self, accept: bytes) -> bool:
        """Whether the client takes both answers we may give. Clients send few different values: each is read once."""
        known = self._accepts.get(accept)
        if known is None:
            if len(self._accepts) > 256:
                self._accepts.clear()
            known = self._accepts[accept] = media.takes_both(accept)
        return known


def _refuse(
    responder: Responder, error: GatewayError, status: int | None = None, request_id: jsonrpc.Id | None = None
) -> Awaitable[None]:
    """Answer with a refusal made before the era is known; both eras give such errors the same status."""
    failure = refusals.failure(error)
    responder.respond(status or refusals.row(error).modern_status, jsonrpc.error(request_id, failure))
    return DONE
