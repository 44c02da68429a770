"""The Ledger port over a crash-safe spool."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

from proxy.domain.errors import LedgerFull
from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.infrastructure.ledger.adoption import adopt_dead_spools
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import generation_payload, intent_payload, outcome_payload
from proxy.infrastructure.ledger.segment import Sync
from proxy.infrastructure.ledger.spool import Reading, Spool, SpoolDamaged, SpoolFull
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.bulk_insert import RowWriter
from proxy.infrastructure.persistence.rows import LedgerRow, ledger_row

_logger = logging.getLogger(__name__)
# A transaction costs as much as some 50 rows, so as many rows as may be share one: after a batch that was not full more
# are waited for. Where little happens somebody may be looking for a row, and what it costs is nothing.
_BATCH_ROWS, _FEW_ROWS = 1000, 10
_GATHER_SECONDS, _GATHER_FEW_SECONDS = 1.0, 0.2
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0
_SYNC_SECONDS = 1.0
_ADOPT_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 5.0


class Fsync(StrEnum):
    """When the spool is forced to the disk. A killed process never loses anything; a power cut loses …"""

    NEVER = "never"  # … what the kernel had not written by itself, about 30 s
    INTERVAL = "interval"  # … at most a second
    ALWAYS = "always"  # … nothing that was acknowledged; every request waits for the disk


class SpoolLedger:
    """Notes intents and outcomes in a spool, and books them from there."""

    def __init__(self, spool: Spool, drain: Drain, quarantine: Quarantine, fsync: Fsync) -> None:
        self._spool = spool
        self._drain = drain
        self._quarantine = quarantine
        self.waits_for_disk = fsync is Fsync.ALWAYS
        self._refusal: str | None = None
        self._sync_error: str | None = None
        self._something_waits = asyncio.Event()
        self._stopping = asyncio.Event()
        self._sync_wanted = asyncio.Event()
        self._next_sync: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.holder = spool.directory.name  # what this process leases of budgets is in this name
        self.on_booked: Callable[[Sequence[LedgerRow]], None] = lambda _rows: None

    # The port.

    @property
    def directory(self) -> Path:
        """The spool's. Its lock is held for as long as this process lives."""
        return self._spool.directory

    def admit(self) -> None:
        try:
            self._spool.reserve()
        except SpoolFull as problem:
            if self._refusal is None:
                _logger.error("ledger refuses requests", extra={"reason": str(problem)})
            self._refusal = str(problem)
            raise _full(self._refusal) from None
        self._refusal = None

    def begin(self, intent: RequestIntent) -> None:
        self._spool.note_intent(intent.id, intent_payload(intent))

    def generating(self, request: UUID, generation_id: str) -> None:
        self._spool.note_generation(request, generation_payload(request, generation_id))

    def settle(self, row: RequestLog) -> None:
        self._spool.note_outcome(row.id, outcome_payload(ledger_row(row)))
        self._something_waits.set()

    async def durable(self) -> None:
        if self.waits_for_disk:
            synced = self._next_sync
            self._sync_wanted.set()
            if (trouble := await asyncio.shield(synced)) is not None:
                raise _full(trouble)

    # Its tasks.

    async def book(self) -> None:
        """Books what waits, in batches, until `stop`; pauses ever longer while the database is away."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            await self._something_waits.wait()
            booked = await self._book_batch()
            if booked is None:
                await self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            pause = _FIRST_PAUSE_SECONDS
            waiting = self._spool.waiting_rows()
            if not waiting:
                self._something_waits.clear()
            if waiting < _BATCH_ROWS:
                await self._pause(_GATHER_SECONDS if booked > _FEW_ROWS else _GATHER_FEW_SECONDS)

    async def _book_batch(self) -> int | None:
        """How many rows; None if they cannot be booked now."""
        try:
            reading = await self._read_batch()
        except SpoolDamaged as damage:  # rows wait; whoever adopts the spool finds its way past the damage
            _logger.critical("spool damaged", extra={"place": str(damage)})
            self._drain.last_error = type(damage).__name__
            return None
        rows = await self._drain.book_payloads(reading.outcomes, self.holder)
        if rows is None:
            return None
        self._spool.booked(reading)
        self.on_booked(rows)
        return len(rows)

    async def _read_batch(self) -> Reading:
        readings = self._spool.read_on(_BATCH_ROWS)
        reading = next(readings)
        for following in readings:
            await asyncio.sleep(0)
            reading = following
        return reading

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def sync_when_wanted(self) -> None:
        """Group commit: all that wait for the disk share one wait."""
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted.clear()
            waiting, self._next_sync = self._next_sync, asyncio.get_running_loop().create_future()
            await self.sync()
            waiting.set_result(self.sync_trouble())

    async def sync(self) -> None:
        """Forces what was written to the disk. If that fails it is tried again the next time."""
        error = None
        for segment in self._spool.unsynced():
            try:
                await asyncio.to_thread(segment.sync)
            except OSError as problem:
                error = problem.strerror or type(problem).__name__
        if error is not None and self._sync_error is None:
            _logger.critical("spool does not reach the disk", extra={"reason": error})
        self._sync_error = error

    async def adopt(self) -> None:
        """Takes over the spools of processes that died.

        Others do so, too: then nothing may be left here that would tell when the database is back.
        """
        await adopt_dead_spools(self._spool.directory.parent, self._spool.directory, self._drain, self._quarantine)
        if not self.can_book() and not self._spool.waiting_rows():
            await self._drain.ask()

    def stop(self) -> None:
        """Let `book` end after the batch that it is writing."""
        self._stopping.set()
        self._something_waits.set()

    async def flush(self, timeout_seconds: float) -> None:
        """Books all that waits, for at most that long; what is left is safe in the spool."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._spool.waiting_rows() and await self._book_batch() is not None:
                    pass
                if not self._spool.waiting_rows():
                    await self._drain.release(self.holder)
        if self._spool.waiting_rows():
            _logger.warning("rows left in the spool for the next start", extra={"rows": self._spool.waiting_rows()})

    # What is told of it.

    def refusal(self) -> str | None:
        """Why requests are refused now; None if they are not. Looks again, since nobody asks while we are not ready."""
        if self._refusal is not None:
            with suppress(LedgerFull):
                self.admit()
                self._spool.unreserve()
        if self._refusal is None and self.waits_for_disk and self._sync_error is not None:
            self._sync_wanted.set()
            return self.sync_trouble()
        return self._refusal

    def sync_trouble(self) -> str | None:
        """Why a power cut would lose more than the operator has asked for; None if it would not."""
        return None if self._sync_error is None else f"the spool does not reach the disk ({self._sync_error})"

    def can_book(self) -> bool:
        """Whether rows reach the database now."""
        return self._drain.last_error is None

    def booked_rows(self) -> int:
        """Since the start."""
        return self._drain.booked_rows

    def state(self) -> dict[str, Any]:
        """For the health report."""
        return {
            "can_book": self.can_book(),
            "booked_rows": self.booked_rows(),
            "waiting_rows": self._spool.waiting_rows(),
            "oldest_waiting_seconds": round(self._spool.oldest_waiting_seconds(), 1),
            "spool_bytes": self._spool.used_bytes(),
            "set_aside_rows": self._quarantine.set_aside_rows,
            "last_error": self._drain.last_error,
            "sync_error": self._sync_error,
        }


