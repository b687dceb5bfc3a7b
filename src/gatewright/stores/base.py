"""What a store does for the replicas that share it: verbs of the domain, each atomic, none of them a get or a set.

A **replica** is one gateway process, known by a random id that it gives itself at each start. A **reference** stands
for one session: a digest of its id, its caller and its path, so that whoever is not its caller finds nothing under the
id, and so that what the store holds opens no session. An **owner** of a session is a replica that has it in memory.

Verbs that are `async` wait for the store and raise `StoreUnavailable` when it cannot be reached in time. The others
return at once: what they ask for is carried out a little later, in order, many at a time. When the store is down it is
lost, and counted: each says what that costs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Protocol, final

import msgspec

from gatewright.call import Caller


@final
class Record(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a session from its `initialize` on."""

    revision: str
    info: bytes
    """Its client's Implementation object."""
    capabilities: bytes
    """Its client's ClientCapabilities object."""
    created_at: float
    """Wall clock, in seconds."""
    home: str = ""
    """The replica that holds the one stream which is the session (2024-11-05); empty where there is none."""
    metadata: dict[str, str] = {}


@final
class Found(msgspec.Struct, frozen=True):
    """A session as a replica finds it."""

    record: Record
    log_level: str | None


@final
class Replayed(msgspec.Struct, frozen=True):
    """What is kept of one stream."""

    events: list[tuple[int, bytes]]
    """Position and message, in order."""
    opened: bytes | None
    """What it was opened with; None when that is not kept."""
    done: int | None
    """The position of its last event; None while it may go on."""


@final
class Beat(msgspec.Struct, frozen=True):
    """What a sign of life brought back."""

    alive: frozenset[str]
    """The replicas that are alive, this one among them."""
    is_lapsed: bool
    """This one was taken for dead meanwhile, or the store was emptied: what it believes to hold it may not hold."""


def reference(session_id: str, route: str, caller: Caller) -> str:
    """The reference of a session. Unambiguous: no other id, path and caller give the same."""
    parts = (caller.subject, route, session_id)
    said = b"".join(b"%d:%b" % (len(part), part) for part in (one.encode("utf-8", "surrogatepass") for one in parts))
    return base64.urlsafe_b64encode(hashlib.sha256(said).digest()[:24]).decode()


def replayed(kept: Sequence[tuple[int, bytes]]) -> Replayed:
    """What stores keep of a stream, read: position 0 opens it, -1 ends it and says after which position."""
    return Replayed(
        [(place, message) for place, message in kept if place > 0],
        next((message for place, message in kept if place == 0), None),
        next((int(message) for place, message in kept if place < 0), None),
    )


@final
class Share(msgspec.Struct, frozen=True):
    """How much of something there is."""

    of_caller: int
    in_all: int


