"""Children that misbehave: bounded, named, ended with everything they started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend import hostile_child
from contracts.links import Recorder, soon
from gatewright.backend.base import Link, Request
from gatewright.backend.pipe import WireDied
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import StdioConnector
from gatewright.call import Result
from gatewright.errors import BackendError, BackendUnavailable

pytestmark = pytest.mark.anyio
SCRIPT = str(Path(hostile_child.__file__))


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def supervised(behaviour: str, *args: str, **changes: object) -> AsyncIterator[StdioConnector]:
    """A connector for one hostile child; when it is closed, no process is left."""
    values = {"restart_backoff_s": 0.001, "restart_backoff_max_s": 0.001, "stop_grace_s": 0.3, **changes}
    how = BackendSettings(command=sys.executable, args=("-S", SCRIPT, behaviour, *args), **values)  # type: ignore[arg-type]
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        connector = StdioConnector("h", how, tasks)
        try:
            yield connector
        finally:
            await connector.aclose()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


async def call(link: Link, request_id: int = 1) -> dict[str, Any]:
    """The result of one request, within 5 s."""
    outcome = await soon(link.exchange(Request(request_id, "m", {}), Recorder()))
    assert isinstance(outcome, Result)
    return dict(json.loads(bytes(outcome.value)))


async def gone(pids: list[int]) -> None:
    """Return when none of these processes lives (a zombie that is not ours to bury is dead too), within 5 s."""
    async with asyncio.timeout(5):
        while any(is_alive(pid) for pid in pids):
            await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so, within 5 s."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("mid_call", "h: the child exited with status 7; its last words: out of memory: giving up"),
        ("by_signal", "h: the child was killed by SIGSEGV"),
        ("at_once", "h: the child exited with status 2; its last words: usage: server DIR"),
        ("mute", "h: the child closed its standard output"),
    ],
)
async def test_a_death_names_its_cause(behaviour: str, told: str) -> None:
    """Whoever waited on the child learns how it ended and its last words."""
    async with supervised(behaviour) as connector:
        link = await connector.connect(Recorder())
        with pytest.raises(BackendError) as caught:
            await call(link)
        assert caught.value.message == told
        assert not link.is_open


async def test_a_line_without_end_is_cut_off() -> None:
    """A gigabyte without a line feed costs no more than the bound: the child is killed and says why."""
    before = psutil.Process().memory_info().rss
    async with supervised("gigabyte", max_line_bytes=1 << 20) as connector:
        link = await connector.connect(Recorder())
        with pytest.raises(WireDied, match="printed a line of more than 1048576 bytes"):
            await call(link)
        pids = list(connector.pids())
        await gone(pids)
    assert psutil.Process().memory_info().rss - before < 32 << 20


async def test_a_hanging_child_ends_with_its_input() -> None:
    """The polite way of stopping is enough for a polite child."""
    async with supervised("hang", stop_grace_s=30.0) as connector:
        link = await connector.connect(Recorder())
        await soon(link.aclose())
        assert connector.pids() == ()


async def test_a_stubborn_child_is_killed() -> None:
    """Deaf to the end of its input and to SIGTERM, a child is gone after two graces."""
    async with supervised("stubborn", stop_grace_s=0.1) as connector:
        link = await connector.connect(Recorder())
        pids = (await call(link))["pids"]
        await soon(link.aclose())
        assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("ending", ["closed", "left", "killed"])
async def test_grandchildren_go_with_the_child(ending: str) -> None:
    """Whether we close it, it leaves or somebody kills it: nothing of its group survives."""
    async with supervised("family", *(["leave"] if ending == "left" else []), stop_grace_s=0.1) as connector:
        link = await connector.connect(Recorder())
        pids = (await call(link))["pids"]
        assert all(is_alive(pid) for pid in pids)
        if ending == "closed":
            await soon(link.aclose())
        elif ending == "killed":
            os.kill(pids[0], signal.SIGKILL)
        else:
            await link.tell(b"{}")
        await gone(pids)
        await until(lambda: connector.pids() == ())
        assert not link.is_open


async def test_a_flood_of_stderr_is_slowed_down_and_kept_short() -> None:
    """The calls beside it are answered; what is kept of it is bounded."""
    async with supervised("stderr_flood") as connector:
        link = await connector.connect(Recorder())
        for request_id in range(1, 200):
            await call(link, request_id)
        await until(lambda: len(connector.stderr_tail()) > 0)
        assert len(connector.stderr_tail()) <= 200
        assert sum(map(len, connector.stderr_tail())) <= 64 << 10


async def test_text_between_messages_is_dropped() -> None:
    """Banners and debug prints on standard output are counted, not fatal."""
    async with supervised("banner") as connector:
        link = await connector.connect(Recorder())
        for request_id in range(1, 20):
            assert await call(link, request_id) == {}


async def test_endless_text_is_cut_off() -> None:
    """A program that never speaks MCP is killed, not listened to for ever."""
    async with supervised("chatter") as connector:
        link = await connector.connect(Recorder())
        with pytest.raises(BackendError, match="printed 1000 lines in a row that are not MCP messages"):
            await call(link)


async def test_a_child_that_closes_its_input_is_replaced() -> None:
    """It can take no further request: the link is dead, the child is stopped."""
    async with supervised("deaf", stop_grace_s=0.1) as connector:
        link = await connector.connect(Recorder())
        await call(link)
        async with asyncio.timeout(5):
            while link.is_open:
                try:
                    await link.tell(b'{"jsonrpc":"2.0","method":"notifications/x"}')
                except BackendUnavailable:
                    break
                await asyncio.sleep(0)
        await until(lambda: connector.pids() == ())


async def test_a_child_that_does_not_read_stops_its_writers() -> None:
    """What waits for it is bounded: further senders wait, and can be cancelled; closing still works."""
    async with supervised("lazy", stop_grace_s=0.1) as connector, asyncio.TaskGroup() as tasks:
        link = await connector.connect(Recorder())
        line = b'{"jsonrpc":"2.0","method":"notifications/x","params":{"x":"%b"}}' % (b"x" * (1 << 20))
        told = 0

        async def tell() -> None:
            nonlocal told
            while True:
                await link.tell(line)
                told += 1

        telling = tasks.create_task(tell())
        for _ in range(100):
            await asyncio.sleep(0)
        assert told <= 2
        telling.cancel()


async def test_the_gateway_killed_leaves_nobody_behind() -> None:
    """Even SIGKILL of the gateway ends the whole family of its children."""
    program = f"""
