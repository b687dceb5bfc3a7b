"""Where a backend's connections go, and how one is opened.

With TLS the certificate has to name the host, unless the context was made to accept any. Whatever goes wrong is
BackendUnavailable: nothing was sent. Source: RFC 9110, 4.3.4.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar, final

import msgspec

from gatewright.errors import BackendUnavailable

P = TypeVar("P", bound=asyncio.Protocol)


@final
class Origin(msgspec.Struct, frozen=True):
    """One host and port. `tls` is None for plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    async def open(self, name: str, make: Callable[[], P], timeout_s: float) -> P:
        """A new connection under a protocol of that making. Raises BackendUnavailable; `name` is the backend's."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, protocol = await loop.create_connection(
                    make,
                    self.host,
                    self.port,
                    ssl=self.tls,
                    server_hostname=self.host if self.tls is not None else None,
                )
        except TimeoutError:
            raise BackendUnavailable(f"{name} did not accept a connection within {timeout_s:g} s") from None
        except OSError as error:  # TLS errors are among them
            raise BackendUnavailable(f"{name} cannot be reached: {_reason(error)}") from error
        return protocol


def _reason(error: OSError) -> str:
    """What went wrong, without addresses of ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if error.errno is None or isinstance(error, (ssl.SSLError, socket.gaierror)):
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)  # asyncio puts the address into the error's own text
