"""The guard: a tiny process that outlives a gateway killed without notice, and ends the children it left behind.

It holds the read end of a pipe whose write end only the gateway has. The gateway writes which process groups it
started and which are gone; when the pipe closes, whatever closed it (SIGKILL, a crash, the OOM killer), the guard
sends SIGTERM and then SIGKILL to the groups that are left, and exits. Unlike `PR_SET_PDEATHSIG` this reaches
grandchildren (`npx` starts a shell that starts the server), needs no code between fork and exec, and works on every
POSIX system. A child that leaves its process group escapes it, as it escapes every signal to the group.

One guard serves all children of one connector: a shell of about 1 MB. It is started with the first child.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final, final

import structlog

_SCRIPT: Final = """
trap '' HUP INT QUIT TERM
groups=
while read -r word group; do
  if [ "$word" = + ]; then groups="$groups $group"; continue; fi
  left=
  for one in $groups; do [ "$one" = "$group" ] || left="$left $one"; done
  groups=$left
done
[ -n "$groups" ] || exit 0
for one in $groups; do kill -TERM -"$one"; done
sleep 1
for one in $groups; do kill -KILL -"$one"; done
"""
_SHELL: Final = "/bin/sh"


@final
class Guard:
    """Knows the process groups to end when this process dies. Every method returns at once and raises nothing."""

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(__name__).bind(backend=name)
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_usable = os.path.exists(_SHELL)

    def add(self, group: int) -> None:
        """A process group was started."""
        self._groups.add(group)
        if not self._write(b"+ %d\n" % group):
            self._start()

    def discard(self, group: int) -> None:
        """The group is empty: its number may be somebody else's soon."""
        if group in self._groups:
            self._groups.remove(group)
            self._write(b"- %d\n" % group)

    def close(self) -> None:
        """End the guard if nothing is left to guard; otherwise it stays until this process ends."""
        process = self._process
        if process is None or self._groups:
            return
        self._process = None
        _reap(process)

    def _start(self) -> None:
        if self._process is not None:
            _reap(self._process)
            self._process = None
        if not self._is_usable:
            return
        try:
            process = subprocess.Popen(  # noqa: S603  a fixed program and a fixed script
                [_SHELL, "-c", _SCRIPT, "gatewright-guard"],  # the last is its name in a process list
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._is_usable = False
            self._log.warning("guard_not_started", problem=str(error))
            return
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        self._write(b"".join(b"+ %d\n" % group for group in sorted(self._groups)))

    def _write(self, words: bytes) -> bool:
        if self._process is None or self._process.stdin is None:
            return False
        try:
            return self._process.stdin.write(words) == len(words)
        except OSError:
            return False


def _reap(process: subprocess.Popen[bytes]) -> None:
    """End a guard that guards nothing. Waiting is for the kernel only: SIGKILL cannot be put off."""
    process.kill()
    if process.stdin is not None:
        process.stdin.close()
    process.wait()
