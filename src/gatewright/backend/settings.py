"""Settings of one backend: how it is reached and every bound of it.

Contract: a frozen plain dataclass; its name is the key it stands under and is checked with `is_name`. Exactly one of
`url`, `command` and `python` says how the backend is reached. No I/O, no environment: a command is not looked up, a
file not opened, a module not imported here. Constructing one with a contradiction raises `ValueError` with advice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict

from gatewright.secret import MASK, Secret

Seconds = Annotated[float, Gt(0), Le(86_400)]
"""A waiting time in seconds: above 0, at most a day, so that nothing waits for ever."""

Transport = Literal["http", "sse", "stdio", "python"]
Era = Literal["auto", "modern", "handshake"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5, without obs-fold and control characters
_PYTHON_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# Written by the channel itself; a second one would be request smuggling or a protocol error.
_OWN_HEADERS = frozenset(
    {"accept", "connection", "content-length", "content-type", "host", "keep-alive", "last-event-id", "mcp-method"}
    | {"mcp-name", "mcp-protocol-version", "mcp-session-id", "te", "trailer", "transfer-encoding", "upgrade"}
)


def is_name(text: str) -> bool:
    """Whether the text can name a backend: 1 to 64 of letters, digits, `_` and `-`.

    The name stands in a URL path (`/mcp/<name>`) and in front of every tool name, hence no dots, slashes or spaces.
    """
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One backend. `transport` tells which of the four ways it is reached."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    # --- how it is reached: exactly one of url, command, python
    url: str | None = field(default=None, repr=False)
    """Address of its MCP endpoint, `http://` or `https://`. Not in the repr: query strings carry keys; see `shown`."""
    command: str | None = None
    """Program to start as a child and talk to over stdin and stdout."""
    python: str | None = None
    """`module:attribute` of a server object that runs inside this process."""
    type: Literal["http", "streamable-http", "sse", "stdio"] | None = None
    """Only to say more than `url` does: `sse` is the 2024-11-05 transport; the others say what is known already."""

    # --- of a child process
    args: tuple[str, ...] = field(default=(), repr=False)
    """Arguments of the command, each passed as it is (no shell). Not in the repr: tokens are passed this way too."""
    env: Mapping[str, Secret] = field(default_factory=dict)
    """Variables added to the small environment a child gets. All are treated as secrets."""
    cwd: str | None = None
    """Working directory of the child; the gateway's own when absent."""

    # --- of a connection
    headers: Mapping[str, Secret] = field(default_factory=dict)
    """Header fields sent with every request to it. All are treated as secrets."""
    tls_ca: str | None = None
    """PEM file of the authorities to trust for this backend instead of the system's."""
    tls_verify: bool = True
    """False accepts any certificate: for a laptop, never for production."""

    # --- what is known about it
    era: Era = "auto"
    """Protocol era it speaks; `auto` asks it once and remembers."""
    stateless: bool = False
    """True promises that it keeps nothing about its callers, so one backend session may serve them all."""
    description: str | None = None
    """For people: shown in the console and by `gatewright check`."""
    instructions: str | None = None
    """Replaces the instructions this backend gives to models."""

    # --- bounds
    timeout_s: Seconds = 60.0
    """A call without a word (answer or progress) from the backend fails after this: the official SDKs' default."""
    max_total_s: Seconds = 600.0
    """A call fails after this however much progress it reports: progress must not be a way to run for ever."""
    connect_timeout_s: Seconds = 5.0
    """Until a connection, TLS included, stands."""
    max_connections: Annotated[int, Ge(1), Le(65_536)] = 256
    """Connections to it at once; further calls wait for one within their own deadline. A call of which the backend has
    asked something, and that waits for a person, takes none of these, but one of four times as many more."""
    max_idle_connections: Annotated[int, Ge(0), Le(65_536)] = 64
    """Of these, how many are kept when idle: enough for bursts without holding the backend's descriptors."""
    keep_alive_s: Seconds = 4.0
    """An idle connection to it is closed after this. Below the 5 s of uvicorn and of Node, which most MCP servers run
    on, so that we close first and never send a call into a connection that is going away."""
    max_response_bytes: Annotated[int, Ge(1_024), Le(1 << 30)] = 10 << 20
    """One answer, or one event of a stream."""
    max_line_bytes: Annotated[int, Ge(1_024), Le(1 << 30)] = 10 << 20
    """One line of a child's output, that is one message."""
    stop_grace_s: Seconds = 2.0
    """Each stage of stopping a child (stdin closed, then SIGTERM, then SIGKILL to its group) waits this long."""
    restart_backoff_s: Seconds = 0.5
    """First pause before a child that died is started again; it doubles each time."""
    restart_backoff_max_s: Seconds = 30.0
    """The pause never grows beyond this: a repaired child is back within half a minute."""
    max_children: Annotated[int, Ge(1), Le(4_096)] = 64
    """Children at once when the backend is not stateless and every caller needs one."""
    max_parked: Annotated[int, Ge(1), Le(1_000_000)] = 10_000
    """Calls that wait for a modern client's answers, its backend being of the handshake era: each holds a stream. On
    all replicas together, where they share a store."""
    max_parked_per_caller: Annotated[int, Ge(1), Le(1_000_000)] = 1_000
    """Of these, how many of one caller."""
    parked_s: Seconds = 300.0
    """How long such a call waits for its answers; then the backend is told that it is cancelled."""

    def __post_init__(self) -> None:
        given = [key for key in ("url", "command", "python") if getattr(self, key)]
        if len(given) != 1:
            told = "has " + " and ".join(given) if given else "has none of them"
            raise ValueError(f"a backend needs exactly one of url, command and python; this one {told}")
        if self.restart_backoff_max_s < self.restart_backoff_s:
            raise ValueError("restart_backoff_max_s must be at least restart_backoff_s")
        if self.url is not None:
            _check_url(self.url)
        if self.python is not None and not _PYTHON_TARGET.fullmatch(self.python):
            raise ValueError("python must be module:attribute, for example my_package.server:mcp")
        self._check_fit()
        _check_headers(self.headers)

    def _check_fit(self) -> None:
        """Refuse keys that mean nothing for the way this backend is reached: silence would hide a mistake."""
        if self.url is None and self.type in ("http", "streamable-http", "sse"):
            raise ValueError(f"type {self.type} needs a url")
        if self.command is None and self.type == "stdio":
            raise ValueError("type stdio needs a command")
        if self.command is None and (self.args or self.env or self.cwd is not None):
            raise ValueError("args, env and cwd belong to a command, and there is none")
        if self.url is None and (self.headers or self.tls_ca is not None or not self.tls_verify):
            raise ValueError("headers, tls_ca and tls_verify belong to a url, and there is none")

    @property
    def transport(self) -> Transport:
        """The way it is reached; the composition root picks the implementation by it."""
        if self.python is not None:
            return "python"
        if self.command is not None:
            return "stdio"
        return "sse" if self.type == "sse" else "http"

    @property
    def max_descriptors(self) -> int:
        """How many files and sockets it may take at the most: answers to its questions go beside its connections, and
        a child has three pipes and its guard's."""
        if self.python is not None:
            return 0
        if self.command is not None:
            return 4 * (1 if self.stateless else self.max_children)
        return 2 * self.max_connections + self.max_lent

    @property
    def max_lent(self) -> int:
        """Connections on which calls may wait for people, beside those for calls that run: more than
        `max_parked_per_caller`, so that one caller's questions never stop everybody's calls."""
        return 4 * self.max_connections

    @property
    def shown(self) -> str:
        """Where it is, fit for a log or a screen: values of a query string masked, arguments left out."""
        if self.url is None:
            return self.python or self.command or ""
        parts = urlsplit(self.url)
        query = "&".join(f"{key}={MASK}" for key, _ in parse_qsl(parts.query, keep_blank_values=True))
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text repeats parts of the address, which may hold a password
        raise ValueError("url is not a valid address: write http://HOST[:PORT]/PATH") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("url must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url must not carry credentials; put them in headers, for example authorization")
    if parts.fragment or any(ord(char) <= 0x20 or ord(char) >= 0x7F for char in url):
        raise ValueError("url must be plain ASCII without spaces, control characters or #fragment")


def _check_headers(headers: Mapping[str, Secret]) -> None:
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers {name!r} is not a header name")
        if lower in _OWN_HEADERS:
            raise ValueError(f"headers {name} is written by the gateway itself and cannot be set")
        if lower in seen:
            raise ValueError(f"headers {name} is given twice (header names ignore case)")
        if not _HEADER_VALUE.fullmatch(value.reveal()):
            raise ValueError(f"headers: the value of {name} has a line break or control character")
        seen.add(lower)
