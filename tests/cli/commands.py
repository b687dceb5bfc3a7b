"""Running the real `gatewright` command as a child process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 30
COMMAND = (sys.executable, "-c", "from gatewright.cli.main import main; main()")


def environment(**added: str) -> dict[str, str]:
    """A plain environment: no colours, wide lines."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
    return kept | {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"} | added


def run(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=environment(**environ),
        cwd=cwd,
        check=False,
    )


@contextmanager
def running(*arguments: str, cwd: Path | None = None, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run it beside the test; it is killed at the end if it still runs."""
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**environ),
        cwd=cwd,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=WAIT_S)


def stop(child: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Send the signal and wait for the end: exit code, and the rest of stdout and stderr."""
    child.send_signal(number)
    out, err = child.communicate(timeout=WAIT_S)
    return child.returncode, out, err


def line_of(child: subprocess.Popen[str]) -> str:
    """The next line of its stdout."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        assert child.stderr is not None
        raise AssertionError(f"it ended: {child.stderr.read()}")
    return line.rstrip("\n")
