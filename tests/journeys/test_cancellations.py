"""Random cancellations on two real gateways with a real Redis: none is answered wrongly, nothing stays behind.

The long run is `scripts/bench cancellations`; this is a fiftieth of it.
"""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
RUN_S = 100.0


@pytest.mark.timeout(RUN_S + 20)
async def test_cancellations_mix_nothing_up_and_leave_nothing() -> None:
    """2,000 of them, in both eras: every answer that comes is its asker's own; sockets, tasks, sessions, streams,
    parked calls and connections to backend and Redis are back at the start."""
    if not which("redis-server") or not find_spec("redis"):
        pytest.skip("redis-server is not installed")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.cancellations", "--cancellations", "2000", "--clients", "40"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), RUN_S)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, out.decode() + err.decode()
