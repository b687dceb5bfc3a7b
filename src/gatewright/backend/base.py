"""What every transport to a backend offers: a connector that opens links, and links that carry exchanges.

A **link** is one wire to one endpoint: an HTTP client (with its session, in the handshake era), a child's pipes, or
an in-process server. It carries JSON-RPC and knows nothing of tools. An **exchange** is one request and everything
the backend says about it until its answer. A **sink** takes what the backend says in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final

import msgspec

from gatewright.call import Failure, Params, Result
from gatewright.errors import BackendUnavailable
from gatewright.protocol.jsonrpc import Id


class SessionLost(BackendUnavailable):
    """The backend no longer knows our session: nothing ran, open another and try again (basic/transports, 404)."""


class Refused(BackendUnavailable):
    """The endpoint answered an HTTP status that says that nothing ran. `failure` is the JSON-RPC error in its body: the
    backend's own answer to the request, unless it speaks another era than was thought."""

    def __init__(self, message: str, status: int, failure: Failure | None) -> None:
        super().__init__(message)
        self.status = status
        self.failure = failure


class Sink(Protocol):
    """Where a backend's own messages go. Errors raised here are a bug: a sink copes with a client that left."""

    async def notified(self, method: str, params: Params) -> None:
        """A notification. The link reads no further message of this exchange until it returns: back-pressure."""

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        """A request from the backend. Returns at once; the answer goes back through `Link.tell`, later."""

    def missed(self) -> None:
        """What was said since the last message may have been lost: a standing stream broke and began anew. Only the
        link's own sink is told."""


@final
class Request(msgspec.Struct, frozen=True, gc=False):
    """One request to a backend. `id` is ours, unique on the link for its lifetime, and doubles as progress token."""

    id: int
    method: str
    params: Mapping[str, object]
    headers: bytes = b""
    """Header lines of this request alone, each ended by CRLF; a wire without headers ignores them."""
    is_retry_safe: bool = False
    """It may be sent again when the connection broke before any byte of an answer."""
    is_cancellable: bool = True
    """The backend is told when the exchange is cancelled (never for `initialize`: basic/lifecycle)."""


class Link(Protocol):
    """One open wire to a backend endpoint."""

    @property
    def is_open(self) -> bool:
        """Whether the wire can carry another exchange. A dead child or a closed link stays dead: connect anew."""

    async def exchange(self, request: Request, sink: Sink) -> Result | Failure:
        """Send a request and await its answer; what comes before the answer goes to `sink`.

        Raises BackendUnavailable when it was surely not carried out (Refused, SessionLost), BackendGarbage on broken
        protocol, a wire that died half-way or a status that leaves it open. Cancelling tells the backend as its era and
        transport say. Has no timeout of its own beyond connecting: the caller bounds it.
        """

    async def tell(self, message: bytes) -> None:
        """Send a notification, or the response to something the backend asked. Raises BackendUnavailable."""

    def agree(self, headers: bytes) -> None:
        """The handshake is done: send these header lines with every later message (a wire without headers: no-op)."""

    async def listen(self) -> None:
        """Carry what the backend says outside exchanges to the link's own sink, until the link ends or is closed, or
        the backend has nothing to say there.

        A wire that always carries it (pipes) returns at once.
        """

    async def aclose(self) -> None:
        """End the session and the wire, within the settings' grace. Idempotent; never raises."""


class Connector(Protocol):
    """Opens links to one backend endpoint."""

    @property
    def is_shared_wire(self) -> bool:
        """Whether all exchanges of a link share one wire (pipes), so that some messages cannot be attributed."""

    async def connect(self, sink: Sink) -> Link:
        """Open a link; what the backend says outside any exchange goes to `sink`. Raises BackendUnavailable."""

    async def aclose(self) -> None:
        """Close every link and free what they share. Idempotent; never raises."""
