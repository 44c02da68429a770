"""Workers that tell each other of themselves by small files in a directory of their supervisor's.

A file for each worker, written anew each second: whoever dies leaves nothing but a file that grows old, nobody waits
for anybody, and there is nothing to connect to. Files are read and written in a thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from proxy.infrastructure.periodic import repeating

_SECONDS: Final = 1.0
_OLD_SECONDS: Final = 5.0
_DRAINED: Final = "drained.json"

Drain = Callable[[str, bool], None]


class SharedDirectory:
    """Siblings by files. `drain` is told which deployments this worker is to leave alone, or to ask again."""

    def __init__(self, directory: Path, workers: int, drain: Drain) -> None:
        self._directory = directory
        self._others_expected = workers - 1
        self._drain = drain
        self._reports: Sequence[Mapping[str, Any]] = ()
        self._drained: Mapping[str, bool] = {}

    def reports(self) -> Sequence[Mapping[str, Any]]:
        return self._reports

    def missing(self) -> int:
        return max(0, self._others_expected - len(self._reports))

    async def drain(self, deployment: str, *, is_drained: bool) -> None:
        await asyncio.to_thread(self._note_drained, deployment, is_drained)

    async def exchange(self, report: Mapping[str, Any]) -> None:
        """Tell of this worker, and hear of the others."""
        try:
            text = json.dumps({"pid": os.getpid(), **report})
            self._reports, drained = await asyncio.to_thread(self._write_and_read, text)
        except OSError:  # a disk that is full says so elsewhere; then nobody hears of us for a while
            return
        for deployment, is_drained in drained.items():
            if self._drained.get(deployment, False) != is_drained:
                self._drain(deployment, is_drained)
        self._drained = drained

    def _write_and_read(self, text: str) -> tuple[list[Mapping[str, Any]], dict[str, bool]]:
        own = self._directory / f"{os.getpid()}.json"
        _replace(own, text)
        others = [path for path in self._directory.glob("[0-9]*.json") if path != own]
        reports = [report for path in others if (report := _fresh(path)) is not None]
        return reports, _drained(self._directory / _DRAINED)

    def _note_drained(self, deployment: str, is_drained: bool) -> None:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._directory / _DRAINED
            _replace(path, json.dumps({**_drained(path), deployment: is_drained}))

    def leave(self) -> None:
        """This worker ends."""
        with suppress(OSError):
            (self._directory / f"{os.getpid()}.json").unlink()


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(text)
    new.replace(path)


def _fresh(path: Path) -> Mapping[str, Any] | None:
    """A report that is not old; the file of a process that is no more goes."""
    with suppress(OSError, ValueError):
        if time.time() - path.stat().st_mtime < _OLD_SECONDS and Path(f"/proc/{path.stem}").exists():
            report: Mapping[str, Any] = json.loads(path.read_text())
            return report
        if not Path(f"/proc/{path.stem}").exists():
            path.unlink()
    return None


def _drained(path: Path) -> dict[str, bool]:
    with suppress(OSError, ValueError):
        found: dict[str, bool] = json.loads(path.read_text())
        return found
    return {}


@asynccontextmanager
async def telling(siblings: SharedDirectory, report: Callable[[], Mapping[str, Any]]) -> AsyncIterator[None]:
    """Exchanges reports each second until the end."""

    async def step() -> None:
        await siblings.exchange(report())

    async with repeating(step, lambda: _SECONDS, "siblings"):
        yield
    await asyncio.to_thread(siblings.leave)


def directory_of_supervisor(data_directory: Path) -> Path:
    """That of this worker's supervisor; those of supervisors that are no more go."""
    workers = data_directory / "workers"
    own = workers / str(os.getppid())
    own.mkdir(parents=True, exist_ok=True)
    for each in workers.iterdir():
        if not Path(f"/proc/{each.name}").exists():
            shutil.rmtree(each, ignore_errors=True)
    return own
