"""The listener: uvicorn's sockets, signals and drain around our own protocol class."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import final

import uvicorn
from typing_extensions import override

BACKLOG = 2048
"""Connections the kernel holds while the loop is busy; its own bound (somaxconn, 4096) is above it."""


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Never called: our protocol class serves every request itself."""


@final
class Listener(uvicorn.Server):
    """A uvicorn server that says when it is ready."""

    def __init__(
        self, protocol: Callable[..., asyncio.Protocol], *, drain_s: float, on_started: Callable[[], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                _no_app,
                http=protocol,  # type: ignore[arg-type]  # a factory of our class, called like the class
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # passed to asyncio.wait_for
            )
        )
        self._on_started = on_started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
