"""Families of several workers become those of one gateway, and no counter goes backward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewright.telemetry.families import (
    STALE_S,
    Family,
    Snapshot,
    counted,
    counted_by,
    lasting,
    measured,
    measured_by,
    merge,
)

BOUNDS = (0.1, 1.0)


def latency(**samples: list[float]) -> Family:
    """A histogram with one label."""
    return Family("took", "histogram", "", ("method",), {(key,): value for key, value in samples.items()}, BOUNDS)


def posted(*families: Family, at: float = 100.0, worker: str = "worker-0") -> Snapshot:
    """A snapshot of that moment."""
    return Snapshot(worker, at, list(families))


def test_workers_add_up() -> None:
    """Counters, gauges and every bucket; a series that only one has stays as it is."""
    one = posted(
        counted("a_total", "", 3), measured_by("b", "", "kind", {"x": 1, "y": 2}), latency(call=[1, 2, 0, 1.5])
    )
    two = posted(
        counted("a_total", "", 4),
        measured_by("b", "", "kind", {"y": 5}),
        latency(call=[0, 1, 7, 60], list=[1, 0, 0, 0]),
    )
    assert merge([one, two], 100.0) == [
        counted("a_total", "", 7),
        measured_by("b", "", "kind", {"x": 1, "y": 7}),
        latency(call=[1, 3, 7, 61.5], list=[1, 0, 0, 0]),
    ]


def test_nothing_is_changed_by_merging() -> None:
    """The snapshots are read only."""
    one, two = posted(latency(call=[1, 2, 0, 1.5])), posted(latency(call=[1, 0, 0, 0.1]))
    merge([one, two], 100.0)
    assert one == posted(latency(call=[1, 2, 0, 1.5]))
    assert two == posted(latency(call=[1, 0, 0, 0.1]))


def test_a_worker_that_is_gone_counts_and_measures_nothing() -> None:
    """Its counters stay in the sum, its gauges do not; minus infinity is one that said that it leaves."""
    running = posted(counted("a_total", "", 1), measured("b", "", 10))
    for at in (100.0 - STALE_S - 0.1, float("-inf")):
        gone = posted(counted("a_total", "", 2), measured("b", "", 20), at=at)
        assert merge([gone, running], 100.0) == [counted("a_total", "", 3), measured("b", "", 10)]
    late = posted(counted("a_total", "", 2), measured("b", "", 20), at=100.0 - STALE_S)
    assert merge([late, running], 100.0) == [counted("a_total", "", 3), measured("b", "", 30)]


def test_what_lasts_is_what_only_goes_up() -> None:
    """A worker's successor takes over its counters and histograms."""
    families = [counted("a_total", "", 1), measured("b", "", 2), latency(call=[1, 0, 0, 0])]
    assert lasting(families) == [families[0], families[2]]


def test_another_shape_is_left_out() -> None:
    """A worker of another version does not break the answer of all."""
    one = posted(latency(call=[1, 0, 0, 0]))
    two = posted(Family("took", "histogram", "", ("method",), {("call",): [1, 0, 0]}, (0.1,)))
    assert merge([one, two], 100.0) == one.families


COUNTS = st.dictionaries(st.sampled_from(["load", "touch", "append"]), st.integers(0, 1_000), max_size=3)


@given(st.lists(st.lists(COUNTS, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_counters_never_go_backward(lives: list[list[dict[str, int]]], data: st.DataObject) -> None:
    """Whatever the workers count, whenever they end and are replaced: each answer is at least the one before."""
    kept: list[list[Family]] = [[] for _ in lives]
    shown: list[Snapshot] = [posted(worker=str(place)) for place in range(len(lives))]
    before: dict[tuple[str, ...], list[float]] = {}
    for place, counts in data.draw(st.permutations([(i, one) for i, life in enumerate(lives) for one in life])):
        own = posted(counted_by("trips_total", "", "verb", {key: float(value) for key, value in counts.items()}))
        shown[place] = posted(*merge([posted(*kept[place]), own], 100.0))
        kept[place] = lasting(shown[place].families)  # it ends here, and another one begins in its place
        now = next((one.samples for one in merge(shown, 1e6) if one.name == "trips_total"), {})
        assert all(now[labels][0] >= value[0] for labels, value in before.items())
        before = now
