"""Where an HTTP backend is and what every request to it carries: taken from its settings once, for every transport.

No I/O but reading the `tls_ca` file. A header value comes from the settings, which refuse line breaks.
Sources: RFC 9112 section 3.2, RFC 9110 section 7.2.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

from gatewright.backend.origin import Origin

if TYPE_CHECKING:
    from gatewright.backend.settings import BackendSettings


@final
class Address:
    """One backend's origin, request target and common header lines."""

    def __init__(self, settings: BackendSettings) -> None:
        assert settings.url is not None
        parts = urlsplit(settings.url)
        assert parts.hostname is not None
        tls = _tls(settings) if parts.scheme == "https" else None
        default_port = 443 if tls is not None else 80
        port = parts.port or default_port
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = host if port == default_port else f"{host}:{port}"
        own = "".join(f"{key}: {value.reveal()}\r\n" for key, value in settings.headers.items())
        self.origin: Final = Origin(parts.hostname, port, tls)
        self.target: Final = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._common = f"host: {authority}\r\nuser-agent: gatewright\r\naccept-encoding: identity\r\n{own}"

    def head(self, method: str, lines: str = "", *, target: str | None = None) -> bytes:
        """Request line and header lines, without the empty line that ends them; `lines` end in CRLF each."""
        return f"{method} {target or self.target} HTTP/1.1\r\n{self._common}{lines}".encode("latin-1")


def _tls(settings: BackendSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except OSError as error:  # also what is no PEM
        raise OSError(f"tls_ca {settings.tls_ca} cannot be read as PEM: {error.strerror or error}") from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
