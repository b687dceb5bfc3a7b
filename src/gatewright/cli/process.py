"""What a process that runs a gateway does with itself: descriptors, garbage, signals, and why it could not run.

Contract: touches this process only, never the gateway's parts.
"""

import ctypes
import errno
import gc
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from gatewright.app import Gateway
from gatewright.cli.report import FAILED, CommandError
from gatewright.errors import GatewrightError
from gatewright.inbound.settings import Listen

GC_THRESHOLDS = (50_000, 20, 100)
"""Calls make next to no cycles: measured, the memory of a gateway under load is the same as with CPython's 700."""
ALLOCATOR = ((-1, 16 << 20), (-3, 16 << 20), (-2, 1 << 20))
"""glibc's `M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` and `M_TOP_PAD` (mallopt(3)): up to 16 MiB of free memory is kept,
what is smaller is not mapped on its own, and the heap grows by 1 MiB at a time."""
MIN_DESCRIPTORS = 65_536
"""Taken where the system grants it: 64,000 clients are more than one process serves."""


def raise_descriptors(connections: int) -> None:
    """Open as many files and sockets as this process may. Shells and init systems start programs with a soft limit of
    1,024, for those that call select(2); a gateway with more clients than that would be full at 448."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(MIN_DESCRIPTORS, 2 * connections)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def settle_garbage() -> None:
    """Keep the collector away from what start-up made: it lives as long as the process, and looking through it again
    and again took a tenth of the CPU of a busy gateway. Cycles made later are collected as before, less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def keep_memory() -> None:
    """Let the allocator keep what bodies of 100 KB were held in, instead of giving it back to the system and asking for
    it again with every one: pages come back empty, each at the price of a fault. Measured for a call of 100 KB both
    ways: 100 us of 340. Elsewhere than on glibc nothing is done."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option, value in ALLOCATOR:
            libc.mallopt(option, value)


class Signals:
    """SIGTERM and SIGINT as an orderly stop, from the first moment on.

    The gateway has handlers of its own while it serves. These hold before (a stop that comes too early is kept until
    `arm`) and after: the server raises the signal it was stopped by once more when it has drained, and by default that
    would end the process before children are stopped and folders removed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._is_asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._is_asked = True
        self._gateway.stop()

    def arm(self) -> None:
        """The gateway serves: stop it now if that was asked before."""
        if self._is_asked:
            self._gateway.stop()


@contextmanager
def stopping_on_signals(gateway: Gateway) -> Iterator[Signals]:
    """Handle SIGTERM and SIGINT inside the block, and put back what was before."""
    signals = Signals(gateway)
    before = {number: signal.signal(number, signals.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def explained(error: BaseException, listen: Listen) -> CommandError:
    """Why the gateway did not run, in words for the one who started it."""
    cause = _first(error)
    address = getattr(cause, "filename", None) or listen
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        advice = "stop what listens there, or choose another with --listen"
        return CommandError(f"gatewright: the address {address} is taken: {advice}", FAILED)
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
        return CommandError(f"gatewright: cannot listen on {address}: {cause.strerror}", FAILED)
    if isinstance(cause, OSError | GatewrightError):
        return CommandError(f"gatewright: {cause}", FAILED)
    raise error  # a bug: let it be seen with its traceback


def _first(error: BaseException) -> BaseException:
    """The error inside however many groups, when there is exactly one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
