"""The composition root: everything is built here, once, from the configuration; nothing else builds anything.

    socket -> HttpProtocol -> Endpoint -> ModernSide | HandshakeSide -> the stack below -> McpBackend -> Face -> Link

`docs/architecture.md` walks the same path in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import resource
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final, TypeAlias, final

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette

from gatewright.admin.api import admin_app
from gatewright.admin.hosts import Guarded, Hosts
from gatewright.admin.listener import AdminListener
from gatewright.backend.backend import Company, McpBackend
from gatewright.backend.base import Connector
from gatewright.backend.carriers import Carriers
from gatewright.backend.heirs import Heirs
from gatewright.backend.homes import Homes
from gatewright.backend.http import HttpConnector
from gatewright.backend.places import ParkingPlaces
from gatewright.backend.python import PythonConnector
from gatewright.backend.relay import RelayHost
from gatewright.backend.retries import RetryHost
from gatewright.backend.settings import BackendSettings
from gatewright.backend.sinks import Changes
from gatewright.backend.sse import SseConnector
from gatewright.backend.stdio import StdioConnector
from gatewright.backend.undecided import UndecidedConnector
from gatewright.background import Background
from gatewright.call import Call, Handler
from gatewright.config import Config
from gatewright.errors import GatewrightError, StoreUnavailable
from gatewright.inbound.crowd import Crowd, Places, places
from gatewright.inbound.dialogue import Dialogue
from gatewright.inbound.elsewhere import Elsewhere
from gatewright.inbound.endpoint import Endpoint
from gatewright.inbound.handshake import HandshakeSide
from gatewright.inbound.http import protocol_factory
from gatewright.inbound.listener import Listener
from gatewright.inbound.modern import ModernSide
from gatewright.inbound.origins import Origins
from gatewright.inbound.probes import Probes
from gatewright.inbound.reply import Keepalive
from gatewright.inbound.sessions import Sessions
from gatewright.inbound.settings import Listen
from gatewright.inbound.sockets import bound
from gatewright.inbound.sse import SseSide
from gatewright.inbound.stdio import StdioFront, StdioHost
from gatewright.outbox import Outbox
from gatewright.policy.authz import GATEWAY, Authz
from gatewright.policy.deadline import Deadline
from gatewright.policy.dispatch import dispatch
from gatewright.policy.pipeline import compose
from gatewright.policy.questions import Questions
from gatewright.policy.resolve import Resolve
from gatewright.policy.telemetry import Telemetry
from gatewright.protocol import http_sse
from gatewright.protocol.chain import CHILD_VARIABLE, Chain
from gatewright.protocol.methods import METHODS
from gatewright.protocol.sealed import Sealer
from gatewright.routing.cursors import Cursors
from gatewright.routing.fanout import Fanout
from gatewright.routing.front import Front
from gatewright.routing.listening import Listening
from gatewright.routing.listings import Listings
from gatewright.routing.router import Router
from gatewright.routing.tasks import TaskRouter
from gatewright.secret import Secret
from gatewright.stores.base import Share, Store
from gatewright.stores.keys import SharedSecret, derived
from gatewright.stores.post import BEAT_S, Post
from gatewright.telemetry.board import Board
from gatewright.telemetry.families import Family
from gatewright.telemetry.meters import Meters, Readings
from gatewright.telemetry.readiness import Readiness
from gatewright.telemetry.scrape import Scrape

VERSION: Final = version("gatewright")
REPLICA_ID_BYTES: Final = 8
StoreOpener: TypeAlias = Callable[[str, Background], Store]
"""Opens the store for the replica of that id."""
log = structlog.get_logger("gatewright")


@final
class Ready(msgspec.Struct, frozen=True):
    """Where the gateway listens."""

    url: str


@final
class Bounds(msgspec.Struct, frozen=True):
    """The bounds of calls that the gateway answers itself: those of its slowest backend."""

    timeout_s: float
    max_total_s: float


@final
class Built(msgspec.Struct, frozen=True):
    """Everything between the clients' side and the backends."""

    backends: dict[str, McpBackend]
    sessions: Sessions
    handle: Handler
    dialogue: Dialogue
    router: Router
    listening: Listening
    children: dict[str, StdioConnector]
    outbox: Outbox
    adopt: Callable[[bytes], None]
    """Seal with keys of that secret from now on."""

    async def aclose(self, drain_s: float = 0.0) -> None:
        """Leave the backends, and the other replicas with what they are owed here."""
        self.sessions.close()
        elsewhere = self.sessions.elsewhere
        if elsewhere is not None and elsewhere.host is not None:
            await elsewhere.host.finish(drain_s)
        await asyncio.gather(*(backend.aclose() for backend in self.backends.values()))
        if elsewhere is not None:
            await elsewhere.aclose()


