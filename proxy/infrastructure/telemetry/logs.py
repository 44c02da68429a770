"""Logs on stderr: one JSON object a line, or coloured text for people. Stdout is left to commands' own output."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from collections.abc import Callable
from typing import TextIO

import structlog

_MAX_VALUE_CHARACTERS = 2000


class _NeverWaiting(logging.StreamHandler[TextIO]):
    """Lines for a pipe that is full are lost, and counted: to wait for its reader would stop every request."""

    def __init__(self) -> None:
        super().__init__()
        self._has_room = _room_in(self.stream)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._has_room():
            self._lost += 1
            return
        if self._lost:
            facts = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "lines": self._lost}
            self._lost = 0
            super().emit(logging.makeLogRecord({**facts, "msg": "log lines were lost, stderr was not read"}))
        super().emit(record)


def _room_in(stream: TextIO | None) -> Callable[[], bool]:
    """Whether a line can be written without waiting; files and terminals are not asked."""
    try:
        descriptor = -1 if stream is None else stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except OSError:  # there is none, or it is none of the system's
        return lambda: True
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return lambda: True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return lambda: bool(poll.poll(0))


def configure_logging(level: str, log_format: str | None = None, *more: structlog.typing.Processor) -> None:
    """Send all logging through one handler. `log_format` is `json` or `pretty`; None: pretty on a terminal only.
    `more` add facts to each line.

    Standard `logging` calls are used everywhere; facts go into `extra`, never into the message, so that neither a new
    line nor an escape sequence from a request can forge a line.
    """
    pretty = log_format == "pretty" or (log_format is None and sys.stderr is not None and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(default=str)
    handler = _NeverWaiting()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                *more,
                _cap_values,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if pretty else [structlog.processors.format_exc_info]),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("aiohttp.access", "aiosqlite", "asyncio", "piccolo", "semantic_kernel"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # a traceback every few seconds of an outage, told by us
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # its tracebacks quote requests; ours do not


def _cap_values(_logger: logging.Logger, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """No value longer than a log line should be, and no control characters."""
    for key, value in event.items():
        if isinstance(value, str) and not (value.isprintable() and len(value) <= _MAX_VALUE_CHARACTERS):
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value[:_MAX_VALUE_CHARACTERS])
    return event
