"""Why the gateway could not start, for people."""

from __future__ import annotations

from proxy.bootstrap.storage import DATABASE_ERRORS
from proxy.domain.errors import InvalidValue
from proxy.settings import Settings


class StartFailed(Exception):
    """No worker could serve; the message says why."""


def why_not_started(problem: Exception, settings: Settings) -> str | None:
    """None for what is a defect."""
    if isinstance(problem, StartFailed | InvalidValue):
        return str(problem)
    if isinstance(problem, OSError):
        if problem.filename is not None:  # connections have none
            directory = f"LLMGATEWAY_DATA_DIR ({settings.llmgateway_data_dir}) must be a directory"
            return f"{problem.filename}: {problem.strerror}. {directory} that the gateway may write to."
        return f"The database is not available: {problem}"
    if isinstance(problem, DATABASE_ERRORS):
        return f"The database is not available ({type(problem).__name__}): {problem}"
    return None
