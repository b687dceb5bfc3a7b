"""A real client whose gateway ends while it listens: it learns that this was an orderly end, not a loss."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import yaml
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.subscriptions import ToolsListChanged

from interop.cells import SERVERS_DIR

pytestmark = [pytest.mark.interop, pytest.mark.anyio, pytest.mark.timeout(60)]
SHELL = 'echo $$ > "$0"; exec "$@"'


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_end_of_a_subscription_is_graceful(tmp_path: Path) -> None:
    """What was announced before it is still heard; then the official SDK sees a completed subscription."""
    file, pid = tmp_path / "gatewright.yaml", tmp_path / "pid"
    file.write_text(yaml.safe_dump({"backends": {"inproc": {"python": "inprocess:official_server"}}}))
    command = [str(Path(sys.executable).parent / "gatewright"), "stdio", str(file), "--log-level", "error"]
    started = StdioServerParameters(
        command="/bin/sh",
        args=["-c", SHELL, str(pid), *command],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVERS_DIR)},
    )
    async with Client(started, mode="auto") as client:
        assert client.protocol_version == "2026-07-28"
        async with client.listen(tools_list_changed=True) as subscription:
            await client.call_tool("inproc.grow", {"name": "late"})
            os.kill(int(pid.read_text()), signal.SIGTERM)
            heard = [event async for event in subscription]  # raises SubscriptionLost when it was lost
    assert heard == [ToolsListChanged()]
