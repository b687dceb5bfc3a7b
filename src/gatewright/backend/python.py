"""Backends that are Python objects in this process: called without a socket, a pipe or an HTTP hop.

`python: "module:attribute"` names one of these, or a callable without arguments that makes one:

    an `MCPServer` or low-level `Server` of the official SDK 2.x      served over its stream interface, as on stdio
    a `fastmcp.FastMCP` of version 4                                  the same; it stands on the SDK
    any object with `serve_messages`                                  see `MessageServer`: no dependency at all

The module is imported in a thread at the first connect, with the current directory on the path as `python -m` has it.
A link is one run of the server, with its lifespan; a server that raises fails its exchanges, and the next connect
starts another run. The SDK is imported only when an object of it is served: it is no dependency of this package.
What this cannot give is isolation: a server that blocks the event loop or exhausts memory does so to the gateway.
Give such servers a process of their own (`command`).
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, final, runtime_checkable

import structlog
from typing_extensions import override

from gatewright.backend.base import Connector, Link, Sink
from gatewright.backend.pipe import Bounds, PipeLink, Wire
from gatewright.backend.settings import BackendSettings
from gatewright.errors import BackendUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from mcp.server.lowlevel.server import Server
    from mcp.shared.message import SessionMessage

_MAX_WAITING: Final = 256
"""Messages to a server that has not read them yet; further senders wait. The bound of the other direction."""
_INNER_NAMES: Final = ("_lowlevel_server", "_mcp_server")
"""Where MCPServer (SDK 2.x) and FastMCP (4.x) keep the low-level server they stand on."""


@runtime_checkable
class MessageServer(Protocol):
    """The least that a server object can be."""

    async def serve_messages(self, incoming: AsyncIterator[bytes], send: Callable[[bytes], None]) -> None:
        """Serve one client until `incoming` ends. Each item, and each message sent, is one JSON-RPC message in JSON."""


Serve: TypeAlias = Callable[["Inlet"], Awaitable[None]]
"""One run of a server on one wire."""


@final
class Inlet(Wire):
    """The wire: what we write is iterated by the server, what the server sends is fed to the link at once."""

    link: PipeLink

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self.is_ending = False
        self.task: asyncio.Task[None] | None = None

    # --- the gateway's side

    @override
    def write(self, message: bytes) -> bool:
        if self.is_ending:
            return False
        self._waiting.append(message)
        self._wake_reader()
        return True

    @override
    async def drain(self) -> None:
        while len(self._waiting) >= _MAX_WAITING and not self.is_ending:
            writer = self._loop.create_future()
            self._writers.append(writer)
            await writer

    @override
    def hold(self, is_held: bool, /) -> None:
        if is_held:
            self._may_send.clear()
        else:
            self._may_send.set()

    @override
    async def close(self) -> None:
        self.end_input()
        if self.task is None:
            return
        _, pending = await asyncio.wait((self.task,), timeout=self._grace_s)
        if pending:
            self.task.cancel()
            await asyncio.wait((self.task,), timeout=self._grace_s)

    def end_input(self) -> None:
        """Let the server see the end of its input, which is how it is asked to finish."""
        self.is_ending = True
        self._may_send.set()
        self._wake_reader()
        while self._writers:
            self._wake_writer()

    # --- the server's side

    def __aiter__(self) -> Inlet:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self.is_ending:
                raise StopAsyncIteration
            self._reader = self._loop.create_future()
            await self._reader
        if len(self._waiting) == _MAX_WAITING:
            self._wake_writer()
        return self._waiting.popleft()

    def send(self, message: bytes) -> None:
        """A message from a server that cannot wait."""
        self.link.feed(message)

    async def send_about(self, message: bytes, about: int | None) -> None:
        """A message from a server that waits for slow readers, and knows which exchange it belongs to."""
        if not self._may_send.is_set():
            await self._may_send.wait()
        self.link.feed(message, about)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        while self._writers:
            writer = self._writers.popleft()
            if not writer.done():
                writer.set_result(None)
                return


@final
class PythonConnector(Connector):
    """Runs one server object, once per link. Used from one event loop; `tasks` outlives every link."""

    def __init__(
        self, name: str, settings: BackendSettings, tasks: asyncio.TaskGroup, *, bounds: Bounds | None = None
    ) -> None:
        if settings.python is None:
            raise ValueError(f"backend {name} has no python object")
        self._name = name
        self._settings = settings
        self._target = settings.python
        self._tasks = tasks
        self._bounds = bounds
        self._log = structlog.get_logger(__name__).bind(backend=name)
        self._loading = asyncio.Lock()
        self._serve: Serve | None = None
        self._inlets: set[Inlet] = set()
        self._is_closed = False

    @property
    @override
    def is_shared_wire(self) -> bool:
        return True

    @override
    async def connect(self, sink: Sink) -> Link:
        serve = await self._load()
        if self._is_closed:
            raise BackendUnavailable(f"{self._name}: the gateway is stopping")
        if len(self._inlets) >= self._settings.max_connections:
            raise BackendUnavailable(
                f"{self._name}: {self._settings.max_connections} links are open already (max_connections)"
            )
        inlet = Inlet(self._settings.stop_grace_s)
        inlet.link = PipeLink(self._name, inlet, sink, tasks=self._tasks, bounds=self._bounds)
        self._inlets.add(inlet)
        # A context of its own: the server must not see the variables of the call that happened to open its link.
        inlet.task = self._tasks.create_task(
            self._run(serve, inlet), name=f"server {self._name}", context=contextvars.Context()
        )
        return inlet.link

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        inlets = list(self._inlets)
        for inlet in inlets:
            inlet.end_input()
        for inlet in inlets:
            await inlet.link.aclose()

    async def _load(self) -> Serve:
        async with self._loading:
            if self._serve is None:
                if "" not in sys.path and os.getcwd() not in sys.path:
                    sys.path.insert(0, os.getcwd())
                try:
                    self._serve = await _server_of(await asyncio.to_thread(_find, self._target))
                except (Exception, SystemExit) as error:
                    raise BackendUnavailable(
                        f"{self._name}: {self._target} could not be loaded: {_describe(error)}"
                    ) from error
            return self._serve

    async def _run(self, serve: Serve, inlet: Inlet) -> None:
        """One run of the server; it never raises, so that it cannot take the gateway with it."""
        reason = "the server was stopped"
        try:
            await serve(inlet)
            if not inlet.is_ending:
                reason = "the server returned although its input was open"
        except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code: anything may come out of it
            reason = f"the server failed: {_describe(error)}"
            self._log.exception("server_failed")
        finally:
            if not inlet.is_ending:
                self._serve = None
                inlet.end_input()
            self._inlets.discard(inlet)
            inlet.link.fail(reason)


def _find(target: str) -> object:
    """The object that `module:attribute` names. Raises whatever importing raises."""
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


async def _server_of(found: object) -> Serve:
    """How to run what was found. Raises TypeError when it is no server and makes none."""
    serve = _as_server(found)
    if serve is None and callable(found):
        made = found()
        if inspect.isawaitable(made):
            made = await made
        found, serve = made, _as_server(made)
    if serve is None:
        raise TypeError(
            f"{type(found).__name__} is not an MCP server: expected an object of the official SDK 2.x or FastMCP 4, "
            "one with serve_messages, or a callable without arguments that returns one"
        )
    return serve


def _as_server(found: object) -> Serve | None:
    if isinstance(found, type):
        return None
    if isinstance(found, MessageServer):
        return lambda inlet: found.serve_messages(inlet, inlet.send)
    # The SDK is asked for only if the object's own package has loaded it already.
    lowlevel = sys.modules.get("mcp.server.lowlevel.server")
    if lowlevel is None:
        return None
    for one in (found, *(getattr(found, name, None) for name in _INNER_NAMES)):
        if isinstance(one, lowlevel.Server):
            return _SdkServer(cast("Server[Any]", one))
    return None


@final
class _SdkServer:
    """A low-level server of the official SDK, run on streams as its own stdio entry does (`mcp.server.stdio`)."""

    def __init__(self, server: Server[Any]) -> None:
        from mcp.shared.message import SessionMessage
        from mcp_types import jsonrpc_message_adapter

        self._server = server
        self._message = SessionMessage
        self._parse = jsonrpc_message_adapter.validate_json

    async def __call__(self, inlet: Inlet) -> None:
        server = self._server
        await server.run(_Incoming(inlet, self._read), _Outgoing(inlet), server.create_initialization_options())

    def _read(self, message: bytes) -> SessionMessage | Exception:
        try:
            return self._message(self._parse(message, by_name=False))
        except ValueError as error:
            return error


class _Stream:
    """What the SDK's read and write streams have in common: they close, which is the inlet's affair here."""

    async def aclose(self) -> None:
        """The run ends with it; the inlet follows."""

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return None


@final
class _Incoming(_Stream):
    """`mcp.shared._stream_protocols.ReadStream`: our messages as the SDK's."""

    def __init__(self, inlet: Inlet, read: Callable[[bytes], SessionMessage | Exception]) -> None:
        self._inlet = inlet
        self._read = read

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._read(await self._inlet.__anext__())

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            import anyio

            raise anyio.EndOfStream from None


@final
class _Outgoing(_Stream):
    """`mcp.shared._stream_protocols.WriteStream`: the SDK's messages as bytes, and what they are about."""

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet

    async def send(self, item: SessionMessage, /) -> None:
        """One message of the server. Waits while the gateway's readers are slow."""
        about = getattr(item.metadata, "related_request_id", None)
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        if isinstance(about, str):  # MCPServer's context hands the id on as text
            about = int(about) if about.isascii() and about.isdecimal() else None
        await self._inlet.send_about(text.encode(), about)


def _describe(error: BaseException) -> str:
    """An exception in one line; the cause of a group is its first member's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
