"""A program under the supervisor, for its tests: workers that do as they are told, and say on stdout what happens.

`python -m cli.supervised WORKERS STOP_S START_S SILENT_S WAY...`: each way is `number:what`, of the worker of that
number; every other one serves until it is told to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from gatewright.cli.logs import configure
from gatewright.cli.report import CommandError
from gatewright.cli.supervisor import Pauses, Place, Supervisor
from gatewright.config import Log

CANNOT = "the address is taken"


def say(text: str) -> None:
    """One line, whole, whoever else writes."""
    os.write(1, text.encode() + b"\n")


def worker(ways: dict[int, str]) -> Callable[[Place], None]:
    """What the workers do."""

    def work(place: Place) -> None:
        number = place.number
        way = ways.get(number, "serve")
        if way == "cannot":
            raise CommandError(CANNOT, 2)
        if way == "bug":
            raise ValueError("a bug")
        if way == "mute":
            time.sleep(60)
        asked: list[int] = []
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda number, _: asked.append(number))
        say(f"worker {number} {os.getpid()}")
        place.ready(f"ready {number}")
        if way == "crash":
            os.abort()
        while not asked or (way == "stubborn" and signal.SIGINT not in asked) or way == "deaf":
            signal.sigtimedwait((), 0.02)
            if way != "stuck" and not (asked and way == "stuck-when-told"):
                place.beat()
            while asked and way == "stuck-when-told":
                signal.sigtimedwait((), 0.02)
        say(f"ended {number} {'+'.join(signal.Signals(one).name for one in asked)}")

    return work


def main() -> None:
    """Run it; the exit code is the error's."""
    configure(Log(format="json"))
    count, (stop_s, start_s, silent_s) = int(sys.argv[1]), map(float, sys.argv[2:5])
    ways = {int(number): what for number, _, what in (way.partition(":") for way in sys.argv[5:])}
    pauses = Pauses(first_s=0.05, longest_s=0.2, start_s=start_s, silent_s=silent_s)
    supervisor = Supervisor(
        count, worker(ways), stop_s=stop_s, on_ready=lambda text: say(f"serving {text}"), pauses=pauses
    )
    try:
        supervisor.run()
    except CommandError as error:
        say(f"failed {error}")
        raise SystemExit(error.exit_code) from None
    say("over")


if __name__ == "__main__":
    main()
