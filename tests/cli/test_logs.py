"""Logs: JSON lines or text, one way for both logging libraries, no secrets, no local variables."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gatewright.cli.logs import configure
from gatewright.config import Log
from gatewright.secret import Secret


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """The JSON lines in the stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(password: str) -> None:
    """Raise with a secret among the local variables."""
    raise RuntimeError("broken")


def test_elsewhere_than_on_a_terminal_a_line_is_an_object() -> None:
    """From structlog and from the standard library alike; what JSON does not know becomes text, secrets masked."""
    stream = io.StringIO()
    configure(Log(), stream)
    structlog.get_logger().info("started", token=Secret("c4nary"), port=1)
    logging.getLogger("uvicorn.error").warning("slow %s", "disk")
    logging.getLogger("asyncio").info("chatter")
    first, second = lines(stream)
    assert (first["event"], first["level"], first["token"], first["port"]) == ("started", "info", "********", 1)
    assert (second["event"], second["level"], second["logger"]) == ("slow disk", "warning", "uvicorn.error")
    assert str(first["timestamp"]).endswith("Z")


def test_a_worker_says_which_it_is() -> None:
    """In every line, whichever library it comes from; a process alone says nothing of it."""
    stream = io.StringIO()
    configure(Log(), stream, worker=3)
    structlog.get_logger().info("started")
    logging.getLogger("uvicorn.error").warning("slow")
    assert [line["worker"] for line in lines(stream)] == [3, 3]
    alone = io.StringIO()
    configure(Log(), alone)
    structlog.get_logger().info("started")
    assert "worker" not in lines(alone)[0]


def test_the_level_is_a_floor() -> None:
    """Below it nothing is written."""
    stream = io.StringIO()
    configure(Log(level="warning"), stream)
    structlog.get_logger().info("no")
    logging.getLogger("x").info("no")
    structlog.get_logger().error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_local_variables(style: str) -> None:
    """They hold secrets."""
    stream = io.StringIO()
    configure(Log(format=style), stream)  # type: ignore[arg-type]
    canary = "".join(["c4", "nary"])  # not as one word in a source line, which a traceback does show
    try:
        fail(canary)
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed too")
    written = stream.getvalue()
    assert written.count("RuntimeError: broken") == 2
    assert canary not in written


HOSTILE = ["a\nforged", "\x1b]0;x\x07", "\x9b31mred", "\u2028\u2029", "a\u202ebc\u2066", "\x7f\x00\r", "\u200b\ufeff"]


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("said", HOSTILE)
def test_what_strangers_say_stays_on_its_line(style: str, said: str) -> None:
    """Nothing that ends a line, moves a cursor or turns text round: in a value, or in what a library logs."""
    stream = io.StringIO()
    configure(Log(format=style), stream)  # type: ignore[arg-type]
    structlog.get_logger().info("refused", uri=said)
    logging.getLogger("x").warning("refused %s", said)
    written = stream.getvalue()
    assert written.count("refused") == 2
    assert [line.isprintable() for line in written.split("\n")] == [True] * 3
    if style == "json":
        assert lines(stream)[0]["uri"] == said


def test_a_value_is_cut_where_it_is_long() -> None:
    """A log is no place for bodies of megabytes; what is no text is written all the same."""
    stream = io.StringIO()
    configure(Log(), stream)
    structlog.get_logger().info("refused", uri="x" * 4_000_000, name="\ud800")
    assert len(stream.getvalue()) < 3_000
    assert "(4000000 characters)" in str(lines(stream)[0]["uri"])


def test_a_console_line_is_for_people() -> None:
    """No colours when it is not a terminal."""
    stream = io.StringIO()
    configure(Log(format="console"), stream)
    structlog.get_logger().info("started", port=1)
    assert "started" in stream.getvalue()
    assert "port=1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
