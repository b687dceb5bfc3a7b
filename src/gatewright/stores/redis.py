"""The store in Redis (6.2 or later) or Valkey: standalone, behind Sentinels, or a Cluster.

All keys begin with the deployment's prefix. Those of one session share a hash tag, its reference, so that each verb is
one script on one node. Needs the extra `redis`. See `stores.base` for what each verb does and what it costs when Redis
is down.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from typing import Final, final

import msgspec
import structlog

from gatewright.errors import StoreUnavailable
from gatewright.stores import redis_scripts as scripts
from gatewright.stores.base import Beat, Found, Record, Replayed, Share, replayed
from gatewright.stores.redis_commands import UNREACHABLE, Commands, Start
from gatewright.stores.redis_connections import Server, Unreachable
from gatewright.stores.settings import Store as StoreSettings

MAX_LETTERS: Final = 10_000
"""In one inbox: a replica that is this far behind is as good as dead."""
MAX_LETTER_BYTES: Final = 64 << 20
"""The same in bytes, which is also what a replica reads at once at the most."""
LETTERS_AT_ONCE: Final = 512
TAKEN_MS: Final = 15 * 60 * 1000
"""How long it is remembered that a letter was taken: longer than a call may last by default."""
HELD_MS: Final = 15 * 60 * 1000
"""How long it is kept what replicas hold, after the last of them said so: they say all of it again in less."""
FIRST: Final = "0"
_decode_record: Final = msgspec.msgpack.Decoder(Record).decode
_encode: Final = msgspec.msgpack.Encoder().encode
log = structlog.get_logger("gatewright.store")


@final
class RedisStore:
    """One replica's hold of a Redis."""

    def __init__(
        self,
        settings: StoreSettings,
        replica: str,
        start: Start,
        *,
        idle_s: float,
        max_events: int,
        max_event_bytes: int,
        wait_s: float = 1.0,
        max_letter_bytes: int = MAX_LETTER_BYTES,
    ) -> None:
        """`wait_s` is the longest that `receive` is told to wait."""
        self._max_letter_bytes = max_letter_bytes
        self.replica = replica
        self._prefix = settings.key_prefix
        self._idle_ms = max(1, round(idle_s * 1000))
        self._dead_ms = round(settings.dead_after_s * 1000)
        self._max_events = max_events
        self._max_event_bytes = max_event_bytes
        self._commands = Commands(Server(settings), start, settings.timeout_s)
        self._reader = Server(settings, wait_s)
        self._inbox = self._inbox_of(replica)
        self._last = FIRST
        self._beaten_at = float("-inf")

    @property
    def round_trips(self) -> int:
        """See ReplicaStore.round_trips."""
        return self._commands.round_trips

    @property
    def lost(self) -> int:
        """Writes that nobody waited for and that Redis did not take."""
        return self._commands.lost

    # --- sessions

    async def create(self, ref: str, record: Record) -> None:
        """See SessionStore.create."""
        await self._commands.script(scripts.CREATE, self._all(ref), self._idle_ms, _encode(record), self.replica)

    async def load(self, ref: str) -> Found | None:
        """See SessionStore.load."""
        found = await self._commands.script(scripts.LOAD, self._all(ref), self._idle_ms, self.replica)
        if found is None:
            return None
        try:
            return Found(_decode_record(found[0]), None if found[1] is None else found[1].decode())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a session in the store cannot be read", reason=str(error)[:200])
            return None

    def touch(self, ref: str) -> None:
        """See SessionStore.touch."""
        self._commands.push_script(scripts.TOUCH, self._all(ref), self._idle_ms)

    async def lives(self, refs: Sequence[str]) -> list[bool]:
        """See SessionStore.lives."""
        return [bool(one) for one in await self._commands.run_all([("EXISTS", self._key(ref, "s")) for ref in refs])]

    async def set_log_level(self, ref: str, level: str) -> None:
        """See SessionStore.set_log_level."""
        await self._commands.script(scripts.SET_FIELD, [self._key(ref, "s")], "l", level)

    async def owners(self, ref: str) -> frozenset[str]:
        """See SessionStore.owners."""
        return _names(await self._commands.run("SMEMBERS", self._key(ref, "o")))

    def disown(self, ref: str, replica: str) -> None:
        """See SessionStore.disown."""
        self._commands.push("SREM", self._key(ref, "o"), replica)
        self._commands.push("SREM", self._key(ref, "w"), replica)

    async def end(self, ref: str) -> frozenset[str] | None:
        """See SessionStore.end."""
        found = await self._commands.script(scripts.END, self._all(ref))
        return None if found is None else _names(found)

    async def claim(self, ref: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        """See SessionStore.claim."""
        keys = [self._key(ref, "s")]
        found = await self._commands.script(scripts.CLAIM, keys, f"c:{backend}", claim, instead_of or b"")
        return None if found is None else bytes(found)

    async def claimed(self, ref: str, backend: str) -> bytes | None:
        """See SessionStore.claimed."""
        found = await self._commands.run("HGET", self._key(ref, "s"), f"c:{backend}")
        return None if found is None else bytes(found)

    async def claims(self, ref: str) -> dict[str, bytes]:
        """See SessionStore.claims."""
        found = await self._commands.script(scripts.CLAIMS, [self._key(ref, "s")])
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(errors="replace")[2:]: bytes(claim) for name, claim in pairs}

    async def unclaim(self, ref: str, backend: str, claim: bytes) -> None:
        """See SessionStore.unclaim."""
        await self._commands.script(scripts.UNCLAIM, [self._key(ref, "s")], f"c:{backend}", claim)

    def stand(self, ref: str, *, is_standing: bool) -> None:
        """See SessionStore.stand."""
        if is_standing:
            keys = [self._key(ref, what) for what in "swo"]
            self._commands.push_script(scripts.JOIN, keys, self.replica)
        else:
            self._commands.push("SREM", self._key(ref, "w"), self.replica)

    async def standing(self, ref: str) -> frozenset[str]:
        """See SessionStore.standing."""
        return _names(await self._commands.run("SMEMBERS", self._key(ref, "w")))

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
        found = await self._commands.script(scripts.REPLAY, [self._key(ref, "e")], stream)
        try:
            return replayed([(int(place), bytes(text)) for place, text in zip(found[::2], found[1::2], strict=True)])
        except ValueError:
            log.warning("events in the store cannot be read")
            return Replayed([], None, None)

    def _keep(self, ref: str, stream: str, position: int, message: bytes) -> None:
        keys = [self._key(ref, "s"), self._key(ref, "e")]
        self._commands.push_script(
            scripts.KEEP, keys, self._max_events, self._max_event_bytes, stream, position, message
        )

    # --- replicas

    async def beat(self) -> Beat:
        """See ReplicaStore.beat."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._commands.push_script(scripts.OPEN_INBOX, _inbox_keys(self._inbox), 2 * self._dead_ms)
        found = await self._commands.script(scripts.BEAT, [f"{self._prefix}:replicas"], self.replica, self._dead_ms)
        # A beat that was given up here may be carried out by a Redis that was only asleep, and hide that this replica
        # had been dead for the others in between: its own clock knows better.
        is_late = (loop.time() - self._beaten_at) * 1000 > self._dead_ms
        self._beaten_at = began
        return Beat(_names(found[:-1]), is_lapsed=is_late or found[-1] == b"0")

    async def send(self, replica: str, letters: Sequence[bytes]) -> bool:
        """See ReplicaStore.send."""
        keys, most = _inbox_keys(self._inbox_of(replica)), (MAX_LETTERS, self._max_letter_bytes)
        return bool(await self._commands.script(scripts.SEND, keys, *most, *letters))

    async def receive(self, wait_s: float) -> list[bytes]:
        """See ReplicaStore.receive."""
        try:
            entries = await self._reader.read(self._inbox, self._last, LETTERS_AT_ONCE, max(1, round(wait_s * 1000)))
        except Unreachable as error:
            raise StoreUnavailable(UNREACHABLE) from error
        if entries:
            self._last = entries[-1][0].decode()
        letters = [fields[b"m"] for _, fields in entries if b"m" in fields]  # else no letter of ours
        if entries:
            read = (sum(map(len, letters)), *(number for number, _ in entries))
            self._commands.push_script(scripts.CLEAR, _inbox_keys(self._inbox), *read)
        return letters

    async def take(self, letter: str) -> bool:
        """See ReplicaStore.take."""
        key = f"{self._prefix}:letter:{letter}"
        return await self._commands.run("SET", key, self.replica, "NX", "PX", TAKEN_MS) is not None

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """See ReplicaStore.secret."""
        key = f"{self._prefix}:secret:{name}"
        self._commands.push("SET", key, fresh, "NX")
        return bytes(await self._commands.run("GET", key) or fresh)

    async def leave(self) -> None:
        """See ReplicaStore.leave."""
        self._commands.push("ZREM", f"{self._prefix}:replicas", self.replica)
        await self._commands.run("DEL", *_inbox_keys(self._inbox))

    async def aclose(self) -> None:
        """See ReplicaStore.aclose."""
        await self._commands.aclose()
        await self._reader.aclose()

    # --- shares

    async def admit(self, what: str, caller: str, own: Share, most: Share) -> bool:
        """See ShareStore.admit."""
        told = (self.replica, self._dead_ms, HELD_MS, own.of_caller, own.in_all, most.of_caller, most.in_all)
        return bool(await self._commands.script(scripts.HOLD, self._held(what, caller), *told))

    def hold(self, what: str, caller: str, own: Share) -> None:
        """See ShareStore.hold."""
        told = (self.replica, self._dead_ms, HELD_MS, own.of_caller, own.in_all)
        self._commands.push_script(scripts.HOLD, self._held(what, caller), *told)

    # --- keys

    def _key(self, ref: str, what: str) -> str:
        return f"{self._prefix}:{{{ref}}}:{what}"

    def _all(self, ref: str) -> list[str]:
        return [self._key(ref, what) for what in "sowe"]

    def _held(self, what: str, caller: str) -> list[str]:
        name = hashlib.sha256(caller.encode("utf-8", "surrogatepass")).digest()[:18]
        tag = f"{self._prefix}:held:{{{what}}}"
        return [f"{tag}:until", f"{tag}:all", f"{tag}:of:{base64.urlsafe_b64encode(name).decode()}"]

    def _inbox_of(self, replica: str) -> str:
        return f"{self._prefix}:inbox:{{{replica}}}"


def _inbox_keys(inbox: str) -> list[str]:
    return [inbox, f"{inbox}:b"]


def _names(found: Sequence[bytes]) -> frozenset[str]:
    return frozenset(name.decode(errors="replace") for name in found)
