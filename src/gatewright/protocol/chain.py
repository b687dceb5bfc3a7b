"""Chains of gateways: which of them a request has passed, so that a circle ends where it closes.

Every gateway has an id. What it sends to a backend names, in one member of `_meta`, the gateways passed so far and
itself last: in the modern era on every request, in the handshake era on `initialize`, because no call gets round a
circle without a session at every hop. Pure: no clock, no I/O. A chain that a client sends is read as any other input:
what is no chain is refused, not repaired, since a gateway that forgot where a request had been could not end a circle.
Sources: basic/index "_meta" of 2026-07-28 (key names); the idea is that of `CDN-Loop` (RFC 8586).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from gatewright.call import Params
from gatewright.errors import ChainRefused, InvalidParams
from gatewright.protocol import jsonrpc

CHAIN_KEY: Final = "dev.gatewright/chain"
"""The `_meta` member: an array of gateway ids, the first one passed first."""
CHAIN_VARIABLE: Final = "GATEWRIGHT_CHAIN"
"""The environment variable that tells a child process which gateways started it, so that one which is its own backend
does not start itself for ever. It counts for what a gateway begins of its own accord and for no request: a program that
a gateway started may well use that gateway's tools."""
GATEWAY_ID: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
"""What an id looks like. It is shown in errors, so it holds nothing that could be mistaken for text around it."""
MAX_HOPS: Final = 32
"""The most that `limits.max_hops` may be."""
MAX_CHAIN_BYTES: Final = 4_096
"""More than `MAX_HOPS` of the longest ids take; what is longer is not read."""
MAX_SHOWN: Final = 3
"""Gateways between the ends of a circle that an error's text names; its data name all."""

_decode: Final = msgspec.json.Decoder(list[str]).decode
_is_id: Final = re.compile(GATEWAY_ID, re.ASCII).fullmatch


@final
class Chain:
    """One gateway's place in the chains of requests. `inherited` are the gateways that started its process."""

    __slots__ = ("_max_hops", "for_children", "gateway_id", "may_begin", "own")

    def __init__(self, gateway_id: str, max_hops: int, inherited: tuple[str, ...] = ()) -> None:
        self.gateway_id: Final = gateway_id
        self._max_hops = max_hops
        self.own: Final = _written((gateway_id,))
        """What requests of the gateway's own carry: JSON text."""
        self.for_children: Final = _written((*inherited, gateway_id))
        """The same for the environment of its children."""
        self.may_begin: Final = gateway_id not in inherited and len(inherited) < max_hops
        """Whether it may do anything before it is asked to: its backends may be processes that would do the same."""

    def after(self, meta: Params) -> str:
        """The chain that goes on to backends for what came with this `_meta`: that one's, and this gateway. JSON text.

        Raises InvalidParams for what is no chain, ChainRefused for a circle and for a chain that is too long.
        """
        value = meta.get(CHAIN_KEY)
        if value is None:
            return self.own
        passed = read(value)
        if self.gateway_id in passed:
            raise ChainRefused(self._circle(passed), data={"gateways": [*passed, self.gateway_id]})
        if len(passed) >= self._max_hops:
            raise ChainRefused(
                f"More than {self._max_hops} gateways in a row (limits.max_hops of gateway {self.gateway_id}): "
                "shorten the chain, or allow more",
                data={"gateways": [*passed, self.gateway_id], "maxHops": self._max_hops},
            )
        return _written((*passed, self.gateway_id))

    def _circle(self, passed: tuple[str, ...]) -> str:
        """What is wrong and how to mend it, in less than 200 characters but for long ids: lists cut reasons there."""
        between = passed[passed.index(self.gateway_id) + 1 :]
        if not between:
            return (
                f"Gateway {self.gateway_id} is a backend of its own: take the backend that leads back to it out of its "
                "configuration"
            )
        shown = list(between)
        if len(between) > MAX_SHOWN:
            shown[MAX_SHOWN - 1 : -1] = ["..."]
        way = " > ".join([self.gateway_id, *shown, self.gateway_id])
        return f"Gateways in a circle ({way}): take one of the backends that close it out of its configuration"


def read(value: Raw) -> tuple[str, ...]:
    """The gateways that a `_meta` member names. Raises InvalidParams when it is no chain."""
    if len(bytes(value)) > MAX_CHAIN_BYTES:
        raise InvalidParams(f"params._meta.{CHAIN_KEY} is longer than {MAX_CHAIN_BYTES} bytes")
    try:
        passed = tuple(_decode(value))
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams(f"params._meta.{CHAIN_KEY} must be an array of gateway ids") from error
    if not all(map(_is_id, passed)):
        raise InvalidParams(f"params._meta.{CHAIN_KEY} must be an array of gateway ids")
    return passed


def inherited(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The gateways that this process was started by. Raises InvalidParams when `GATEWRIGHT_CHAIN` is no chain."""
    value = environ.get(CHAIN_VARIABLE)
    try:
        return () if not value else read(Raw(value.encode()))
    except InvalidParams as error:
        raise InvalidParams(f"{CHAIN_VARIABLE} in the environment must be an array of gateway ids") from error


def _written(passed: tuple[str, ...]) -> str:
    return jsonrpc.encode(passed).decode()