def _full(reason: str) -> LedgerFull:
    return LedgerFull(f"The ledger cannot book another request: {reason}.", _RETRY_AFTER_SECONDS)


@asynccontextmanager
async def spool_ledger(
    root: Path,
    writer: RowWriter,
    *,
    max_bytes: int,
    fsync: Fsync = Fsync.INTERVAL,
    flush_timeout_seconds: float = 10.0,
    sync: Sync = os.fdatasync,
) -> AsyncIterator[SpoolLedger]:
    """A ledger with its spool in `root` and its tasks; flushed at the end."""
    spool = Spool(root, max_bytes=max_bytes, sync=sync)
    quarantine = Quarantine(root)
    ledger = SpoolLedger(spool, Drain(writer, quarantine), quarantine, fsync)
    async with AsyncExitStack() as stack:
        stack.callback(spool.close)
        booking = asyncio.create_task(ledger.book(), name="ledger")
        await stack.enter_async_context(repeating(ledger.adopt, lambda: _ADOPT_SECONDS, "spool adoption"))
        if fsync is Fsync.INTERVAL:
            await stack.enter_async_context(repeating(ledger.sync, lambda: _SYNC_SECONDS, "spool sync"))
        syncing = asyncio.create_task(ledger.sync_when_wanted(), name="spool sync on demand")
        try:
            yield ledger
        finally:
            ledger.stop()
            await asyncio.wait([booking], timeout=flush_timeout_seconds)
            for task in (booking, syncing):
                task.cancel()
            await asyncio.wait([booking, syncing])
            await ledger.flush(flush_timeout_seconds)
