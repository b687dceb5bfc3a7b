"""The installed suite, once per session."""

from __future__ import annotations

import pytest

from conformance.suite import Suite, install


@pytest.fixture(scope="session")
def suite() -> Suite:
    """The pinned conformance suite."""
    return install()
