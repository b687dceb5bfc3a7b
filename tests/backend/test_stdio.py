"""Children as backends: the link contract over pipes, and what a connector owes its machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend import hostile_child
from contracts import link_backend
from contracts.links import LinkContract, OpenConnector, Recorder, soon
from gatewright.backend.base import Link, Request
from gatewright.backend.settings import BackendSettings
from gatewright.backend.stdio import Backoff, StdioConnector
from gatewright.call import Result
from gatewright.errors import BackendError, BackendUnavailable
from gatewright.secret import MASK, Secret

pytestmark = pytest.mark.anyio
SCRIPT = str(Path(link_backend.__file__))


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


def settings(*args: str, command: str = sys.executable, **changes: object) -> BackendSettings:
    """A backend that is one of the test's scripts, quick to stop and to come back."""
    values = {"restart_backoff_s": 0.001, "restart_backoff_max_s": 0.001, "stop_grace_s": 0.5, **changes}
    return BackendSettings(command=command, args=args or ("-S", SCRIPT), **values)  # type: ignore[arg-type]


@asynccontextmanager
async def connected(how: BackendSettings, **given: Any) -> AsyncIterator[StdioConnector]:
    """A connector whose tasks and children have ended at the end."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        connector = StdioConnector("files", how, tasks, **given)
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


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def hostile(behaviour: str, *args: str, **changes: object) -> BackendSettings:
    return settings("-S", str(Path(hostile_child.__file__)), behaviour, *args, **changes)


async def call(link: Link, request_id: int = 1) -> dict[str, Any]:
    outcome = await soon(link.exchange(Request(request_id, "m", {}), Recorder()))
    assert isinstance(outcome, Result)
    return dict(json.loads(bytes(outcome.value)))


def test_pauses_double_up_to_the_longest() -> None:
    """Each death in a row doubles the pause, up to its bound."""
    backoff = Backoff(0.5, 30.0)
    assert backoff.wait_s(100.0) == 0
    pauses = []
    for _ in range(8):
        backoff.died(100.0, lived_s=1.0)
        pauses.append(backoff.wait_s(100.0))
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    for _ in range(2000):
        backoff.died(100.0, lived_s=1.0)
    assert backoff.wait_s(100.0) == 30
    assert backoff.wait_s(131.0) == 0


def test_a_long_life_forgives_earlier_deaths() -> None:
    """A program that ran as long as the longest pause starts a new count."""
    backoff = Backoff(0.5, 30.0)
    for _ in range(5):
        backoff.died(100.0, lived_s=1.0)
    backoff.died(200.0, lived_s=30.0)
    assert backoff.wait_s(200.0) == 0.5


async def test_a_crash_loop_is_refused_at_once() -> None:
    """During the pause nothing is started and nobody waits: the refusal says why, and when to come back."""
    clock = Clock()
    how = hostile("at_once", restart_backoff_s=2.0, restart_backoff_max_s=60.0)
    async with connected(how, now=clock) as connector:
        for pause_s in (2.0, 4.0, 8.0):
            link = await connector.connect(Recorder())
            with pytest.raises(BackendError):
                await call(link)
            with pytest.raises(BackendUnavailable) as caught:
                await connector.connect(Recorder())
            assert caught.value.message == (
                f"files: the child exited with status 2; its last words: usage: server DIR; retry in {pause_s:.1f} s"
            )
            assert caught.value.is_retriable
            clock.now_s += pause_s


async def test_a_child_that_was_closed_has_not_failed() -> None:
    """Closing a link is no death: the next one opens at once."""
    async with connected(settings(restart_backoff_s=60.0, restart_backoff_max_s=60.0)) as connector:
        for _ in range(2):
            link = await connector.connect(Recorder())
            await soon(link.aclose())


async def test_children_are_bounded() -> None:
    """One more than the bound is refused; a closed one makes room."""
    async with connected(hostile("answer_all", max_children=2)) as connector:
        links = [await connector.connect(Recorder()) for _ in range(2)]
        pids = {(await call(link))["pid"] for link in links}
        assert pids == set(connector.pids())
        with pytest.raises(BackendUnavailable, match=r"2 children run already \(max_children\)"):
            await connector.connect(Recorder())
        await soon(links[0].aclose())
        await call(await connector.connect(Recorder()))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"command": "no-such-program"}, r"files: command no-such-program not found on PATH \("),
        ({"command": "./no/such"}, r"files: command ./no/such not found$"),
        ({"cwd": "/no/such/place"}, r"files: its working directory /no/such/place does not exist"),
        ({"command": SCRIPT}, r"files: command .* may not be executed"),
        ({"command": "a\0b"}, r"files: command .* could not be started"),
    ],
)
async def test_what_cannot_be_started_says_why(changes: dict[str, str], told: str) -> None:
    """The message names the command, and where it was looked for."""
    async with connected(settings("x", **changes)) as connector:
        with pytest.raises(BackendUnavailable, match=told):
            await connector.connect(Recorder())
        assert connector.pids() == ()


async def test_a_child_gets_a_small_environment(tmp_path: Path) -> None:
    """Our own secrets stay here; what is configured goes over the harmless rest; nothing is a shell's to expand."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/x",
        "LANG": "C.UTF-8",
        "USER": "() { :; }",
        "OTHER_BACKEND_TOKEN": "secret",
        "PYTHONPATH": "/x",
    }
    how = hostile(
        *("environment", "$HOME", "a b", "*"),
        env={"KEY": Secret("hunter22"), "HOME": Secret("/srv")},
        cwd=str(tmp_path),
    )
    async with connected(how, environ=environ) as connector:
        known = await call(await connector.connect(Recorder()))
        known["env"].pop("LC_CTYPE", None)  # Python sets it for itself in the C locale
        assert known["env"] == {"PATH": "/usr/bin:/bin", "HOME": "/srv", "LANG": "C.UTF-8", "KEY": "hunter22"}
        assert known["cwd"] == os.path.realpath(tmp_path)
        assert known["args"] == ["$HOME", "a b", "*"]
        assert known["group"] == connector.pids()[0] != os.getpgid(0)


async def test_a_child_inherits_no_descriptor() -> None:
    """Three pipes and nothing else: no listening socket, no other child's pipe."""
    with open(os.devnull) as held:
        os.set_inheritable(held.fileno(), True)
        async with connected(hostile("environment")) as connector:
            await connector.connect(Recorder())
            known = await call(await connector.connect(Recorder()))
            assert len([fd for fd in known["fds"] if fd > 2]) == 1  # the directory it was reading


async def test_the_tail_of_stderr_hides_configured_secrets() -> None:
    """What a child prints of its own key is masked before anybody sees it."""
    async with connected(hostile("environment", env={"KEY": Secret("hunter22")})) as connector:
        assert connector.stderr_tail() == ()
        await call(await connector.connect(Recorder()))
        async with asyncio.timeout(5):
            while not connector.stderr_tail():
                await asyncio.sleep(0)
        assert connector.stderr_tail() == (f"the key is {MASK}",)


async def test_a_connect_that_is_cancelled_leaves_no_child() -> None:
    """Cancelled between fork and the first message, the child is gone when the connector is."""
    async with connected(settings()) as connector, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(connector.connect(Recorder()))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(5):
            while connector.pids():
                await asyncio.sleep(0)


async def test_a_backend_without_a_command_is_refused() -> None:
    """The composition root picked the wrong transport: a bug, said at once."""
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ValueError, match="no command"):
            StdioConnector("x", BackendSettings(url="http://127.0.0.1:1/mcp"), tasks)
