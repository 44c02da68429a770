"""What several processes count in files of one directory, merged."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_COUNTED: Final = ("counter", "histogram")
_ENDED: Final = "ended"  # in the place of a process id


def shared_directory() -> Path | None:
    """Where workers count; None if this process counts for itself."""
    directory = os.environ.get(_DIRECTORY)
    return Path(directory) if directory else None


def merged(directory: Path) -> CollectorRegistry:
    """The sums of all workers. Gauges of those that died are forgotten; what they counted stays."""
    registry = CollectorRegistry()
    registry.register(_Merged(directory))
    return registry


class _Merged(Collector):
    """What the library's collector tells, without the gauges that every worker has written off: those are infinite.

    One page at a time: what those that died have left is cleared up before it is read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        with _alone_in(self._directory):
            _clear_up(self._directory)
            files = [str(path) for path in self._directory.glob("*.db") if _is_begun(path)]
            metrics = list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
        for metric in metrics:
            metric.samples = [sample for sample in metric.samples if not math.isinf(sample.value)]
            yield metric


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear_up(directory: Path) -> None:
    """Else there would be more to read with each worker that is replaced."""
    files = {path: path.stem.rpartition("_")[2] for path in directory.glob("*_*.db")}
    dead = {each for each in files.values() if each.isdecimal() and not _is_alive(int(each))}
    for process in dead:
        mark_process_dead(process, str(directory))  # type: ignore[no-untyped-call]
    for kind in _COUNTED:
        ended = [path for path, process in files.items() if process in dead and path.name.startswith(f"{kind}_")]
        if ended:
            _add_up(ended, directory / f"{kind}_{_ENDED}.db")


def _add_up(files: Sequence[Path], total: Path) -> None:
    """Into `total`, which may be there already, or not. The files go."""
    new = total.with_suffix(".new")
    new.unlink(missing_ok=True)
    sums = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for path in filter(_is_begun, (*files, total)):
        for key, value, _, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    sums.close()  # type: ignore[no-untyped-call]
    new.replace(total)
    for path in files:  # who is killed just here leaves them to be counted twice: there is no doing both at once
        path.unlink()


def _is_begun(path: Path) -> bool:
    """Whether there is something in it: a process that has just made its file has written nothing yet."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


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
