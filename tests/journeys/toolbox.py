"""The backend of the journeys: one server of either era or both, whatever carries its messages.

A `Toolbox` keeps what it has seen, so that a test can wait for it; a `Conversation` is one client of it. Sends take
the id of the request that a message is about, None for what is about none. Run as a program it speaks on standard
input and output: `toolbox.py LABEL ERA`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

Json = dict[str, Any]
Send = Callable[[Json, "int | None"], None]
META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
TOOLS = [
    *("echo", "digest", "progress", "log", "park", "release", "ask", "ask_outside", "announce", "client", "seen"),
    *("need_input", "refuse"),
]
CACHEABLE = frozenset(
    ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"]
)
CAPABILITIES = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
    "completions": {},
}


def digest(secret: str, nonce: str) -> str:
    """What only the asker and the backend can say."""
    return hmac.new(secret.encode(), nonce.encode(), hashlib.sha256).hexdigest()


class Toolbox:
    """One server."""

    def __init__(self, label: str = "box", era: str = "both") -> None:
        self.label = label
        self.eras = {"handshake", "modern"} if era == "both" else {era}
        self.tools = list(TOOLS)
        self.resources = [f"{label}://note"]
        self.templates = [f"{label}://page/{{number}}"]
        self.tool_meta: Json = {}
        self.hints: Json = {"ttlMs": 60_000, "cacheScope": "private"}
        self.page_size = 1000
        self.mute: set[str] = set()
        """Methods that get no answer."""
        self.broken: set[str] = set()
        """Methods that are answered with an empty object, whatever they should be."""
        self.unknown: set[str] = set()
        """Methods that it says it does not have."""
        self.seen: list[tuple[str, Any]] = []
        self.conversations: list[Conversation] = []
        self._changed: asyncio.Event | None = None

    def note(self, what: str, value: Any) -> None:
        """Remember it."""
        self.seen.append((what, value))
        if self._changed is not None:
            self._changed.set()

    def noted(self, what: str) -> list[Any]:
        """Everything remembered under that name."""
        return [value for name, value in self.seen if name == what]

    async def until(self, is_so: Callable[[Toolbox], bool]) -> None:
        """Return when it is so, within 5 s."""
        async with asyncio.timeout(5):
            while not is_so(self):
                self._changed = asyncio.Event()
                await self._changed.wait()

    def converse(self, send: Send) -> Conversation:
        """Another client."""
        return Conversation(self, send)

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Serve in the gateway's own process."""
        conversation = self.converse(lambda message, _: send(json.dumps(message).encode()))
        try:
            async for message in incoming:
                conversation.take(json.loads(message))
        finally:
            conversation.end()


