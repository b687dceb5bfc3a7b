"""Logs to stderr: the one place that configures them.

Contract: `configure` is called once, by the command that runs a gateway; nothing else in the package touches the
logging set-up. Text for people on a terminal, one JSON object per line elsewhere. The standard library's loggers
(uvicorn, asyncio) go the same way. Tracebacks never show local variables: they hold secrets.
"""

import json
import logging
import os
import sys
from functools import partial
from typing import TextIO

import orjson
import structlog
from typing_extensions import override

from gatewright.config import Log

MAX_CHARS = 2_000
"""Of one value in a line: much of what is logged was said by strangers. Tracebacks are longer, and ours."""
MASKED = {
    code: f"\\u{code:04x}"
    for first, last in ((0x7F, 0x9F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x2069), (0xFEFF, 0xFEFF))
    for code in range(first, last + 1)
}
"""What JSON lets stand and a terminal may act on: C1 controls, line ends, invisible and turning characters."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Bridge(logging.Handler):
    """Hands what libraries log through the standard library to structlog."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        event = structlog.get_logger()
        event.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def configure(log: Log, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send everything from `log.level` on to `stream` (stderr), in `log.format`, with the number of the worker that
    this process is."""
    out: TextIO = sys.stderr if stream is None else stream
    level = _LEVELS[log.level]
    is_console = log.format == "console" or (log.format == "auto" and out.isatty())
    stamps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _shortened,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
    ]
    if worker is not None:
        stamps.append(partial(_numbered, worker))
    ending: list[structlog.typing.Processor]
    if is_console:
        ending = [
            _visible,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    else:
        ending = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json_line)]
    structlog.configure(
        processors=[*stamps, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge()], level=level, force=True)
    logging.getLogger("asyncio").setLevel(max(level, logging.WARNING))


def _numbered(
    worker: int, logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Of several processes that write one log, which it was."""
    event["worker"] = worker
    return event


def _shortened(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """No value longer than MAX_CHARS."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_CHARS:
            event[key] = f"{value[:MAX_CHARS]}... ({len(value)} characters)"
    return event


def _visible(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What a terminal would act on as Python writes it, escaped."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = repr(value)
    return event


def _json_line(event: dict[str, object], **_: object) -> str:
    """`str` for what JSON does not know: a `Secret` comes out masked. One line of visible characters, whatever it says;
    a name from the file system may hold what is not text at all."""
    try:
        line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        line = json.dumps(event, default=str)
    return line.translate(MASKED)
