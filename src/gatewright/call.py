"""The vocabulary: what a call is, what it ends in, who it is for, and what may carry it.

MCP semantics are "any number of notifications, then exactly one outcome". A `Handler` awaits exactly that; every
policy wraps one await that covers the whole stream. Nothing here knows a protocol revision or does I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

import msgspec

if TYPE_CHECKING:
    from gatewright.protocol.methods import Method
    from gatewright.protocol.revisions import Revision

Json: TypeAlias = bytes | msgspec.Raw
"""One JSON value in UTF-8, syntactically valid, not decoded."""

Params: TypeAlias = dict[str, msgspec.Raw]
"""The members of a `params` object by exact name, each value undecoded. Re-encoded before it is forwarded."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """A call that succeeded: `value` is the JSON result object as the backend's revision writes it."""

    value: Json
    is_typed: bool = False
    """It is known to carry `resultType` (2026-07-28)."""
    is_hinted: bool = False
    """It is known to carry good caching hints as well."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A JSON-RPC error that a backend (or the client, for an ask) answered. A value, not an exception."""

    code: int
    message: str
    data: msgspec.Raw | None = None


class InputRequired(msgspec.Struct, frozen=True, gc=False):
    """A call that needs answers before it can go on (MRTR): `value` is the whole InputRequiredResult object."""

    value: Json


Outcome: TypeAlias = Result | Failure | InputRequired


class Reply(Protocol):
    """The client's end of one call: where notifications and questions go while it runs."""

    async def emit(self, method: str, params: Json) -> None:
        """Send a notification to the client. Awaiting is back-pressure; a client that left makes it a no-op."""

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """Put a question (elicitation, sampling, roots) to the client and await its answer.

        Raises MissingCapability when the client declared that it cannot be asked.
        """


@final
class Client(msgspec.Struct, frozen=True, gc=False):
    """What is known of the client's program: from `initialize`, or from this request's `_meta`. Never trusted."""

    revision: Revision
    info: Json
    """Its Implementation object, or `{}`."""
    capabilities: Json
    """Its ClientCapabilities object."""
    session: str = ""
    """The gateway's id of its handshake session; empty for a modern client."""
    log_level: str | None = None
    """The level its handshake session set; a modern client says it per request."""
    forwarded: msgspec.Raw | None = None
    """A modern client's `_meta` as a modern backend is sent it; None where each call has its own."""
    chain: str = ""
    """The gateways that its requests have passed, this one last, as the JSON text that backends are told
    (`protocol.chain`). Empty: nothing is said of them."""


@final
class Caller(msgspec.Struct, frozen=True):
    """The authenticated principal of a call."""

    subject: str
    roles: frozenset[str] = frozenset()


ANONYMOUS: Final = Caller("anonymous")


class Bounds(Protocol):
    """How long a call may take, in seconds: without a word from the backend, and in all."""

    @property
    def timeout_s(self) -> float: ...

    @property
    def max_total_s(self) -> float: ...


class Backend(Protocol):
    """A backend as the request path sees it: a name, bounds, and the same verb as every layer above it."""

    @property
    def name(self) -> str: ...

    @property
    def bounds(self) -> Bounds: ...

    async def __call__(self, call: Call) -> Outcome:
        """Carry the call out. Raises BackendError when the backend fails it."""


@final
class Target(msgspec.Struct, frozen=True, gc=False):
    """Where a call goes: the backend, and its own name for the tool, prompt or resource (None: not a named call)."""

    backend: Backend
    name: str | None


@final
class Permit(msgspec.Struct, frozen=True, gc=False):
    """The proof that `caller` may reach `target`. Only authorization makes one; dispatch refuses a call without it."""

    caller: Caller
    target: Target


NO_META: Final[Params] = {}


@final
class Call(msgspec.Struct, kw_only=True, eq=False):
    """One JSON-RPC request on its way through. Made by an inbound transport, completed by the policies, in order."""

    method: str
    row: Method | None
    """The method's row in the table, None for one that is not in it."""
    params: Params
    """The members of `params`, `_meta` among them as it came."""
    meta: Params = NO_META
    """The members of `params._meta`."""
    name: str | None
    """The client's name for what the call addresses (tool, prompt, resource URI), None for other methods."""
    client: Client
    caller: Caller = ANONYMOUS
    reply: Reply
    task: asyncio.Task[object]
    """What runs the call: cancel it to stop the call."""
    route: str = ""
    """The backend named in the path, or empty on the route that serves all."""
    param_headers: Mapping[bytes, bytes] | None = None
    """The client's `Mcp-Param-*` headers by lower-case name, None where the transport has no headers."""
    target: Target | None = None
    """Set by resolve."""
    permit: Permit | None = None
    """Set by authorization."""
    started_at: float = 0.0
    """Set by the deadline: loop time in seconds."""
    heard_at: float = 0.0
    """When the backend was last heard of, for the deadline: loop time in seconds."""
    open_asks: int = 0
    """Questions that are open with the client: meanwhile the backend's silence is not its own."""
    is_expired: bool = False
    """Set by the deadline: it was this that cancelled the task."""


Handler: TypeAlias = Callable[[Call], Awaitable[Outcome]]


class Policy(Protocol):
    """A layer around every call: decide, then `await proceed(call)` or raise GatewayError.

    One that decides at once and has nothing to do after may be a plain function that returns `proceed(call)`: a
    coroutine less on every call.
    """

    def __call__(self, call: Call, proceed: Handler) -> Awaitable[Outcome]: ...
