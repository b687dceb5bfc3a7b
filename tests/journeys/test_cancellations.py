"""Random cancellations on two real gateways with a real Redis: none is answered wrongly, nothing stays behind.

The long run is `scripts/bench cancellations`; this is a fiftieth of it.
"""

from __future__ import annotations

import pytest

from journeys import measured

pytestmark = pytest.mark.anyio
RUN_S = 100.0


@pytest.mark.timeout(RUN_S + 20)
async def test_cancellations_mix_nothing_up_and_leave_nothing() -> None:
    """2,000 of them, in both eras: every answer that comes is its asker's own; sockets, tasks, sessions, streams,
    parked calls and connections to backend and Redis are back at the start."""
    if not measured.HAS_REDIS:
        pytest.skip("redis-server is not installed")
    await measured.holds("bench.cancellations", "--cancellations", "2000", "--clients", "40", within_s=RUN_S)
