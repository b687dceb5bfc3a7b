"""What one backend announces: list changes and resource updates, heard once and told to any number of listeners.

A modern backend is heard over `subscriptions/listen`, one stream for list changes and one for all resources together;
a handshake backend over the standing stream of a session of the feed's own, with `resources/subscribe`. Upstream
exists only while somebody listens. After a gap the lists are announced as changed, since a change may have been missed.
Sources: basic/patterns/subscriptions of 2026-07-28; server/resources, server/tools of the handshake revisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec
import structlog

from gatewright.call import Params
from gatewright.errors import GatewayError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS, RESOURCE_UPDATED

if TYPE_CHECKING:
    from gatewright.background import Background

ACK_S: Final = 5.0
"""How long a backend may take to acknowledge before its part of a subscription is given up."""
REOPEN_S: Final = 1.0
"""First pause before a broken stream is opened again; it doubles up to REOPEN_MAX_S."""
REOPEN_MAX_S: Final = 30.0
log = structlog.get_logger("gatewright.backend")

Heard = Callable[[str, Params], None]
"""Told of one announcement: notification method and params. Must not block."""


@final
class Wants(msgspec.Struct, frozen=True):
    """What a listener wants to hear of: change notices by method, and resources by URI."""

    lists: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.lists or self.uris)


@final
class Listener:
    """One who listens."""

    __slots__ = ("heard", "wants")

    def __init__(self, wants: Wants, heard: Heard) -> None:
        self.wants = wants
        self.heard = heard

    def hear(self, method: str, params: Params, uri: str | None) -> None:
        """Take an announcement if it was wanted (S-40: never one that was not asked for)."""
        if method in self.wants.lists or (uri is not None and _covers(self.wants.uris, uri)):
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
        self._name = name
        self._upstream = upstream
        self._background = background
        self._listeners: set[Listener] = set()
        self._lists = Stream(self)
        self._resources = Stream(self)

    async def join(self, wants: Wants, heard: Heard) -> Listener:
        """Listen. The listener's `wants` are what the backend agreed to. Raises BackendError when it cannot be had."""
        listener = Listener(wants, heard)
        self._listeners.add(listener)
        try:
            lists = await self._lists.ready(Wants(lists=frozenset(LISTEN_FIELDS))) if wants.lists else Wants()
            uris = await self._resources.ready(Wants(uris=self._all_uris())) if wants.uris else Wants()
        except BaseException:
            self.leave(listener)
            raise
        listener.wants = Wants(wants.lists & lists.lists, wants.uris & uris.uris)
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more. What nobody listens to is closed."""
        self._listeners.discard(listener)
        if not any(one.wants.lists for one in self._listeners):
            self._lists.close()
        uris = self._all_uris()
        if not uris:
            self._resources.close()

    def announce(self, method: str, params: Params) -> None:
        """Tell the listeners."""
        uri = _uri_of(params) if method == RESOURCE_UPDATED else None
        for listener in list(self._listeners):
            listener.hear(method, params, uri)

    def _all_uris(self) -> frozenset[str]:
        return frozenset(uri for listener in self._listeners for uri in listener.wants.uris)

    def hold(self, stream: Stream, wants: Wants, ready: asyncio.Future[Wants]) -> asyncio.Task[None] | None:
        """Keep an upstream stream open in the background."""
        return self._background(self._held(stream, wants, ready))

    async def _held(self, stream: Stream, wants: Wants, ready: asyncio.Future[Wants]) -> None:
        pause_s = REOPEN_S
        while True:
            agreed: list[Wants] = []

            def acknowledged(answer: Wants, agreed: list[Wants] = agreed) -> None:
                agreed.append(answer)
                if not ready.done():
                    ready.set_result(answer)
                else:
                    self._announce_gap(answer)

            try:
                await self._upstream.listen(wants, acknowledged, self.announce)
                reason = "the backend ended it"
            except GatewayError as error:
                reason = error.message
                if not ready.done():
                    ready.set_exception(error)
                    ready.exception()
                    stream.forget(ready)
                    return
            if not ready.done():
                ready.set_result(Wants())
            if not agreed:
                pause_s = min(pause_s * 2, REOPEN_MAX_S)
            log.info("subscription broke off", backend=self._name, reason=reason)
            await asyncio.sleep(pause_s)

    def _announce_gap(self, agreed: Wants) -> None:
        """The stream is open again: what was missed meanwhile is not known, so everything may have changed."""
        for method in agreed.lists:
            self.announce(method, {})
        for uri in agreed.uris:
            self.announce(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})


@final
class Stream:
    """One upstream stream of a feed: open while it is wanted, opened anew before the old one closes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._wants = Wants()
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Wants] | None = None

    async def ready(self, wants: Wants) -> Wants:
        """What the backend agreed to, the stream being open for `wants`. Raises BackendError."""
        old: asyncio.Task[None] | None = None
        ready = self._ready
        if ready is None or not (wants.lists <= self._wants.lists and wants.uris <= self._wants.uris):
            old, self._wants = self._task, wants
            ready = self._ready = asyncio.get_running_loop().create_future()
            self._task = self._feed.hold(self, wants, ready)
        try:
            async with asyncio.timeout(ACK_S):
                return await asyncio.shield(ready)
        except TimeoutError:
            return Wants()
        finally:
            if old is not None:
                old.cancel()

    def forget(self, ready: asyncio.Future[Wants]) -> None:
        """It could not be opened: the next who asks tries again."""
        if self._ready is ready:
            self._ready = None
            self._task = None
            self._wants = Wants()

    def close(self) -> None:
        """Nobody listens any more."""
        task, self._task = self._task, None
        self._ready = None
        self._wants = Wants()
        if task is not None:
            task.cancel()


def _covers(uris: frozenset[str], uri: str) -> bool:
    """Whether an update of `uri` was asked for: it, or something it lies under (server/resources: a sub-resource)."""
    return uri in uris or any(uri.startswith(one.rstrip("/") + "/") for one in uris)


def _uri_of(params: Params) -> str | None:
    try:
        return msgspec.json.decode(params["uri"], type=str)
    except (KeyError, msgspec.DecodeError):
        return None
