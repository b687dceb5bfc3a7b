"""Which web origins may reach the listener: the defence against DNS rebinding (S-02).

A request without `Origin` comes from no browser and passes. One with an origin passes when that is the listener's own
loopback address, or named in the configuration.
"""

from __future__ import annotations

from typing import Final, final
from urllib.parse import urlsplit

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@final
class Origins:
    """The origins that are let in."""

    def __init__(self, allowed: tuple[str, ...], port: int) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)
        self._port = port

    def is_allowed(self, origin: bytes) -> bool:
        """Whether a request with this `Origin` header may pass."""
        return origin in self._allowed or self._is_own(origin)

    def _is_own(self, origin: bytes) -> bool:
        try:
            parts = urlsplit(origin.decode("ascii"))
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except (UnicodeDecodeError, ValueError):
            return False
        return parts.scheme in ("http", "https") and parts.hostname in LOOPBACK and port == self._port
