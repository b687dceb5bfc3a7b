"""Logs to stderr: the one place that configures them.

Contract: `configure` is called once, by the command that runs a gateway; nothing else in the package touches the
logging set-up. Text for people on a terminal, one JSON object per line elsewhere. The standard library's loggers
(uvicorn, asyncio) go the same way. Tracebacks never show local variables: they hold secrets.
"""

import logging
import os
import sys
from functools import partial
from typing import TextIO

import orjson
import structlog
from typing_extensions import override

from gatewright.config import Log

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
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
    ]
    if worker is not None:
        stamps.append(partial(_numbered, worker))
    ending: list[structlog.typing.Processor]
    if is_console:
        ending = [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            )
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


def _json_line(event: dict[str, object], **_: object) -> str:
    """`str` for what JSON does not know: a `Secret` comes out masked."""
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
