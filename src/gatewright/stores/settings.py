"""Settings of the store: where sessions live, and how many replicas find them there.

Contract: frozen plain data with the defaults the documentation states; no I/O. The address of a Redis may hold a
password, so it is a `Secret`, and `shown` is what may be printed of it.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict

from gatewright.secret import Secret

MEMORY = "memory"
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
MIN_SECRET_CHARS = 16

_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A Redis address, taken apart."""

    kind: str
    """`redis`, `sentinel` or `cluster`."""
    is_tls: bool
    hosts: tuple[tuple[str, int], ...]
    service: str
    """The name that Sentinels know the Redis by."""
    db: int
    username: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where sessions live. In a file either this mapping or just the address. Raises `ValueError` with advice."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    url: Secret = field(default_factory=lambda: Secret(MEMORY))
    """`memory`: in the one process there is. Or a Redis (6.2 or later) or Valkey that any number of replicas share:
    `redis://HOST:PORT/DB`, `rediss://` for TLS, `redis+sentinel://HOST,HOST/SERVICE/DB`, `redis+cluster://HOST,HOST`
    (with `rediss+` for TLS). User and password stand before the host, or come from the environment: `${REDIS_URL}`."""
    key_prefix: str = "gatewright"
    """What every key begins with. Replicas that share a Redis and this are one deployment."""
    secret: Secret | None = None
    """What the keys are derived from that seal what clients carry between replicas (request states, cursors): at least
    16 characters, the same for every replica. Without it a random one is kept in the store."""
    timeout_s: Annotated[float, Gt(0), Le(60)] = 1.0
    """A command that takes longer has failed, and the connection it was on is closed. Half as long again is allowed for
    the connection that it may need."""
    dead_after_s: Annotated[float, Ge(2), Le(300)] = 5.0
    """A replica that was not heard of for this long is taken for dead: what only it could do fails or begins anew."""
    tls_ca: str | None = None
    """PEM file of the authorities to trust for it."""
    tls_verify: bool = True
    """`false` accepts any certificate: for a laptop, never for production."""

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.key_prefix):
            raise ValueError("key_prefix: 1 to 64 letters, digits and . _ : -")
        if self.secret is not None and len(self.secret.reveal()) < MIN_SECRET_CHARS:
            raise ValueError(f"secret: at least {MIN_SECRET_CHARS} characters")
        if self.is_shared:
            self.address()

    @property
    def is_shared(self) -> bool:
        """Whether more than one process can find the sessions."""
        return self.url.reveal() != MEMORY

    @property
    def shown(self) -> str:
        """What may be printed of the address."""
        if not self.is_shared:
            return MEMORY
        parts = urlsplit(self.url.reveal())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def address(self) -> Address:
        """The Redis it names. Raises ValueError, which never repeats it: it may hold a password."""
        parts = urlsplit(self.url.reveal())
        if parts.scheme not in SCHEMES or parts.query or parts.fragment:
            raise ValueError(f"url: write memory, or an address that begins with one of {', '.join(SCHEMES)}://")
        kind = parts.scheme.partition("+")[2] or "redis"
        port = DEFAULT_SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
        credentials, _, places = parts.netloc.rpartition("@")
        hosts = tuple(_host(place, port) for place in places.split(","))
        if kind == "redis" and len(hosts) != 1:
            raise ValueError("url: several hosts need redis+sentinel:// or redis+cluster://")
        service, db = _path(parts, kind)
        username, _, password = credentials.partition(":")
        return Address(
            kind=kind,
            is_tls=parts.scheme.startswith("rediss"),
            hosts=hosts,
            service=service,
            db=db,
            username=unquote(username) or None,
            password=unquote(password) or None,
        )


def _host(place: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", place)
    if found is None or int(found["port"] or 1) > 65_535:
        raise ValueError("url: write each host as HOST, HOST:PORT or [IPV6]:PORT")
    return found["six"] or found["name"], int(found["port"] or port)


def _path(parts: SplitResult, kind: str) -> tuple[str, int]:
    """Service name and database number."""
    steps = [step for step in parts.path.split("/") if step]
    service = steps.pop(0) if kind == "sentinel" and steps else ""
    if kind == "sentinel" and not service:
        raise ValueError("url: redis+sentinel:// needs the service name: redis+sentinel://HOST,HOST/SERVICE/DB")
    if len(steps) > 1 or (steps and not steps[0].isdecimal()) or (steps and kind == "cluster" and steps != ["0"]):
        raise ValueError("url: a database number at most stands after the host, and none for a cluster")
    return service, int(steps[0]) if steps else 0
