"""`gatewright stdio`: a gateway for one local host, on standard input and output.

Contract: nothing but protocol on stdout, from the first moment; logs and problems go to stderr. Nothing is bound: every
host may start its own from the same file. Ends with exit code 0 when the host closes the input, or on SIGTERM or
SIGINT; a second signal ends it at once.
"""

import os
from pathlib import Path
from typing import TextIO, cast

import uvloop

from gatewright.app import Gateway
from gatewright.cli.descriptors import Unhurried, claimed
from gatewright.cli.logs import configure
from gatewright.cli.process import explained, stopping_on_signals
from gatewright.cli.report import WRONG, CommandError, read_config
from gatewright.cli.serve import with_options
from gatewright.config import Config, LogLevel
from gatewright.errors import GatewrightError
from gatewright.inbound.stdio import StdioHost
from gatewright.protocol.chain import inherited

STDERR = 2


def stdio(file: Path, backend: str | None, log_level: LogLevel | None) -> None:
    """Serve that file's backends, or one of them, to the host that started this. Raises `CommandError`."""
    fds = claimed()
    config = with_options(read_config(file).config, None, log_level)
    if backend is not None and backend not in config.backends:
        known = ", ".join(config.backends) or "none"
        raise CommandError(f"gatewright: {file} has no backend {backend!r}; it has {known}", WRONG)
    run(config, StdioHost(backend or ""), fds)


def run(config: Config, host: StdioHost, fds: tuple[int, int]) -> None:
    """Serve one host until it leaves or a signal comes. Raises `CommandError`."""
    with Unhurried(STDERR) as stream:
        configure(config.log, cast("TextIO", stream))
        try:
            gateway = Gateway(config, inherited(os.environ))
            with stopping_on_signals(gateway) as signals:
                uvloop.run(gateway.run_stdio(fds, host, on_ready=signals.arm))
        except (OSError, GatewrightError, BaseExceptionGroup) as error:
            raise explained(error, config.listen) from error
