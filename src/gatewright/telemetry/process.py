"""What the kernel knows of this process: CPU, memory, descriptors.

Contract: reads `/proc/self` and nothing else; where there is none, nothing is told. A read takes microseconds, on
kernels before 6.2 some milliseconds for ten thousand descriptors: run it in a thread. Names as every Prometheus client
library has them. Source: proc(5).
"""

from __future__ import annotations

import os
import resource
from math import inf
from pathlib import Path
from typing import Final

from gatewright.telemetry.families import Family, counted, measured

PROC: Final = Path("/proc/self")


def process_families(proc: Path = PROC) -> list[Family]:
    """Seconds of CPU, bytes of memory, and descriptors of this process; empty where the kernel does not tell."""
    try:
        usage = (proc / "stat").read_bytes()
        pages = (proc / "statm").read_bytes()
        open_fds = os.stat(proc / "fd").st_size or len(os.listdir(proc / "fd"))
    except OSError:
        return []
    fields = usage[usage.rindex(b")") + 2 :].split()  # the program's name stands in brackets, and may hold anything
    ticks = int(fields[11]) + int(fields[12])
    virtual, resident = (int(field) * resource.getpagesize() for field in pages.split()[:2])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        counted("process_cpu_seconds_total", "User and system CPU time in seconds.", ticks / os.sysconf("SC_CLK_TCK")),
        measured("process_resident_memory_bytes", "Resident memory in bytes.", resident),
        measured("process_virtual_memory_bytes", "Virtual memory in bytes.", virtual),
        measured("process_open_fds", "Open file descriptors.", open_fds),
        measured(
            "process_max_fds",
            "The most file descriptors that may be open.",
            inf if limit == resource.RLIM_INFINITY else limit,
        ),
    ]
