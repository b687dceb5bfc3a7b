"""The board: whole files or none, and a successor that counts on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewright.telemetry.board import Board, post_restarts
from gatewright.telemetry.families import Family, Snapshot, counted, measured

FAMILIES = [
    counted("a_total", "Some.", 3),
    measured("b", "Others.", 0.5),
    Family("took", "histogram", "", ("method",), {("call",): [1, 0, 0.25]}, (0.1,)),
]


def test_what_one_posts_the_others_read(tmp_path: Path) -> None:
    """As it was posted; one's own is not among the others'."""
    one, two = Board(tmp_path, "worker-0"), Board(tmp_path, "worker-1")
    snapshot = Snapshot("worker-0", 12.5, FAMILIES)
    one.post(snapshot)
    assert two.others() == [snapshot]
    assert one.others() == []
    newer = Snapshot("worker-0", 14.5, FAMILIES[:1])
    one.post(newer)
    assert two.others() == [newer]
    assert [path.name for path in tmp_path.iterdir()] == ["worker-0.metrics"]


def test_a_successor_finds_what_was_counted_before_it(tmp_path: Path) -> None:
    """All but the gauges, which are not its own."""
    first = Board(tmp_path, "worker-0")
    assert first.before == []
    first.post(Snapshot("worker-0", 1.0, FAMILIES))
    assert Board(tmp_path, "worker-0").before == [FAMILIES[0], FAMILIES[2]]
    assert Board(tmp_path, "worker-1").before == []


@pytest.mark.parametrize("content", [b"", b"\x93\xa1x", b"not a post", b"\xc1", b'{"worker":1}'])
def test_what_cannot_be_read_is_not_there(tmp_path: Path, content: bytes) -> None:
    """Neither for the others nor for a successor."""
    (tmp_path / "worker-0.metrics").write_bytes(content)
    assert Board(tmp_path, "worker-0").before == []
    assert Board(tmp_path, "worker-1").others() == []


def test_the_supervisor_tells_what_it_did(tmp_path: Path) -> None:
    """A counter beside those of the workers; it is no worker itself."""
    for restarts in (1, 2):
        post_restarts(tmp_path, restarts)
    (found,) = Board(tmp_path, "worker-0").others()
    assert found.families == [
        counted("gatewright_worker_restarts_total", "Workers that crashed and were started again.", 2)
    ]
    assert not found.is_fresh(0.0)


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    """When posting; to read there is nothing."""
    board = Board(tmp_path / "gone", "worker-0")
    with pytest.raises(OSError, match="No such file"):
        board.post(Snapshot("worker-0", 1.0, []))
    assert board.others() == []
