"""Standard input and output kept for the protocol; a standard error that never holds up who writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from cli.commands import WAIT_S, environment
from gatewright.cli.descriptors import MAX_WAITING, Unhurried

CLAIM = """
import os, subprocess, sys
from gatewright.cli.descriptors import claimed
source, sink = claimed()
print("printed", flush=True)
os.write(1, b"written\\n")
subprocess.run([sys.executable, "-S", "-c", "print('inherited')"])
assert sys.stdin.read() == "", "input was not kept"
assert not os.get_inheritable(source) and not os.get_inheritable(sink)
os.write(sink, b"said: " + os.read(source, 100))
"""


def claim(**places: int) -> subprocess.CompletedProcess[bytes]:
    """Run a program that claims its descriptors."""
    return subprocess.run(
        [sys.executable, "-c", CLAIM],
        input=b"hello",
        stdout=subprocess.PIPE,
        timeout=WAIT_S,
        env=environment(),
        check=False,
        **places,  # type: ignore[call-overload]
    )


def test_only_who_claimed_them_speaks_and_hears() -> None:
    """Everything else goes to standard error, or finds nothing."""
    ended = claim(stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (0, b"said: hello")
    assert ended.stderr.split() == [b"printed", b"written", b"inherited"]


def test_a_closed_standard_error_is_replaced() -> None:
    """Otherwise the next file that is opened would be taken for it."""
    shell = 'exec "$0" -c "$1" 2>&-'
    ended = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, CLAIM],
        input=b"hello",
        stdout=subprocess.PIPE,
        timeout=WAIT_S,
        env=environment(),
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"said: hello")


def test_closed_input_or_output_is_exit_code_1() -> None:
    """There is nobody to serve."""
    shell = 'exec "$0" -c "from gatewright.cli.main import main; main()" connect http://127.0.0.1/mcp <&-'
    ended = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        capture_output=True,
        timeout=WAIT_S,
        env=environment(),
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == b"gatewright: standard input and output are closed; a host must start this\n"


def test_lines_come_in_order_and_are_all_there_when_it_is_closed() -> None:
    """Where somebody reads."""
    reading, writing = os.pipe()
    with Unhurried(writing) as stream:
        for number in range(100):
            stream.write(f"line {number}\n")
        assert not stream.isatty()
    os.close(writing)
    with os.fdopen(reading) as heard:
        assert heard.read().splitlines() == [f"line {number}" for number in range(100)]


def test_a_reader_that_stalls_costs_lines_and_no_time() -> None:
    """What was dropped is counted."""
    reading, writing = os.pipe()
    stream = Unhurried(writing)
    line = "x" * 999 + "\n"
    for _ in range(3 * MAX_WAITING):
        assert stream.write(line) == len(line)
    heard, dropped = bytearray(), 0
    while not dropped or heard.count(b"x\n") + dropped < 3 * MAX_WAITING:
        heard += os.read(reading, 1 << 16)
        dropped = sum(map(int, re.findall(rb"\((\d+) more lines were dropped", heard)))
    assert heard.count(b"x\n") + dropped == 3 * MAX_WAITING
    stream.close()
    stream.close()
    os.close(writing)
    os.close(reading)


def test_a_reader_that_left_is_no_error() -> None:
    """Nobody will read it."""
    reading, writing = os.pipe()
    os.close(reading)
    with Unhurried(writing) as stream:
        stream.write("a\n")
    os.close(writing)
