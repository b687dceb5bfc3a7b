"""What the kernel says of this process."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from gatewright.telemetry.families import Family
from gatewright.telemetry.process import process_families


def value(families: list[Family], name: str) -> float:
    """The one number of a family."""
    (family,) = (one for one in families if one.name == name)
    return family.samples[()][0]


def test_it_is_what_others_read_of_this_process() -> None:
    """CPU, memory, and one descriptor more when one more is open."""
    first = process_families()
    this = psutil.Process()
    times = this.cpu_times()
    assert value(first, "process_cpu_seconds_total") == pytest.approx(times.user + times.system, abs=1.0)
    assert value(first, "process_resident_memory_bytes") == pytest.approx(this.memory_info().rss, rel=0.2)
    assert value(first, "process_max_fds") >= value(first, "process_open_fds") > 2
    ends = os.pipe()
    try:
        assert value(process_families(), "process_open_fds") == value(first, "process_open_fds") + 2
    finally:
        for end in ends:
            os.close(end)


def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    """Brackets and spaces in it move no field; a kernel that gives no size of `fd` has its entries counted."""
    (tmp_path / "stat").write_text(f"1 (a) b) (c) S {' '.join(['0'] * 10)} 300 200 0 0")
    (tmp_path / "statm").write_text("10 5 0 0 0 0 0")
    (tmp_path / "fd").mkdir()
    found = process_families(tmp_path)
    assert value(found, "process_cpu_seconds_total") == 500 / os.sysconf("SC_CLK_TCK")


def test_without_proc_nothing_is_told(tmp_path: Path) -> None:
    """Elsewhere than on Linux."""
    assert process_families(tmp_path) == []
