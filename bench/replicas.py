"""Gateway processes of one deployment, each on a port that it keeps: ended by SIGTERM or SIGKILL, and started again."""

import contextlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.targets import announcing

_KILLED_S = 10.0


class Replica:
    """One gateway on a port of its own, which it keeps over its restarts."""

    def __init__(self, template: str, settings: Mapping[str, object], file: Path, stack: contextlib.ExitStack) -> None:
        """`template` is its configuration, filled with its `port` and these `settings`."""
        self._template = template
        self._settings = settings
        self._file = file
        self._stack = stack
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, on the port it had if it had one; returns once it listens."""
        self._file.write_text(self._template.format(port=self.port, **self._settings))
        command = [str(Path(sys.executable).parent / "gatewright"), "serve", str(self._file)]
        line, self.process = self._stack.enter_context(announcing(*command, program=""))
        self.port = int(line.rpartition(":")[2])

    def terminate(self, within_s: float) -> int:
        """SIGTERM, and its exit status. Raises psutil.TimeoutExpired."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s) or 0  # None: somebody else has waited for it

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
            self.process.wait(_KILLED_S)
