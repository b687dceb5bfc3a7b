"""The listener: uvicorn's sockets and signals around our own protocol class, and the order in which it is drained.

Contract: told to stop, it is draining at once (`is_draining`, for whoever says that the gateway is not ready) and every
answer closes its connection; it goes on accepting for `delay_s`, so that balancers notice first. Then newcomers are
refused, but no connection that was made is dropped: it is accepted and served. Only then are streams ended, so that
their clients do not come back to this process, and it waits for connections to close, `drain_s` at most. SIGINT is
somebody at a keyboard: no delay, and idle connections are closed at once; a second one ends it without waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import select
import signal
import socket
import struct
from collections.abc import Callable
from types import FrameType
from typing import Final, final

import structlog
import uvicorn
from typing_extensions import override

from gatewright.inbound.crowd import Crowd

BACKLOG: Final = 2048
"""Connections the kernel holds while the loop is busy; its own bound (somaxconn, 4096) is above it."""
HANDSHAKE_S: Final = 0.05
"""Connections whose first packet has come are made within this: a round trip in one data centre takes 1 ms."""
QUEUED_S: Final = 2.0
"""The loop accepts what the kernel holds within this, or is too busy to answer it anyway."""
ATTACH_FILTER: Final = 26
"""SO_ATTACH_FILTER of Linux, which Python does not name."""
DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte with the TCP flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # then drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it
)
"""A classic BPF program, as `struct sock_filter` has it: code, jump if true, jump if false, operand."""
log = structlog.get_logger("gatewright.inbound")


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Never called: our protocol class serves every request itself."""


@final
class Listener(uvicorn.Server):
    """A uvicorn server that says when it is ready, and drains its crowd."""

    def __init__(
        self,
        protocol: Callable[..., asyncio.Protocol],
        crowd: Crowd,
        *,
        drain_s: float,
        on_started: Callable[[], None],
        delay_s: float = 0.0,
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
        self._crowd = crowd
        self._drain_s = drain_s
        self._delay_s = delay_s
        self._on_started = on_started
        self._hurried = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop: from then on the gateway is not ready."""
        return self.should_exit

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurried.set)
        super().handle_exit(sig, frame)

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_started()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        crowd, connections = self._crowd, self.server_state.connections
        crowd.announce(connections)  # type: ignore[arg-type]  # of our class, all of them
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), self._delay_s)
        if self._hurried.is_set():
            crowd.hurry()
        else:
            await _turn_away([sock for server in self.servers for sock in server.sockets])
        crowd.end(len(connections), self._drain_s / 2)
        await super().shutdown(sockets)


async def _turn_away(sockets: list[socket.socket]) -> None:
    """Let no new connection be made, and take those that are: closing a listener resets what its queue still holds,
    which a balancer may have sent a request on. Who comes meanwhile tries again in a second and finds it closed. Where
    the system has no such filter the queue is only given the time to be taken."""
    fields = b"".join(struct.pack("HBBI", *step) for step in DROP_SYN)
    steps = ctypes.create_string_buffer(fields)
    program = struct.pack("HL", len(DROP_SYN), ctypes.addressof(steps))
    queued = select.poll()
    for sock in sockets:
        try:
            sock.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, program)
        except OSError as error:
            log.warning("listener closed without a filter", reason=error.strerror)
        queued.register(sock, select.POLLIN)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + QUEUED_S
    await asyncio.sleep(HANDSHAKE_S)
    while queued.poll(0) and loop.time() < until_s:  # noqa: ASYNC110 - the kernel has no event for it
        await asyncio.sleep(0)
