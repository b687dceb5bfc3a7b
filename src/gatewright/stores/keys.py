"""The secret that seals what clients carry from replica to replica: one for all of them.

From the configuration, where there is one; else a random one that the first replica keeps in the store. Whoever started
while the store was down made its own, and takes the shared one as soon as it is there; what was sealed before opens on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final, final

from gatewright.secret import Secret
from gatewright.stores.base import ReplicaStore

SECRET_BYTES: Final = 32
NAME: Final = "seal"


def derived(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return hmac.digest(secret, purpose.encode(), "sha256")


@final
class SharedSecret:
    """The secret of this replica, which becomes that of all."""

    def __init__(self, configured: Secret | None) -> None:
        self._is_configured = configured is not None
        self.value = (
            secrets.token_bytes(SECRET_BYTES)
            if configured is None
            else hashlib.sha256(configured.reveal().encode()).digest()
        )

    async def settle(self, store: ReplicaStore, adopt: Callable[[bytes], None]) -> None:
        """Take the one in the store, or put this one there. `adopt` is called with another one. Raises
        StoreUnavailable."""
        if self._is_configured:
            return
        found = await store.secret(NAME, self.value)
        if found != self.value:
            self.value = found
            adopt(found)
