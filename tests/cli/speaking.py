"""Speaking with a `gatewright` command line by line, as a host that starts it does."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cli.commands import COMMAND, WAIT_S, environment

TESTS = Path(__file__).parents[1]
META = "io.modelcontextprotocol/"
Json = dict[str, Any]


class Spoken:
    """A started command. Every line of its output has to be a JSON-RPC message."""

    def __init__(self, child: subprocess.Popen[bytes], source: IO[bytes], sink: IO[bytes]) -> None:
        self.child = child
        self.said: list[Json] = []
        self._source = source
        self._sink = sink
        self._buffer = b""

    def send(self, method: str, params: Json | None = None, **ids: Any) -> None:
        """A message of the handshake era; give `id` for a request."""
        message = {"jsonrpc": "2.0", **ids, "method": method, "params": params or {}}
        self._sink.write(json.dumps(message).encode() + b"\n")
        self._sink.flush()

    def ask(self, method: str, params: Json | None = None, *, own: int) -> Json:
        """The answer to a request of the handshake era."""
        self.send(method, params, id=own)
        return self.answer(own)

    def ask_modern(self, method: str, params: Json | None = None, *, own: int) -> Json:
        """The answer to a request of the modern era."""
        meta = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
        return self.ask(method, {**(params or {}), "_meta": meta}, own=own)

    def shake_hands(self) -> Json:
        """Open the session; the answer."""
        answer = self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, own=1000)
        self.send("notifications/initialized")
        return answer

    def answer(self, own: int) -> Json:
        """The response to a request, within the bound."""
        return self._until(lambda it: it.get("id") == own and "method" not in it, f"answer to {own}")

    def asked(self, method: str) -> Json:
        """The first request or notification of that method, within the bound."""
        return self._until(lambda it: it.get("method") == method, method)

    def reply(self, to: Json, result: Json) -> None:
        """Answer a question."""
        self._sink.write(json.dumps({"jsonrpc": "2.0", "id": to["id"], "result": result}).encode() + b"\n")
        self._sink.flush()

    def _until(self, is_it: Callable[[Json], bool], what: str) -> Json:
        ends_at = time.monotonic() + WAIT_S
        while True:
            for message in self.said:
                if is_it(message):
                    return message
            ready, _, _ = select.select([self._source], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"no {what} within {WAIT_S} s; said: {self.said}"
            data = os.read(self._source.fileno(), 1 << 16)
            assert data, f"it ended without {what}"
            self._take(data)

    def close_input(self) -> None:
        """Say no more."""
        self._sink.close()

    def end(self) -> int:
        """Wait for its end and take its last words; the exit code."""
        code = self.child.wait(WAIT_S)
        while data := self._source.read(1 << 16):
            self._take(data)
        return code

    def _take(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            self.said.append(message)


@contextmanager
def spoken(*arguments: str, over: str = "pipes", stderr: int = subprocess.DEVNULL, **environ: str) -> Iterator[Spoken]:
    """Run it until the end of the block: over two pipes, two sockets, or one socket for both ways."""
    ours: list[socket.socket] = []
    theirs: list[socket.socket] = []
    places: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    if over != "pipes":
        for place in ("both",) if over == "one socket" else ("stdin", "stdout"):
            here, there = socket.socketpair()
            ours.append(here)
            theirs.append(there)
            for name in ("stdin", "stdout") if place == "both" else (place,):
                places[name] = there
    env = environment(PYTHONPATH=str(TESTS), **environ)
    child = subprocess.Popen([*COMMAND, *arguments], stderr=stderr, env=env, bufsize=0, **places)
    for one in theirs:
        one.close()
    try:
        if ours:
            yield Spoken(child, ours[-1].makefile("rb", buffering=0), ours[0].makefile("wb", buffering=0))
        else:
            assert child.stdout is not None
            assert child.stdin is not None
            yield Spoken(child, child.stdout, child.stdin)
    finally:
        child.kill()
        child.wait(WAIT_S)
        for stream in (child.stdin, child.stdout, child.stderr, *ours):
            if stream is not None:
                stream.close()


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Whether the process ends within the bound."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([handle], [], [], 10)
        return bool(ready)
    finally:
        os.close(handle)
