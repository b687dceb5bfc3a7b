"""Journeys run on the loop that `gatewright serve` runs on."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """uvloop: its transports differ from asyncio's, in what they raise for example."""
    return "asyncio", {"use_uvloop": True}