class SessionStore(Protocol):
    """Sessions. They end by themselves `idle_s` after they were last created, loaded or touched.

    Down: nothing can be opened, found or ended (503); whoever has one in memory goes on with it for the moment that
    `dead_after_s` leaves. Emptied: every session is unknown (404), which makes clients initialize anew.
    """

    async def create(self, ref: str, record: Record) -> None:
        """A session begins. This replica is its owner."""

    async def load(self, ref: str) -> Found | None:
        """The session, touched; this replica becomes one of its owners. None when there is none."""

    def touch(self, ref: str) -> None:
        """It was used. Lost: it may end up to this much earlier."""

    async def lives(self, refs: Sequence[str]) -> list[bool]:
        """Which of them have not ended. None of them is touched by this."""

    async def set_log_level(self, ref: str, level: str) -> None:
        """Its client set its log level. Nothing when it has ended."""

    async def owners(self, ref: str) -> frozenset[str]:
        """The replicas that have it in memory, as far as they said."""

    def disown(self, ref: str, replica: str) -> None:
        """That replica has it no longer. Lost: it gets a message that it ignores."""

    async def end(self, ref: str) -> frozenset[str] | None:
        """It ends, with its events and everything; its owners are who must be told. None when it had ended already."""

    async def claim(self, ref: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """Say which backend session it has at a backend. The first claim stands, unless it is the one it is to replace.

        Returns the one that stands now, None when the session has ended.
        """

    async def claimed(self, ref: str, backend: str) -> bytes | None:
        """The claim that stands for that backend."""

    async def claims(self, ref: str) -> dict[str, bytes]:
        """All claims that stand, by what they are for; none of a session that has ended."""

    async def unclaim(self, ref: str, backend: str, claim: bytes) -> None:
        """That claim stands no longer, if it is the one that does."""

    def stand(self, ref: str, *, is_standing: bool) -> None:
        """This replica holds, or no longer holds, a standing stream of it. Lost: what belongs to no call may not reach
        a client whose stream is elsewhere, until it opens the next one."""

    async def standing(self, ref: str) -> frozenset[str]:
        """The replicas that hold a standing stream of it."""


class EventStore(Protocol):
    """What was sent on the streams of a session, for the time when the replica that sent it is gone.

    Bounded in events and bytes by session; the oldest go first. Down: what is sent meanwhile can be resumed only while
    its replica lives.
    """

    def opened(self, ref: str, stream: str, opened: bytes) -> None:
        """A stream begins; `opened` is what to know of it when its replica is gone."""

    def record(self, ref: str, stream: str, position: int, message: bytes) -> None:
        """One message was sent on it, or would have been."""

    def done(self, ref: str, stream: str, position: int) -> None:
        """Nothing more will come on it: that was the last position."""

    async def replay(self, ref: str, stream: str) -> Replayed:
        """What is kept of one stream of the session."""


class ReplicaStore(Protocol):
    """Which replicas there are, and their inboxes. One reader for each replica, however many sessions it has.

    Down: replicas cannot reach one another: what only another one can do fails. Messages that were sent stay for
    their replica, which reads on where it stopped.
    """

    @property
    def replica(self) -> str:
        """The id of this replica."""

    @property
    def round_trips(self) -> int:
        """How often the store was asked, many questions at a time counting once. The reader's waiting is not among
        them: it depends on no session and on no call."""

    @property
    def lost(self) -> int:
        """What nobody waited for and the store did not take."""

    async def beat(self) -> Beat:
        """Say that this replica lives: it does for the next `dead_after_s`."""

    async def send(self, replica: str, letters: Sequence[bytes]) -> bool:
        """Put letters into a replica's inbox, in this order. False when it has none, because it is dead, or when it is
        full."""

    async def receive(self, wait_s: float) -> list[bytes]:
        """The next letters to this replica; none when there is none within `wait_s`. One reader at a time."""

    async def take(self, letter: str) -> bool:
        """Take a letter that may be carried out once, by who takes it first. False when that was done, or revoked."""

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret that all replicas know by that name: `fresh` if there was none."""

    async def leave(self) -> None:
        """This replica ends: it is dead at once, and its inbox is gone."""

    async def aclose(self) -> None:
        """Finish what was asked for and close. Never raises."""


class ShareStore(Protocol):
    """How much of something all replicas hold together: each says what it holds, by caller, and is believed for
    `dead_after_s`, so that what a dead one held is free by itself.

    Down: nobody is admitted; whoever asked goes by what it holds itself. Emptied: what replicas hold is not counted
    until they say it again.
    """

    async def admit(self, what: str, caller: str, own: Share, most: Share) -> bool:
        """Say that this replica holds so much from now on, unless with that all would hold more than the most of that
        caller or in all: then nothing is said."""

    def hold(self, what: str, caller: str, own: Share) -> None:
        """Say so whatever the others hold. Lost: what was said before is believed a little longer."""


class Store(SessionStore, EventStore, ReplicaStore, ShareStore, Protocol):
    """All of it."""
