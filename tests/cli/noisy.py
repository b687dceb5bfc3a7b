"""A server that prints where it must not: as an object in the gateway's process, and as a program that is its child.

Its one tool prints to standard output in every way there is, and then answers. Run as a program it also starts a
grandchild that would live for a minute, and says its process id in the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

NOISE = "this is no JSON-RPC"


def make_noise() -> None:
    """Through Python, through the descriptor, from a child that inherits it."""
    print(NOISE, flush=True)
    os.write(1, NOISE.encode() + b"\n")
    subprocess.run([sys.executable, "-S", "-c", f"print({NOISE!r})"], check=True)


def answer(message: dict[str, Any], said: str) -> bytes | None:
    """The answer to one message of the handshake era."""
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "noisy", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "noise", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": said}]},
    }
    if "id" not in message:
        return None
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] in results:
        body["result"] = results[message["method"]]
    else:
        body["error"] = {"code": -32601, "message": "Method not found"}
    return json.dumps(body).encode()


class Noisy:
    """In the gateway's own process. What it reads from standard input it says."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Serve one client."""
        async for line in incoming:
            message = json.loads(line)
            said = ""
            if message.get("method") == "tools/call":
                await asyncio.to_thread(make_noise)
                said = sys.stdin.read()
            told = answer(message, said)
            if told is not None:
                send(told)


noisy = Noisy()


def main() -> None:
    """In a child process: noise on standard output between messages, a flood on standard error, a grandchild."""
    grandchild = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(NOISE, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "tools/call":
            make_noise()
            sys.stderr.write(f"{NOISE}\n" * 20_000)
        told = answer(message, str(grandchild.pid))
        if told is not None:
            print(told.decode(), flush=True)
    grandchild.kill()
    grandchild.wait()


if __name__ == "__main__":
    main()
