"""The wire to a host: lines from pieces of any size, back-pressure both ways, ends, descriptors of any kind."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.inbound.stdio_wire import BUFFER_BYTES, HostLines, StdioWire

MAX = 1_024
lines_of = st.lists(st.binary(max_size=2 * MAX).filter(lambda line: b"\n" not in line), max_size=8)


class Ears:
    """What a wire tells."""

    def __init__(self) -> None:
        self.took: list[bytes | None] = []
        self.ends = 0
        self.news = asyncio.Event()

    def take(self, line: bytes | None) -> None:
        """One line."""
        self.took.append(line)
        self.news.set()

    def end(self) -> None:
        """The end."""
        self.ends += 1
        self.news.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Within the bound."""
        async with asyncio.timeout(5):
            while not is_so():
                self.news.clear()
                await self.news.wait()


class Ends:
    """The host's ends of two pipes, and the wire on the others."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.source, self.to_wire = os.pipe()
        self.from_wire, self.sink = os.pipe()
        self.wire = StdioWire(MAX, self.ears.take, self.ears.end)

    async def open(self) -> Ends:
        """Take over."""
        await self.wire.open(self.source, self.sink)
        return self

    def leave(self) -> None:
        """Close what is still open of ours."""
        for fd in (self.to_wire, self.from_wire):
            with suppress(OSError):
                os.close(fd)


async def soon(waiting: Awaitable[object]) -> None:
    """Within the bound."""
    async with asyncio.timeout(5):
        await waiting


async def turns(number: int = 20) -> None:
    """Let the loop go on."""
    for _ in range(number):
        await asyncio.sleep(0)


@given(lines=lines_of, cuts=st.lists(st.integers(1, 700), max_size=30))
def test_any_cutting_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    """Each line once and in order; None for each that is too long; empty ones left out."""
    text = b"".join(line + b"\n" for line in lines)
    heard: list[bytes | None] = []
    cutter = HostLines(MAX)
    for cut in [*cuts, len(text)]:
        heard += cutter.feed(text[:cut])
        text = text[cut:]
    heard += cutter.feed(text)
    expected = [line if len(line) <= MAX else None for line in lines if line not in (b"", b"\r")]
    assert heard == expected


@pytest.mark.anyio
async def test_lines_go_both_ways() -> None:
    """Written messages are one line each, whatever white space they hold."""
    ends = await Ends().open()
    os.write(ends.to_wire, b'{"a":1}\n{"b"')
    os.write(ends.to_wire, b":2}\n")
    await ends.ears.until(lambda: ends.ears.took == [b'{"a":1}', b'{"b":2}'])
    ends.wire.write(b'{"c":\n3,\r"d":4}')
    await ends.wire.close()
    assert os.read(ends.from_wire, 1000) == b'{"c": 3, "d":4}\n'
    assert os.read(ends.from_wire, 1000) == b""
    ends.leave()


@pytest.mark.anyio
async def test_a_sender_waits_for_a_host_that_does_not_read_and_the_host_is_not_read() -> None:
    """Until it reads again; then everything is there, in order."""
    ends = await Ends().open()
    ends.wire.write(b"x" * (BUFFER_BYTES + 200_000))
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(ends.wire.send(b"last"))
        os.write(ends.to_wire, b"late\n")
        await turns()
        assert not sending.done()
        assert ends.ears.took == []
        heard = await asyncio.to_thread(_read, ends.from_wire, BUFFER_BYTES + 200_000 + 1 + 5)
    assert heard.endswith(b"x\nlast\n")
    await ends.ears.until(lambda: ends.ears.took == [b"late"])
    await ends.wire.close()
    ends.leave()


@pytest.mark.anyio
async def test_a_cancelled_sender_leaves_no_trace() -> None:
    """The others are woken as ever."""
    ends = await Ends().open()
    ends.wire.write(b"x" * (BUFFER_BYTES + 200_000))
    async with asyncio.TaskGroup() as tasks:
        first, second = tasks.create_task(ends.wire.send(b"one")), tasks.create_task(ends.wire.send(b"two"))
        await turns(2)
        first.cancel()
        heard = await asyncio.to_thread(_read, ends.from_wire, BUFFER_BYTES + 200_000 + 1 + 4)
        await soon(second)
    assert heard.endswith(b"x\ntwo\n")
    await ends.wire.close()
    ends.leave()


@pytest.mark.anyio
async def test_the_end_of_input_is_told_and_output_goes_on() -> None:
    """A last line without an end is a line too."""
    ends = await Ends().open()
    os.write(ends.to_wire, b"whole\nhalf")
    os.close(ends.to_wire)
    await ends.ears.until(lambda: ends.ears.ends == 1)
    assert ends.ears.took == [b"whole", b"half"]
    await ends.wire.send(b"still")
    assert os.read(ends.from_wire, 100) == b"still\n"
    await ends.wire.close()
    ends.leave()


@pytest.mark.anyio
async def test_a_host_that_left_is_noticed_and_nobody_waits_for_it() -> None:
    """Who waited returns, and what is written then goes nowhere."""
    ends = await Ends().open()
    ends.wire.write(b"x" * (BUFFER_BYTES + 200_000))
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(ends.wire.send(b"last"))
        await turns(2)
        os.close(ends.from_wire)
        await soon(sending)
    assert ends.wire.is_gone
    assert ends.ears.ends == 1
    ends.wire.write(b"nobody")
    await ends.wire.close()
    ends.leave()


@pytest.mark.anyio
async def test_closing_does_not_wait_long_for_a_host_that_does_not_read() -> None:
    """What it did not read is dropped."""
    ends = await Ends().open()
    ends.wire.write(b"x" * (BUFFER_BYTES + 200_000))
    await soon(ends.wire.close())
    assert ends.wire.is_gone
    ends.leave()


@pytest.mark.anyio
async def test_nothing_is_taken_after_reading_was_stopped() -> None:
    """Also from a piece that holds several lines."""
    ears = Ears()
    wire = StdioWire(MAX, lambda line: (ears.take(line), wire.stop_reading())[0], ears.end)
    (source, to_wire), (from_wire, sink) = os.pipe(), os.pipe()
    await wire.open(source, sink)
    os.write(to_wire, b"one\ntwo\n")
    await ears.until(lambda: bool(ears.ends))
    await turns()
    assert ears.took == [b"one"]
    await wire.close()
    os.close(to_wire)
    os.close(from_wire)


@pytest.mark.anyio
async def test_files_are_copied_by_threads() -> None:
    """They cannot be polled: the input's end is the end, and the output is whole when the wire is closed."""
    ears = Ears()
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told:
        asked.write(b"one\ntwo\n")
        asked.seek(0)
        wire = StdioWire(MAX, ears.take, ears.end)
        await wire.open(os.dup(asked.fileno()), os.dup(told.fileno()))
        await ears.until(lambda: bool(ears.ends))
        assert ears.took == [b"one", b"two"]
        await wire.send(b"answer")
        await wire.close()
        told.seek(0)
        assert told.read() == b"answer\n"


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data
