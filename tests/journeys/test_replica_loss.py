"""kill -9 of a replica under load behind a real nginx: what was in it fails, everything else goes on.

The long run is `scripts/bench loss`; this is two rounds of it with few sessions.
"""

from __future__ import annotations

import pytest

from journeys import measured

pytestmark = pytest.mark.anyio
RUN_S = 150.0
"""Two rounds of 10 to 15 s, and what it takes to start and end everything on a busy machine."""


@pytest.mark.timeout(RUN_S + 20)
async def test_a_killed_replica_costs_what_was_in_it() -> None:
    """Sessions live on without `initialize`, only calls that were under way on the dead replica fail, streams are back
    with what they missed, nothing comes twice, nobody gets another one's answer."""
    if not measured.HAS_REDIS:
        pytest.skip("redis-server is not installed")
    await measured.holds("bench.loss", "--rounds", "2", "--sessions", "60", "--rate", "60", within_s=RUN_S)
