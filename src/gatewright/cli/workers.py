"""`gatewright serve --workers N`: several gateway processes behind one address, under one supervisor.

Contract: the address is found free, and its port fixed, before the first worker is started; then each worker binds it
for itself (SO_REUSEPORT), so that a worker that is gone takes no connection with it but its own. The control plane's
socket is the supervisor's: the first worker serves it, and while that one is started anew, who connects waits. The
workers share a folder, readable by this user alone, that is made at the start and removed at the end.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import msgspec
import uvloop

from gatewright.app import Gateway, Ready
from gatewright.cli.logs import configure
from gatewright.cli.process import explained, keep_memory, settle_garbage, stopping_on_signals
from gatewright.cli.supervisor import Pauses, Place, Supervisor
from gatewright.config import Config
from gatewright.errors import GatewrightError
from gatewright.inbound.listener import BACKLOG
from gatewright.inbound.sockets import bound, reserved
from gatewright.protocol.chain import is_child
from gatewright.telemetry.board import Board, post_restarts

STOP_MARGIN_S: Final = 5.0
"""What a worker may need to end beyond what is bounded by the configuration."""


@final
class Crew(msgspec.Struct, frozen=True):
    """What all workers have in common."""

    config: Config
    """With the port that was taken, and one name in chains for all."""
    parent: int
    """The supervisor's process id."""
    folder: Path
    """Where they leave things for each other: the metrics board."""
    admin: socket.socket | None
    """Listening; the first worker's to serve."""

    def restarted(self, restarts: int) -> None:
        """So often until now: for the metrics, which are no reason to end."""
        with suppress(OSError):
            post_restarts(self.folder, restarts)

    def work(self, place: Place) -> None:
        """One worker's life. Raises CommandError."""
        config, number = self.config, place.number
        configure(config.log, worker=number)
        admin = self.admin if number == 0 else None
        if self.admin is not None and admin is None:
            self.admin.close()
        try:
            gateway = Gateway(config, is_child=is_child(os.environ), board=Board(self.folder, f"worker-{number}"))
            with stopping_on_signals(gateway) as signals:

                def on_ready(up: Ready) -> None:
                    place.ready(up.url)
                    settle_garbage()
                    keep_memory()
                    signals.arm()
                    beat(place, asyncio.get_running_loop())

                sockets = (bound(config.listen, is_shared=True), admin)
                uvloop.run(gateway.run(on_ready=on_ready, sockets=sockets))
        except (OSError, GatewrightError, BaseExceptionGroup) as error:
            raise explained(error, config.listen) from error
        finally:
            if os.getppid() != self.parent:  # killed without notice: it could not remove what is its own
                shutil.rmtree(self.folder, ignore_errors=True)


def beat(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    """Give a sign of life, again and again as long as the loop turns: to the end of the drain."""
    place.beat()
    loop.call_later(place.beat_s, beat, place, loop)


def stop_s(config: Config) -> float:
    """How long a worker may take to end: to drain, and then for children that ignore each of three ways to be told."""
    children_s = max((3 * backend.stop_grace_s for backend in config.backends.values()), default=0.0)
    return config.drain_delay_s + config.drain_s + config.drain_idle_s + children_s + STOP_MARGIN_S


def serve(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve with `config.workers` processes until told to stop. Raises CommandError."""
    with ExitStack() as stack:
        try:
            crew = stack.enter_context(_crew(config))
        except OSError as error:
            raise explained(error, config.listen) from error
        Supervisor(
            config.workers,
            crew.work,
            stop_s=stop_s(config),
            on_ready=on_ready,
            on_restart=crew.restarted,
            pauses=Pauses(silent_s=config.watchdog_s),
        ).run()


@contextmanager
def _crew(config: Config) -> Iterator[Crew]:
    """Everything the workers share, as long as the block runs. Raises OSError when an address is taken."""
    with ExitStack() as stack:
        place = stack.enter_context(reserved(config.listen))
        admin = None
        if config.admin is not None:
            admin = stack.enter_context(bound(config.admin))
            admin.listen(BACKLOG)
        folder = Path(tempfile.mkdtemp(prefix="gatewright-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Crew(
            replace(
                config,
                listen=replace(config.listen, port=place.getsockname()[1]),
                gateway_id=config.gateway_id or secrets.token_hex(6),
            ),
            os.getpid(),
            folder,
            admin,
        )