class Conversation:
    """One client of a toolbox, as the toolbox sees it: a session, a pipe, or all modern requests of a host."""

    def __init__(self, box: Toolbox, send: Send) -> None:
        self._box = box
        self._send = send
        self._ids = count(9001)
        self._asking: dict[Any, tuple[int | None, str]] = {}
        self._parked: dict[str, int] = {}
        self._listens: dict[int, Json] = {}
        self._muted: list[Json] = []
        self.subscribed: set[str] = set()
        self.introduction: Json = {}
        self.log_level: str | None = None
        box.conversations.append(self)
        box.note("opened", self)

    def end(self) -> None:
        """The client is gone."""
        if self in self._box.conversations:
            self._box.conversations.remove(self)
            self._box.note("ended", self)

    def take(self, message: Json) -> None:
        """One message of the client."""
        params = message.get("params", {})
        if "method" not in message:
            self._answered(message)
        elif "id" not in message:
            if message["method"] == "notifications/cancelled":
                self.cancelled(params["requestId"])
            self._box.note("told", message)
        elif message["method"] in self._box.mute:
            self._muted.append(message)
            self._box.note("muted", message["method"])
        else:
            self._box.note("asked", message["method"])
            self._serve(message["id"], message["method"], params)

    def catch_up(self) -> None:
        """Serve what got no answer."""
        muted, self._muted = self._muted, []
        for message in muted:
            self.take(message)

    def cancelled(self, request_id: int) -> None:
        """A request is no longer wanted."""
        self._parked = {key: value for key, value in self._parked.items() if value != request_id}
        self._listens.pop(request_id, None)
        self._box.note("cancelled", request_id)

    def announce(self, method: str, params: Json | None = None) -> None:
        """Say something that is about no request: on every subscription that wants it, and to the session."""
        for request_id, wants in self._listens.items():
            if _wants(wants, method, params or {}):
                self._notify(method, {**(params or {}), "_meta": {META + "subscriptionId": request_id}}, request_id)
        if self.introduction:
            self._notify(method, params or {}, None)

    def finish_listening(self) -> None:
        """End every subscription gracefully."""
        for request_id in list(self._listens):
            self._listens.pop(request_id)
            self._answer(request_id, {"resultType": "complete", "_meta": {META + "subscriptionId": request_id}})

    # --- what is served

    def _serve(self, request_id: int, method: str, params: Json) -> None:
        era = "modern" if META + "protocolVersion" in params.get("_meta", {}) else "handshake"
        if method == "initialize":
            era = "handshake"
        serve = getattr(self, "_on_" + method.replace("/", "_"), None)
        if method in self._box.broken:
            self._answer(request_id, {})
            return
        if serve is None or era not in self._box.eras or method in self._box.unknown:
            self._fail(request_id, -32601, f"Method not found: {method}")
            return
        found = serve(request_id, params)
        if found is not None:
            added = {}
            if era == "modern":
                added = {"resultType": "complete", **(self._box.hints if method in CACHEABLE else {})}
            self._answer(request_id, {**added, **found})

    def _on_initialize(self, request_id: int, params: Json) -> Json:
        self.introduction = params
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": CAPABILITIES,
            "serverInfo": {"name": self._box.label, "version": "1"},
            "instructions": f"Use {self._box.label} well.",
        }

    def _on_server_discover(self, request_id: int, params: Json) -> Json:
        return {
            "supportedVersions": [MODERN],
            "capabilities": CAPABILITIES,
            "instructions": f"Use {self._box.label} well.",
            "_meta": {META + "serverInfo": {"name": self._box.label, "version": "1"}},
        }

    def _on_ping(self, request_id: int, params: Json) -> Json:
        return {}

    def _on_logging_setLevel(self, request_id: int, params: Json) -> Json:  # noqa: N802 - the method's own name
        self.log_level = params["level"]
        return {}

    def _on_tools_list(self, request_id: int, params: Json) -> Json:
        schema = {"type": "object", "properties": {}}
        tools = [{"name": name, "inputSchema": schema, **self._box.tool_meta} for name in self._box.tools]
        return self._page("tools", tools, params)

    def _on_prompts_list(self, request_id: int, params: Json) -> Json:
        return self._page("prompts", [{"name": "greet", "arguments": [{"name": "who"}]}], params)

    def _on_resources_list(self, request_id: int, params: Json) -> Json:
        return self._page("resources", [{"uri": uri, "name": uri} for uri in self._box.resources], params)

    def _on_resources_templates_list(self, request_id: int, params: Json) -> Json:
        found = [{"uriTemplate": template, "name": template} for template in self._box.templates]
        return self._page("resourceTemplates", found, params)

    def _on_resources_read(self, request_id: int, params: Json) -> Json | None:
        uri = params["uri"]
        if "missing" in uri:
            self._fail(request_id, -32002, "Resource not found")
            return None
        return {"contents": [{"uri": uri, "text": f"{self._box.label} has {uri}"}]}

    def _on_resources_subscribe(self, request_id: int, params: Json) -> Json:
        self.subscribed.add(params["uri"])
        self._box.note("subscribed", params["uri"])
        return {}

    def _on_resources_unsubscribe(self, request_id: int, params: Json) -> Json:
        self.subscribed.discard(params["uri"])
        self._box.note("unsubscribed", params["uri"])
        return {}

    def _on_prompts_get(self, request_id: int, params: Json) -> Json:
        who = params.get("arguments", {}).get("who", "you")
        content = {"type": "text", "text": f"{self._box.label} greets {who}"}
        return {"messages": [{"role": "user", "content": content}]}

    def _on_completion_complete(self, request_id: int, params: Json) -> Json:
        ref = params["ref"]
        values = [f"{self._box.label}:{ref.get('name', ref.get('uri'))}:{params['argument']['value']}"]
        return {"completion": {"values": values, "hasMore": False}}

    def _on_subscriptions_listen(self, request_id: int, params: Json) -> None:
        wants = params["notifications"]
        self._listens[request_id] = wants
        acknowledged = {"notifications": wants, "_meta": {META + "subscriptionId": request_id}}
        self._notify("notifications/subscriptions/acknowledged", acknowledged, request_id)
        self._box.note("listening", wants)

    def _on_tools_call(self, request_id: int, params: Json) -> Json | None:
        tool = getattr(self, "_tool_" + params["name"], None)
        if tool is None or params["name"] not in self._box.tools:
            self._fail(request_id, -32602, f"Unknown tool: {params['name']}")
            return None
        found = tool(request_id, params, params.get("arguments", {}))
        return None if found is None else _texts(found) if "resultType" not in found else found

    # --- the tools

    def _tool_echo(self, request_id: int, params: Json, given: Json) -> Json:
        return {"label": self._box.label, **given}

    def _tool_digest(self, request_id: int, params: Json, given: Json) -> Json:
        if given.get("is_loud"):
            self._progress(request_id, params, 1, given["nonce"])
        return {"digest": digest(given["secret"], given["nonce"])}

    def _tool_progress(self, request_id: int, params: Json, given: Json) -> Json:
        for step in range(1, given["steps"] + 1):
            self._progress(request_id, params, step, "working")
        return {"steps": given["steps"]}

    def _tool_log(self, request_id: int, params: Json, given: Json) -> Json:
        for level in given["levels"]:
            self._notify("notifications/message", {"level": level, "data": level}, request_id)
        return {"logged": len(given["levels"])}

    def _tool_park(self, request_id: int, params: Json, given: Json) -> None:
        self._parked[given["key"]] = request_id
        if given.get("is_loud"):
            self._progress(request_id, params, 1, "parked")
        self._box.note("parked", given["key"])

    def _tool_release(self, request_id: int, params: Json, given: Json) -> Json:
        for conversation in self._box.conversations:
            parked = conversation._parked.pop(given["key"], None)
            if parked is not None:
                conversation._answer(parked, _texts({"released": given["key"]}))
                return {"released": True}
        return {"released": False}

    def _tool_ask(self, request_id: int, params: Json, given: Json) -> None:
        self._ask(given["method"], given.get("params", {}), request_id)

    def _tool_ask_outside(self, request_id: int, params: Json, given: Json) -> None:
        self._answer(request_id, _texts({"asked": given["method"]}))
        self._ask(given["method"], given.get("params", {}), None)

    def _tool_announce(self, request_id: int, params: Json, given: Json) -> Json:
        for conversation in list(self._box.conversations) if given.get("is_to_all") else [self]:
            conversation.announce(given["method"], given.get("params"))
        return {"announced": given["method"]}

    def _tool_client(self, request_id: int, params: Json, given: Json) -> Json:
        return {"meta": params.get("_meta", {}), "introduction": self.introduction, "log_level": self.log_level}

    def _tool_seen(self, request_id: int, params: Json, given: Json) -> Json:
        return {"seen": self._box.noted(given["what"])}

    def _tool_need_input(self, request_id: int, params: Json, given: Json) -> Json:
        if "inputResponses" in params:
            return {"responses": params["inputResponses"], "state": params["requestState"]}
        wanted = {"who": {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?"}}}
        return {"resultType": "input_required", "inputRequests": wanted, "requestState": "sealed"}

    def _tool_refuse(self, request_id: int, params: Json, given: Json) -> None:
        self._fail(request_id, given["code"], "not today", {"why": "rain"})

    # --- what is sent

    def _answer(self, request_id: int, result: Json) -> None:
        self._send({"jsonrpc": "2.0", "id": request_id, "result": result}, request_id)

    def _fail(self, request_id: int, code: int, message: str, data: Any = None) -> None:
        error = {"code": code, "message": message, **({} if data is None else {"data": data})}
        self._send({"jsonrpc": "2.0", "id": request_id, "error": error}, request_id)

    def _notify(self, method: str, params: Json, about: int | None) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params}, about)

    def _progress(self, request_id: int, params: Json, step: int, message: str) -> None:
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            notice = {"progressToken": token, "progress": step, "message": message}
            self._notify("notifications/progress", notice, request_id)

    def _ask(self, method: str, params: Json, about: int | None) -> None:
        ask_id = next(self._ids)
        self._asking[ask_id] = (about, method)
        self._send({"jsonrpc": "2.0", "id": ask_id, "method": method, "params": params}, about)

    def take_back(self) -> None:
        """Ask no more: cancel every open question."""
        for ask_id, (about, _) in list(self._asking.items()):
            self._notify("notifications/cancelled", {"requestId": ask_id}, about)

    def _answered(self, message: Json) -> None:
        about, method = self._asking.pop(message["id"], (None, ""))
        answer = message.get("result", {"error": message.get("error")})
        self._box.note("answered", {"method": method, "answer": answer})
        if about is not None:
            self._answer(about, _texts({"answer": answer}))

    def _page(self, field: str, items: list[Json], params: Json) -> Json:
        start = int(params.get("cursor", "0"))
        end = start + self._box.page_size
        more = {"nextCursor": str(end)} if end < len(items) else {}
        return {field: items[start:end], **more}


def _texts(value: Json) -> Json:
    return {"content": [{"type": "text", "text": json.dumps(value)}]}


def _wants(wants: Json, method: str, params: Json) -> bool:
    flags = {
        "notifications/tools/list_changed": "toolsListChanged",
        "notifications/prompts/list_changed": "promptsListChanged",
        "notifications/resources/list_changed": "resourcesListChanged",
    }
    if method in flags:
        return wants.get(flags[method]) is True
    return method == "notifications/resources/updated" and params.get("uri") in wants.get("resourceSubscriptions", ())


def speak(box: Toolbox) -> None:
    """Speak on standard input and output until the input ends."""

    def send(message: Json, about: int | None) -> None:
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()

    conversation = box.converse(send)
    for line in sys.stdin.buffer:
        conversation.take(json.loads(line))


if __name__ == "__main__":
    speak(Toolbox(sys.argv[1], sys.argv[2]))
