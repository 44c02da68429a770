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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from proxy.infrastructure.periodic import repeating

_SECONDS: Final = 1.0
_OLD_SECONDS: Final = 5.0
_DRAINED: Final = "drained.json"
_ORDERS: Final = "orders.json"
_ANSWER_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1

Drain = Callable[[str, bool], None]
Reload = Callable[[], Awaitable[None]]


class SharedDirectory:
    """Siblings by files. `drain` is told which deployments this worker is to leave alone, or to ask again.

    `reload` loads the configuration, and raises nothing: what comes of it is in this worker's report. Orders to do so
    are numbered, and each worker's report says which was the last one that it has carried out. `clock` gives the time
    of files.
    """

    def __init__(
        self,
        directory: Path,
        workers: int,
        drain: Drain,
        reload: Reload,
        answer_seconds: float = _ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._others_expected = workers - 1
        self._drain = drain
        self._reload = reload
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._reports: Sequence[Mapping[str, Any]] = ()
        self._drained: Mapping[str, bool] = {}
        self._last_order = 0

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """Without those that have grown old since they were read: for a while nothing may have been."""
        now = self._clock()
        return [report for report in self._reports if _is_fresh(report["written_at"], now)]

    def expected(self) -> int:
        return self._others_expected

    async def drain(self, deployment: str, *, is_drained: bool) -> None:
        await asyncio.to_thread(self._note_drained, deployment, is_drained)

    async def reload(self) -> Sequence[Mapping[str, Any]]:
        order = await asyncio.to_thread(self._note_order)
        self._last_order = order  # the one who gives it has carried it out
        end = time.monotonic() + self._answer_seconds
        while True:
            reports = await asyncio.to_thread(self._others)
            waits = any(report["order"] < order for report in reports)
            if not waits or time.monotonic() > end:
                return [self._outcome(report, order) for report in reports]
            await asyncio.sleep(_LOOK_SECONDS)

    def _outcome(self, report: Mapping[str, Any], order: int) -> Mapping[str, Any]:
        configuration = report["configuration"]
        problems = list(configuration["problems"])
        if report["order"] < order:
            problems = [f"it did not answer within {self._answer_seconds:g} s"]
        return {
            "pid": report["pid"],
            "took_it": not problems,
            "version": configuration["version"],
            "problems": problems,
        }

    async def is_first(self, event: str) -> bool:
        try:
            await asyncio.to_thread((self._directory / f"event-{event}").touch, exist_ok=False)
        except FileExistsError:
            return False
        return True

    async def exchange(self, report: Callable[[], Mapping[str, Any]]) -> None:
        """Tell of this worker, hear of the others, and do what is ordered."""
        try:
            self._reports, drained, order = await asyncio.to_thread(self._write_and_read, self._text(report()))
            for deployment, is_drained in drained.items():
                if self._drained.get(deployment, False) != is_drained:
                    self._drain(deployment, is_drained)
            self._drained = drained
            if order > self._last_order:
                await self._reload()
                self._last_order = order
                await asyncio.to_thread(self._write, self._text(report()))  # somebody waits for it
        except OSError:  # a disk that is full says so elsewhere; then nobody hears of us for a while
            return

    def _text(self, report: Mapping[str, Any]) -> str:
        return json.dumps({"pid": os.getpid(), "order": self._last_order, **report})

    def _write_and_read(self, text: str) -> tuple[list[Mapping[str, Any]], dict[str, bool], int]:
        self._write(text)
        drained: dict[str, bool] = _read(self._directory / _DRAINED)
        return self._others(), drained, self._order()

    def _write(self, text: str) -> None:
        _replace(self._directory / f"{os.getpid()}.json", text)

    def _others(self) -> list[Mapping[str, Any]]:
        others = [path for path in self._directory.glob("[0-9]*.json") if path.stem != str(os.getpid())]
        now = self._clock()
        return [report for path in others if (report := _fresh(path, now)) is not None]

    def _order(self) -> int:
        return int(_read(self._directory / _ORDERS).get("last", 0))

    def _note_drained(self, deployment: str, is_drained: bool) -> None:
        with self._lock():
            path = self._directory / _DRAINED
            _replace(path, json.dumps({**_read(path), deployment: is_drained}))

    def _note_order(self) -> int:
        with self._lock():
            order = self._order() + 1
            _replace(self._directory / _ORDERS, json.dumps({"last": order}))
        return order

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def leave(self) -> None:
        """This worker ends."""
        with suppress(OSError):
            (self._directory / f"{os.getpid()}.json").unlink()


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(text)
    new.replace(path)


def _fresh(path: Path, now: float) -> Mapping[str, Any] | None:
    """A report that is not old, and when it was written; the file of a process that is no more goes."""
    with suppress(OSError, ValueError):
        if not Path(f"/proc/{path.stem}").exists():
            path.unlink()
        elif _is_fresh(written_at := path.stat().st_mtime, now):
            report: Mapping[str, Any] = {**json.loads(path.read_text()), "written_at": written_at}
            return report
    return None


def _is_fresh(written_at: float, now: float) -> bool:
    return now - written_at < _OLD_SECONDS


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


@asynccontextmanager
async def telling(siblings: SharedDirectory, report: Callable[[], Mapping[str, Any]]) -> AsyncIterator[None]:
    """Exchanges reports each second until the end."""

    async def step() -> None:
        await siblings.exchange(report)

    async with repeating(step, lambda: _SECONDS, "siblings"):
        yield
    await asyncio.to_thread(siblings.leave)


def prepare_directory(data_directory: Path) -> None:
    """In a supervisor, before its first fork: an empty directory of its own. Those of supervisors that are no more go.

    Its own may be there already: in a container each supervisor has the same process id.
    """
    for each in _parent(data_directory).iterdir():
        if each.name == str(os.getpid()) or not Path(f"/proc/{each.name}").exists():
            shutil.rmtree(each, ignore_errors=True)
    (_parent(data_directory) / str(os.getpid())).mkdir(exist_ok=True)


def directory_of_supervisor(data_directory: Path) -> Path:
    """That of this worker's supervisor, which has prepared it if it is one of ours."""
    own = _parent(data_directory) / str(os.getppid())
    own.mkdir(exist_ok=True)
    return own


def _parent(data_directory: Path) -> Path:
    parent = data_directory / "workers"
    parent.mkdir(parents=True, exist_ok=True)
    return parent
