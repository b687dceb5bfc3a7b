"""Many sessions with open streams, on the real command: what each costs. The bars are those of docs/capacity.md."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SESSIONS = 1_500
MAX_RSS_BYTES = 12 * 1024
MAX_CPU = 0.1


@pytest.mark.parametrize("behind", [[], ["--tool", "echo_json", "--backend-streams", str(SESSIONS + 100)]])
def test_a_session_with_an_open_stream_costs_little(tmp_path: Path, behind: list[str]) -> None:
    """Memory, CPU while nothing happens, and calls meanwhile: none fails, no stream breaks off. Also where each session
    has a second stream, towards its backend."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3 * SESSIONS:
        pytest.skip("too few descriptors")
    out = tmp_path / "capacity.json"
    command = [sys.executable, "-m", "bench.capacity", "--sessions", str(SESSIONS), "--rest", "2", "--load", "2"]
    command += behind
    ended = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [row] = json.loads(out.read_text())["rows"]
    assert row["rss_per_session"] < MAX_RSS_BYTES, ended.stdout
    assert row["cpu_at_rest"] < MAX_CPU, ended.stdout
    assert [(pace["wrong"], pace["unanswered"]) for pace in row["beside"]] == [(0, 0)]
