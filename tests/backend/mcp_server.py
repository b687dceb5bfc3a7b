"""An MCP server of either era, or both, over real sockets, and what a test needs to talk to it through `McpBackend`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from backend.raw_server import Heard, Peer, RawServer, chunk, event, response, serving, soon, stream_head
from gatewright.backend.backend import McpBackend
from gatewright.backend.base import Connector
from gatewright.backend.http import HttpConnector
from gatewright.backend.settings import BackendSettings
from gatewright.background import Background
from gatewright.call import Call, Client, Failure, Json, Outcome, Reply, Result
from gatewright.outbox import Outbox
from gatewright.protocol import jsonrpc
from gatewright.protocol.chain import CHAIN_KEY
from gatewright.protocol.methods import LISTEN_FIELDS, METHODS
from gatewright.protocol.modern import CAPABILITIES_KEY, INFO_KEY, VERSION_KEY
from gatewright.protocol.refusals import CHAIN_REFUSED
from gatewright.protocol.revisions import HANDSHAKE_2025_11_25, MODERN_2026_07_28
from gatewright.protocol.sealed import Sealer

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}}


class McpServer:
    """Answers `tools/call` with how often it did; counts everything; forgets its sessions when told."""

    def __init__(self, *speaks: str) -> None:
        self.speaks = set(speaks)
        self.capabilities: dict[str, Any] = dict(CAPABILITIES)
        self.is_silent = False
        self.refusal = response(
            b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad"}}', "400 x"
        )
        """What it answers to a modern request when it is not modern."""
        self.agrees = True
        """A `subscriptions/listen` is acknowledged, and a resource may be subscribed to."""
        self.calls = 0
        self.initialized: list[dict[str, Any]] = []
        self.sessions: dict[str, asyncio.Queue[dict[str, Any] | None]] = {}
        self.subscribed: list[tuple[str, str]] = []
        """Method and URI, in order."""
        self.listens: list[dict[str, Any]] = []
        """Filters of modern subscriptions, in order."""
        self.open_listens: list[tuple[str, asyncio.Queue[dict[str, Any] | None]]] = []
        """Each with its filter as text."""
        self.ended: list[str] = []
        self.refuses: str | None = None
        """A gateway's id: what has passed it is refused, as that gateway would refuse it."""
        self.ignores: str | None = None
        """A gateway's id: what has passed it gets no answer."""
        self._names = count(1)

    def announce(self, method: str, **params: Any) -> None:
        """Tell everybody who listens, in either era."""
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        wanted = params.get("uri") or LISTEN_FIELDS[method]
        for queue in [*self.sessions.values(), *(one for told, one in self.open_listens if wanted in told)]:
            queue.put_nowait(message)

    def cut(self) -> None:
        """End every standing stream."""
        for queue in [*self.sessions.values(), *(one for _, one in self.open_listens)]:
            queue.put_nowait(None)

    async def talk(self, peer: Peer) -> None:
        """One connection."""
        while True:
            heard = await peer.hear()
            if self.is_silent:
                await peer.until_closed()
                return
            if heard.method == "POST":
                await self._posted(peer, heard)
            else:
                await self._stood(peer, heard)

    async def _stood(self, peer: Peer, heard: Heard) -> None:
        session = heard.headers.get("mcp-session-id", "")
        queue = self.sessions.get(session)
        if heard.method == "DELETE" and queue is not None:
            self.ended.append(session)
            self.sessions.pop(session)
            queue.put_nowait(None)
            peer.say(ACCEPTED)
        elif queue is None:
            peer.say(response(b"", "404 Not Found"))
        else:
            peer.say(stream_head())
            await self._stream(peer, queue)

    async def _posted(self, peer: Peer, heard: Heard) -> None:
        message = heard.message
        params = message.get("params", {})
        if "method" not in message or "id" not in message:
            peer.say(ACCEPTED)
        elif self.refuses in params.get("_meta", {}).get(CHAIN_KEY, ()):
            self._fail(peer, message["id"], CHAIN_REFUSED, "200 OK")
        elif self.ignores in params.get("_meta", {}).get(CHAIN_KEY, ()):
            await peer.until_closed()
        elif VERSION_KEY in params.get("_meta", {}):
            if "modern" not in self.speaks:
                peer.say(self.refusal)
            elif message["method"] == "subscriptions/listen":
                await self._listen(peer, message["id"], params)
            else:
                self._answer(peer, message, {"resultType": "complete"})
        elif message["method"] == "initialize":
            self._initialize(peer, message)
        elif heard.headers.get("mcp-session-id", "") in self.sessions:
            self._answer(peer, message, {})
        elif "handshake" in self.speaks:
            peer.say(response(b"", "404 Not Found"))
        else:
            self._fail(peer, message["id"], -32602, "400 Bad Request")

    def _initialize(self, peer: Peer, message: dict[str, Any]) -> None:
        if "handshake" not in self.speaks:
            return self._fail(peer, message["id"], -32602, "400 Bad Request")
        self.initialized.append(message["params"])
        name = f"s{next(self._names)}"
        self.sessions[name] = asyncio.Queue()
        result = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": self.capabilities,
            "serverInfo": {"name": "t", "version": "1"},
        }
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        peer.say(response(body, "200 OK", f"mcp-session-id: {name}"))
        return None

    def _answer(self, peer: Peer, message: dict[str, Any], result: dict[str, Any]) -> None:
        method, params = message["method"], message.get("params", {})
        if method == "server/discover":
            result |= {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities}
        elif method == "tools/list":
            result |= {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call":
            self.calls += 1
            result |= {"content": [], "calls": self.calls, "name": params["name"]}
        elif method in ("resources/subscribe", "resources/unsubscribe"):
            self.subscribed.append((method.partition("/")[2], params["uri"]))
            if not self.agrees:
                return self._fail(peer, message["id"], -32602, "200 OK")
        else:
            return self._fail(peer, message["id"], -32601, "404 Not Found" if "resultType" in result else "200 OK")
        peer.say(response(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()))
        return None

    def _fail(self, peer: Peer, request_id: int, code: int, status: str) -> None:
        body = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": "no"}}
        peer.say(response(json.dumps(body).encode(), status))

    async def _listen(self, peer: Peer, request_id: int, params: dict[str, Any]) -> None:
        self.listens.append(params["notifications"])
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        peer.say(stream_head())
        if not self.agrees:
            peer.say(
                event({"jsonrpc": "2.0", "id": request_id, "error": {"code": -32601, "message": "no"}}), chunk(b"")
            )
            return
        notifications = params["notifications"]
        acknowledged = {"notifications": notifications}
        peer.say(
            event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged})
        )
        entry = json.dumps(params["notifications"]), queue
        self.open_listens.append(entry)
        try:
            await self._stream(peer, queue)
        finally:
            self.open_listens.remove(entry)

    async def _stream(self, peer: Peer, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Messages until None, or until the other end closes."""
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._write(peer, queue))
            leaving = tasks.create_task(self._left(peer))
            await asyncio.wait([writing, leaving], return_when=asyncio.FIRST_COMPLETED)
            writing.cancel()
            leaving.cancel()
        if writing.cancelled():
            raise EOFError

    async def _left(self, peer: Peer) -> None:
        """The other end closes, in whatever way."""
        with contextlib.suppress(ConnectionError):
            await peer.reader.read(1)

    async def _write(self, peer: Peer, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        while (message := await queue.get()) is not None:
            peer.say(event(message))
            await peer.writer.drain()
        peer.say(chunk(b""))


class Outlets(dict[str, Reply]):
    """Client sessions and their channels."""


class Told:
    """Remembers which lists were said to have changed."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []

    def changed(self, backend: str, session: str, method: str) -> None:
        self.changes.append((session, method))


class Replies:
    """A client that remembers what it is told and answers what it is asked."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def emit(self, method: str, params: Json) -> None:
        self.notes.append((method, json.loads(bytes(params))))

    async def ask(self, method: str, params: Json) -> Result | Failure:
        self.asked.append(method)
        await self.may_answer.wait()
        return Result(b'{"action":"accept"}')


def modern_client(capabilities: bytes = b"{}", chain: str = "") -> Client:
    """A client of the modern era, whose requests came over these gateways."""
    return Client(MODERN_2026_07_28, b'{"name":"c","version":"1"}', capabilities, chain=chain)


def handshake_client(session: str = "c1", capabilities: bytes = b'{"roots":{}}') -> Client:
    """A client of the handshake era."""
    return Client(HANDSHAKE_2025_11_25, b'{"name":"c","version":"1"}', capabilities, session)


def call_of(client: Client, method: str = "tools/call", reply: Reply | None = None, **params: Any) -> Call:
    """A call as the inbound side makes it."""
    if method == "tools/call":
        params = {"name": "t", "arguments": {}, **params}
    meta: dict[str, Any] = params.pop("_meta", {})
    if not client.session:
        meta |= {VERSION_KEY: "2026-07-28", INFO_KEY: {"name": "c", "version": "1"}}
        meta |= {CAPABILITIES_KEY: json.loads(bytes(client.capabilities))}
    if meta:
        params["_meta"] = meta
    raw = {key: jsonrpc.raw(value) for key, value in params.items()}
    task = asyncio.current_task()
    assert task is not None
    return Call(
        method=method,
        row=METHODS.get(method),
        params=raw,
        meta={key: jsonrpc.raw(value) for key, value in meta.items()},
        name=params.get("name", params.get("uri")),
        client=client,
        reply=reply or Replies(),
        task=task,
    )


def members(outcome: Outcome) -> dict[str, Any]:
    """The members of a result."""
    assert isinstance(outcome, Result), outcome
    return dict(json.loads(bytes(outcome.value)))


class World:
    """One backend, and all around it."""

    def __init__(self, mcp: McpServer, server: RawServer, tasks: asyncio.TaskGroup) -> None:
        self.mcp = mcp
        self.server = server
        self.tasks = tasks
        self.outlets = Outlets()
        self.told = Told()
        self.background = Background(tasks)

    def backend(
        self, connector: Connector | None = None, probe_s: float = 5.0, chain: str = "", **changes: Any
    ) -> McpBackend:
        """Another gateway's view of the server."""
        if connector is None:
            changes["url"] = self.server.url
        settings = BackendSettings(**changes)
        wire = connector or HttpConnector("b", settings, self.tasks, Outbox(asyncio.get_running_loop().call_soon))
        sealer = Sealer([b"k" * 32])
        return McpBackend(
            "b", settings, wire, self.outlets, self.background, self.told, sealer, chain=chain, probe_s=probe_s
        )

    def methods(self) -> list[str]:
        """What was posted so far, in order."""
        return [heard.message.get("method", "") for heard in self.server.heard if heard.method == "POST"]


@asynccontextmanager
async def backed(
    *speaks: str, probe_s: float = 5.0, chain: str = "", **changes: Any
) -> AsyncIterator[tuple[World, McpBackend]]:
    """A backend in front of a server that speaks those eras; nothing of it is left at the end."""
    mcp = McpServer(*speaks)
    async with serving(mcp.talk) as server, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        world = World(mcp, server, tasks)
        backend = world.backend(probe_s=probe_s, chain=chain, **changes)
        yield world, backend
        await soon(backend.aclose())


def run(tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """In the background of a test."""
    return tasks.create_task(work)
