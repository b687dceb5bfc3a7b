"""Handshake sessions of clients, by id.

A session is bound to the caller that opened it and to its path; anybody else is told what an unknown id is told. It
authenticates nobody. It ends when nobody used it for `idle_s`, or by DELETE. In one process what is in memory is what
there is; where other replicas have the same sessions, what is here is good for as long as it is heard what changes, and
what is not here is looked for `elsewhere`. Sources: basic/lifecycle and basic/transports of 2024-11-05 to 2025-11-25;
S-20 to S-26.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Final, final

import structlog

from gatewright.call import Caller, Client, Reply
from gatewright.errors import Overloaded, UnknownSession
from gatewright.inbound.elsewhere import UNKNOWN, Elsewhere
from gatewright.inbound.events import Budget
from gatewright.inbound.session import ALONE, Session
from gatewright.inbound.settings import Sessions as SessionSettings

SWEEP_S: Final = 15.0
"""How often idle sessions are looked for."""
MAX_ENDED_AT_ONCE: Final = 1_000
"""Idle sessions ended in one sweep: each end is work for every backend, and a crowd that left at once must not stop the
loop."""
MAX_TOUCH_S: Final = 60.0
"""The store is told at most this often that a session is used."""
MAX_TOUCHED_AT_ONCE: Final = 1_000
"""Sessions that the store is told of in one sweep, for the same reason."""
DISTRUSTED: Final = -1
FORGET_S: Final = 300.0
"""A session that nobody used here for this long is looked up again when it is: with many replicas each would hold all
of them otherwise."""
UNSURE: Final = -2
"""A session looked up while nobody could say what changes: good for the one request."""
log = structlog.get_logger("gatewright.sessions")


def _never() -> float:
    """The time before there is a loop."""
    return 0.0


def _stay(session: str) -> bool:
    """Nothing is ever left to others."""
    return False


@final
class Sessions:
    """All sessions of this process, by id: with other replicas, those of them that it has seen."""

    def __init__(
        self,
        settings: SessionSettings,
        on_end: Callable[[str], None],
        elsewhere: Elsewhere | None = None,
        leave: Callable[[str], bool] = _stay,
    ) -> None:
        """`leave` forgets what backends have of a session that goes on elsewhere; False when that cannot be."""
        self._settings = settings
        self._leave = leave
        self.elsewhere: Final = elsewhere
        """The other replicas; None where there are none."""
        self.retry_s: Final = settings.retry_s
        """How long a client should wait before it comes back to a stream that ended."""
        self._current = ALONE
        self._epochs = itertools.count(1)
        self._by_ref: dict[str, Session] = {}
        self._kept_at = 0.0
        self._touch_s = min(MAX_TOUCH_S, settings.idle_s / 8)
        # Of one that does nothing but hold a stream: often enough to live. Every minute would be 500 scripts a second
        # for 30,000 that are silent.
        self._hold_s = settings.idle_s / 4
        self._budget = Budget(settings.max_event_bytes_total)
        self._sweep_s = min(SWEEP_S, settings.idle_s / 2)
        self._on_end = on_end
        self._by_id: dict[str, Session] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = _never
        if elsewhere is not None:
            self._current = DISTRUSTED
            elsewhere.serve(self)

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session: str) -> Reply | None:
        """See Outlets.get."""
        return self._by_id.get(session)

    def mint(self) -> str:
        """A new session id: 192 random bits in visible ASCII (S-20). Raises Overloaded when there are too many."""
        if len(self._by_id) >= self._settings.max_sessions:
            raise Overloaded("too many sessions")
        return secrets.token_urlsafe(24)

    def add(self, session_id: str, route: str, caller: Caller, client: Client, *, is_shared: bool = True) -> Session:
        """A session that begins. One that only this process can serve is not shared."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._now = loop.time
        session = Session(
            session_id,
            route,
            caller,
            client,
            self._settings.max_pending_asks,
            loop,
            self._settings,
            self._budget,
            self.elsewhere if is_shared else None,
        )
        self._by_id[session_id] = session
        self.believe(session)
        if session.ref:
            self._by_ref[session.ref] = session
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_s, self._sweep, loop)
        return session

    def find(self, session_id: str, route: str, caller: Caller) -> Session | None:
        """The caller's session of that id on that path. Raises UnknownSession for every other; None when it has to be
        looked for `elsewhere`."""
        session = self._by_id.get(session_id)
        if session is None or session.seen != self._current or session.caller != caller or session.route != route:
            if self.elsewhere is not None:
                return None
            raise UnknownSession(UNKNOWN)
        session.last_active_at = self._now()
        return session

    async def load(self, session_id: str, route: str, caller: Caller) -> Session:
        """The same from `elsewhere`. Raises UnknownSession, StoreUnavailable, Overloaded."""
        assert self.elsewhere is not None
        session = await self.elsewhere.load(session_id, route, caller)
        session.last_active_at = session.touched_at = self._now()
        return session

    def end(self, session: Session) -> None:
        """End a session everywhere at once."""
        if session.id in self._by_id:
            self.drop(session)
            if session.elsewhere is not None:
                session.elsewhere.end_soon(session)

    # --- with other replicas

    def by_id(self, session_id: str) -> Session | None:
        """The session of that id, if it is here."""
        return self._by_id.get(session_id)

    def by_ref(self, ref: str) -> Session | None:
        """The session of that reference, if it is here."""
        return self._by_ref.get(ref)

    def listening(self) -> list[str]:
        """The ids of those that other replicas may have too, and that have a standing stream here."""
        return [session.id for session in self._by_ref.values() if session.streams]

    def adopt(self, session_id: str, route: str, caller: Caller, client: Client) -> Session:
        """A session that began on another replica. Raises Overloaded."""
        if len(self._by_id) >= self._settings.max_sessions:
            raise Overloaded("too many sessions")
        session = self.add(session_id, route, caller, client)
        session.advance("initialize")
        return session

    def believe(self, session: Session) -> None:
        """It is as the store has it, now."""
        session.seen = self._current if self._current != DISTRUSTED else UNSURE

    def trust(self) -> None:
        """From now on it is heard what changes: what is looked up stands until then. What was said meanwhile may be
        lost, so it is said again."""
        self._current = next(self._epochs)
        self.say_again()

    def say_again(self) -> None:
        """Something that was said may not be known: which streams are here is said once more."""
        for session in self._by_ref.values():
            if session.has_standing and session.elsewhere is not None:
                session.elsewhere.stand(session, is_standing=True)

    def distrust(self) -> None:
        """Nobody can say any more what has changed."""
        self._current = DISTRUSTED

    def bereave(self, replicas: frozenset[str]) -> None:
        """Replicas died, and with them the streams that questions were put on."""
        for session in self._by_ref.values():
            session.bereave(replicas)

    def drop(self, session: Session) -> None:
        """It is over here: it ended elsewhere, or is about to."""
        if self._by_id.pop(session.id, None) is not None:
            self._by_ref.pop(session.ref, None)
            session.end()
            self._on_end(session.id)

    def close(self) -> None:
        """Stop looking for idle sessions."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        oldest = now - self._settings.idle_s
        if self.elsewhere is not None and now > self._kept_at + self._hold_s:
            self._kept_at = now
            self.elsewhere.keep()
        untold = MAX_TOUCHED_AT_ONCE
        for session in self._by_id.values():
            session.expire(now)
            if session.elsewhere is not None and untold and self._is_due(session, now):
                untold -= 1
                session.touched_at = now
                session.elsewhere.store.touch(session.ref)
        idle = [
            session
            for session in self._by_id.values()
            if session.last_active_at < oldest and not session.streams and not session.calls
        ]
        is_done = untold and len(idle) <= MAX_ENDED_AT_ONCE
        pause_s = self._sweep_s if is_done else min(self._sweep_s, 1.0)
        self._timer = loop.call_later(pause_s, self._sweep, loop) if self._by_id else None
        idle = idle[:MAX_ENDED_AT_ONCE]
        if self.elsewhere is not None:
            self._forget(self.elsewhere, now)
        if self.elsewhere is not None and idle:
            self.elsewhere.look_after([session for session in idle if session.ref])
        for session in idle:
            if not session.ref:
                log.info("session ended", reason="idle")
                self.end(session)

    def _forget(self, elsewhere: Elsewhere, now: float) -> None:
        """Sessions that other replicas have too need not be kept here for the time that nobody comes: what there is to
        know of one is in the store. Those of which something is only here stay."""
        seldom = [one for one in self._by_ref.values() if one.is_idle and one.last_active_at < now - FORGET_S]
        for session in seldom[:MAX_ENDED_AT_ONCE]:
            if self._leave(session.id):
                del self._by_id[session.id], self._by_ref[session.ref]
                elsewhere.store.disown(session.ref, elsewhere.replica)

    def _is_due(self, session: Session, now: float) -> bool:
        """Whether the store is to be told that a session is used: seldom, however often it is."""
        if session.last_active_at > session.touched_at:
            return now >= session.touched_at + self._touch_s
        return bool(session.streams or session.calls) and now >= session.touched_at + self._hold_s
