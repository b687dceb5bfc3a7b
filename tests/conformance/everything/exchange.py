"""One request on its way through the fixture, and the ways a handler may speak back while it runs.

Handlers are written once. `Exchange.ask` puts questions the way the client's era wants them: in the modern era as an
`InputRequiredResult` that the client answers by a retry (SEP-2322), in the handshake era as server-to-client requests
on the stream of the running call. It never asks for what the client has not declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Question = types.InputRequest
Answer = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ElicitResult | types.ListRootsResult
Reply = types.InputRequiredResult

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

_ANSWER_TYPES: Mapping[str, type[Answer]] = {
    "elicitation/create": types.ElicitResult,
    "roots/list": types.ListRootsResult,
    "sampling/createMessage": types.CreateMessageResult,
}
_CAPABILITY_NAMES: Mapping[str, str] = {
    "elicitation/create": "elicitation",
    "roots/list": "roots",
    "sampling/createMessage": "sampling",
}


class ToolError(Exception):
    """The tool ran and failed: becomes a result with `isError`, not a JSON-RPC error."""


@dataclass
class HandshakeSession:
    """What the fixture remembers about one handshake session: how to reach it, and what it asked for."""

    session: ServerSession
    log_level: str = "debug"
    watched_uris: set[str] = field(default_factory=set)


@dataclass
class World:
    """State shared by all requests of one fixture process."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    sessions: dict[str, HandshakeSession] = field(default_factory=dict)
    has_dynamic_tool: bool = False
    has_dynamic_prompt: bool = False

    def session_of(self, ctx: ServerRequestContext[Any, Any]) -> HandshakeSession:
        """The handshake session of `ctx`, remembered from its first request on (stdio has exactly one)."""
        key = getattr(ctx.request, "headers", {}).get("mcp-session-id", "stdio")
        known = self.sessions.setdefault(key, HandshakeSession(ctx.session))
        known.session = ctx.session
        return known

    async def notify(self, notification: types.ServerNotification, *, uri: str | None = None) -> None:
        """Send `notification` to every handshake session, or with `uri` to those that subscribed to it."""
        for key, known in list(self.sessions.items()):
            if uri is not None and uri not in known.watched_uris:
                continue
            try:
                await known.session.send_notification(notification)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                del self.sessions[key]


@dataclass(frozen=True)
class Exchange:
    """A `tools/call` or `prompts/get` and everything its handler may use."""

    ctx: ServerRequestContext[Any, Any]
    params: types.CallToolRequestParams | types.GetPromptRequestParams
    world: World

    @property
    def is_modern(self) -> bool:
        """Whether the client speaks 2026-07-28 or later."""
        return self.ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def arguments(self) -> dict[str, Any]:
        """The call's arguments, empty when it has none."""
        return dict(self.params.arguments or {})

    def declares(self, capability: str) -> bool:
        """Whether the client declared the capability of that name."""
        declared = self.ctx.session.client_capabilities
        return declared is not None and getattr(declared, capability) is not None

    def require(self, capability: str) -> None:
        """Raise -32021 (MissingRequiredClientCapability) unless the client declared `capability`."""
        if not self.declares(capability):
            raise MCPError(
                code=types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                message=f"This call requires the client capability {capability!r}",
                data={"requiredCapabilities": {capability: {}}},
            )

    async def log(self, text: str, level: types.LoggingLevel = "info") -> None:
        """Send a log message on the stream of this call, if the client wants that level."""
        # The modern gate (`_meta` log level) is the SDK's; the handshake one (logging/setLevel) is the server's.
        if not self.is_modern and LEVELS.index(level) < LEVELS.index(self.world.session_of(self.ctx).log_level):
            return
        await self.ctx.session.send_log_message(level=level, data=text, related_request_id=self.ctx.request_id)

    async def progress(self, progress: float, total: float) -> None:
        """Report progress if the client gave a token; without one the SDK sends nothing."""
        await self.ctx.session.report_progress(progress, total, f"{progress:g} of {total:g}")

    async def ask(self, questions: Mapping[str, Question], *, state: str | None = None) -> dict[str, Answer] | Reply:
        """The answers by key, or in the modern era an `InputRequiredResult` to return while any is missing.

        `state` is carried as `requestState` (sealed by the request-state boundary); handshake clients never see it.
        Raises `MCPError` -32021 in the modern era and `ToolError` in the handshake era for an undeclared capability.
        """
        for question in questions.values():
            name = _CAPABILITY_NAMES[question.method]
            if self.is_modern:
                self.require(name)
            elif not self.declares(name):
                raise ToolError(f"The client does not support {name}")
        if not self.is_modern:
            return await self._requests(questions)
        given = self.params.input_responses or {}
        answers = {
            key: given[key]
            for key, question in questions.items()
            if isinstance(given.get(key), _ANSWER_TYPES[question.method])
        }
        if len(answers) == len(questions):
            return answers
        return types.InputRequiredResult(input_requests=dict(questions), request_state=state)

    async def _requests(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        """The answers to questions that are all asked at once, as one `InputRequiredResult` would ask them."""
        answers: dict[str, Answer] = {}
        refusals: list[MCPError] = []

        async def put(key: str, question: Question) -> None:
            try:
                answers[key] = await self._request(question)
            except MCPError as refused:
                refusals.append(refused)

        async with anyio.create_task_group() as group:
            for key, question in questions.items():
                group.start_soon(put, key, question)
        if refusals:
            raise refusals[0]
        return answers

    async def _request(self, question: Question) -> Answer:
        return await self.ctx.session.send_request(
            question,
            _ANSWER_TYPES[question.method],
            metadata=ServerMessageMetadata(related_request_id=self.ctx.request_id),
        )
