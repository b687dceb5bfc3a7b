"""All connections of one listener together: how many are served, what the others are told, how all are ended.

Contract: up to `max_connections` are served. The next `max_surplus` are read once: a probe is answered as ever, any
other request gets a 503 that says when to come back, at random within `retry_after_s`, so that a crowd does not return
as one; then they are closed. Beyond those the oldest surplus one goes unheard, so that who speaks at once never does.
`places` says how many connections the descriptors of the process are enough for, with some kept back for all else.

Draining has two steps. `announce`: every answer is the last one on its connection, nothing else changes. `end`: streams
are told to end, a few at a time, and idle connections are still read for `idle_s`, since a balancer may be about to
send on them. Never does I/O, never reads a clock. Sources: RFC 9110 section 10.2.3 (Retry-After), RFC 9112 section 9.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias, final

import msgspec

from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.probes import PATHS
from gatewright.inbound.responder import DONE, Responder, error_body

Serve: TypeAlias = Callable[[HttpRequest, Responder], Awaitable[None]]
"""Answers one request. It may run on after the response has ended; the next request does not wait for it."""
RETURNS_PER_S: Final = 1_000
"""Streams that are ended, and clients that are told to come back, by second: a fifth of what one replica can take."""
TURN_S: Final = 0.05
"""Streams are ended in groups, one group each time this has passed."""
DEFAULT_CONNECTIONS: Final = 16_000
"""Where nobody counted the descriptors."""
TOO_MANY: Final = "too many connections: come back later"
OWN_DESCRIPTORS: Final = 128
"""The loop, the listeners, logs, the store, the control plane, and what is opened for a moment."""


@final
class Places(msgspec.Struct, frozen=True):
    """How many connections there is room for."""

    connections: int
    surplus: int


def places(descriptors: int, backends: int, wanted: int | None) -> Places:
    """Room for clients in a process that may open so many descriptors, of which its backends may take so many. Never
    more than are wanted; clients get at least half of what there is, as backends rarely take all they may."""
    surplus = max(1, min(1_024, descriptors // 16))
    own = min(OWN_DESCRIPTORS, descriptors // 8)
    room = max(1, descriptors // 2 - surplus, descriptors - surplus - own - backends)
    return Places(room if wanted is None else min(wanted, room), surplus)


class Connection(Protocol):
    """What is done with a connection here."""

    is_draining: bool

    def cut(self) -> None:
        """Close it at once, whatever it is doing."""


@final
class Crowd:
    """The connections of one listener. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        room: Places,
        *,
        retry_after_s: float = 10.0,
        idle_s: float = 0.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.max_connections = room.connections
        self._max_surplus = room.surplus
        self._retry_after_s = retry_after_s
        self._chance = chance
        self._surplus: dict[Connection, None] = {}  # in the order they came
        self._turns = 0
        self._ends_per_s = float(RETURNS_PER_S)
        self._spread_s = 0.0
        self.refused = 0
        """Connections too many that were answered 503, or cut."""
        self.is_draining = False
        self.idle_s = idle_s
        """How long an idle connection is still read once streams are ended."""

    # More than there is room for.

    def shed(self, connection: Connection, serve: Serve) -> Serve:
        """One connection too many: what serves it, instead of `serve`."""
        self._surplus[connection] = None
        if len(self._surplus) > self._max_surplus:
            oldest = next(iter(self._surplus))
            del self._surplus[oldest]
            oldest.cut()
            self.refused += 1

        def once(request: HttpRequest, responder: Responder) -> Awaitable[None]:
            responder.is_last = True
            if request.path in PATHS:  # an orchestrator that hears nothing would kill what is merely busy
                return serve(request, responder)
            self.refused += 1
            responder.respond(503, error_body(-31001, TOO_MANY))
            return DONE

        return once

    def fullness(self, connections: int) -> str | None:
        """What is full with so many connections, None when nothing is."""
        if connections < self.max_connections:
            return None
        return f"{connections} client connections are open: no more are taken"

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._surplus.pop(connection, None)

    def retry_after(self) -> bytes:
        """The field that says when to come back: whole seconds, another number for each."""
        return b"Retry-After: %d\r\n" % (1 + int(self._chance() * self._retry_after_s))

    # Draining.

    def hurry(self) -> None:
        """Somebody waits at the keyboard: idle connections are not read any further."""
        self.idle_s = 0.0

    def announce(self, connections: Iterable[Connection]) -> None:
        """Every answer from now on, on these and on those to come, is the last of its connection."""
        self.is_draining = True
        for connection in connections:
            connection.is_draining = True

    def end(self, connections: int, within_s: float) -> None:
        """So many are about to be told to end, all of them within that time."""
        self._turns = 0
        self._ends_per_s = max(float(RETURNS_PER_S), connections / max(within_s, TURN_S))
        self._spread_s = connections / RETURNS_PER_S

    def turn_s(self) -> float:
        """When the next stream is to be ended, from now."""
        group = max(1, int(self._ends_per_s * TURN_S))
        turn = self._turns // group
        self._turns += 1
        return turn * TURN_S

    def spread_s(self) -> float:
        """How much later than others the client of an ended stream is asked to return."""
        return self._chance() * self._spread_s