import asyncio, json, sys
from gatewright.backend.base import Request
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import StdioConnector
class Sink:
    async def notified(self, method, params): pass
    def asked(self, request_id, method, params): pass
async def main():
    async with asyncio.TaskGroup() as tasks:
        how = BackendSettings(command=sys.executable, args=("-S", {SCRIPT!r}, "family"))
        link = await StdioConnector("h", how, tasks).connect(Sink())
        answer = await link.exchange(Request(1, "m", {{}}), Sink())
        sys.stderr.buffer.write(bytes(answer.value) + b"\\n")
        sys.stderr.flush()
        await asyncio.Event().wait()
asyncio.run(main())
"""
    gateway = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert gateway.stderr is not None
    try:
        pids = json.loads(await soon(asyncio.to_thread(gateway.stderr.readline)))["pids"]
        assert all(is_alive(pid) for pid in pids)
    finally:
        gateway.kill()
        gateway.wait()
        gateway.stderr.close()
    await gone(pids)


async def test_fifty_restarts_leave_nothing_open() -> None:
    """Fifty children die one after the other: no descriptor, no process and no task is left."""
    process = psutil.Process()
    async with supervised("mid_call") as connector:
        with pytest.raises(BackendError):
            await call(await connector.connect(Recorder()))
        await until(lambda: connector.pids() == ())
        before, tasks = process.num_fds(), len(asyncio.all_tasks())
        for _ in range(50):
            link = await again(connector)
            with pytest.raises(WireDied):
                await call(link)
            await until(lambda: connector.pids() == ())
        assert process.num_fds() == before
        assert len(asyncio.all_tasks()) <= tasks


async def again(connector: StdioConnector) -> Link:
    """A new child as soon as one may be started, within 5 s."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await connector.connect(Recorder())
            except BackendUnavailable:
                await asyncio.sleep(0)


async def test_a_cancelled_close_kills() -> None:
    """Nobody waits for a close that was cancelled: the child is killed at once and still buried."""
    async with supervised("stubborn", stop_grace_s=30.0) as connector, asyncio.TaskGroup() as tasks:
        link = await connector.connect(Recorder())
        pids = (await call(link))["pids"]
        closing = tasks.create_task(link.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await gone(pids)
        await until(lambda: connector.pids() == ())
