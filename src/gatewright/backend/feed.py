"""What one backend announces: list changes and resource updates, heard once and told to any number of listeners.

A modern backend is heard over `subscriptions/listen`, one stream for list changes and one for all resources together;
a handshake backend over the standing stream of a session of the feed's own, with `resources/subscribe`. Upstream
exists only while somebody listens. After a gap the lists are announced as changed, since a change may have been missed.
Sources: basic/patterns/subscriptions of 2026-07-28; server/resources, server/tools of the handshake revisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
import structlog
from msgspec import Raw

from gatewright.call import Params
from gatewright.errors import BackendError, BackendGarbage, BackendUnavailable, GatewrightError, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS, RESOURCE_UPDATED
from gatewright.protocol.tasks import NOTICE

if TYPE_CHECKING:
    from gatewright.background import Background

ACK_S: Final = 5.0
"""How long a backend may take to acknowledge before its part of a subscription is given up."""
REOPEN_S: Final = 1.0
"""First pause before a broken stream is opened again; it doubles up to REOPEN_MAX_S."""
REOPEN_MAX_S: Final = 30.0
SETTLE_S: Final = 1.0
"""How long resources that nobody wants any more stay subscribed: clients come and go in swarms."""
log = structlog.get_logger("gatewright.backend")

Heard = Callable[[str, Params], None]
"""Told of one announcement: notification method and params. Must not block."""


@final
class Wants(msgspec.Struct, frozen=True):
    """What a listener wants to hear of: change notices by method, resources by URI, tasks by the backend's own id."""

    lists: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.lists or self.uris or self.tasks)

    def covers(self, others: Wants) -> bool:
        """Whether it is all that the others want, or more."""
        return self.lists >= others.lists and self.uris >= others.uris and self.tasks >= others.tasks


@final
class Listener:
    """One who listens."""

    __slots__ = ("heard", "wants")

    def __init__(self, wants: Wants, heard: Heard) -> None:
        self.wants = wants
        self.heard = heard

    def hear(self, method: str, params: Params, uri: str | None, task: str | None = None) -> None:
        """Take an announcement if it was wanted (S-40: never one that was not asked for)."""
        wants = self.wants
        if method in wants.lists or (uri is not None and _covers(wants.uris, uri)) or task in wants.tasks:
            self.heard(method, params)


class Upstream(Protocol):
    """How a backend is listened to, in its era."""

    async def listen(self, wants: Wants, acknowledged: Callable[[Wants], None], announced: Heard) -> None:
        """Listen until the backend ends it or the task is cancelled. `acknowledged` is called once, with what the
        backend agreed to, before anything is announced. Raises BackendError."""


