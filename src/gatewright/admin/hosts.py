"""Who may ask the control plane: the defence against DNS rebinding for what needs no `Origin`.

A page whose own name was made to point to this address reads answers as its own, and a browser sends no `Origin` with
such a GET; but it sends the page's name as `Host`. Let in is what no stranger can have a page under: addresses, names
without a dot, names kept for private networks, the listener's own, and those of the origins that are configured. A
request without `Host` comes from no browser, nor has a probe anything to tell: both pass. An `Origin`, if there is one,
has to be allowed as well. Refused with 403 and what to do. Sources: S-02; RFC 6761, RFC 6762, RFC 8375; ICANN's
resolution 2024.07.29.06 (`.internal`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PRIVATE: Final = ("localhost", "local", "internal", "home.arpa", "svc")
"""Last parts of names that nobody can register. `svc` is what Kubernetes puts behind services."""
PROBES: Final = frozenset({"/livez", "/readyz", "/health"})
MAX_SHOWN: Final = 100


@final
class Hosts:
    """The values of `Host` that are let in. `own` is the name that the listener is bound to."""

    def __init__(self, own: str, origins: Iterable[str]) -> None:
        self._named = frozenset({own.lower(), *(urlsplit(origin).hostname or "" for origin in origins)})

    def is_allowed(self, host: str) -> bool:
        """Whether a request with this `Host` header (RFC 9110, 7.2) may pass."""
        name = _name_of(host)
        if "." not in name or name in self._named or _is_address(name):
            return True
        return name.endswith(tuple(f".{last}" for last in PRIVATE))


@final
class Guarded:
    """An ASGI application behind that check."""

    def __init__(self, app: ASGIApp, hosts: Hosts, is_origin_allowed: Callable[[bytes], bool]) -> None:
        self._app = app
        self._hosts = hosts
        self._is_origin_allowed = is_origin_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or refuse."""
        refusal = self._refusal(scope) if scope["type"] == "http" and scope["path"] not in PROBES else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"error": refusal}, status_code=403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        for name, value in scope["headers"]:
            shown = value.decode("latin-1")[:MAX_SHOWN]
            if name == b"host" and not self._hosts.is_allowed(value.decode("latin-1")):
                return f"nothing is served here as {shown}: name it in admin.allowed_origins (https://{shown})"
            if name == b"origin" and not self._is_origin_allowed(value):
                return f"pages of {shown} may not ask here: see admin.allowed_origins"
        return None


def _name_of(host: str) -> str:
    """Without its port and a last dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
