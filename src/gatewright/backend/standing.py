"""Standing subscriptions of handshake sessions on a modern backend.

In the handshake era a session subscribes with `resources/subscribe` and hears of list changes without asking; a modern
backend knows only `subscriptions/listen`. So each session is a listener of the backend's feed, one for the lists and
one for each resource, and hears on its own standing stream. Where several replicas have the session, one of them
carries each of these (`backend.carriers`). Source: server/resources and server/tools of 2025-11-25,
basic/patterns/subscriptions of 2026-07-28.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final
from weakref import WeakValueDictionary

import structlog

from gatewright.backend.carriers import Carriers
from gatewright.backend.feed import REOPEN_MAX_S, REOPEN_S, Feed, Listener, Wants
from gatewright.call import Failure, Params, Result
from gatewright.errors import BackendError, StoreUnavailable
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS, RESOURCE_UPDATED
from gatewright.protocol.subscriptions import MAX_URI_CHARS

if TYPE_CHECKING:
    from gatewright.backend.sinks import Outlets
    from gatewright.background import Background

LISTS: Final = ""
"""The key of a session's listener for list changes; no URI is empty."""
MAX_URIS: Final = 1_000
"""Resources that one session may subscribe to at one backend, through one replica."""
log = structlog.get_logger("gatewright.backend")


@final
class Standing:
    """The handshake sessions that listen to one modern backend."""

    def __init__(self, outlets: Outlets, background: Background, carriers: Carriers | None = None) -> None:
        self._outlets = outlets
        self._background = background
        self._carriers = carriers
        """Where sessions are that other replicas have too; None where there are none."""
        self._held: dict[str, dict[str, tuple[Feed, Listener]]] = {}
        """What is carried here, by session and key."""
        self._watched: set[str] = set()
        """Sessions whose list changes another replica carries, as far as it is known."""
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def watch(self, session: str, feed: Feed) -> None:
        """Let a session hear of list changes. A backend that announces none is no failure."""
        if session in self._watched or LISTS in self._held.get(session, {}):
            return
        try:
            async with self._lock(session, LISTS):
                if LISTS not in self._held.get(session, {}) and await self._join(feed, session, LISTS) is None:
                    self._watched.add(session)
        except (BackendError, StoreUnavailable):
            return

    async def subscribe(self, session: str, uri: str, feed: Feed) -> Result | Failure:
        """Let a session hear of a resource's updates. Raises BackendError when the backend cannot be listened to,
        StoreUnavailable."""
        async with self._lock(session, uri):
            held = self._held.get(session, {})
            if uri in held:
                return Result(b"{}")
            if len(uri) > MAX_URI_CHARS:
                return Failure(-32602, f"at most {MAX_URI_CHARS} characters in a URI that is subscribed to")
            if len(held) > MAX_URIS:
                return Failure(-32602, f"at most {MAX_URIS} resources can be subscribed to in one session")
            listener = await self._join(feed, session, uri)
            if listener is not None and uri not in listener.wants.uris:
                self._leave(session, uri)
                self._unclaim(session, uri)
                return Failure(-32602, "the backend does not offer subscriptions to this resource")
            return Result(b"{}")

    async def unsubscribe(self, session: str, uri: str) -> Result:
        """Let it hear no more, whichever replica carries that. Not having subscribed is no failure. Raises
        StoreUnavailable."""
        async with self._lock(session, uri):
            if self._carriers is not None and self._carriers.is_shared(session):
                await self._carriers.end(session, uri)
            self._leave(session, uri)
        return Result(b"{}")

    async def let_go(self, session: str, key: str) -> None:
        """The same for another replica, which sees to the rest."""
        async with self._lock(session, key):
            self._leave(session, key)

    def holds(self, session: str) -> bool:
        """Whether a session listens here."""
        return session in self._held

    def forget(self, session: str) -> None:
        """A session goes on elsewhere."""
        self._watched.discard(session)

    def release(self, session: str) -> None:
        """A session ended."""
        self._watched.discard(session)
        for feed, listener in self._held.pop(session, {}).values():
            feed.leave(listener)

    async def inherit(self, session: str, key: str, feed: Feed, since: float) -> None:
        """Carry here what a replica carried that is dead, and say what may have changed since then (loop time). A
        backend that is not there is asked again until it is. Raises StoreUnavailable when nothing was begun."""
        carriers, pause_s = self._carriers, REOPEN_S
        if carriers is None or not await carriers.take(session, key):
            return
        while self._outlets.get(session) is not None:
            try:
                async with self._lock(session, key):
                    if key in self._held.get(session, {}) or not await carriers.carries(session, key):
                        return
                    listener = await feed.join(_wants(key), self._heard(session))
                    self._hold(session, key, feed, listener)
                    self._catch_up(listener, feed.missed(listener.wants, since))
                    return
            except (BackendError, StoreUnavailable) as error:
                log.info("a subscription is not open yet", backend=feed.backend, reason=error.message)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 2, REOPEN_MAX_S)

    async def recheck(self) -> None:
        """The others took this replica for dead: let go what they carry since. Raises StoreUnavailable."""
        carriers = self._carriers
        for session in list(self._held) if carriers is not None else ():
            assert carriers is not None
            if carriers.is_shared(session):
                mine = await carriers.carried(session)
                for key in [key for key in self._held.get(session, {}) if key not in mine]:
                    log.info("subscription is elsewhere by now", backend=self._held[session][key][0].backend)
                    self._leave(session, key)

    async def _join(self, feed: Feed, session: str, key: str) -> Listener | None:
        """Listen for a session; None when another replica does. Raises BackendError, StoreUnavailable."""
        carriers = self._carriers
        is_shared = carriers is not None and carriers.is_shared(session)
        if carriers is not None and is_shared and not await carriers.take(session, key):
            return None
        try:
            listener = await feed.join(_wants(key), self._heard(session))
        except BaseException:
            if is_shared:
                self._unclaim(session, key)
            raise
        self._hold(session, key, feed, listener)
        return listener

    def _heard(self, session: str) -> Callable[[str, Params], None]:
        def heard(method: str, params: Params) -> None:
            outlet = self._outlets.get(session)
            if outlet is not None:
                self._background(outlet.emit(method, jsonrpc.encode(params)))

        return heard

    def _hold(self, session: str, key: str, feed: Feed, listener: Listener) -> None:
        if self._outlets.get(session) is None:  # it ended meanwhile
            feed.leave(listener)
            self._held.pop(session, None)
        else:
            self._held.setdefault(session, {})[key] = (feed, listener)

    @staticmethod
    def _catch_up(listener: Listener, missed: Wants) -> None:
        """Tell a session what may have changed while nobody listened for it."""
        for method in missed.lists:
            listener.heard(method, {})
        for uri in missed.uris:
            listener.heard(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})

    def _leave(self, session: str, key: str) -> None:
        keys = self._held.get(session, {})
        held = keys.pop(key, None)
        if held is not None:
            feed, listener = held
            feed.leave(listener)
            if not keys:
                del self._held[session]

    def _unclaim(self, session: str, key: str) -> None:
        """It was not to be had after all."""
        if self._carriers is not None and self._carriers.is_shared(session):
            self._background(self._carriers.leave_soon(session, key))

    def _lock(self, session: str, key: str) -> asyncio.Lock:
        """What is done about one key is done in order."""
        lock = self._locks.get((session, key))
        if lock is None:
            lock = self._locks[session, key] = asyncio.Lock()
        return lock


def _wants(key: str) -> Wants:
    return Wants(uris=frozenset({key})) if key else Wants(lists=frozenset(LISTEN_FIELDS))
