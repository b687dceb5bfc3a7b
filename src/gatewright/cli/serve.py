"""`gatewright serve`: run a gateway until it is told to stop.

Contract: everything that can be wrong is found before anything is bound. The first line on stdout is exactly
`gatewright: listening on URL`, written once requests are served; a table of backends and addresses follows. Logs go
to stderr.
"""

import os
from dataclasses import replace
from pathlib import Path

import uvloop

from gatewright.app import Gateway, Ready
from gatewright.cli import workers
from gatewright.cli.logs import configure
from gatewright.cli.process import (
    explained,
    keep_memory,
    raise_descriptors,
    settle_garbage,
    stopping_on_signals,
)
from gatewright.cli.report import WRONG, CommandError, read_config, say
from gatewright.config import Config, LogLevel
from gatewright.errors import GatewrightError
from gatewright.inbound.settings import Listen
from gatewright.protocol.chain import is_child


def serve(file: Path, listen: str | None, log_level: LogLevel | None, count: int | None = None) -> None:
    """Serve that file's configuration, with so many processes. Raises `CommandError`."""
    config = with_options(read_config(file).config, listen, log_level, count)
    configure(config.log)
    raise_descriptors(config.limits.max_connections or 0)
    if config.workers > 1:
        workers.serve(config, lambda url: announce(url, config))
    else:
        alone(config)


def alone(config: Config) -> None:
    """Serve with this process. Raises `CommandError`."""
    try:
        gateway = Gateway(config, is_child=is_child(os.environ))
        with stopping_on_signals(gateway) as signals:

            def on_ready(ready: Ready) -> None:
                announce(ready.url, config)
                settle_garbage()
                keep_memory()
                signals.arm()

            uvloop.run(gateway.run(on_ready=on_ready))
    except (OSError, GatewrightError, BaseExceptionGroup) as error:
        raise explained(error, config.listen) from error


def with_options(config: Config, listen: str | None, log_level: LogLevel | None, count: int | None = None) -> Config:
    """The configuration with what the command line says in place of what the file says. Raises `CommandError`."""
    try:
        if listen is not None:
            address = Listen.parse(listen, allowed_origins=config.listen.allowed_origins)
            config = replace(config, listen=address)
        if log_level is not None:
            config = replace(config, log=replace(config.log, level=log_level))
        if count is not None:
            config = replace(config, workers=count)
    except ValueError as error:
        raise CommandError(f"gatewright: {error}", WRONG) from None
    return config


def announce(url: str, config: Config) -> None:
    """Say where it listens, then what stands behind each address."""
    say(f"gatewright: listening on {url}")
    rows = [("/mcp", "all backends", f"as BACKEND{config.routing.separator}TOOL")]
    rows += [(f"/mcp/{name}", backend.transport, backend.shown) for name, backend in config.backends.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for path, kind, shown in rows:
        say(f"  {path:<{widths[0]}}  {kind:<{widths[1]}}  {shown}")
    if not config.backends:
        say("  (no backends yet: add some under backends: in the configuration)")
