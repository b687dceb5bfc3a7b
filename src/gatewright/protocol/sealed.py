"""Sealed state: what the gateway hands a client to bring back, so that nobody else can read, alter or move it.

AES-256-GCM under rotating keys: the first key seals, every key opens. The context (caller, backend, method, digest of
the parameters) is authenticated with it, so a state presented anywhere else does not open. Whoever opens one still
has to look at the expiry inside. Source: basic/patterns/mrtr of 2026-07-28, server requirements 4 and 5; S-61, S-62.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatewright.errors import ProtocolError

NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
MAX_SEALED_CHARS: Final = 65_536
"""A state longer than this is not one of ours: it is refused before anything is computed over it."""
MAX_KEYS: Final = 4
"""How many keys open: each costs a try for every state that none of them made."""
_FORMAT: Final = b"\x01"


@final
class Sealer:
    """Seals and opens states."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` are 32 random bytes each, the newest first; at least one."""
        self._keys = [AESGCM(key) for key in keys]
        self._nonces = _nonces_of(keys[0])

    def adopt(self, key: bytes) -> None:
        """Seal with another key from now on; what the last ones sealed opens as before."""
        self._keys = [AESGCM(key), *self._keys[: MAX_KEYS - 1]]
        self._nonces = _nonces_of(key)

    def seal(self, payload: bytes, context: bytes, nonce: bytes) -> str:
        """`payload` as an opaque string that opens only in the same context. `nonce` is 12 fresh random bytes."""
        sealed = _FORMAT + nonce + self._keys[0].encrypt(nonce, payload, _FORMAT + context)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def seal_alike(self, payload: bytes, context: bytes) -> str:
        """`payload` as `seal` does it, but always the same string for the same payload, context and newest key: for
        what is compared. Its nonce is a keyed digest of all that is sealed, so that no other payload gets it."""
        told = b"%d:%b%b" % (len(context), context, payload)
        return self.seal(payload, context, hmac.digest(self._nonces, told, "sha256")[:NONCE_BYTES])

    def open(self, state: str, context: bytes) -> bytes:
        """What was sealed. Raises ProtocolError for anything that was not sealed here for this context."""
        if len(state) > MAX_SEALED_CHARS:
            raise ProtocolError("the state is too long to be one of this server's")
        try:
            sealed = base64.b64decode(state + "=" * (-len(state) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("the state is not one of this server's") from error
        is_canonical = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() == state
        if not is_canonical or sealed[:1] != _FORMAT or len(sealed) < 1 + NONCE_BYTES:
            raise ProtocolError("the state is not one of this server's")
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for key in self._keys:
            try:
                return key.decrypt(nonce, body, _FORMAT + context)
            except InvalidTag:
                continue
        raise ProtocolError("the state was altered, or was made for another request")


def _nonces_of(key: bytes) -> bytes:
    return hmac.digest(key, b"nonces of seal_alike", "sha256")


def context(*parts: str | bytes) -> bytes:
    """The parts as one unambiguous byte string."""
    return b"".join(
        b"%d:%b" % (len(part), part)
        for part in (part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts)
    )


def digest(value: bytes) -> bytes:
    """A digest of parameters, to bind a state to them."""
    return sha256(value).digest()
