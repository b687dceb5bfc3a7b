"""The servers and the clients of the interop tests, and how each pair is expected to get on.

Data only. A server's `eras` are those it speaks. A client of one of them can do everything directly; through the
gateway clients of both eras can.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop.plans import Era, Everything, Fixture, Scenario, ServerKind, Small, keyed

HERE = Path(__file__).parent
SERVERS_DIR = HERE / "servers"
BOTH: tuple[Era, ...] = ("handshake", "modern")
HANDSHAKE: tuple[Era, ...] = ("handshake",)
MODERN: tuple[Era, ...] = ("modern",)
EVERYTHING_MAIN = "node_modules/@modelcontextprotocol/server-everything/dist/index.js"


@dataclass(frozen=True)
class ServerCell:
    """One server. `command` serves HTTP and prints where; `stdio` serves one client; `python` is an importable object.

    `{node}` and `{cache}` in a command stand for the Node program and the folder of the npm packages. `is_sse`: it is
    served over the transport of 2024-11-05, in that revision.
    """

    name: str
    kind: ServerKind
    eras: tuple[Era, ...]
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    stdio: tuple[str, ...] = ()
    python: str = ""
    is_sse: bool = False

    def direct(self, era: Era, key: str) -> list[Scenario]:
        """What a client of this era does when it speaks to the server itself."""
        return keyed(self.kind.full("", era), key)

    def through(self, era: Era, key: str, prefix: str) -> list[Scenario]:
        """What a client of this era does through a gateway whose endpoint adds `prefix` to names."""
        return keyed(self.kind.full(prefix, era), key)


def official(name: str, transport: str, era: str, eras: tuple[Era, ...]) -> ServerCell:
    """The fixture of the official Python SDK over one transport."""
    argv = (sys.executable, str(SERVERS_DIR / "official.py"), transport, "--label", name, "--era", era)
    placed: dict[str, Any] = {"stdio": argv} if transport == "stdio" else {"command": argv}
    is_sse = transport == "sse"
    return ServerCell(name, Fixture(name, is_aged=is_sse), eras, **placed, is_sse=is_sse)


ALL_SERVERS = (
    official("both", "http", "both", BOTH),
    official("handshake", "http", "handshake", HANDSHAKE),
    official("modern", "http", "modern", MODERN),
    official("sse", "sse", "handshake", HANDSHAKE),
    official("stdio", "stdio", "handshake", HANDSHAKE),
    official("stdio-modern", "stdio", "modern", MODERN),
    official("stdio-both", "stdio", "both", BOTH),
    ServerCell(
        "inproc",
        Fixture("inproc"),
        BOTH,
        command=(sys.executable, str(SERVERS_DIR / "official.py"), "http", "--label", "inproc"),
        python="inprocess:official_server",
    ),
    ServerCell(
        "fastmcp",
        Small("fastmcp"),
        BOTH,
        command=(sys.executable, str(SERVERS_DIR / "inprocess.py")),
        python="inprocess:fastmcp_server",
    ),
    ServerCell(
        "everything",
        Everything(),
        HANDSHAKE,
        command=(
            "{node}",
            "--import",
            str(SERVERS_DIR / "loopback.mjs"),
            f"{{cache}}/{EVERYTHING_MAIN}",
            "streamableHttp",
        ),
        env={"PORT": "0"},
    ),
    ServerCell(
        "everything-stdio",
        Everything(),
        HANDSHAKE,
        stdio=("{node}", f"{{cache}}/{EVERYTHING_MAIN}", "stdio"),
    ),
)

ONLY = os.environ.get("INTEROP_SERVERS", "").split()  # names, for looking at one server alone
SERVERS = tuple(server for server in ALL_SERVERS if not ONLY or server.name in ONLY)


@dataclass(frozen=True)
class ClientCell:
    """One client script (a `.py` or `.mjs` file of `clients/`) in one era; `is_sse`: over HTTP+SSE of 2024-11-05."""

    name: str
    script: str
    era: Era
    is_sse: bool = False

    def can_reach(self, server: ServerCell) -> bool:
        """Whether it can speak to the server itself, without a gateway."""
        return self.era in server.eras and self.is_sse == server.is_sse


CLIENTS = (
    ClientCell("python-sdk-legacy", "python_sdk.py", "handshake"),
    ClientCell("python-sdk-modern", "python_sdk.py", "modern"),
    ClientCell("python-sdk-sse", "python_sdk.py", "handshake", is_sse=True),
    ClientCell("fastmcp-legacy", "fastmcp_client.py", "handshake"),
    ClientCell("fastmcp-modern", "fastmcp_client.py", "modern"),
    ClientCell("ts-v1", "typescript_v1.mjs", "handshake"),
    ClientCell("ts-v2-legacy", "typescript_v2.mjs", "handshake"),
    ClientCell("ts-v2-modern", "typescript_v2.mjs", "modern"),
)

# (client, server, scenario) -> why it does not work even without a gateway. A gap that closes fails the direct test.
DIRECT_GAPS: dict[tuple[str, str, str], str] = {}

# (client's era, server, scenario) -> the clause that lets no gateway carry it
FORBIDDEN: dict[tuple[str, str, str], str] = {
    ("modern", "everything", "roots"): (
        "The server asks for the roots when its session begins, outside of any call; a modern client can be asked only "
        "by what answers one of its requests (2026-07-28, basic/patterns/mrtr, overview)."
    ),
}
