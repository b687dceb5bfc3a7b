"""The board on which the workers of one gateway post what they counted: one small file each, in a folder of theirs.

Contract: a post replaces the file whole, so that a reader never sees half of one. A worker that starts in the place of
one that ended finds what that one had counted (`before`) and counts on from there. A file that cannot be read is as
one that is not there. Blocks for as long as the file system does: run it in a thread. The folder is the supervisor's:
made anew for each start of the gateway, readable by it alone.
"""

from __future__ import annotations

import os
from math import inf
from pathlib import Path
from typing import Final, final

import msgspec

from gatewright.telemetry.families import Family, Snapshot, counted, lasting

SUFFIX: Final = ".metrics"


@final
class Board:
    """One worker's view of the board. `name` is its place in the gateway (`worker-0`), kept when it is replaced."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._file = folder / (name + SUFFIX)
        found = _read(self._file)
        self.before: Final[list[Family]] = [] if found is None else lasting(found.families)
        """What those counted who had this place before."""

    def post(self, snapshot: Snapshot) -> None:
        """Put this in the place of what was posted before. Raises OSError."""
        draft = self._folder / f".{self.name}.{os.getpid()}"
        draft.write_bytes(msgspec.msgpack.encode(snapshot))
        draft.replace(self._file)

    def others(self) -> list[Snapshot]:
        """What everybody else posted last, by name."""
        files = sorted(file for file in self._folder.glob("*" + SUFFIX) if file != self._file)
        return [found for file in files if (found := _read(file)) is not None]


def post_restarts(folder: Path, restarts: int) -> None:
    """What the supervisor of the workers has to tell: how many it started anew. Raises OSError."""
    counts = [counted("gatewright_worker_restarts_total", "Workers that crashed and were started again.", restarts)]
    Board(folder, "supervisor").post(Snapshot("supervisor", -inf, counts))


def _read(file: Path) -> Snapshot | None:
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Snapshot)
    except (OSError, msgspec.MsgspecError):
        return None