@final
class Gateway:
    """One gateway process. One that `is_child` of another asks its backends nothing before it is asked itself; `board`
    is where the workers of one gateway tell one another what they counted."""

    def __init__(self, config: Config, *, is_child: bool = False, board: Board | None = None) -> None:
        self._config = config
        self._chain = Chain(config.gateway_id or secrets.token_hex(6), config.limits.max_hops)
        self._is_child = is_child
        self._server: uvicorn.Server | None = None
        self._front: StdioFront | None = None
        self._board = board
        self._open_store = _store_opener(config)
        self._secret = SharedSecret(config.store.secret)
        self._meters = Meters(METHODS, [GATEWAY, Fanout.name, *config.backends])
        self._running: set[Call] = set()

    def stop(self) -> None:
        """Begin to drain: stop accepting, finish what runs, then `run` returns."""
        if self._server is not None:
            self._server.should_exit = True
        if self._front is not None:
            self._front.stop()

    async def run(
        self,
        *,
        on_ready: Callable[[Ready], None],
        sockets: tuple[socket.socket, socket.socket | None] | None = None,
    ) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; then drain. Raises OSError when an address cannot be bound. `sockets`
        are bound already: the data plane's and, unless that is served elsewhere, the control plane's."""
        sock, admin_sock = _bound(self._config) if sockets is None else sockets
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(sock, admin_sock, tasks, on_ready)
                tasks.create_task(_stop())
        except* Stopped:
            pass

    async def run_stdio(self, fds: tuple[int, int], host: StdioHost, *, on_ready: Callable[[], None]) -> None:
        """Serve one host on two descriptors (from it, to it) until it leaves or `stop`; both are closed then. Nothing
        is bound. Raises OSError when a descriptor cannot be used."""
        config = self._config
        try:
            async with asyncio.TaskGroup() as tasks:
                background = Background(tasks)
                built = self._build(tasks, background)
                self._front = StdioFront(
                    built.handle, built.dialogue, built.sessions, config.limits, host, drain_s=config.drain_s
                )
                for name, backend in built.backends.items():
                    if host.route in ("", name) and not self._is_child:
                        background(backend.warm_up())
                try:
                    await self._front.serve(*fds, on_ready)
                finally:
                    await built.aclose()
                tasks.create_task(_stop())
        except* Stopped:
            pass

    async def _serve(
        self,
        sock: socket.socket,
        admin_sock: socket.socket | None,
        tasks: asyncio.TaskGroup,
        on_ready: Callable[[Ready], None],
    ) -> None:
        config = self._config
        background = Background(tasks)
        elsewhere = None if self._open_store is None else self._elsewhere(self._open_store, background)
        built = self._build(tasks, background, elsewhere)
        if elsewhere is not None:
            await self._join(elsewhere, built, background)
        backends, keepalive = built.backends, Keepalive(config.limits.stream_keepalive_s)
        readiness = Readiness(
            lambda: server.started, lambda: server.is_draining, lambda: crowd.fullness(len(connections))
        )
        endpoint = self._endpoint(built, keepalive, Probes(readiness.verdict))
        port = sock.getsockname()[1]
        endpoint.origins = Origins(config.listen.allowed_origins, port)
        crowd = Crowd(_room(config), retry_after_s=config.limits.retry_after_s, idle_s=config.drain_idle_s)
        server = self._server = Listener(
            protocol_factory(endpoint.serve, config.limits, tasks, built.outbox, crowd),
            crowd,
            delay_s=config.drain_delay_s,
            drain_s=config.drain_s,
            on_started=lambda: on_ready(Ready(_url(config.listen.host, port))),
        )
        if elsewhere is not None and elsewhere.host is not None:
            elsewhere.host.is_leaving = lambda: server.is_draining
        connections = server.server_state.connections
        scrape = Scrape(
            lambda: self._families(built, keepalive, crowd.refused, len(connections), readiness), self._board
        )
        background(scrape.keep_posting())
        admin_face = admin_app(
            backends, config.backends, lambda: len(built.sessions), readiness.verdict, scrape.text, VERSION
        )
        admin = AdminListener(_guarded(admin_face, config.admin, admin_sock))
        admin_task = None if admin_sock is None else background(admin.serve(sockets=[admin_sock]))
        for backend in () if self._is_child else backends.values():
            background(backend.warm_up())
        try:
            await server.serve(sockets=[sock])
        finally:
            admin.should_exit = True
            await built.aclose(config.drain_s)
            if admin_task is not None:
                await admin_task
            await scrape.leave()

    def _families(
        self, built: Built, keepalive: Keepalive, refused: int, connections: int, readiness: Readiness
    ) -> list[Family]:
        """What this process measures, now."""
        elsewhere = built.sessions.elsewhere
        return self._meters.families(
            Readings(
                sessions=len(built.sessions),
                streams={**keepalive.standing, "listen": built.listening.open},
                connections=connections,
                refused=refused,
                running=len(self._running),
                parked={name: backend.parked for name, backend in built.backends.items()},
                child_deaths={name: child.deaths for name, child in built.children.items()},
                store_round_trips=0 if elsewhere is None else elsewhere.store.round_trips,
                store_lost=0 if elsewhere is None else elsewhere.store.lost,
                is_ready=readiness.verdict().is_ready,
            )
        )

    def _elsewhere(self, open_store: StoreOpener, background: Background) -> Elsewhere:
        """The other replicas, by the store that they share."""
        store = open_store(secrets.token_hex(REPLICA_ID_BYTES), background)
        beat_s = min(BEAT_S, self._config.store.dead_after_s / 4)
        return Elsewhere(store, Post(store, background, beat_s=beat_s), background)

    async def _join(self, elsewhere: Elsewhere, built: Built, background: Background) -> None:
        """Become one of the replicas. Without the store the gateway starts all the same: modern clients need none."""
        _serve_others(elsewhere, built.backends, background, self._config.store.dead_after_s)

        async def settle() -> None:
            with contextlib.suppress(StoreUnavailable):
                await self._secret.settle(elsewhere.store, built.adopt)

        elsewhere.on_fresh = settle
        try:
            await elsewhere.store.beat()
            await self._secret.settle(elsewhere.store, built.adopt)
        except StoreUnavailable:
            log.warning("the store cannot be reached: handshake sessions wait for it", store=self._config.store.shown)
        if elsewhere.host is not None:
            elsewhere.host.is_leaving = lambda: self._server is not None and self._server.should_exit
        background(elsewhere.post.run())

    def _build(self, tasks: asyncio.TaskGroup, background: Background, elsewhere: Elsewhere | None = None) -> Built:
        """Everything between the clients' side and the backends."""
        config = self._config
        log.info("starting", gateway_id=self._chain.gateway_id)  # what errors name it by
        listings = Listings(config.routing, background)
        sealer = Sealer([derived(self._secret.value, "states")])
        outbox = Outbox(asyncio.get_running_loop().call_soon)
        backends: dict[str, McpBackend] = {}
        children: dict[str, StdioConnector] = {}

        def release(session: str) -> None:
            for backend in backends.values():
                background(backend.release(session))

        def leave(session: str) -> bool:
            return all(backend.leave(session) for backend in backends.values())

        sessions = Sessions(config.sessions, release, elsewhere, leave)

        def arrived(session: str, notice: str) -> None:
            reply = sessions.get(session)
            if reply is not None:
                background(reply.emit(notice, b"{}"))

        listings.listen(arrived)
        changes: Changes = listings if elsewhere is None else elsewhere.spread(listings)
        for name, settings in config.backends.items():
            settled = _settled(settings)
            connector = _connector(name, settled, tasks, outbox)
            if isinstance(connector, StdioConnector):
                children[name] = connector
            backends[name] = McpBackend(
                name,
                settled,
                connector,
                sessions,
                background,
                changes,
                sealer,
                chain=self._chain.own,
                company=None if elsewhere is None else _company(name, settled, connector, elsewhere),
            )
        bounds = _slowest(config)
        cursors = Cursors(derived(self._secret.value, "cursors"))

        def adopt(secret: bytes) -> None:
            sealer.adopt(derived(secret, "states"))
            cursors.adopt(derived(secret, "cursors"))

        fanout = Fanout(backends, listings, cursors, config.routing, bounds)
        listening = Listening(backends, fanout, listings, sealer)
        front = Front(backends, config.routing, bounds, listening, VERSION)
        task_router = TaskRouter(backends, sealer, cursors, config.routing, bounds)
        router = Router(backends, fanout, front, task_router, config.routing.separator)
        handle = self._stack(router, backends)
        dialogue = Dialogue(handle, front, self._chain, config.limits.max_calls_per_session)
        return Built(backends, sessions, handle, dialogue, router, listening, children, outbox, adopt)

    def _stack(self, router: Router, backends: dict[str, McpBackend]) -> Handler:
        """The policies around every call, in execution order."""
        return compose(
            [
                Telemetry(self._meters.calls, asyncio.get_running_loop().time),  # outermost: refusals count as well
                Resolve(router),  # first of what judges: what follows judges a target, never a name
                Authz(),  # gives the permit that dispatch asks for
                Questions(
                    {name: backend.speaks for name, backend in backends.items()}
                ),  # outside the deadline: people take longer to answer than backends
                Deadline(self._running),  # last before the backend: the time it bounds is the backend's
            ],
            dispatch,
        )

    def _endpoint(self, built: Built, keepalive: Keepalive, probes: Probes) -> Endpoint:
        """What serves the paths of the listener."""
        limits, sessions, dialogue = self._config.limits, built.sessions, built.dialogue
        return Endpoint(
            ModernSide(built.handle, keepalive, self._chain),
            HandshakeSide(dialogue, sessions, keepalive, limits.max_queued_messages),
            SseSide(dialogue, sessions, keepalive, built.router.has_route, limits),
            built.router.has_route,
            limits.max_json_depth,
            probes,
        )


