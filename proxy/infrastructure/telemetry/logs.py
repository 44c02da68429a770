"""Logs on stderr: one JSON object a line, or coloured text for people. Stdout is left to commands' own output."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from typing import Any, TextIO

import structlog

_MAX_VALUE_CHARACTERS = 2000


class _Pipe:
    """A pipe or socket that is written to without waiting for its reader: what has no room is lost, and counted.

    Room for a page is all that the system tells of, so a longer line is written by pages, and its end may be what is
    lost.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._encoding = encoding
        self._is_torn = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def has_room(self) -> bool:
        """For a page."""
        return bool(self._poll.poll(0))

    def write(self, line: str) -> None:
        data = line.encode(self._encoding, "backslashreplace")
        if self._is_torn:
            data = b"\n" + data
        for start in range(0, len(data), select.PIPE_BUF):
            if not self._wrote(data[start : start + select.PIPE_BUF]):
                self.lost += 1
                self._is_torn = self._is_torn or start > 0
                return
        self._is_torn = False

    def flush(self) -> None:
        """Nothing is held back."""

    def _wrote(self, page: bytes) -> bool:
        try:
            return self.has_room() and os.write(self._descriptor, page) == len(page)
        except BlockingIOError:  # another process was faster
            return False


class _NeverWaiting(logging.StreamHandler[Any]):
    """Lines for a pipe that is full are lost, and told of later: to wait for its reader would stop every request."""

    def __init__(self) -> None:
        super().__init__()
        self._pipe = _pipe_of(self.stream)
        self.stream = self._pipe or self.stream

    def emit(self, record: logging.LogRecord) -> None:
        if self._pipe is not None and self._pipe.lost:
            if not self._pipe.has_room():
                self._pipe.lost += 1
                return
            facts = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "lines": self._pipe.lost}
            self._pipe.lost = 0
            super().emit(logging.makeLogRecord({**facts, "msg": "log lines were lost, stderr was not read"}))
        super().emit(record)


def _pipe_of(stream: TextIO | None) -> _Pipe | None:
    """Files and terminals are none."""
    if stream is None:
        return None
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except OSError:  # it is none of the system's
        return None
    is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return _Pipe(_never_blocking(stream.fileno()), stream.encoding) if is_pipe else None


def _never_blocking(descriptor: int) -> int:
    """The same pipe opened anew, since flags are shared with other processes; where it cannot be, as it is."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # it is a socket, or somebody else's, or the system has no such name for it
        return descriptor


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
