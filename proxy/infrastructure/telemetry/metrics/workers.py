"""What several processes count in files of one directory, merged."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

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
    registry.register(_Merged(directory))
    return registry


class _Merged(Collector):
    """The library's collector, without the gauges that every worker has written off: those are infinite."""

    def __init__(self, directory: Path) -> None:
        self._collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if not math.isinf(sample.value)]
            yield metric


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
