"""The backend of the link contract: what every link is tested against, whatever carries the messages.

`LinkBackend` takes one JSON-RPC message at a time and sends any number; it needs nothing but the standard library, so
that a child starts it quickly. Run as a program it speaks on standard input and output. A transport with streams per
request hosts it by routing `send(message, about)`: `about` is the id of the request the message belongs to, None for
what belongs to none.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any


class LinkBackend:
    """Answers the methods `test/*` as their names say."""

    def __init__(self, send: Callable[[dict[str, Any], int | None], None]) -> None:
        self._send = send
        self._parked: dict[str, int] = {}
        self._asking: dict[str, int] = {}
        self._cancelled: list[object] = []
        self._told: list[str] = []

    def take(self, text: bytes) -> None:
        """One message from the gateway."""
        message = json.loads(text)
        params = message.get("params", {})
        if "method" not in message:
            answer = message.get("result", message.get("error"))
            self._answer(self._asking.pop(message["id"]), {"answer": answer})
        elif "id" not in message:
            self._told.append(message["method"])
            if message["method"] == "notifications/cancelled":
                self.cancelled(params["requestId"])
        else:
            getattr(self, "_do_" + message["method"].partition("/")[2])(message["id"], params)

    def cancelled(self, request_id: object) -> None:
        """The request is no longer wanted (on a transport with streams per request: its stream was closed)."""
        self._cancelled.append(request_id)

    def _answer(self, request_id: int, result: dict[str, Any]) -> None:
        self._send({"jsonrpc": "2.0", "id": request_id, "result": result}, request_id)

    def _notify(self, method: str, params: dict[str, Any], about: int | None) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params}, about)

    def _do_echo(self, request_id: int, params: dict[str, Any]) -> None:
        self._answer(request_id, {"text": params["text"]})

    def _do_fail(self, request_id: int, params: dict[str, Any]) -> None:
        error = {"code": -32042, "message": "not today", "data": {"why": params["why"]}}
        self._send({"jsonrpc": "2.0", "id": request_id, "error": error}, request_id)

    def _do_progress(self, request_id: int, params: dict[str, Any]) -> None:
        for step in range(1, params["steps"] + 1):
            token = params["_meta"]["progressToken"]
            self._notify("notifications/progress", {"progressToken": token, "progress": step}, request_id)
        self._answer(request_id, {"steps": params["steps"]})

    def _do_log(self, request_id: int, params: dict[str, Any]) -> None:
        self._notify("notifications/message", {"level": "info", "data": params["text"]}, request_id)
        self._answer(request_id, {})

    def _do_park(self, request_id: int, params: dict[str, Any]) -> None:
        self._parked[params["key"]] = request_id
        self._notify("notifications/progress", {"progressToken": request_id, "progress": 0}, request_id)

    def _do_release(self, request_id: int, params: dict[str, Any]) -> None:
        self._answer(self._parked.pop(params["key"]), {"key": params["key"]})
        self._answer(request_id, {})

    def _do_ask(self, request_id: int, params: dict[str, Any]) -> None:
        name = f"ask-{request_id}"
        self._asking[name] = request_id
        self._send({"jsonrpc": "2.0", "id": name, "method": "elicitation/create", "params": params}, request_id)

    def _do_announce(self, request_id: int, params: dict[str, Any]) -> None:
        self._notify("notifications/tools/list_changed", params, None)
        self._answer(request_id, {})

    def _do_seen(self, request_id: int, params: dict[str, Any]) -> None:
        self._answer(request_id, {"cancelled": self._cancelled, "told": self._told})

    def _do_die(self, request_id: int, params: dict[str, Any]) -> None:
        raise SystemError("told to die")


class MessageBackend:
    """The same as an in-process message server."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        backend = LinkBackend(lambda message, _: send(json.dumps(message).encode()))
        async for message in incoming:
            backend.take(message)


message_backend = MessageBackend()


def main() -> None:
    """Speak on standard input and output until the input ends."""

    def send(message: dict[str, Any], about: int | None) -> None:
        del about
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()

    backend = LinkBackend(send)
    try:
        for line in sys.stdin.buffer:
            backend.take(line)
    except SystemError as error:
        print(f"fatal: {error}", file=sys.stderr, flush=True)
        os._exit(3)


if __name__ == "__main__":
    main()
