"""Python servers in this process: the link contract, and the server objects of the SDKs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from contracts.links import LinkContract, OpenConnector
from gatewright.backend.python import PythonConnector
from gatewright.backend.settings import BackendSettings

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def connected(target: str, **changes: object) -> AsyncIterator[PythonConnector]:
    """A connector whose tasks have ended at the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        values = {"stop_grace_s": 0.5, **changes}
        connector = PythonConnector("notes", BackendSettings(python=target, **values), tasks)  # type: ignore[arg-type]
        try:
            yield connector
        finally:
            await connector.aclose()


class TestPythonLink(LinkContract):
    """The contract, with a message server behind it."""

    @pytest.fixture
    def open_connector(self) -> OpenConnector:
        return lambda: connected("contracts.link_backend:message_backend")
