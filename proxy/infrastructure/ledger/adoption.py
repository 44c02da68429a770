"""The spools of processes that died: their outcomes are booked, and their unfinished requests as interrupted."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.framing import Damage, scan
from proxy.infrastructure.ledger.progress import Booked
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import SpooledGeneration, SpooledIntent, Unreadable, interrupted, read
from proxy.infrastructure.ledger.spool import LOCK_FILE, SEGMENT_SUFFIX
from proxy.infrastructure.persistence.rows import LedgerRow

_logger = logging.getLogger(__name__)
_BATCH_ROWS = 250


async def adopt_dead_spools(root: Path, own: Path, drain: Drain, quarantine: Quarantine) -> int:
    """Replays every spool below `root` that no process holds; returns how many rows that booked.

    Replaying is idempotent: a row that is booked already stays as it is, and is not counted. A spool whose rows the
    database would not take now is left for the next time.
    """
    rows = 0
    for directory in sorted(await asyncio.to_thread(_spools, root)):
        if directory != own:
            try:
                rows += await _adopt(directory, drain, quarantine)
            except OSError as problem:
                _logger.error("spool not adopted", extra={"spool": directory.name, "reason": problem.strerror})
    return rows


async def _adopt(directory: Path, drain: Drain, quarantine: Quarantine) -> int:
    with _held(directory) as is_dead:
        if not is_dead:
            return 0
        replay = _Replay(directory, drain, quarantine)
        if await replay.run():
            await asyncio.to_thread(_remove, directory)
        return replay.rows


def _spools(root: Path) -> list[Path]:
    return [path.parent for path in root.glob(f"[!.]*/{LOCK_FILE}")]  # hidden ones are being made


@contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """Whether the spool is ours now: its process is dead, and no other has adopted it."""
    try:
        lock = (directory / LOCK_FILE).open("r+")
    except FileNotFoundError:
        yield False
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield directory.exists()  # else somebody adopted it between our opening and our locking


def _remove(directory: Path) -> None:
    """Oldest segments first and the lock last: who is killed meanwhile leaves a spool that can be adopted again."""
    for segment in sorted(directory.glob(f"*{SEGMENT_SUFFIX}")):
        segment.unlink()
    for path in sorted(directory.iterdir(), key=lambda path: path.name == LOCK_FILE):
        path.unlink()
    directory.rmdir()


def _bytes_of(path: Path, found: Damage) -> bytes:
    with path.open("rb") as segment:
        segment.seek(found.start)
        return segment.read(found.end - found.start)


class _Replay:
    """Books one dead spool, segment after segment.

    What cannot be read is set aside when all else is booked: else each try would do so again.
    """

    def __init__(self, directory: Path, drain: Drain, quarantine: Quarantine) -> None:
        self._directory = directory
        self._drain = drain
        self._quarantine = quarantine
        self._booked = Booked(directory)
        self._open: dict[UUID, SpooledIntent] = {}
        self._generations: dict[UUID, str] = {}
        self._batch: list[LedgerRow] = []
        self._again: list[LedgerRow] = []
        self._unreadable: list[tuple[bytes, Unreadable]] = []
        self._damages: list[tuple[Path, Damage]] = []
        self.rows = 0

    async def run(self) -> bool:
        """False when the database would not take all of it now."""
        for path in sorted(self._directory.glob(f"*{SEGMENT_SUFFIX}")):
            text = await asyncio.to_thread(path.read_bytes)
            for found in scan(text):
                if isinstance(found, Damage):
                    self._damages.append((path, found))
                else:
                    self._take(found.payload, is_booked=self._booked.includes(path, found.end))
                if len(self._batch) + len(self._again) >= _BATCH_ROWS and not await self._book():
                    return False
        self._batch += [interrupted(intent, self._generations.get(id_)) for id_, intent in self._open.items()]
        if not (await self._book() and await self._drain.release(self._directory.name)):
            return False
        await self._set_aside()
        _logger.warning(
            "adopted the spool of a process that died",
            extra={"spool": self._directory.name, "rows": self.rows, "interrupted": len(self._open)},
        )
        return True

    def _take(self, payload: bytes, *, is_booked: bool) -> None:
        try:
            record = read(payload)
        except Unreadable as problem:
            self._unreadable.append((payload, problem))
            return
        if isinstance(record, SpooledIntent):
            self._open[record.id] = record
        elif isinstance(record, SpooledGeneration):
            self._generations[record.request] = record.generation_id
        else:
            self._open.pop(record.id, None)
            self._generations.pop(record.id, None)
            (self._again if is_booked else self._batch).append(record)

    async def _set_aside(self) -> None:
        for payload, problem in self._unreadable:
            self._quarantine.unreadable(payload, problem)
        for path, found in self._damages:
            damaged = await asyncio.to_thread(_bytes_of, path, found)
            self._quarantine.damage(str(path), found.start, found.end, damaged)

    async def _book(self) -> bool:
        holder = self._directory.name
        for rows, again in ((self._again, True), (self._batch, False)):
            booked_rows = await self._drain.adopt(rows, holder, again=again)
            if booked_rows is None:
                return False
            self.rows += booked_rows
            rows.clear()
        return True
