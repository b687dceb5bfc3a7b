"""Measures the same calls directly, through nginx, through Gatewright and through the FastMCP proxy, in one run.

All targets of a case are measured in turns (A, B, C, A, B, C, ...), so that a change on a shared machine falls on all
of them; the table shows medians. Prints Markdown, writes every sample to bench/results/, exits 1 when a bar is missed.
"""

import argparse
import asyncio
import contextlib
import datetime
import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import cores, measure, report
from bench.calls import Call
from bench.cases import CASES, Case
from bench.report import Outcome, Paced
from bench.targets import Direct, FastMCP, Gateway, Nginx, Target, announcing

TARGETS = ("direct", "nginx", "gatewright", "fastmcp")
PACED_TURNS = 15
PACED_S = 1
"""Many short runs: a virtual machine that stands still for a moment, nginx and all, then spoils one of them."""
PACED_CASES = ("modern-json", "modern-sse", "handshake-json", "handshake-sse")


@dataclass(frozen=True)
class Plan:
    """What to run: whole seconds per sample, samples per case and target, tries for an undisturbed sample."""

    cases: tuple[Case, ...]
    targets: tuple[str, ...]
    duration_s: int
    repeats: int
    tries: int
    paced: tuple[str, ...]
    store: str = "memory"


def start(plan: Plan, stub: str, directory: Path, stack: contextlib.ExitStack) -> dict[str, Target]:
    """Start the asked targets; one that does not start is reported and left out."""
    makers: dict[str, Callable[[], Target]] = {
        "direct": lambda: Direct(stub, stack),
        "nginx": lambda: Nginx(stub, directory, stack),
        "gatewright": lambda: Gateway(stub, {case.backend for case in plan.cases}, directory, stack, plan.store),
        "fastmcp": lambda: FastMCP(stub, stack),
    }
    started = {}
    for name in plan.targets:
        try:
            started[name] = makers[name]()
        except (OSError, RuntimeError, TimeoutError) as error:
            print(f"{name} is left out, it did not start: {error}", file=sys.stderr)
    return started


def run_case(
    case: Case, targets: dict[str, Target], plan: Plan, directory: Path, stub: psutil.Process
) -> list[Outcome]:
    """Check every target's answers first, then measure them in turns."""
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, tuple[str, Call]] = {}
    for name, target in targets.items():
        outcome = Outcome(case, name)
        try:
            url = target.url(case.backend)
            if url is None or (name == "direct" and not case.has_floor and case.backend != "inprocess"):
                continue
            if name == "nginx" and not case.has_floor:
                continue
            call = asyncio.run(measure.prepare(url, case))
            outcome.wrong = measure.count_wrong(url, call, directory)
            ready[name] = (url, call)
        except (OSError, RuntimeError, TimeoutError) as error:
            outcome.problem = f"{type(error).__name__}: {error}"
        outcomes[name] = outcome
    for turn in range(plan.repeats):
        names = list(ready)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            url, call = ready[name]
            take = functools.partial(measure.sample, targets[name], case, url, call, directory, stub)
            one = calmest(take, plan)
            outcomes[name].samples.append(one)
            print(f"  {case.name:20} {name:11} {_brief(one)}", file=sys.stderr)
    for one_outcome in outcomes.values():
        if one_outcome.problem:
            print(f"  {case.name:20} {one_outcome.target:11} {one_outcome.problem[:200]}", file=sys.stderr)
    return list(outcomes.values())


def calmest(take: Callable[..., measure.Sample], plan: Plan) -> measure.Sample:
    """The first sample that nobody disturbed, else the least disturbed: chosen by disturbance, never by result."""
    taken = []
    for _ in range(plan.tries):
        if plan.tries > 1:
            measure.await_calm()
        taken.append(take(duration_s=plan.duration_s))
        if taken[-1].others <= measure.CALM:
            break
    return min(taken, key=lambda one: one.others)


