"""What every test may use, and how the whole suite is shared out among processes.

Each file runs in one process, so that what a module's fixtures start is started once; the files of `tests/interop` all
run in the same one, because they share servers, a gateway and the runs of the clients.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

TOGETHER = "tests/interop/"
NO_SKIPS = "GATEWRIGHT_TEST_NO_SKIPS"


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what the gateway runs on."""
    return "asyncio"


class Files(LoadFileScheduling):
    """Work is given out by file, or by folder where files share what was started."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Take the place of `--dist loadfile`."""
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the environment says so, as in CI, a test that was skipped has failed: everything it needs is there."""
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped: {report.longrepr}"
    return report
