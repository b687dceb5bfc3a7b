"""`gatewright connect`: a stdio-only host reaches a remote gateway, or any MCP server with an address.

Contract: a gateway of one backend that keeps the server's own names; so a host of either era reaches a server of either
era. Nothing but protocol on stdout. Header values come from the environment and are never shown. The host's patience
is the bound of a call, not ours; a server that cannot be reached is tried again for `wait_s` before a request fails.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatewright.backend.settings import BackendSettings
from gatewright.cli.descriptors import claimed
from gatewright.cli.report import WRONG, CommandError
from gatewright.cli.stdio import run
from gatewright.config import Config, Log, LogLevel
from gatewright.config_expand import UnresolvedError, expand_text
from gatewright.inbound.stdio import StdioHost
from gatewright.secret import Secret

NAME = "remote"
"""The backend's name, as it stands in messages and logs."""
HEADER_VARIABLE = "GATEWRIGHT_HEADER_"
LONGEST_S = 86_400.0
"""A call may take as long as the host waits for it, up to a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    url: str
    headers: Sequence[str] = ()
    tls_ca: str | None = None
    is_insecure: bool = False
    is_sse: bool = False
    wait_s: float = 15.0
    log_level: LogLevel = "warning"


def connect(options: Options) -> None:
    """Carry the host's messages to that address and back. Raises `CommandError`."""
    fds = claimed()
    config = Config(
        admin=None,
        backends={NAME: server(options, os.environ)},
        log=Log(level=options.log_level),
    )
    run(config, StdioHost(NAME, options.wait_s), fds)


def server(options: Options, environ: Mapping[str, str]) -> BackendSettings:
    """The server to reach. Raises `CommandError`; its text holds no value of the environment."""
    try:
        return BackendSettings(
            url=expand_text(options.url, environ, Path.cwd()),
            type="sse" if options.is_sse else None,
            headers=headers(options.headers, environ),
            tls_ca=options.tls_ca,
            tls_verify=not options.is_insecure,
            timeout_s=LONGEST_S,
            max_total_s=LONGEST_S,
        )
    except (ValueError, UnresolvedError) as error:
        raise CommandError(f"gatewright: {error}", WRONG) from None


def headers(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, Secret]:
    """Header fields from `GATEWRIGHT_HEADER_<NAME>` (`_` stands for `-`) and, above them, from `Name: value` texts in
    which `${NAME}` and `${file:PATH}` expand. Raises `CommandError`, `UnresolvedError`."""
    found = {
        key.removeprefix(HEADER_VARIABLE).replace("_", "-").lower(): Secret(value)
        for key, value in environ.items()
        if key.startswith(HEADER_VARIABLE) and value
    }
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise CommandError(
                "gatewright: --header must be 'Name: value', for example 'Authorization: ${TOKEN}'", WRONG
            )
        found[name.strip().lower()] = Secret(expand_text(value.strip(), environ, Path.cwd()))
    return found
