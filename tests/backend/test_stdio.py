"""Children as backends: the link contract over pipes, and what a connector owes its machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts import link_backend
from contracts.links import LinkContract, OpenConnector
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import StdioConnector

pytestmark = pytest.mark.anyio
SCRIPT = str(Path(link_backend.__file__))


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


def settings(*args: str, command: str = sys.executable, **changes: object) -> BackendSettings:
    values = {"restart_backoff_s": 0.001, "stop_grace_s": 0.5, **changes}
    return BackendSettings(command=command, args=args or ("-S", SCRIPT), **values)  # type: ignore[arg-type]


@asynccontextmanager
async def connected(how: BackendSettings) -> AsyncIterator[StdioConnector]:
    """A connector whose tasks and children have ended at the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        connector = StdioConnector("files", how, tasks)
        try:
            yield connector
        finally:
            await connector.aclose()
            assert connector.pids() == ()


class TestStdioLink(LinkContract):
    """The contract, with a child behind it."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        return lambda: connected(settings())
