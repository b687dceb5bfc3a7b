"""The store in memory: any number of replicas in one process.

A gateway of one process needs none of it, since it finds its sessions in its own memory; this one shows what the
contract is, and lets several replicas run in one test. Never down, never emptied unless `emptied` is called.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import final

from gatewright.stores.base import Beat, Found, Record, Replayed, Share, replayed

MAX_LETTERS = 10_000
"""In one inbox."""
MAX_LETTER_BYTES = 64 << 20
"""The same in bytes."""


@final
class _Held:
    """One session."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.log_level: str | None = None
        self.owners: set[str] = set()
        self.standing: set[str] = set()
        self.claims: dict[str, bytes] = {}
        self.events: deque[tuple[str, int, bytes]] = deque()
        """Stream, position and message; position 0 opens a stream, -1 ends it: its message is the last position."""
        self.event_bytes = 0
        self.ends_at = 0.0


@final
class _Holding:
    """What one replica holds of something."""

    def __init__(self) -> None:
        self.by_caller: dict[str, int] = {}
        self.in_all = 0
        self.ends_at = 0.0


@final
class Shelf:
    """What the stores of all replicas share."""

    def __init__(
        self,
        *,
        idle_s: float = 3_600.0,
        max_events: int = 1_000,
        max_event_bytes: int = 1 << 20,
        dead_s: float = 5.0,
        max_letter_bytes: int = MAX_LETTER_BYTES,
    ) -> None:
        self.max_letter_bytes = max_letter_bytes
        self.idle_s = idle_s
        self.max_events = max_events
        self.max_event_bytes = max_event_bytes
        self.dead_s = dead_s
        self.sessions: dict[str, _Held] = {}
        self.alive: dict[str, float] = {}
        self.inboxes: dict[str, deque[bytes]] = {}
        self.arrived: dict[str, asyncio.Event] = {}
        self.taken: set[str] = set()
        self.secrets: dict[str, bytes] = {}
        self.holdings: dict[str, dict[str, _Holding]] = {}
        """By what is held, and by replica."""

    def emptied(self) -> None:
        """Forget everything, as somebody's FLUSHALL does."""
        self.sessions.clear()
        self.alive.clear()
        self.inboxes.clear()
        self.taken.clear()
        self.secrets.clear()
        self.holdings.clear()