def run_paced(
    case: Case,
    targets: dict[str, Target],
    outcomes: list[Outcome],
    plan: Plan,
    directory: Path,
    stub: psutil.Process,
) -> Paced:
    """Open-loop runs at half of the gateway's throughput, in turns; without a gateway there is nothing to halve."""
    subject = next(one for one in outcomes if one.target == report.SUBJECT and one.case is case)
    rate = (subject.median("calls_per_s") or 0) / 2
    paced = Paced(case, rate)
    for _ in range(PACED_TURNS):
        for name in ("direct", report.FLOOR, report.SUBJECT):
            target = targets.get(name)
            url = target.url(case.backend) if target else None
            if target is None or url is None:
                continue
            try:
                if plan.tries > 1:
                    measure.await_calm()
                call = asyncio.run(measure.prepare(url, case))
                middle = target.processes(case.backend) or [stub]
                with cores.on_a_core_of_its_own(middle, stub) as free:
                    seen = measure.pace(url, call, directory, rate=rate, duration_s=PACED_S, cores=free)
            except (OSError, RuntimeError, TimeoutError) as error:
                print(f"  {case.name:20} {name:11} open loop: {error}", file=sys.stderr)
                continue
            paced.runs.setdefault(name, []).append(seen)
            print(f"  {case.name:20} {name:11} {rate:7.0f}/s open loop, p99 {seen.p99_us:.0f} us", file=sys.stderr)
    return paced


def run(plan: Plan, directory: Path, stack: contextlib.ExitStack) -> tuple[list[Outcome], list[Paced]]:
    """The whole plan; ends what it started when the stack closes."""
    stub_url, stub = stack.enter_context(announcing("-m", "bench.stub", "--port", "0"))
    targets = start(plan, stub_url, directory, stack)
    outcomes: list[Outcome] = []
    paced: list[Paced] = []
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is worth showing
        for case in plan.cases:
            found = run_case(case, targets, plan, directory, stub)
            outcomes += found
            has_subject = any(one.target == report.SUBJECT and one.samples for one in found)
            if case.name in plan.paced and has_subject:
                paced.append(run_paced(case, targets, found, plan, directory, stub))
    return outcomes, paced


def _brief(one: measure.Sample) -> str:
    cpu = f"{one.cpu_us:8.1f} us CPU/call" if one.cpu_us is not None else " " * 20
    return f"{one.calls_per_s:9.0f}/s {cpu}  p99 {one.p99_ms:8.2f} ms  {one.errors} errors, others {one.others:.0%}"


def _chosen(names: list[str]) -> tuple[Case, ...]:
    """The cases of these names; a name that no case has is a prefix."""
    exact = {case.name for case in CASES}
    return tuple(
        case
        for case in CASES
        if any(case.name == one or (one not in exact and case.name.startswith(one)) for one in names)
    )


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one sample of 2 s for each")
    parser.add_argument(
        "--cases", help="comma-separated names or prefixes; without it, all: " + ", ".join(c.name for c in CASES)
    )
    parser.add_argument("--only", default=",".join(TARGETS), help="comma-separated targets: " + ", ".join(TARGETS))
    parser.add_argument("--duration", type=int, help="whole seconds per sample (default 5)")
    parser.add_argument("--repeats", type=int, help="samples per case and target (default 3)")
    parser.add_argument("--tries", type=int, default=1, help="on a shared machine: take a disturbed sample again")
    parser.add_argument("--store", default="memory", help="the gateway's `store`, as in its configuration")
    options = parser.parse_args()
    cases = _chosen(options.cases.split(",")) if options.cases else CASES
    targets = tuple("gatewright" if name == "gateway" else name for name in options.only.split(","))
    unknown = set(targets) - set(TARGETS)
    if unknown or not cases:
        parser.error(f"unknown targets {sorted(unknown)}" if unknown else f"no case begins with {options.cases}")
    return Plan(
        cases=cases,
        targets=targets,
        duration_s=options.duration or (2 if options.quick else 5),
        repeats=options.repeats or (1 if options.quick else 3),
        tries=options.tries,
        paced=PACED_CASES[:1] if options.quick else PACED_CASES,
        store=options.store,
    )


def main() -> int:
    plan = _plan()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewright-bench-")))
        outcomes, paced = run(plan, directory, stack)
    judged = report.bars(outcomes, paced)
    name = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ.json")
    path = Path(__file__).parent / "results" / name
    report.write(path, outcomes, paced, judged)
    others = [sample.others for one in outcomes for sample in one.samples]
    print(report.table(outcomes))
    if paced:
        print("\n" + report.paced_table(paced))
    machine = report.machine()
    print(f"\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.", end=" ")
    print(f"Other processes used {statistics.median(others or [0]):.0%} of the machine (median). Samples: {path}\n")
    for bar in judged:
        print(f"{'PASS' if bar.is_met else 'FAIL'}  {bar.case}: {bar.text}")
    return 0 if all(bar.is_met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
