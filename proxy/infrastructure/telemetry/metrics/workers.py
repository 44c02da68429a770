"""What several processes count in files of one directory, merged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_OF_THE_LIVING: Final = "gauge_live*_*.db"


def shared_directory() -> Path | None:
    """Where workers count; None if this process counts for itself."""
    directory = os.environ.get(_DIRECTORY)
    return Path(directory) if directory else None


def merged(directory: Path) -> CollectorRegistry:
    """The sums of all workers. Gauges of those that died are forgotten; what they counted stays."""
    for path in directory.glob(_OF_THE_LIVING):
        process = path.stem.rpartition("_")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            mark_process_dead(process, str(directory))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return registry


def leave(directory: Path) -> None:
    """This process ends: its gauges are not to be seen any more."""
    mark_process_dead(os.getpid(), str(directory))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
