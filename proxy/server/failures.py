"""Why the gateway could not start, for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from proxy.bootstrap.config_file import words_for_logs
from proxy.bootstrap.storage import DATABASE_ERRORS, advice_on
from proxy.domain.errors import InvalidValue
from proxy.server.metrics_directory import METRICS_VARIABLE
from proxy.settings import Settings


class StartFailed(Exception):
    """No worker could serve; the message says why."""


def why_not_started(problem: Exception, settings: Settings) -> str | None:
    """None for what is a defect. What a configuration file says is not repeated: the words end up in logs."""
    if isinstance(problem, InvalidValue):
        return words_for_logs(problem)
    if isinstance(problem, StartFailed):
        return str(problem)
    if isinstance(problem, OSError):
        if problem.filename is not None:  # connections have none
            file = str(problem.filename)
            return " ".join([f"{file}: {problem.strerror}.", *_demands_on(Path(file).resolve(), settings)])
        return f"The database is not available: {problem}"
    if isinstance(problem, DATABASE_ERRORS):
        return f"The database is not available ({type(problem).__name__}): {problem}{advice_on(problem)}"
    return None


def _demands_on(file: Path, settings: Settings) -> Iterator[str]:
    """What the first setting that leads to the file must be; nothing if none does."""
    for name, value, kind in _places(settings):
        place = Path(value).resolve()
        is_beside = file.parent == place.parent and file.name.startswith(f"{place.name}.")
        if is_beside or file.is_relative_to(place) or place.is_relative_to(file):
            yield f"{name} ({value}) must be a {kind} that the gateway may write to."
            return


def _places(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The settings that name one, each with its path and what must be there."""
    if settings.sqlite_file is not None:
        yield "DATABASE_URL", settings.sqlite_file, "file"
    yield "LLMGATEWAY_DATA_DIR", settings.llmgateway_data_dir, "directory"
    if metrics := os.environ.get(METRICS_VARIABLE):  # several workers have theirs in the data directory
        yield METRICS_VARIABLE, metrics, "directory"
