"""A backend in the modern era (2026-07-28): every call stands alone, over one link that all callers share.

Nothing of a caller outlives its call. Capabilities, identity and log level go with every request, mirrored headers on
a wire that has them. Sources: basic/index, basic/transports/streamable-http, server/discover.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, final

import structlog

from gatewright.backend.base import Request
from gatewright.backend.feed import Heard, Wants
from gatewright.backend.sinks import CallSink, Changes, Start
from gatewright.backend.tasks import Tasks
from gatewright.backend.undecided import settled
from gatewright.call import Call, Client, Failure, Json, Outcome, Params, Result
from gatewright.errors import BackendGarbage, BackendUnavailable, InvalidParams, ProtocolError
from gatewright.protocol import bridge, headers, jsonrpc, subscriptions
from gatewright.protocol.methods import ACKNOWLEDGED
from gatewright.protocol.revisions import MODERN_2026_07_28
from gatewright.protocol.tasks import EXTENSION

if TYPE_CHECKING:
    from gatewright.backend.base import Connector, Link
    from gatewright.protocol.methods import Method

MODERN_ERRORS: Final = frozenset({-32020, -32021, -32022})
"""Errors that only a modern server gives: whoever answers one is modern (basic/versioning)."""
GATEWAY_INFO: Final = b'{"name":"gatewright","version":"1"}'
"""How the gateway names itself where it is a client in its own right."""
TASKS_DECLARED: Final = b'{"extensions":{"%b":{}}}' % EXTENSION.encode()
"""Its capabilities where it listens to tasks for its clients."""
PROBE: Final = "server/discover"
MAX_KEPT_LINES: Final = 1024
log = structlog.get_logger("gatewright.backend")
_VERSION_LINE: Final = b"mcp-protocol-version: 2026-07-28\r\n"


@final
class Restarted(BackendUnavailable):
    """The process that was known to speak this era is gone: the next one has to be asked first."""


@final
class ModernFace:
    """How a backend is spoken to in the modern era."""

    def __init__(
        self,
        tasks: Tasks,
        connector: Connector,
        start: Start,
        changes: Changes,
        ids: Iterator[int] | None = None,
        *,
        is_tied: bool = False,
    ) -> None:
        self._tasks = tasks
        self._process = tasks.process
        self._name = tasks.backend
        self._connector = connector
        self._start = start
        self._changes = changes
        self._ids = itertools.count(1) if ids is None else ids
        self._is_tied = is_tied
        """That it speaks this era is known of one process: the next one is asked before it gets a call."""
        self._is_restarted = False
        self._link: Link | None = None
        self._lines: dict[tuple[str, str | None], bytes] = {}
        self._connecting = asyncio.Lock()

    async def call(self, call: Call, name: str | None, params: Params, param_headers: bytes) -> Outcome:
        """Carry a call out under the backend's own `name`. Raises BackendError."""
        return self.outcome(await self.exchange(call, name, params, param_headers), call)

    def exchange(
        self, call: Call, name: str | None, params: Params, param_headers: bytes
    ) -> Awaitable[Result | Failure]:
        """The exchange of `call`, whose answer is to be given to `outcome`. Raises BackendError."""
        link = self._link
        if link is None or not link.is_open:
            return self._opened(call, name, params, param_headers)
        token = next(self._ids)
        row = call.row
        request = Request(
            token,
            call.method,
            bridge.modern_params(params, call.meta, call.client, token),
            self._mirrored(row, call.method, name) + param_headers,
            row is not None and row.is_retry_safe,
        )
        sink = CallSink(call, self._tasks, link, self._start, self._changes, token, False)
        return link.exchange(request, sink)

    async def _opened(self, call: Call, name: str | None, params: Params, param_headers: bytes) -> Result | Failure:
        await self._open()
        return await self.exchange(call, name, params, param_headers)

    def outcome(self, answer: Result | Failure, call: Call) -> Outcome:
        """What the answer to a call means. Raises BackendGarbage."""
        try:
            outcome = bridge.outcome_of(answer, call, self._tasks)
            return outcome if self._process is None else self._process.asked(outcome)
        except ProtocolError as error:
            raise BackendGarbage(f"{self._name}: {error}") from error

    async def request(self, method: str, params: Params, client: Client) -> Result | Failure:
        """A request of the gateway's own (discover, lists), outside any client's call. Raises BackendError."""
        link = self._link
        if link is None or not link.is_open:
            link = await self._open(is_probe=method == PROBE)
        token = next(self._ids)
        carried = bridge.modern_params(params, bridge.meta_of(params), client, token)
        lines = self._mirrored(None, method, None)
        answer = await link.exchange(Request(token, method, carried, lines, is_retry_safe=True), _Deaf())
        if self._link is link:
            self._link = settled(link)
        return answer

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard, chain: str) -> None:
        """See Upstream.listen: one long `subscriptions/listen`, for those who came over the gateways of `chain`."""
        link = self._link
        if link is None or not link.is_open:
            link = await self._open()
        token = next(self._ids)
        params: Params = {"notifications": jsonrpc.raw(subscriptions.filter_of(wants.lists, wants.uris, wants.tasks))}
        client = own_client(GATEWAY_INFO, TASKS_DECLARED if wants.tasks else b"{}", chain)
        carried = bridge.modern_params(params, {}, client, token)
        lines = self._mirrored(None, "subscriptions/listen", None)
        request = Request(token, "subscriptions/listen", carried, lines)
        answer = await link.exchange(request, _FeedSink(acknowledged, announced))
        if isinstance(answer, Failure):
            raise BackendUnavailable(f"{self._name} refused subscriptions/listen: {answer.message[:200]}")

    def forget(self) -> None:
        """It turned out not to speak this era: nothing of it stays open, a child least of all."""
        link, self._link = self._link, None
        self._is_restarted = False
        if link is not None:
            self._start(link.aclose())

    async def aclose(self) -> None:
        """Close the link."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    def _mirrored(self, row: Method | None, method: str, name: str | None) -> bytes:
        """The request metadata headers of one request. Few names are called often: their lines are kept."""
        lines = self._lines.get((method, name))
        if lines is None:
            if len(self._lines) >= MAX_KEPT_LINES:
                self._lines.clear()
            lines = b"%bmcp-method: %b\r\n" % (_VERSION_LINE, headers.encode_value(method))
            if name is not None and row is not None and row.has_name_header:
                lines += b"mcp-name: %b\r\n" % headers.encode_value(name)
            if row is None or row.kind != "task":  # ids of tasks are many, and each is called a few times
                self._lines[method, name] = lines
        return lines

    async def _open(self, *, is_probe: bool = False) -> Link:
        """The link, opened anew if it is dead. Raises Restarted, nothing sent, for all but `server/discover` when the
        process behind it is another."""
        if self._link is not None and not self._link.is_open and self._is_tied:
            self._is_restarted = True
        if self._is_restarted and not is_probe:
            raise Restarted(f"{self._name} was restarted")
        async with self._connecting:
            if self._link is None or not self._link.is_open:
                self._link = await self._connector.connect(_Deaf())
                self._is_restarted = False
            return self._link


@final
class _FeedSink:
    """What comes on a subscription stream: first what was agreed to, then what changed."""

    def __init__(self, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        self._acknowledged = acknowledged
        self._announced = announced

    async def notified(self, method: str, params: Params) -> None:
        """Take one notification, less the subscription's id, which is ours."""
        try:
            if method == ACKNOWLEDGED:
                self._acknowledged(Wants(*subscriptions.read_filter(params.get("notifications", jsonrpc.EMPTY))))
            else:
                self._announced(method, subscriptions.untagged(params))
        except (ProtocolError, InvalidParams) as error:
            log.warning("announcement not understood", method=method, reason=str(error))

    def asked(self, request_id: jsonrpc.Id, method: str, params: Params) -> None:
        """Servers MUST NOT ask on a stream (basic/transports)."""

    def missed(self) -> None:
        """A subscription that breaks ends; the feed knows what to do."""


@final
class _Deaf:
    """A modern backend has nothing to say outside exchanges."""

    async def notified(self, method: str, params: Params) -> None:
        """Nobody asked for it."""

    def asked(self, request_id: jsonrpc.Id, method: str, params: Params) -> None:
        """Servers MUST NOT ask outside an InputRequiredResult (basic/transports)."""

    def missed(self) -> None:
        """Nobody listened."""


def own_client(info: Json, capabilities: Json = b"{}", chain: str = "") -> Client:
    """The gateway as a client in its own right: it can be asked nothing. `chain` is what its requests carry."""
    return Client(MODERN_2026_07_28, info, capabilities, chain=chain)
