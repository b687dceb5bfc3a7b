"""Standing subscriptions of handshake sessions on a modern backend.

In the handshake era a session subscribes with `resources/subscribe` and hears of list changes without asking; a modern
backend knows only `subscriptions/listen`. So each session is a listener of the backend's feed, one for the lists and
one for each resource, and hears on its own standing stream. Source: server/resources and server/tools of 2025-11-25,
basic/patterns/subscriptions of 2026-07-28.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from gatewright.backend.feed import Feed, Listener, Wants
from gatewright.call import Failure, Params, Result
from gatewright.errors import BackendError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import LISTEN_FIELDS

if TYPE_CHECKING:
    from gatewright.backend.sinks import Outlets
    from gatewright.background import Background

LISTS: Final = ""
"""The key of a session's listener for list changes; no URI is empty."""
MAX_URIS: Final = 1_000
"""Resources that one session may subscribe to at one backend."""


@final
class Standing:
    """The handshake sessions that listen to one modern backend."""

    def __init__(self, outlets: Outlets, background: Background) -> None:
        self._outlets = outlets
        self._background = background
        self._held: dict[str, dict[str, tuple[Feed, Listener]]] = {}
        """By session and key."""

    async def watch(self, session: str, feed: Feed) -> None:
        """Let a session hear of list changes. A backend that announces none is no failure."""
        if LISTS not in self._held.setdefault(session, {}):
            try:
                await self._join(feed, session, LISTS, Wants(lists=frozenset(LISTEN_FIELDS)))
            except BackendError:
                return

    async def subscribe(self, session: str, uri: str, feed: Feed) -> Result | Failure:
        """Let a session hear of a resource's updates. Raises BackendError when the backend cannot be listened to."""
        held = self._held.setdefault(session, {})
        if uri in held:
            return Result(b"{}")
        if len(held) > MAX_URIS:
            return Failure(-32602, f"at most {MAX_URIS} resources can be subscribed to in one session")
        listener = await self._join(feed, session, uri, Wants(uris=frozenset({uri})))
        if uri not in listener.wants.uris:
            self._leave(session, uri)
            return Failure(-32602, "the backend does not offer subscriptions to this resource")
        return Result(b"{}")

    def unsubscribe(self, session: str, uri: str) -> Result:
        """Let it hear no more. Not having subscribed is no failure."""
        self._leave(session, uri)
        return Result(b"{}")

    def holds(self, session: str) -> bool:
        """Whether a session listens here."""
        return session in self._held

    def release(self, session: str) -> None:
        """A session ended."""
        for feed, listener in self._held.pop(session, {}).values():
            feed.leave(listener)

    async def _join(self, feed: Feed, session: str, key: str, wants: Wants) -> Listener:
        def heard(method: str, params: Params) -> None:
            outlet = self._outlets.get(session)
            if outlet is not None:
                self._background(outlet.emit(method, jsonrpc.encode(params)))

        listener = await feed.join(wants, heard)
        if self._outlets.get(session) is None:  # it ended meanwhile
            feed.leave(listener)
            self._held.pop(session, None)
        else:
            self._held.setdefault(session, {})[key] = (feed, listener)
        return listener

    def _leave(self, session: str, key: str) -> None:
        held = self._held.get(session, {}).pop(key, None)
        if held is not None:
            feed, listener = held
            feed.leave(listener)
