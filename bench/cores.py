"""Where the processes of a paced run execute, and before what: so that it shows the target, not the machine's mood."""

import contextlib
import os
from collections.abc import Iterator

import psutil

_REALTIME = os.sched_param(1)
_NORMAL = os.sched_param(0)


def outrank(pid: int) -> bool:
    """Let a process (0: this one) run before the kernel's threads and all else that is not measured; not its children.

    False when that is not permitted (it takes root or CAP_SYS_NICE). A kernel thread that looks through the memory of
    a virtual machine can hold a core for 4 ms, twice a second: about one call in a hundred then waits for it, and the
    99th percentile tells of that thread.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, _REALTIME)
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def on_a_core_of_its_own(target: list[psutil.Process], backend: psutil.Process) -> Iterator[set[int]]:
    """Keep whatever is measured on one core and the backend off it, both before all others; gives the cores for the
    load generator, which does the same for itself.

    At half load generator, backend and target together are just about as busy as one core is, and kernels that save
    virtual CPUs then put all three on one for tenths of a second, while the other idles: what is measured is that.
    """
    cores = os.sched_getaffinity(0)
    own = {max(cores)}
    rest = (cores - own) or own
    placed = [*target, backend]
    for process in placed:
        process.cpu_affinity(sorted(own if process in target else rest))
    outranking = [process for process in placed if outrank(process.pid)]
    try:
        yield rest
    finally:
        for process in outranking:
            os.sched_setscheduler(process.pid, os.SCHED_OTHER, _NORMAL)
        for process in placed:
            process.cpu_affinity(sorted(cores))