@final
class MemoryStore:
    """One replica's hold of the shelf."""

    def __init__(self, shelf: Shelf, replica: str) -> None:
        self.replica = replica
        self.round_trips = self.lost = 0
        self._shelf = shelf

    # --- sessions

    async def create(self, ref: str, record: Record) -> None:
        """See SessionStore.create."""
        held = self._shelf.sessions[ref] = _Held(record)
        held.owners.add(self.replica)
        self._touch(held)

    async def load(self, ref: str) -> Found | None:
        """See SessionStore.load."""
        held = self._held(ref)
        if held is None:
            return None
        held.owners.add(self.replica)
        self._touch(held)
        return Found(held.record, held.log_level)

    def touch(self, ref: str) -> None:
        """See SessionStore.touch."""
        held = self._held(ref)
        if held is not None:
            self._touch(held)

    async def lives(self, refs: Sequence[str]) -> list[bool]:
        """See SessionStore.lives."""
        return [self._held(ref) is not None for ref in refs]

    async def set_log_level(self, ref: str, level: str) -> None:
        """See SessionStore.set_log_level."""
        held = self._held(ref)
        if held is not None:
            held.log_level = level

    async def owners(self, ref: str) -> frozenset[str]:
        """See SessionStore.owners."""
        held = self._held(ref)
        return frozenset() if held is None else frozenset(held.owners)

    def disown(self, ref: str, replica: str) -> None:
        """See SessionStore.disown."""
        held = self._held(ref)
        if held is not None:
            held.owners.discard(replica)
            held.standing.discard(replica)

    async def end(self, ref: str) -> frozenset[str] | None:
        """See SessionStore.end."""
        held = self._held(ref)
        if held is None:
            return None
        del self._shelf.sessions[ref]
        return frozenset(held.owners)

    async def claim(self, ref: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See SessionStore.claim."""
        held = self._held(ref)
        if held is None:
            return None
        standing = held.claims.get(backend)
        if standing is None or standing == instead_of:
            held.claims[backend] = standing = claim
        return standing

    async def claimed(self, ref: str, backend: str) -> bytes | None:
        """See SessionStore.claimed."""
        held = self._held(ref)
        return None if held is None else held.claims.get(backend)

    async def claims(self, ref: str) -> dict[str, bytes]:
        """See SessionStore.claims."""
        held = self._held(ref)
        return {} if held is None else dict(held.claims)

    async def unclaim(self, ref: str, backend: str, claim: bytes) -> None:
        """See SessionStore.unclaim."""
        held = self._held(ref)
        if held is not None and held.claims.get(backend) == claim:
            del held.claims[backend]

    def stand(self, ref: str, *, is_standing: bool) -> None:
        """See SessionStore.stand."""
        held = self._held(ref)
        if held is not None and is_standing:
            held.standing.add(self.replica)
            held.owners.add(self.replica)
        elif held is not None:
            held.standing.discard(self.replica)

    async def standing(self, ref: str) -> frozenset[str]:
        """See SessionStore.standing."""
        held = self._held(ref)
        return frozenset() if held is None else frozenset(held.standing)

    # --- events

    def opened(self, ref: str, stream: str, opened: bytes) -> None:
        """See EventStore.opened."""
        self._keep(ref, stream, 0, opened)

    def record(self, ref: str, stream: str, position: int, message: bytes) -> None:
        """See EventStore.record."""
        self._keep(ref, stream, position, message)

    def done(self, ref: str, stream: str, position: int) -> None:
        """See EventStore.done."""
        self._keep(ref, stream, -1, b"%d" % position)

    async def replay(self, ref: str, stream: str) -> Replayed:
        """See EventStore.replay."""
        held = self._held(ref)
        kept = [] if held is None else [(place, message) for one, place, message in held.events if one == stream]
        return replayed(kept)

    # --- replicas

    async def beat(self) -> Beat:
        """See ReplicaStore.beat."""
        now, shelf = asyncio.get_running_loop().time(), self._shelf
        is_lapsed = shelf.alive.get(self.replica, 0.0) <= now
        shelf.alive[self.replica] = now + shelf.dead_s
        shelf.alive = {replica: until for replica, until in shelf.alive.items() if until > now}
        shelf.inboxes = {replica: inbox for replica, inbox in shelf.inboxes.items() if replica in shelf.alive}
        shelf.inboxes.setdefault(self.replica, deque())
        shelf.arrived.setdefault(self.replica, asyncio.Event())
        return Beat(frozenset(shelf.alive), is_lapsed)

    async def send(self, replica: str, letters: Sequence[bytes]) -> bool:
        """See ReplicaStore.send."""
        inbox = self._shelf.inboxes.get(replica)
        if inbox is None or len(inbox) + len(letters) > MAX_LETTERS:
            return False
        if inbox and sum(map(len, inbox)) + sum(map(len, letters)) > self._shelf.max_letter_bytes:
            return False
        inbox.extend(letters)
        self._shelf.arrived[replica].set()
        return True

    async def receive(self, wait_s: float) -> list[bytes]:
        """See ReplicaStore.receive."""
        arrived = self._shelf.arrived.setdefault(self.replica, asyncio.Event())
        inbox = self._shelf.inboxes.get(self.replica)
        if not inbox:
            arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await arrived.wait()
            except TimeoutError:
                return []
            inbox = self._shelf.inboxes.get(self.replica)
        letters = list(inbox or ())
        if inbox is not None:
            inbox.clear()
        return letters

    async def take(self, letter: str) -> bool:
        """See ReplicaStore.take."""
        is_first = letter not in self._shelf.taken
        self._shelf.taken.add(letter)
        return is_first

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """See ReplicaStore.secret."""
        return self._shelf.secrets.setdefault(name, fresh)

    async def leave(self) -> None:
        """See ReplicaStore.leave."""
        self._shelf.alive.pop(self.replica, None)
        self._shelf.inboxes.pop(self.replica, None)

    async def aclose(self) -> None:
        """See ReplicaStore.aclose."""

    # --- shares

    async def admit(self, what: str, caller: str, own: Share, most: Share) -> bool:
        """See ShareStore.admit."""
        now, held = asyncio.get_running_loop().time(), self._shelf.holdings.get(what, {})
        others = [one for replica, one in held.items() if replica != self.replica and one.ends_at > now]
        of_caller = sum(one.by_caller.get(caller, 0) for one in others)
        in_all = sum(one.in_all for one in others)
        if of_caller + own.of_caller > most.of_caller or in_all + own.in_all > most.in_all:
            return False
        self.hold(what, caller, own)
        return True

    def hold(self, what: str, caller: str, own: Share) -> None:
        """See ShareStore.hold."""
        now = asyncio.get_running_loop().time()
        held = self._shelf.holdings.setdefault(what, {})
        for replica in [replica for replica, one in held.items() if one.ends_at <= now]:
            del held[replica]
        mine = held.setdefault(self.replica, _Holding())
        mine.ends_at = now + self._shelf.dead_s
        mine.in_all = own.in_all
        mine.by_caller[caller] = own.of_caller
        if not own.of_caller:
            del mine.by_caller[caller]

    # --- how

    def _held(self, ref: str) -> _Held | None:
        held = self._shelf.sessions.get(ref)
        if held is not None and held.ends_at <= asyncio.get_running_loop().time():
            del self._shelf.sessions[ref]
            return None
        return held

    def _touch(self, held: _Held) -> None:
        held.ends_at = asyncio.get_running_loop().time() + self._shelf.idle_s

    def _keep(self, ref: str, stream: str, position: int, message: bytes) -> None:
        held = self._held(ref)
        if held is None:
            return
        held.events.append((stream, position, message))
        held.event_bytes += len(message)
        while len(held.events) > self._shelf.max_events or held.event_bytes > self._shelf.max_event_bytes:
            held.event_bytes -= len(held.events.popleft()[2])
