"""A gateway that is told to stop: what runs is finished, what stands is ended, and it is gone in time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from journeys.host import HttpHost, hosting
from journeys.toolbox import Toolbox
from journeys.wire import HandshakeClient, ModernClient, soon

pytestmark = pytest.mark.anyio
TESTS = Path(__file__).parent.parent


@asynccontextmanager
async def serving(
    folder: Path, host: HttpHost, drain_s: float
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`gatewright serve` as a process of its own, before a toolbox of this one."""
    file = folder / "gatewright.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "listen": "127.0.0.1:0",
                "admin": None,
                "drain_s": drain_s,
                "drain_idle_s": 0.1,
                "backends": {"box": {"url": host.url}},
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "gatewright"),
        "serve",
        str(file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        while b"listening on" not in (line := await soon(process.stdout.readline(), 20)):
            assert line, "the gateway did not start"
        yield process, int(line.split()[-1].rpartition(b":")[2])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    """A running call is answered, standing streams end, subscriptions get their result; new connections are refused;
    the process is gone with status 0."""
    async with hosting(Toolbox("box")) as host, serving(tmp_path, host, 10.0) as (process, port):
        session = await HandshakeClient(port, "/mcp/box").open()
        standing = await session.listen()
        modern = ModernClient(port, "/mcp/box")
        wants = {"notifications": {"toolsListChanged": True}}
        listening = await modern.post(modern.request("subscriptions/listen", wants))
        assert await listening.event() is not None
        call = await session.begin(session.request("tools/call", {"name": "park", "arguments": {"key": "k"}}))
        await host.box.until(lambda it: it.noted("parked"))
        process.send_signal(signal.SIGTERM)
        assert await standing.event() is None
        last = await listening.event()
        assert last is not None
        assert "result" in last
        with pytest.raises(OSError):
            await modern.wire()
        for conversation in list(host.box.conversations):
            conversation.take(
                {"id": 0, "method": "tools/call", "params": {"name": "release", "arguments": {"key": "k"}}}
            )
        assert "released" in str(await call.last())
        assert await soon(process.wait()) == 0
        assert host.box.noted("deleted"), "the backend's session was not ended"


async def test_a_call_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """After `drain_s` the process ends all the same, and the client has an answer that says why."""
    async with hosting(Toolbox("box")) as host, serving(tmp_path, host, 0.3) as (process, port):
        modern = ModernClient(port, "/mcp/box")
        call = await modern.begin(modern.request("tools/call", {"name": "park", "arguments": {"key": "k"}}))
        await host.box.until(lambda it: it.noted("parked"))
        process.send_signal(signal.SIGTERM)
        answer = await call.last()
        assert answer["error"]["code"] < 0
        assert await soon(process.wait()) == 0