def _guarded(app: Starlette, listen: Listen | None, sock: socket.socket | None) -> Guarded:
    """The control plane's application behind its door."""
    names = listen or Listen()
    port = names.port if sock is None else sock.getsockname()[1]
    is_allowed = Origins(names.allowed_origins, port).is_allowed
    return Guarded(app, Hosts(names.host, names.allowed_origins), is_allowed)


def _store_opener(config: Config) -> StoreOpener | None:
    """What opens the store that replicas share; None where there is none. Raises GatewrightError without the client
    library, which only those need who share one."""
    settings, bounds = config.store, config.sessions
    if not settings.is_shared:
        return None
    if importlib.util.find_spec("redis") is None:
        raise GatewrightError('the store needs the Redis client: pip install "gatewright[redis]"')
    opener = importlib.import_module("gatewright.stores.redis").RedisStore  # half a second that memory does not need

    def open_store(replica: str, background: Background) -> Store:
        store: Store = opener(
            settings,
            replica,
            background,
            idle_s=bounds.idle_s,
            max_events=bounds.max_events,
            max_event_bytes=bounds.max_event_bytes,
        )
        return store

    return open_store


def _connector(name: str, settings: BackendSettings, tasks: asyncio.TaskGroup, outbox: Outbox) -> Connector:
    """The transport to a backend."""
    kinds: dict[str, Callable[[str, BackendSettings, asyncio.TaskGroup], Connector]] = {
        "http": partial(HttpConnector, outbox=outbox),
        "sse": partial(SseConnector, outbox=outbox),
        "stdio": StdioConnector,
        "python": PythonConnector,
    }
    if settings.url is not None and settings.type is None:
        return UndecidedConnector(name, settings, tasks, outbox)
    return kinds[settings.transport](name, settings, tasks)


