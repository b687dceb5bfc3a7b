"""The method table: every method of every revision, with what the request path needs to know of it.

One row per method; whoever dispatches reads this table. A method that is not in it is an extension's or unknown:
it passes to a single backend as it is, and is refused where several backends share a route.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

from gatewright.protocol.revisions import Era

Kind = Literal["addressed", "listed", "local", "spread", "stream", "task"]
"""How a request is carried: to the backend its name addresses; as a list merged from all; answered here; told to
every backend; as one long stream fed by all; or to the backend that has a task."""


@final
class Method(msgspec.Struct, frozen=True, gc=False):
    """One request method that clients send."""

    name: str
    kind: Kind
    eras: frozenset[Era]
    name_field: str | None = None
    """The member of `params` that names the tool, prompt, resource or task."""
    has_name_header: bool = False
    """`Mcp-Name` mirrors the name field (2026-07-28, streamable-http)."""
    items: str | None = None
    """For a list: the member of the result that holds the items."""
    item_key: str | None = None
    """For a list: the member that identifies an item."""
    is_cacheable: bool = False
    """The result carries `ttlMs` and `cacheScope` (2026-07-28, caching)."""
    may_ask: bool = False
    """An InputRequiredResult may answer it (2026-07-28, mrtr)."""
    is_retry_safe: bool = False
    """Sending it twice changes nothing."""
    capability: str | None = None
    """The server capability that announces it."""

    is_handshake: bool = False
    """Whether clients of the handshake era send it; follows from `eras`, as the next does."""
    is_modern: bool = False
    """Whether clients of the modern era send it."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "is_handshake", "handshake" in self.eras)
        msgspec.structs.force_setattr(self, "is_modern", "modern" in self.eras)


BOTH: Final[frozenset[Era]] = frozenset({"handshake", "modern"})
HANDSHAKE_ONLY: Final[frozenset[Era]] = frozenset({"handshake"})
MODERN_ONLY: Final[frozenset[Era]] = frozenset({"modern"})

_ROWS: Final = (
    Method("tools/call", "addressed", BOTH, name_field="name", has_name_header=True, may_ask=True, capability="tools"),
    Method(
        "prompts/get",
        "addressed",
        BOTH,
        name_field="name",
        has_name_header=True,
        may_ask=True,
        is_retry_safe=True,
        capability="prompts",
    ),
    Method(
        "resources/read",
        "addressed",
        BOTH,
        name_field="uri",
        has_name_header=True,
        may_ask=True,
        is_cacheable=True,
        is_retry_safe=True,
        capability="resources",
    ),
    Method("completion/complete", "addressed", BOTH, name_field="ref", is_retry_safe=True, capability="completions"),
    Method(
        "resources/subscribe",
        "addressed",
        HANDSHAKE_ONLY,
        name_field="uri",
        is_retry_safe=True,
        capability="resources",
    ),
    Method(
        "resources/unsubscribe",
        "addressed",
        HANDSHAKE_ONLY,
        name_field="uri",
        is_retry_safe=True,
        capability="resources",
    ),
    Method(
        "tools/list",
        "listed",
        BOTH,
        items="tools",
        item_key="name",
        is_cacheable=True,
        is_retry_safe=True,
        capability="tools",
    ),
    Method(
        "prompts/list",
        "listed",
        BOTH,
        items="prompts",
        item_key="name",
        is_cacheable=True,
        is_retry_safe=True,
        capability="prompts",
    ),
    Method(
        "resources/list",
        "listed",
        BOTH,
        items="resources",
        item_key="uri",
        is_cacheable=True,
        is_retry_safe=True,
        capability="resources",
    ),
    Method(
        "resources/templates/list",
        "listed",
        BOTH,
        items="resourceTemplates",
        item_key="uriTemplate",
        is_cacheable=True,
        is_retry_safe=True,
        capability="resources",
    ),
    Method("server/discover", "local", MODERN_ONLY, is_cacheable=True, is_retry_safe=True),
    Method("initialize", "local", HANDSHAKE_ONLY),
    Method("ping", "local", HANDSHAKE_ONLY, is_retry_safe=True),
    Method("logging/setLevel", "spread", HANDSHAKE_ONLY, is_retry_safe=True, capability="logging"),
    Method("subscriptions/listen", "stream", MODERN_ONLY),
    Method("tasks/get", "task", BOTH, name_field="taskId", has_name_header=True, is_retry_safe=True),
    Method("tasks/update", "task", MODERN_ONLY, name_field="taskId", has_name_header=True),
    Method("tasks/cancel", "task", BOTH, name_field="taskId", has_name_header=True),
    Method("tasks/result", "task", HANDSHAKE_ONLY, name_field="taskId", is_retry_safe=True),
    Method("tasks/list", "task", HANDSHAKE_ONLY, items="tasks", item_key="taskId", is_retry_safe=True),
)

METHODS: Final = {row.name: row for row in _ROWS}

LIST_CHANGED: Final = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}
"""A change notice, and the lists it makes stale."""

LISTEN_FIELDS: Final = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}
"""A change notice, and the member of a `subscriptions/listen` filter that asks for it."""

RESOURCE_UPDATED: Final = "notifications/resources/updated"
PROGRESS: Final = "notifications/progress"
CANCELLED: Final = "notifications/cancelled"
LOG_MESSAGE: Final = "notifications/message"
INITIALIZED: Final = "notifications/initialized"
ROOTS_CHANGED: Final = "notifications/roots/list_changed"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"

ASKS: Final = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""What a backend may ask of a client, and the client capability that allows it."""
