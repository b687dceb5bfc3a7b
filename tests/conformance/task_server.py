"""`python -m conformance.task_server`: the server of tasks that the journeys use, with the tools that the suite wants.

The everything server is an official SDK's, which knows nothing of the tasks extension. Prints the URL of its endpoint
as the first line on stdout.
"""

from __future__ import annotations

import asyncio

from journeys.host import hosting
from journeys.task_box import TaskBox


async def run() -> None:
    """Serve on a free port of 127.0.0.1 until told to end."""
    async with hosting(TaskBox("tasks", "modern")) as host:
        print(host.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run())
