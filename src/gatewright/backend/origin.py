"""Where a backend's connections go, and how one is opened.

With TLS the certificate has to name the host, unless the context was made to accept any. Whatever goes wrong is
BackendUnavailable: nothing was sent. Source: RFC 9110, 4.3.4.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar, final

import msgspec

from gatewright.errors import BackendUnavailable

IDLE_S: Final = 60
"""How long a connection may be silent before it is probed: below the idle limits of common firewalls."""
INTERVAL_S: Final = 15
PROBES: Final = 4
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
                transport, protocol = await loop.create_connection(
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
        _keep_alive(transport)
        return protocol


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel look whether the peer is still there: a stream may be silent for hours, and a host that vanished
    says nothing. It is given up after about IDLE_S and PROBES times INTERVAL_S."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", IDLE_S), ("TCP_KEEPINTVL", INTERVAL_S), ("TCP_KEEPCNT", PROBES)):
            if hasattr(socket, option):  # not everywhere under this name
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _reason(error: OSError) -> str:
    """What went wrong, without addresses of ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if error.errno is None or isinstance(error, (ssl.SSLError, socket.gaierror)):
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)  # asyncio puts the address into the error's own text