def _settled(settings: BackendSettings) -> BackendSettings:
    """With what follows from the transport: the era, where it carries but one, and that a child is one."""
    if settings.transport == "stdio":
        return replace(settings, env={CHILD_VARIABLE: Secret("1"), **settings.env})
    return replace(settings, era=http_sse.ERA) if settings.transport == "sse" else settings


def _company(name: str, settings: BackendSettings, connector: Connector, elsewhere: Elsewhere) -> Company:
    """What a backend shares with those of other replicas."""
    post, most = elsewhere.post, Share(settings.max_parked_per_caller, settings.max_parked)
    places = ParkingPlaces(name, elsewhere.store, most, lambda: len(post.alive))
    return Company(Homes(name, connector, elsewhere, post), places, Carriers(name, elsewhere, post))


def _serve_others(
    elsewhere: Elsewhere, backends: dict[str, McpBackend], background: Background, dead_after_s: float
) -> None:
    """Carry out here what other replicas ask for, and what dead ones did."""
    faces = {name: backend.face for name, backend in backends.items()}
    elsewhere.host = RelayHost(faces, elsewhere.member, elsewhere.post, background)
    RetryHost(backends, elsewhere.post)
    elsewhere.heirs = Heirs(backends, elsewhere, elsewhere.post, background, dead_after_s)


def _room(config: Config) -> Places:
    """How many clients there are descriptors for. What was asked for in vain is said, not found out in the accept."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    backends = sum(backend.max_descriptors for backend in config.backends.values())
    wanted = config.limits.max_connections
    room = places(descriptors, backends, wanted)
    if wanted is not None and room.connections < wanted:
        log.warning("fewer connections than limits.max_connections", room=room.connections, descriptors=descriptors)
    return room


def _slowest(config: Config) -> Bounds:
    every = list(config.backends.values()) or [BackendSettings(url="http://127.0.0.1/")]
    return Bounds(max(one.timeout_s for one in every), max(one.max_total_s for one in every))


def _bound(config: Config) -> tuple[socket.socket, socket.socket | None]:
    """Both addresses, before anything is started. Raises OSError."""
    sock = bound(config.listen)
    try:
        return sock, None if config.admin is None else bound(config.admin)
    except OSError:
        sock.close()
        raise


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Stopped(Exception):
    """Ends the task group: the gateway has drained."""


async def _stop() -> None:
    """Cancels, by raising, what still runs in the group: standing streams, readers of children."""
    raise Stopped
