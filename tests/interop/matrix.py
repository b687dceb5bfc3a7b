"""The matrix: every client with every backend, feature by feature, and where the specification forbids a cell.

Data only. A cell is a client, a backend and a feature; it passes when its scenarios (see `plans`) pass through the
gateway at `/mcp/NAME`. `FORBIDDEN` says which cells no gateway can fill, with the clause. `OPEN` says which ones this
gateway does not fill yet; an entry whose cell passes fails the tests, so that the list cannot rot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interop.cells import ALL_SERVERS, CLIENTS, ClientCell, ServerCell

FEATURES: dict[str, tuple[str, ...]] = {
    "call": ("call", "tool_failure", "unknown_tool", "parallel"),
    "progress": ("progress",),
    "logging": ("logging",),
    "elicitation, form": (
        "elicitation_ask_name",
        "elicitation_ask_twice",
        "elicitation_in_prompt",
        "elicitation_in_read",
    ),
    "elicitation, URL": ("elicitation_url",),
    "sampling": ("sampling",),
    "roots": ("roots",),
    "resource subscription": ("subscribe",),
    "list_changed": ("list_changed",),
    "cancellation": ("cancellation",),
    "completion": ("complete_prompt", "complete_template"),
    "pagination": ("pagination",),
}

CLIENT_TITLES = {
    "python-sdk-modern": "Python SDK 2.x, modern",
    "python-sdk-legacy": "Python SDK 2.x, legacy mode",
    "ts-v1": "TypeScript SDK v1 (handshake)",
    "ts-v2-modern": "TypeScript SDK v2, modern",
    "ts-v2-legacy": "TypeScript SDK v2, handshake",
    "python-sdk-sse": "Python SDK 2.x over HTTP+SSE (2024-11-05)",
}

BACKEND_TITLES = {
    "modern": "modern only, HTTP",
    "handshake": "2025-11-25 only, HTTP",
    "sse": "2024-11-05, HTTP+SSE",
    "stdio-modern": "modern only, stdio",
    "stdio": "handshake, stdio",
}

_NO_ELICITATION = (
    "schema 2024-11-05, ServerRequest: ping, sampling/createMessage and roots/list are all a server can ask. "
    "Elicitation came with 2025-06-18, its URL mode with 2025-11-25."
)

# (backend, feature) -> the clause
FORBIDDEN: dict[tuple[str, str], str] = {
    ("sse", "elicitation, form"): _NO_ELICITATION,
    ("sse", "elicitation, URL"): _NO_ELICITATION,
}

# (client's era, backend, feature) -> what is missing
OPEN: dict[tuple[str, str, str], str] = {}


@dataclass(frozen=True)
class Cell:
    """One cell. `forbidden` and `open` are empty where it must pass."""

    client: ClientCell
    backend: ServerCell
    feature: str
    scenarios: tuple[str, ...]
    forbidden: str
    open: str

    @property
    def id(self) -> str:
        """The parameter part of its test's id."""
        return "-".join([self.client.name, "to", self.backend.name, self.feature.replace(", ", "_").replace(" ", "_")])


def cells() -> Iterator[Cell]:
    """All of them: clients, then features, then backends, as the tables show them."""
    clients = {client.name: client for client in CLIENTS}
    backends = {server.name: server for server in ALL_SERVERS}
    for client in (clients[name] for name in CLIENT_TITLES):
        for feature, scenarios in FEATURES.items():
            for name in BACKEND_TITLES:
                forbidden = FORBIDDEN.get((name, feature), "")
                missing = OPEN.get((client.era, name, feature), "")
                yield Cell(client, backends[name], feature, scenarios, forbidden, missing)
