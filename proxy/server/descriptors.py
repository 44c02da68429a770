"""File descriptors: a stream needs two, and the usual soft limit of 1024 is soon reached; and the first three."""

from __future__ import annotations

import logging
import os
import resource

_logger = logging.getLogger(__name__)
_LOW = 4096


def raise_limit() -> int:
    """Sets the soft limit of open files to the hard one, and warns if that is low. Returns what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError) as problem:
            _logger.warning("the limit of open files could not be raised", extra={"reason": str(problem)})
    if soft != resource.RLIM_INFINITY and soft < _LOW:
        _logger.warning("few open files are allowed: each running request needs two (ulimit -n)", extra={"limit": soft})
    return soft


def fill_standard_streams() -> None:
    """Those that are closed become /dev/null: else the next file or socket takes the number, and with it what libraries
    write to stderr; libuv aborts when it closes such a one."""
    for standard in (0, 1, 2):
        try:
            os.fstat(standard)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
