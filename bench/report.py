"""Turns samples into medians, a Markdown table, the verdict on the bars, and a JSON file that holds every sample."""

import datetime
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.cases import Case
from bench.measure import Sample
from bench.openloop import Pace

FLOOR = "nginx"
SUBJECT = "gatewright"
# The bars of the speed goal: what MCP may cost over a proxy that knows nothing of it.
MAX_CPU_RATIO = 3.5
MIN_THROUGHPUT_RATIO = 0.4
MAX_ADDED_P99_MS = 2.0


@dataclass
class Outcome:
    """All samples of one case through one target; `problem` says why there are none."""

    case: Case
    target: str
    samples: list[Sample] = field(default_factory=list)
    wrong: int = 0
    problem: str = ""

    def median(self, name: str) -> float | None:
        # A sample in which nothing was answered in time says something of the rate, nothing of latency or cost.
        kept = [one for one in self.samples if one.requests or name == "calls_per_s"]
        values = [value for value in (getattr(one, name) for one in kept) if value is not None]
        return statistics.median(values) if values else None

    @property
    def errors(self) -> int:
        return self.wrong + sum(one.errors for one in self.samples)


@dataclass
class Paced:
    """Open-loop runs of one case at one rate, by target."""

    case: Case
    rate: float
    runs: dict[str, list[Pace]] = field(default_factory=dict)

    def p99_ms(self, target: str) -> float | None:
        runs = self.runs.get(target)
        return statistics.median(run.p99_us for run in runs) / 1000 if runs else None


@dataclass(frozen=True)
class Bar:
    case: str
    text: str
    is_met: bool


def table(outcomes: list[Outcome]) -> str:
    """One row per case and target; ratios are to nginx in the same case."""
    lines = [
        "| case | through | calls/s | of nginx | p50 ms | p99 ms | CPU/call us | x nginx | RSS MB | errors |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    floors = {one.case.name: one for one in outcomes if one.target == FLOOR}
    for one in outcomes:
        if one.problem:
            lines.append(f"| {one.case.title} | {one.target} | {one.problem[:120]} | | | | | | | |")
            continue
        floor = floors.get(one.case.name)
        rss = one.median("rss_bytes")
        cells = [
            one.case.title,
            one.target,
            _number(one.median("calls_per_s"), 0),
            _number(_ratio(one, floor, "calls_per_s"), 2),
            _number(one.median("p50_ms"), 2),
            _number(one.median("p99_ms"), 2),
            _number(one.median("cpu_us"), 1),
            _number(_ratio(one, floor, "cpu_us"), 2),
            _number(rss / 1e6 if rss else None, 0),
            str(one.errors),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paced_table(paced: list[Paced]) -> str:
    """p99 at half of the gateway's measured throughput, from an open-loop driver."""
    lines = [
        "| case, open loop | calls/s | direct p99 ms | nginx p99 ms | gatewright p99 ms | added p99 ms | wrong |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in paced:
        wrong = sum(run.wrong + run.unanswered for runs in one.runs.values() for run in runs)
        cells = [one.case.title, f"{one.rate:.0f}"]
        cells += [_number(one.p99_ms(name), 2) for name in ("direct", FLOOR, SUBJECT)]
        cells += [_number(_added(one), 2), str(wrong)]
        lines.append("| " + " | ".join(cells) + " |")
    if not all(run.outranks for one in paced for runs in one.runs.values() for run in runs):
        lines.append("\nThe machine's own work took its turns in these runs; as root it would have waited.")
    return "\n".join(lines)


def bars(outcomes: list[Outcome], paced: list[Paced]) -> list[Bar]:
    """Every bar that this run can judge: each case that both nginx and the gateway carried."""
    by_case: dict[str, dict[str, Outcome]] = {}
    for one in outcomes:
        by_case.setdefault(one.case.name, {})[one.target] = one
    judged = []
    for name, targets in by_case.items():
        subject, floor = targets.get(SUBJECT), targets.get(FLOOR)
        if subject is None or floor is None or not subject.case.has_floor:
            continue
        cpu, rate = _ratio(subject, floor, "cpu_us"), _ratio(subject, floor, "calls_per_s")
        judged.append(_bar(name, f"CPU per call, times nginx's (at most {MAX_CPU_RATIO})", cpu, most=MAX_CPU_RATIO))
        judged.append(
            _bar(name, f"throughput, of nginx's (at least {MIN_THROUGHPUT_RATIO})", rate, least=MIN_THROUGHPUT_RATIO)
        )
        judged.append(_bar(name, "errors (none)", float(subject.errors) if subject.samples else None, most=0))
    for pair in paced:
        text = f"added p99 at half load, ms (at most {MAX_ADDED_P99_MS})"
        judged.append(_bar(pair.case.name, text, _added(pair), most=MAX_ADDED_P99_MS))
    return judged


def write(path: Path, outcomes: list[Outcome], paced: list[Paced], judged: list[Bar]) -> None:
    """Everything that was measured, with the machine it was measured on."""
    document: dict[str, Any] = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "outcomes": [
            {
                "case": one.case.name,
                "target": one.target,
                "problem": one.problem,
                "wrong": one.wrong,
                "samples": [asdict(sample) for sample in one.samples],
            }
            for one in outcomes
        ],
        "paced": [{"case": one.case.name, "rate": one.rate, "runs": one.runs} for one in paced],
        "bars": [asdict(bar) for bar in judged],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))


def machine() -> dict[str, str | int]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        # Where it is installed, too: builds of one version differ by a fifth (docs/performance.md).
        "python": f"{platform.python_version()} of {sys.base_prefix}",
    }


def _ratio(one: Outcome, floor: Outcome | None, name: str) -> float | None:
    if floor is None or floor is one:
        return None
    mine, theirs = one.median(name), floor.median(name)
    return mine / theirs if mine is not None and theirs else None


def _added(one: Paced) -> float | None:
    through, direct = one.p99_ms(SUBJECT), one.p99_ms("direct")
    return through - direct if through is not None and direct is not None else None


def _bar(case: str, text: str, value: float | None, *, most: float | None = None, least: float | None = None) -> Bar:
    if value is None:
        return Bar(case, f"{text}: not measured", is_met=False)
    is_met = (most is None or value <= most) and (least is None or value >= least)
    return Bar(case, f"{text}: {value:.2f}", is_met=is_met)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
