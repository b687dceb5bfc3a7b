"""Backends that are programs: started on demand, supervised, ended without a trace.

A link is one child (`Child` on a `PipeLink`). A child that dies takes its link with it; the next `connect` starts
another, unless the last ones died a moment ago: then it refuses at once and says when to come back. Never a shell:
`command` and `args` are passed as they are. Sources: 2026-07-28 and 2025-11-25 basic/transports, "stdio".
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Final, final

from typing_extensions import override

from gatewright.backend.base import Connector, Link, Sink
from gatewright.backend.child import Child
from gatewright.backend.guard import Guard
from gatewright.backend.pipe import Bounds, PipeLink
from gatewright.backend.settings import BackendSettings
from gatewright.errors import BackendUnavailable

INHERITED: Final = (
    *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"),  # the official SDKs' list
    *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ"),  # so that text, times and files are what users expect
)
"""What a child gets of our environment. The rest stays here: it holds the keys of other backends."""


@final
class Backoff:
    """When a program that keeps dying may be started again. Pure: the clock is the caller's."""

    __slots__ = ("_failures", "_first_s", "_longest_s", "_ready_s")

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._ready_s = 0.0

    def died(self, now_s: float, lived_s: float) -> None:
        """It died unasked. One that lived as long as the longest pause was healthy: its death starts a new count."""
        self._failures = 0 if lived_s >= self._longest_s else self._failures
        # 2 ** 32 pauses of any length are beyond the longest: the exponent is capped before it overflows a float.
        pause_s = min(self._first_s * 2 ** min(self._failures, 32), self._longest_s)
        self._failures += 1
        self._ready_s = max(self._ready_s, now_s + pause_s)

    def wait_s(self, now_s: float) -> float:
        """How long until it may be started; 0 when it may be now."""
        return max(0.0, self._ready_s - now_s)


@final
class StdioConnector(Connector):
    """Starts the children of one backend. Used from one event loop; `tasks` outlives every link."""

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        tasks: asyncio.TaskGroup,
        *,
        environ: Mapping[str, str] | None = None,
        bounds: Bounds | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        if settings.command is None:
            raise ValueError(f"backend {name} has no command")
        self._name = name
        self._settings = settings
        self._tasks = tasks
        self._environ = child_environment(os.environ if environ is None else environ, settings)
        self._bounds = bounds
        self._now = now or asyncio.get_running_loop().time
        self._backoff = Backoff(settings.restart_backoff_s, settings.restart_backoff_max_s)
        self._guard = Guard(name)
        self._children: dict[Child, float] = {}
        self._newest: Child | None = None
        self._last_death = ""
        self.deaths = 0
        """How many of its children ended unasked."""
        self._is_closed = False

    @property
    @override
    def is_shared_wire(self) -> bool:
        return True

    @override
    async def connect(self, sink: Sink) -> Link:
        self._check_may_start()
        child = self._adopt(self._start(), sink)
        # A context of its own, which its callbacks inherit: a child outlives the call that happened to start it.
        opening = self._tasks.create_task(child.open(), name=f"pipes of {self._name}", context=contextvars.Context())
        try:
            problem = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: child.stop())
            raise
        if problem is not None:
            raise BackendUnavailable(f"{self._name}: its pipes could not be opened: {problem}") from problem
        return child.link

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        children = list(self._children)
        for child in children:
            child.stop()
        for child in children:
            await child.link.aclose()
        self._guard.close()

    def pids(self) -> tuple[int, ...]:
        """The process ids of its children, oldest first; each leads a process group of the same number."""
        return tuple(child.pid for child in self._children)

    def stderr_tail(self) -> tuple[str, ...]:
        """The newest lines on standard error of the child started last, dead or alive, oldest first."""
        return () if self._newest is None else self._newest.stderr_tail()

    def _check_may_start(self) -> None:
        if self._is_closed:
            raise BackendUnavailable(f"{self._name}: the gateway is stopping")
        wait_s = self._backoff.wait_s(self._now())
        if wait_s > 0:
            raise BackendUnavailable(
                f"{self._name}: {self._last_death}; retry in {wait_s:.1f} s", data={"retryAfterSeconds": wait_s}
            )
        if len(self._children) >= self._settings.max_children:
            raise BackendUnavailable(f"{self._name}: {self._settings.max_children} children run already (max_children)")

    def _start(self) -> subprocess.Popen[bytes]:
        settings = self._settings
        assert settings.command is not None
        try:
            return subprocess.Popen(  # noqa: S603  no shell; it returns as soon as exec has succeeded
                [settings.command, *settings.args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=settings.cwd,
                env=self._environ,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise BackendUnavailable(f"{self._name}: {self._explain(error)}") from error

    def _adopt(self, process: subprocess.Popen[bytes], sink: Sink) -> Child:
        """The supervised child and its link; a process that cannot be supervised is ended."""
        try:
            child = Child(
                self._name, self._settings, process, guard=self._guard, on_end=self._ended, on_gone=self._forgotten
            )
            child.link = PipeLink(self._name, child, sink, tasks=self._tasks, bounds=self._bounds)
        except BaseException:  # the task group is ending already
            process.kill()
            with process:
                raise
        self._children[child] = self._now()
        self._newest = child
        return child

    def _explain(self, error: OSError | ValueError) -> str:
        settings = self._settings
        cwd = settings.cwd
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            if cwd is not None and not os.path.isdir(cwd):
                return f"its working directory {cwd} does not exist"
            where = "" if "/" in str(settings.command) else f" on PATH ({self._environ.get('PATH', os.defpath)})"
            return f"command {settings.command} not found{where}"
        if isinstance(error, PermissionError):
            return f"command {settings.command} may not be executed"
        return f"command {settings.command} could not be started: {error}"

    def _ended(self, child: Child, reason: str, was_asked: bool) -> None:
        if not was_asked:
            now_s = self._now()
            self._last_death = reason
            self.deaths += 1
            self._backoff.died(now_s, now_s - self._children[child])

    def _forgotten(self, child: Child) -> None:
        self._children.pop(child, None)


def child_environment(environ: Mapping[str, str], settings: BackendSettings) -> dict[str, str]:
    """The whole environment of a child: the harmless part of ours, and over it what is configured."""
    # A value that starts with () is a function exported by an old bash: code, not data (CVE-2014-6271).
    kept = {key: environ[key] for key in INHERITED if key in environ and not environ[key].startswith("()")}
    return kept | {key: value.reveal() for key, value in settings.env.items()}
