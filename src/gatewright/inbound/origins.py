"""Which web origins may reach the listener: the defence against DNS rebinding (S-02).

A request without `Origin` comes from no browser and passes. One with an origin passes when that is the listener's own
loopback address, or named in the configuration.
"""

from __future__ import annotations

from typing import Final, final

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@final
class Origins:
    """The origins that are let in."""

    def __init__(self, allowed: tuple[str, ...], port: int) -> None:
        own = {
            f"{scheme}://{host}" if port == default else f"{scheme}://{host}:{port}"
            for scheme, default in DEFAULT_PORTS.items()
            for host in LOOPBACK
        }
        self._allowed = frozenset(origin.encode() for origin in own.union(allowed))

    def is_allowed(self, origin: bytes) -> bool:
        """Whether a request with this `Origin` header may pass. Browsers write it in one form only (RFC 6454, 6.2), in
        which it is compared; scheme and host ignore case."""
        return origin in self._allowed or origin.lower() in self._allowed
