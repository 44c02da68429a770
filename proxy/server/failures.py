"""Why the gateway could not start, for people."""

from __future__ import annotations

import errno

from proxy.bootstrap.storage import DATABASE_ERRORS
from proxy.domain.errors import InvalidValue
from proxy.settings import Settings

_ADDRESS: frozenset[int] = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL})


class StartFailed(Exception):
    """No worker could serve; the message says why."""


def why_not_started(problem: Exception, settings: Settings) -> str | None:
    """None for what is a defect."""
    if isinstance(problem, StartFailed | InvalidValue):
        return str(problem)
    if isinstance(problem, OSError):
        if problem.errno in _ADDRESS:
            address = f"{settings.llmgateway_host}:{settings.llmgateway_port}"
            return f"Cannot listen on {address}: {problem.strerror}. Try --port."
        return f"The database is not available: {problem}"
    if isinstance(problem, DATABASE_ERRORS):
        return f"The database is not available ({type(problem).__name__}): {problem}"
    return None
