"""A backend that says exactly what a test wants it to, of the modern era, in the gateway's own process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from typing_extensions import override

from journeys.toolbox import Toolbox
from journeys.wire import MODERN

Json = dict[str, Any]


class Scripted(Toolbox):
    """Answers from a table: a method's result, or what a function makes of its parameters."""

    def __init__(self, answers: dict[str, Any], capabilities: tuple[str, ...] = ("tools", "resources")) -> None:
        super().__init__("scripted", "modern")
        discovered = {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": {name: {"listChanged": True} for name in capabilities},
            "ttlMs": 0,
            "cacheScope": "private",
        }
        self.answers: dict[str, Any] = {"server/discover": discovered, **answers}
        self.asked: list[tuple[str, Json]] = []

    def count(self, method: str) -> int:
        """How often it was asked."""
        return sum(name == method for name, _ in self.asked)

    @override
    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """See Toolbox."""
        async for text in incoming:
            message = json.loads(text)
            if "id" not in message:
                continue
            self.asked.append((message["method"], message["params"]))
            answer = self.answers.get(message["method"])
            answer = answer(message["params"]) if callable(answer) else answer
            if answer is None:
                answer = {"error": {"code": -32601, "message": "no such method"}}
            elif "error" not in answer:
                answer = {"result": answer}
            send(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}).encode())


def tools(*names: str, **members: Any) -> Json:
    """A tools/list result."""
    listed = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    return {"resultType": "complete", "tools": listed, "ttlMs": 60_000, "cacheScope": "public", **members}


def said(text: str) -> Json:
    """A tools/call result."""
    return {"resultType": "complete", "content": [{"type": "text", "text": text}]}
