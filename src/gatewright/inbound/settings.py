"""Settings of the client-facing side: where it listens and every bound of it.

Contract: frozen plain dataclasses with the defaults the documentation states; no I/O, no environment. `config.py`
fills them from the file and reports what is wrong with a position; constructing one directly with a value out of
range is a bug. Bounds exist because every one of them has been an outage or an advisory somewhere (slow headers,
endless bodies, deep JSON, readers that stop reading): none of them may be infinite.
"""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict
from typing_extensions import override

Seconds = Annotated[float, Gt(0), Le(86_400)]
"""A waiting time in seconds: above 0, at most a day, so that nothing waits for ever."""

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - only what `:PORT` means; the default is loopback
LOOPBACK = "127.0.0.1"

_ADDRESS = re.compile(
    r"""(?x)
    (?: \[ (?P<six> [0-9A-Fa-f:.%]+ ) \] : | (?P<host> [A-Za-z0-9._-]* ) (?P<colon> : ) )?
    (?P<port> [0-9]{1,5} )
    """,
)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """One listening address and the browser origins allowed to call it.

    In a file either this mapping or just `HOST:PORT`. Raises `ValueError` with advice for the person who wrote it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    host: str = LOOPBACK
    """Host name or IP address, without brackets. Loopback by default: opening up is a decision, not an accident."""
    port: Annotated[int, Ge(0), Le(65_535)] = 8080
    """TCP port; 0 takes a free one."""
    allowed_origins: tuple[str, ...] = ()
    """Values of the `Origin` header that are served, besides the loopback origins of this address itself, which
    always are. A request without `Origin` (no browser) is served too; any other origin gets 403."""

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError(f"needs a host; write {ALL_INTERFACES} for every interface")
        if not all(map(_ORIGIN.fullmatch, self.allowed_origins)):
            raise ValueError("allowed_origins: write scheme://host or scheme://host:port, in lower case and no path")

    @classmethod
    def parse(cls, text: str, *, allowed_origins: tuple[str, ...] = ()) -> "Listen":
        """Read `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, `:8080` (every interface) or `8080` (loopback).

        Raises `ValueError` when the text is none of these.
        """
        found = _ADDRESS.fullmatch(text.strip())
        if found is None or int(found["port"]) > 65_535:
            raise ValueError("this is not an address: write HOST:PORT, [IPV6]:PORT, :PORT or PORT")
        if found["six"]:
            host = found["six"]
        elif found["colon"]:
            host = found["host"] or ALL_INTERFACES
        else:
            host = LOOPBACK
        return cls(host=host, port=int(found["port"]), allowed_origins=allowed_origins)

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection, request or stream may cost. Exceeding one ends that request or connection, no other."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    header_timeout_s: Seconds = 10.0
    """From the first byte of a request (or the accept) to the end of its header. A slow-header client holds a socket
    for this long at most; honest clients send the header in one packet."""
    body_timeout_s: Seconds = 30.0
    """From the end of the header to the end of the body: 4 MiB in 30 s is a 1.1 Mbit/s uplink."""
    keep_alive_s: Seconds = 75.0
    """An idle connection is kept this long. Longer than the 60 s of common load balancers, so that they close first
    and never send into a connection we are closing."""
    write_stall_s: Seconds = 30.0
    """A client that takes no byte of its answer for this long is disconnected: a full buffer is memory we pay for."""
    max_header_bytes: Annotated[int, Ge(1_024), Le(1 << 20)] = 32_768
    """Request line and header fields together. Room for large bearer tokens (Kerberos-born ones reach 16 KB)."""
    max_body_bytes: Annotated[int, Ge(1_024), Le(1 << 30)] = 4 << 20
    """One request body: 4 MiB carries a base64 image of 3 MB; larger things belong in resources."""
    max_json_depth: Annotated[int, Ge(8), Le(512)] = 64
    """Nesting of objects and arrays in a body. Hand-written schemas and arguments stay below 20."""
    max_pipelined: Annotated[int, Ge(1), Le(1_024)] = 16
    """Requests sent ahead on one connection before it is no longer read. MCP clients do not pipeline; proxies may."""
    max_connections: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Open client connections; the next one is answered 503, unless it is a probe. Without it as many as the process
    may open descriptors (`ulimit -n`), less those that backends and the gateway itself may need: a listener that runs
    out of descriptors answers nobody."""
    retry_after_s: Annotated[float, Ge(1), Le(3_600)] = 10.0
    """Whoever is answered 503 is told to come back after 1 s to this, at random (`Retry-After`): a crowd that was sent
    away together must not return together."""
    stream_keepalive_s: Seconds = 15.0
    """A comment line is sent on a silent event stream this often; proxies drop silence after 30 to 60 s."""
    max_queued_messages: Annotated[int, Ge(1), Le(65_536)] = 256
    """Notifications waiting for one slow reader of a stream before the producer waits."""
    max_calls_per_session: Annotated[int, Ge(1), Le(1_000_000)] = 1_000
    """Calls that one handshake session may have running; the next one is answered 503. A host runs some ten, and its
    calls go on when their connections are closed, so nothing else bounds them."""
    max_hops: Annotated[int, Ge(1), Le(32)] = 8
    """Gateways that a request may pass in a row, this one among them. A circle of replicas that do not know each other
    by one `gateway_id` ends here too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Handshake sessions. The modern era has none."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    idle_s: Annotated[float, Gt(0), Le(30 * 86_400)] = 3_600.0
    """A session nobody used for this long is ended; the client gets 404 and initializes again, as the spec says."""
    max_sessions: Annotated[int, Ge(1), Le(10_000_000)] = 100_000
    """Sessions in one process; the next `initialize` is answered 503. About 2 KB each, so some 200 MB at the most."""
    max_pending_asks: Annotated[int, Ge(1), Le(65_536)] = 64
    """Questions of backends (elicitation, sampling, roots) that one session may have open."""
    max_events: Annotated[int, Ge(1), Le(1 << 20)] = 1_000
    """Events of one session's streams that are kept so that a client whose connection broke can resume. The oldest go
    first; a client that would miss one of them is told that it came too late."""
    max_event_bytes: Annotated[int, Ge(1_024), Le(1 << 30)] = 1 << 20
    """Their messages' bytes, by session: what one session's log may hold. A session on which nothing was streamed has
    no log, one on which something was 1.2 KB and 0.3 KB for each event besides: with the defaults 1.4 MB at the most.
    An answer that is larger can be read once, and not resumed."""
    max_event_bytes_total: Annotated[int, Ge(1_024), Le(1 << 40)] = 256 << 20
    """The same for all sessions together. When it is used up a session keeps less than its share; none loses what
    another one sends."""
    retry_s: Annotated[float, Ge(0.001), Le(3_600)] = 1.0
    """How long a client should wait before it resumes a stream that broke (`retry` of the first event, 2025-11-25). A
    question on such a stream stays open for ten times as long."""