@final
class Feed:
    """The announcements of one backend."""

    def __init__(self, name: str, upstream: Upstream, background: Background) -> None:
        self.backend: Final = name
        self._upstream = upstream
        self._background = background
        self._listeners: set[Listener] = set()
        self._lists = Stream(self)
        self._resources = Stream(self)
        self._tasks = Stream(self)
        self._is_settling = False
        self._said: dict[str, float] = {}
        """When list changes were last announced: loop time by method."""

    async def join(self, wants: Wants, heard: Heard) -> Listener:
        """Listen. The listener's `wants` are what the backend agreed to. Raises BackendError when it cannot be had."""
        listener = Listener(wants, heard)
        self._listeners.add(listener)
        try:
            lists = await self._lists.ready(Wants(lists=frozenset(LISTEN_FIELDS))) if wants.lists else Wants()
            uris = await self._resources.ready(Wants(uris=self._all_uris())) if wants.uris else Wants()
            tasks = await self._tasks.ready(Wants(tasks=self._all_tasks())) if wants.tasks else Wants()
        except BaseException:
            self.leave(listener)
            raise
        listener.wants = Wants(wants.lists & lists.lists, wants.uris & uris.uris, wants.tasks & tasks.tasks)
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more. What nobody listens to is closed."""
        self._listeners.discard(listener)
        if not any(one.wants.lists for one in self._listeners):
            self._lists.close()
        if not self._all_tasks():
            self._tasks.close()
        uris = self._all_uris()
        if not uris:
            self._resources.close()
        elif uris < self._resources.wants.uris and not self._is_settling:
            self._is_settling = self._background(self._settle()) is not None

    def close(self) -> None:
        """The backend is being closed."""
        self._listeners.clear()
        self._lists.close()
        self._resources.close()
        self._tasks.close()

    def announce(self, method: str, params: Params) -> None:
        """Tell the listeners."""
        if method in LISTEN_FIELDS:
            self._said[method] = asyncio.get_running_loop().time()
        uri = _text(params, "uri") if method == RESOURCE_UPDATED else None
        task = _text(params, "taskId") if method == NOTICE else None
        for listener in list(self._listeners):
            listener.hear(method, params, uri, task)

    def missed(self, agreed: Wants, since: float) -> Wants:
        """Of what was agreed to, what may have changed since then (loop time), for all that is known here: of lists
        only those that were announced, if this feed has heard everything from then on."""
        heard_from = self._lists.open_from
        if heard_from is None or heard_from > since:
            return agreed
        said = frozenset(method for method in agreed.lists if self._said.get(method, since) > since)
        return Wants(said, agreed.uris, agreed.tasks)

    def hold(self, stream: Stream, held: Held) -> asyncio.Task[None] | None:
        """Keep an upstream stream open in the background."""
        return self._background(self._held(stream, held))

    def _all_uris(self) -> frozenset[str]:
        return frozenset(uri for listener in self._listeners for uri in listener.wants.uris)

    def _all_tasks(self) -> frozenset[str]:
        return frozenset(task for listener in self._listeners for task in listener.wants.tasks)

    async def _settle(self) -> None:
        """Give up the resources that nobody wants any more, once for all who leave at about the same time."""
        try:
            await asyncio.sleep(SETTLE_S)
        finally:
            self._is_settling = False
        uris = self._all_uris()
        if uris and uris < self._resources.wants.uris:
            with contextlib.suppress(BackendError):
                await self._resources.change(Wants(uris=uris))

    async def _held(self, stream: Stream, held: Held) -> None:
        pause_s = REOPEN_S
        ready = held.ready
        while True:
            agreed: list[Wants] = []

            def acknowledged(answer: Wants, agreed: list[Wants] = agreed) -> None:
                agreed.append(answer)
                if ready.done():
                    self._announce_gap(answer)
                else:
                    stream.succeed(held, answer)

            try:
                await self._upstream.listen(held.wants, acknowledged, self.announce)
                error: BackendError = BackendUnavailable(f"{self.backend} ended the subscription")
            except BackendError as raised:
                error = raised
            except GatewrightError as raised:
                error = BackendGarbage(f"{self.backend}: {raised}")
            if not ready.done():
                stream.fail(held, error)
                return
            log.info("subscription broke off", backend=self.backend, reason=error.message)
            pause_s = REOPEN_S if agreed else min(pause_s * 2, REOPEN_MAX_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    def _announce_gap(self, agreed: Wants) -> None:
        """The stream is open again: what was missed meanwhile is not known, so everything may have changed."""
        for method in agreed.lists:
            self.announce(method, {})
        for uri in agreed.uris:
            self.announce(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})


@final
class Held:
    """One upstream stream, and the one it takes over from: that stays open until this one is agreed to."""

    __slots__ = ("predecessor", "ready", "task", "wants")

    def __init__(self, wants: Wants, predecessor: Held | None) -> None:
        self.wants = wants
        self.predecessor = predecessor
        self.ready: asyncio.Future[Wants] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None


@final
class Stream:
    """One upstream stream of a feed: open while it is wanted, opened anew before the old one closes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._newest: Held | None = None
        self.open_from: float | None = None
        """From when on all that is announced is heard, or told as a gap: loop time, None while it is closed."""

    @property
    def wants(self) -> Wants:
        """What it is open for, or being opened."""
        return Wants() if self._newest is None else self._newest.wants

    async def ready(self, wants: Wants) -> Wants:
        """What the backend agreed to, the stream being open for `wants` or more. Raises BackendError."""
        held = self._newest
        if held is None or not held.wants.covers(wants):
            return await self.change(wants)
        return await _agreed(held)

    async def change(self, wants: Wants) -> Wants:
        """What the backend agreed to, the stream being open for exactly `wants`. Raises BackendError."""
        held = Held(wants, self._newest)
        held.task = self._feed.hold(self, held)
        if held.task is None:
            raise BackendUnavailable("the gateway is stopping")
        self._newest = held
        return await _agreed(held)

    def succeed(self, held: Held, agreed: Wants) -> None:
        """The backend agreed: what this one takes over from is closed."""
        held.ready.set_result(agreed)
        if self.open_from is None:
            self.open_from = asyncio.get_running_loop().time()
        old, held.predecessor = held.predecessor, None
        while old is not None:
            if not old.ready.done():
                old.ready.set_result(agreed)
            _cancel(old)
            old = old.predecessor

    def fail(self, held: Held, error: BackendError) -> None:
        """It could not be opened: what it was to take over from stays, and the next who asks tries again."""
        held.ready.set_exception(error)
        held.ready.exception()  # seen, whether somebody waits or not
        if self._newest is held:
            self._newest = held.predecessor
            return
        newer = self._newest
        while newer is not None and newer.predecessor is not held:
            newer = newer.predecessor
        if newer is not None:
            newer.predecessor = held.predecessor

    def close(self) -> None:
        """Nobody listens any more."""
        held, self._newest = self._newest, None
        self.open_from = None
        while held is not None:
            if not held.ready.done():
                held.ready.set_result(Wants())
            _cancel(held)
            held = held.predecessor


async def _agreed(held: Held) -> Wants:
    """What the backend agreed to, nothing when it says nothing within ACK_S. Raises BackendError."""
    try:
        async with asyncio.timeout(ACK_S):
            return await asyncio.shield(held.ready)
    except TimeoutError:
        return Wants()


def _cancel(held: Held) -> None:
    # Let go as well: a task that was cancelled keeps its frames, which refer back, and with them a thousand URIs, until
    # the garbage collector comes, which is seldom.
    task, held.task = held.task, None
    if task is not None:
        task.cancel()


def _covers(uris: frozenset[str], uri: str) -> bool:
    """Whether an update of `uri` was asked for: it, or something it lies under (server/resources: a sub-resource)."""
    return uri in uris or any(uri.startswith(one.rstrip("/") + "/") for one in uris)


def _text(params: Params, member: str) -> str | None:
    try:
        return msgspec.json.decode(params[member], type=str)
    except (KeyError, msgspec.DecodeError):
        return None


def announceable(capabilities: dict[str, Raw]) -> frozenset[str]:
    """The list changes that a server with these capabilities announces."""
    methods = {
        "notifications/tools/list_changed": "tools",
        "notifications/prompts/list_changed": "prompts",
        "notifications/resources/list_changed": "resources",
    }
    return frozenset(method for method, name in methods.items() if _has(capabilities, name, "listChanged"))


def has_subscriptions(capabilities: dict[str, Raw]) -> bool:
    """Whether a server with these capabilities takes `resources/subscribe`."""
    return _has(capabilities, "resources", "subscribe")


def _has(capabilities: dict[str, Raw], name: str, flag: str) -> bool:
    try:
        return bytes(jsonrpc.members(capabilities[name])[flag]) == b"true"
    except (KeyError, ProtocolError):
        return False
