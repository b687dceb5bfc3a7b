"""Letters between replicas: told and forgotten, or asked and answered, with as much as there is to say in between.

Each replica reads its own inbox, in one task. What is asked is carried out once, by a replica that is alive: it takes
the letter before it begins, and whoever asked takes it back when the other is dead, so that of the two exactly one
succeeds, also when the dead one was only asleep. Letters to one replica keep their order.

The same task says that this replica lives, hears which others do, and notices when the store is not there: then what is
held in memory cannot be trusted, as nobody could say that it has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, final

import msgspec
import structlog

from gatewright.background import Background
from gatewright.errors import GatewayError, Overloaded, StoreUnavailable
from gatewright.stores import failures
from gatewright.stores.base import Beat, ReplicaStore

BEAT_S: Final = 1.0
"""How often a replica says that it lives."""
MIN_WAIT_S: Final = 0.01
PAUSE_S: Final = 0.1
"""How long nothing is read after the store was not there; it doubles up to PAUSE_MAX_S, and is spread."""
PAUSE_MAX_S: Final = 1.0
STALE_S: Final = 2.0
"""After this long without a word from the store what it said before is not believed any more, unless one comes within
AT_ONCE_S: a process that stood still has not read it yet."""
AT_ONCE_S: Final = 0.5
SETTLE_S: Final = 3.0
"""How long the others have to say that they live after the store was there again."""
LEAVE_S: Final = 1.0
"""How long what was begun for others, and letters on their way, have to end when this replica leaves."""
LONG_DEAD_S: Final = 60.0
"""One that is dead for so long was not only slow: nobody who is alive is taken for dead longer than a beat."""
MAX_DEAD: Final = 1_000
"""Dead replicas remembered. Their ids do not come back."""
MAX_OUT_BYTES: Final = 64 << 20
"""What may be on its way to one replica. Beyond it what nobody waits for is dropped, and the rest broken off."""
MAX_SAID: Final = 1_000
MAX_SAID_BYTES: Final = 16 << 20
"""What one answer in parts may be ahead of whoever asked; one part may be larger."""
TELL, ASK, SAID, DONE, FAILED, CANCEL = range(6)
log = structlog.get_logger("gatewright.store")


class ReplicaGone(GatewayError):
    """The other replica is dead or out of reach. `may_have_run`: it may have carried out what it was asked."""

    def __init__(self, *, may_have_run: bool) -> None:
        super().__init__("the replica that could do it is gone")
        self.may_have_run = may_have_run


@final
class Letter(msgspec.Struct, frozen=True, array_like=True):
    """One letter."""

    verb: int
    sender: str
    kind: str
    """What it is about; of an answer, which conversation it belongs to."""
    number: str
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Letter).decode


@final
class Talk:
    """What was asked of another replica, as long as it is answered: take `next` until it is None, then the `outcome`.
    It must be closed, whatever happens."""

    def __init__(self, post: Post, replica: str, number: str, *, is_lossy: bool) -> None:
        self.replica = replica
        self.number = number
        self.outcome = b""
        self.asked_at = asyncio.get_running_loop().time()
        self.is_taken_back = False
        self._post = post
        self._said: deque[bytes] = deque()
        self._said_bytes = 0
        self._is_lossy = is_lossy
        self._is_over = False
        self._has_left = False
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Nobody is interested any more: if it is not over it is cancelled."""
        self._post.left(self, is_over=self._is_over)

    def forget(self) -> None:
        """Nobody is interested any more, and it goes on all the same."""
        self._post.left(self, is_over=True)

    def leave(self) -> None:
        """As `close`, said by somebody else than who waits in `next`."""
        self._has_left = True
        self._wake()

    async def next(self) -> bytes | None:
        """The next thing that is said, None when the outcome is there. Raises what the other raised, ReplicaGone."""
        while not self._said:
            if self._has_left:
                return None
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        body = self._said.popleft()
        self._said_bytes -= len(body)
        return body

    def say(self, body: bytes) -> None:
        """Something was said."""
        self._said.append(body)
        self._said_bytes += len(body)
        while len(self._said) > MAX_SAID or (self._said_bytes > MAX_SAID_BYTES and len(self._said) > 1):
            self._said_bytes -= len(self._said.popleft())
            if not self._is_lossy:
                self._said.clear()
                self.close()
                self.fail(Overloaded("whoever asked is too slow"))
                return
        self._wake()

    def end(self, outcome: bytes) -> None:
        """It was carried out."""
        self._is_over, self.outcome = True, outcome
        self._wake()

    def fail(self, error: GatewayError) -> None:
        """It was not, or nobody knows."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@final
class Errand:
    """What another replica asks for."""

    __slots__ = ("_post", "body", "number", "sender")

    def __init__(self, post: Post, letter: Letter) -> None:
        self._post = post
        self.sender = letter.sender
        self.number = letter.number
        self.body = letter.body

    def say(self, body: bytes) -> None:
        """Say something before the outcome."""
        self._post.write(self.sender, Letter(SAID, self._post.replica, "", self.number, body))


Hear: TypeAlias = Callable[[str, bytes], None]
"""Takes what a replica tells: its id, and the body. Must not block."""
Carry: TypeAlias = Callable[[Errand], Awaitable[bytes]]


@final
class Post:
    """The letters of one replica."""

    def __init__(
        self, store: ReplicaStore, background: Background, *, beat_s: float = BEAT_S, settle_s: float = SETTLE_S
    ) -> None:
        self.replica = store.replica
        self.alive: frozenset[str] = frozenset()
        """The replicas that are alive, as of the last beat."""
        self.on_stale: Callable[[], None] = _nothing
        """Called when the store was silent for too long."""
        self.on_fresh: Callable[[], None] = _nothing
        """Called when it is there again, or forgot or gave up this replica: what is held must be looked at anew."""
        self.on_unheard: Callable[[], None] = _nothing
        """Called when something that was written behind may be lost, or undone by those who took this replica for dead:
        what must be known is said again."""
        self.on_gone: Callable[[frozenset[str]], None] = _ignored
        """Called with the replicas that died."""
        self.on_lapsed: Callable[[], None] = _nothing
        """Called when the others took this replica for dead meanwhile: what only it had may be elsewhere by now."""
        self.is_fresh = False
        self._store = store
        self._background = background
        self._beat_s = beat_s
        self._settle_s = settle_s
        self._hear: dict[str, Hear] = {}
        self._carry: dict[str, Carry] = {}
        self._numbers = itertools.count(1)
        self._talks: dict[str, Talk] = {}
        self._errands: dict[str, asyncio.Task[None]] = {}
        self._out: dict[str, list[Letter]] = {}
        self._out_bytes: dict[str, int] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._is_leaving = False
        self._outliving: set[str] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._settled_at = 0.0
        self._say_again_at = float("inf")
        self._lost_before = store.lost
        self._dead: dict[str, float] = {}
        """With the time since when."""

    def hear(self, kind: str, hear: Hear) -> None:
        """Take what is told of that kind."""
        self._hear[kind] = hear

    def carry(self, kind: str, carry: Carry, *, outlives: bool = False) -> None:
        """Carry out what is asked of that kind: as long as whoever asks is interested, or to its end when it
        `outlives` that one."""
        self._carry[kind] = carry
        if outlives:
            self._outliving.add(kind)

    def tell(self, replica: str, kind: str, body: bytes) -> None:
        """Tell a replica something. Lost if it is dead, or the store is not there."""
        self.write(replica, Letter(TELL, self.replica, kind, "", body))

    def ask(self, replica: str, kind: str, body: bytes, *, is_lossy: bool = False) -> Talk:
        """Ask a replica for something. What is said before the outcome may get lost when it is `is_lossy` and whoever
        asks is slow; else it breaks off."""
        number = f"{self.replica}.{next(self._numbers)}"
        talk = self._talks[number] = Talk(self, replica, number, is_lossy=is_lossy)
        self.write(replica, Letter(ASK, self.replica, kind, number, body))
        return talk

    def write(self, replica: str, letter: Letter) -> None:
        """Put a letter into the replica's inbox, after those before it."""
        waiting = self._out.get(replica)
        if waiting is not None:
            size = self._out_bytes[replica] + len(letter.body)
            if size > MAX_OUT_BYTES and letter.verb in (TELL, ASK, SAID):
                self._overflowed(letter)
                return
            self._out_bytes[replica] = size
            waiting.append(letter)
            return
        self._out[replica] = [letter]
        self._out_bytes[replica] = len(letter.body)
        task = self._background(self._deliver(replica))
        if task is None:
            del self._out_bytes[replica]
            self._undelivered(self._out.pop(replica), may_have_run=False)
            return
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    def _overflowed(self, letter: Letter) -> None:
        """There is no room for a letter. What it was to be a part of breaks off: it must not go on with a gap."""
        if letter.verb == ASK:
            self._talks.pop(letter.number).fail(Overloaded("too much is on its way to the replica that could do it"))
        elif letter.verb == SAID and letter.number in self._errands:
            self._errands[letter.number].cancel()

    def left(self, talk: Talk, *, is_over: bool) -> None:
        """Whoever asked is not interested any more."""
        if self._talks.pop(talk.number, None) is not None and not is_over:
            self.write(talk.replica, Letter(CANCEL, self.replica, "", talk.number, b""))

    def is_dead(self, replica: str) -> bool:
        """Whether it is known to have died. One that has just started is not known at all."""
        return replica in self._dead

    def is_long_dead(self, replica: str) -> bool:
        """Whether it died so long ago that what it said can be cleared away."""
        since = self._dead.get(replica)
        return since is not None and asyncio.get_running_loop().time() > since + LONG_DEAD_S

    async def lives(self, replica: str) -> bool:
        """Whether it lives, asking the store about one that is not known. Raises StoreUnavailable."""
        if replica not in self.alive and replica not in self._dead:
            now = asyncio.get_running_loop().time()
            self._beaten(await self._store.beat(), now)
            if replica not in self.alive and now >= self._settled_at:
                self._bury(replica, now)  # it died before this one began
        return replica in self.alive

    async def living(self, replicas: frozenset[str]) -> list[str]:
        """Which of these live, this one not among them. Raises StoreUnavailable."""
        return [one for one in sorted(replicas - {self.replica}) if await self.lives(one)]

    async def run(self) -> None:
        """Read the inbox until cancelled."""
        loop = asyncio.get_running_loop()
        pause_s, beaten_at = PAUSE_S, float("-inf")
        try:
            while True:
                try:
                    if loop.time() >= beaten_at + self._beat_s:
                        beaten_at = loop.time()
                        self._beaten(await self._store.beat(), beaten_at)
                        self._fresh(loop)
                        self._heard(beaten_at)
                    letters = await self._store.receive(max(MIN_WAIT_S, beaten_at + self._beat_s - loop.time()))
                except Exception as error:
                    if not isinstance(error, StoreUnavailable):
                        log.exception("inbox cannot be read", error_id=secrets.token_hex(8))
                    self._stale()
                    beaten_at = float("-inf")
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                    pause_s = min(PAUSE_MAX_S, pause_s * 2)
                    continue
                pause_s = PAUSE_S
                self._fresh(loop)
                for letter in letters:
                    self._read(letter)
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def aclose(self) -> None:
        """Take part no longer: nothing is begun any more, what was begun is answered, and the others know at once. What
        was not begun they do themselves. Never raises."""
        self._is_leaving = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                while going := {*self._errands.values(), *self._deliveries}:
                    await asyncio.wait(going)
        try:
            await self._store.leave()
        except StoreUnavailable:
            return

    # --- the store

    def _beaten(self, beat: Beat, now: float) -> None:
        if beat.is_lapsed:
            self._stale()
            self._settled_at = self._say_again_at = now + self._settle_s  # by then the others know that this one lives
            self.on_lapsed()
        # A store that was away or emptied has heard of nobody yet: that is no death.
        alive = beat.alive | self.alive if now < self._settled_at else beat.alive
        gone, self.alive = self.alive - alive, alive
        for replica in gone:
            self._bury(replica, now)
        for replica in alive & self._dead.keys():
            del self._dead[replica]
        self._lost(now)
        for number, errand in self._errands.items():
            if number.rpartition(".")[0] in gone:  # whoever asked: no deadline of its call ends it any more
                errand.cancel()
        if gone:
            self.on_gone(gone)

    def _bury(self, replica: str, now: float) -> None:
        self._dead[replica] = now
        if len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]

    def _fresh(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = loop.call_later(STALE_S, self._silent, loop)
        if not self.is_fresh:
            self.is_fresh = True
            self.on_fresh()

    def _heard(self, now: float) -> None:
        """What must be known is said again where it may not be."""
        lost = self._store.lost
        if lost != self._lost_before or now >= self._say_again_at:
            self._lost_before, self._say_again_at = lost, float("inf")
            self.on_unheard()

    def _silent(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.call_later(AT_ONCE_S, self._stale)

    def _stale(self) -> None:
        if self.is_fresh:
            self.is_fresh = False
            self.on_stale()

    # --- going out

    async def _deliver(self, replica: str) -> None:
        """Send what there is for a replica, until there is nothing more."""
        batch: list[Letter] = []
        try:
            while batch := self._out[replica]:
                self._out[replica] = []
                try:
                    is_there = await self._store.send(replica, [_encode(one) for one in batch])
                except StoreUnavailable:
                    self._undelivered(batch, may_have_run=True)
                else:
                    if not is_there:
                        self._undelivered(batch, may_have_run=False)
                self._out_bytes[replica] -= sum(len(one.body) for one in batch)
                batch = []
        finally:
            del self._out_bytes[replica]
            self._undelivered([*batch, *self._out.pop(replica)], may_have_run=bool(batch))

    def _undelivered(self, letters: list[Letter], *, may_have_run: bool) -> None:
        for letter in letters:
            talk = self._talks.pop(letter.number, None) if letter.verb == ASK else None
            if talk is not None:
                talk.fail(ReplicaGone(may_have_run=may_have_run))

    def _lost(self, now: float) -> None:
        """What was asked of the dead is answered by nobody. Whoever was not heard of yet has a moment to be."""
        known_by = now - 2 * self._beat_s
        for talk in self._talks.values():
            is_late = talk.replica not in self.alive and talk.asked_at < known_by
            if (is_late or talk.replica in self._dead) and not talk.is_taken_back:
                talk.is_taken_back = True
                self._background(self._take_back(talk))

    async def _take_back(self, talk: Talk) -> None:
        """Whoever takes the letter first decides whether it is carried out."""
        try:
            may_have_run = not await self._store.take(talk.number)
        except StoreUnavailable:
            may_have_run = True
        if self._talks.pop(talk.number, None) is not None:
            talk.fail(ReplicaGone(may_have_run=may_have_run))

    # --- coming in

    def _read(self, text: bytes) -> None:
        """One letter. A bug in what hears it, or one of another version of the gateway, costs that letter."""
        try:
            self._take(_decode(text))
        except Exception:
            log.exception("letter dropped", error_id=secrets.token_hex(8))

    def _take(self, letter: Letter) -> None:
        if letter.verb == TELL:
            hear = self._hear.get(letter.kind)
            if hear is not None:
                hear(letter.sender, letter.body)
        elif letter.verb == ASK:
            if self._is_leaving:
                return
            task = self._background(self._run(letter))
            if task is not None and letter.kind not in self._outliving:
                self._errands[letter.number] = task
                task.add_done_callback(lambda _: self._errands.pop(letter.number, None))
        elif letter.verb == CANCEL:
            errand = self._errands.get(letter.number)
            if errand is not None:
                errand.cancel()
        else:
            self._answered(letter)

    def _answered(self, letter: Letter) -> None:
        talk = self._talks.get(letter.number)
        if talk is None or talk.replica != letter.sender:
            return
        if letter.verb == SAID:
            talk.say(letter.body)
            return
        del self._talks[letter.number]
        if letter.verb == DONE:
            talk.end(letter.body)
        else:
            talk.fail(failures.read(letter.body))

    async def _run(self, letter: Letter) -> None:
        """Carry out what was asked, unless it was taken back."""
        verb, body = FAILED, failures.written(GatewayError("it broke off inside the gateway"))
        try:
            if not await self._store.take(letter.number):
                return
        except StoreUnavailable as error:  # it was not begun: whoever asks may have found the store in order
            self.write(letter.sender, Letter(FAILED, self.replica, "", letter.number, failures.written(error)))
            return
        try:
            verb, body = DONE, await self._carry[letter.kind](Errand(self, letter))
        except GatewayError as error:
            body = failures.written(error)
        finally:
            self.write(letter.sender, Letter(verb, self.replica, "", letter.number, body))


def _nothing() -> None:
    """Nobody listens."""


def _ignored(gone: frozenset[str]) -> None:
    """Nobody listens."""
