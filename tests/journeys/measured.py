"""Short runs of what `scripts/bench` measures at length: the same code, few rounds, a bound in time."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).parents[2]
MISSING = 2
"""The exit status of a run for which a program is not installed."""
HAS_REDIS = which("redis-server") is not None and find_spec("redis") is not None


async def holds(module: str, *arguments: str, within_s: float) -> None:
    """Fails with what the run printed unless it ends well in time; skips when it needs what is not installed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode == MISSING:
        pytest.skip(err.decode().strip())
    assert process.returncode == 0, out.decode() + err.decode()
