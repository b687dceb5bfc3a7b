"""Metric families as values, and how those of several workers become those of one gateway.

Contract: pure. A sample is a list of numbers under its label values: one number for a counter or gauge; for a
histogram the count of each bucket (not cumulative), of the one without bound, and the sum. Merging adds them up.
A worker that is gone is still counted in everything that only goes up, so that no counter goes backward when a worker
ends; of its gauges nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, final

import msgspec

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]

STALE_S: Final = 10.0
"""A worker that posted nothing for this long is taken for gone. Five times the pause between its posts."""


@final
class Family(msgspec.Struct, frozen=True):
    """One metric: what it is called, and its samples by label values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    """Names of the labels, in the order of the values in `samples`."""
    samples: dict[Labels, list[float]]
    bounds: tuple[float, ...] = ()
    """Of a histogram: the upper bounds of its buckets."""


@final
class Snapshot(msgspec.Struct, frozen=True):
    """What one worker had to tell at some moment."""

    worker: str
    posted_at: float
    """Seconds of the machine's monotonic clock, which all its processes share; minus infinity: its worker has left."""
    families: list[Family]

    def is_fresh(self, now: float) -> bool:
        """Whether its worker can be taken to be running. `now` is of the same clock."""
        return now - self.posted_at <= STALE_S


def counted(name: str, help_text: str, value: float) -> Family:
    """A counter without labels."""
    return Family(name, "counter", help_text, (), {(): [value]})


def counted_by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Family:
    """A counter with one label."""
    return Family(name, "counter", help_text, (label,), {(key,): [value] for key, value in values.items()})


def measured(name: str, help_text: str, value: float) -> Family:
    """A gauge without labels."""
    return Family(name, "gauge", help_text, (), {(): [value]})


def measured_by(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Family:
    """A gauge with one label."""
    return Family(name, "gauge", help_text, (label,), {(key,): [value] for key, value in values.items()})


def merge(snapshots: Iterable[Snapshot], now: float) -> list[Family]:
    """The families of all workers as those of one. Gauges count of fresh ones only. A family whose shape differs from
    that of the first one of its name (a worker of another version) is left out."""
    merged: dict[str, Family] = {}
    for snapshot in snapshots:
        is_fresh = snapshot.is_fresh(now)
        for family in snapshot.families:
            sums = merged.get(family.name)
            if sums is None:
                sums = merged[family.name] = msgspec.structs.replace(family, samples={})
            if (is_fresh or family.kind != "gauge") and _shape(family) == _shape(sums):
                _add(sums.samples, family.samples)
    return list(merged.values())


def lasting(families: Iterable[Family]) -> list[Family]:
    """What stays true when its worker is gone: all but the gauges."""
    return [family for family in families if family.kind != "gauge"]


def _shape(family: Family) -> tuple[Kind, Labels, tuple[float, ...]]:
    return family.kind, family.labels, family.bounds


def _add(sums: dict[Labels, list[float]], samples: Mapping[Labels, list[float]]) -> None:
    for labels, values in samples.items():
        held = sums.get(labels)
        sums[labels] = list(values) if held is None else [a + b for a, b in zip(held, values, strict=True)]
