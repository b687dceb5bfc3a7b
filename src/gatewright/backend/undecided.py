"""A backend of which only the address is known: Streamable HTTP, or the HTTP+SSE of 2024-11-05 where that is refused.

A link is undecided until its first exchange. An `initialize` that is refused with 400, 404 or 405, and no JSON-RPC
error, is followed by a GET; if that begins with an `endpoint` event the link goes on over it, else the refusal stands.
What was found is kept for later links until it does not hold any more. Every other method goes over Streamable HTTP:
the old transport carries no other era. Source: "Backwards Compatibility" of basic/transports since 2025-03-26.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, final

import structlog
from typing_extensions import override

from gatewright.backend.base import Connector, Link, Refused, Request, Sink
from gatewright.backend.http import HttpConnector
from gatewright.backend.sse import SseConnector
from gatewright.call import Failure, Result
from gatewright.errors import BackendError

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings
    from gatewright.outbox import Outbox

FALLS_BACK: Final = frozenset({400, 404, 405})
"""What servers of the old transport answer to a POST where they have a stream."""
DECIDES: Final = "initialize"
log = structlog.get_logger("gatewright.backend")


@final
class UndecidedConnector(Connector):
    """Opens links of either transport to one endpoint."""

    def __init__(self, name: str, settings: BackendSettings, tasks: asyncio.TaskGroup, outbox: Outbox) -> None:
        self._name = name
        self.http: Final = HttpConnector(name, settings, tasks, outbox)
        self._sse = SseConnector(name, settings, tasks, outbox)
        self._is_old = False

    @property
    @override
    def is_shared_wire(self) -> bool:
        return self._is_old

    @override
    async def connect(self, sink: Sink) -> Link:
        return UndecidedLink(self, await self.http.connect(sink), sink)

    @override
    async def aclose(self) -> None:
        await asyncio.gather(self.http.aclose(), self._sse.aclose())

    async def known(self, sink: Sink) -> Link | None:
        """A link over the old transport, if that is what the backend speaks. Raises BackendError."""
        if not self._is_old:
            return None
        try:
            return await self._sse.connect(sink)
        except Refused:
            self._is_old = False  # it has become something else: found out anew
            return None

    async def instead(self, refused: Refused, sink: Sink) -> Link:
        """A link over the old transport, where a POST was refused. Raises that refusal when this does not lead on."""
        if refused.status not in FALLS_BACK or refused.failure is not None:
            raise refused
        try:
            link = await self._sse.connect(sink)
        except BackendError as error:
            log.debug("no stream either", backend=self._name, reason=error.message)
            raise refused from error
        log.info("backend speaks the transport of 2024-11-05", backend=self._name)
        self._is_old = True
        return link


class Exchange(Protocol):
    """`Link.exchange`, as a value."""

    async def __call__(self, request: Request, sink: Sink) -> Result | Failure: ...


@final
class UndecidedLink:
    """A link that becomes one of the two with its first exchange, and costs nothing from then on."""

    def __init__(self, connector: UndecidedConnector, http: Link, sink: Sink) -> None:
        self._connector = connector
        self._link = http
        self._sink = sink
        self._is_closed = False
        self.is_decided = False
        self.exchange: Exchange = self._decide

    @property
    def link(self) -> Link:
        """What it has become, or is so far."""
        return self._link

    @property
    def is_open(self) -> bool:
        """See Link.is_open."""
        return self._link.is_open

    async def tell(self, message: bytes) -> None:
        """See Link.tell."""
        await self._link.tell(message)

    def agree(self, headers: bytes) -> None:
        """See Link.agree."""
        self._link.agree(headers)

    async def listen(self) -> None:
        """See Link.listen."""
        await self._link.listen()

    async def aclose(self) -> None:
        """See Link.aclose."""
        self._is_closed = True
        await self._link.aclose()

    async def _decide(self, request: Request, sink: Sink) -> Result | Failure:
        """The first exchange. One that fails leaves the link as undecided as it was."""
        if request.method == DECIDES:
            link = await self._connector.known(self._sink)
            if link is not None:
                return await self._become(link, request, sink)
        try:
            outcome = await self._link.exchange(request, sink)
        except Refused as refused:
            if request.method != DECIDES:
                raise
            return await self._become(await self._connector.instead(refused, self._sink), request, sink)
        self.exchange = self._link.exchange
        self.is_decided = True
        return outcome

    async def _become(self, link: Link, request: Request, sink: Sink) -> Result | Failure:
        """Go on over the old transport."""
        given_up, self._link = self._link, link
        self.exchange = link.exchange
        self.is_decided = True
        await given_up.aclose()
        if self._is_closed:
            await link.aclose()
        return await link.exchange(request, sink)


def settled(link: Link) -> Link:
    """What a link has become, once that is decided: whoever uses it often need not go through this one."""
    return link.link if isinstance(link, UndecidedLink) and link.is_decided else link
