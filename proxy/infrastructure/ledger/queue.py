"""The ledger: a bounded queue in memory, drained into the database by one task.

What is in the queue when the process is killed is lost; a clean stop drains it first. While the database is away the
queue grows, and when it is full new requests are refused rather than served and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from proxy.domain.errors import LedgerFull
from proxy.domain.request_log import RequestLog
from proxy.infrastructure.persistence.bulk_insert import RowWriter
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_the_row

_logger = logging.getLogger(__name__)
_BATCH_ROWS = 200
_GATHER_SECONDS = 0.25
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_RETRY_AFTER_SECONDS = 5.0


class QueueLedger:
    """Ledger over a RowWriter. `capacity_rows` counts rows waiting and rows promised to requests under way."""

    def __init__(self, writer: RowWriter, capacity_rows: int) -> None:
        self._writer = writer
        self._capacity_rows = capacity_rows
        self._waiting: deque[RequestLog] = deque()
        self._promised = 0
        self._booked = 0
        self._set_aside = 0
        self._last_error: str | None = None
        self._oldest_since: float | None = None
        self._something_waits = asyncio.Event()
        self._stopping = asyncio.Event()

    def admit(self) -> None:
        if self.is_full():
            raise LedgerFull("The ledger cannot book another request: its database is behind.", _RETRY_AFTER_SECONDS)
        self._promised += 1

    def settle(self, row: RequestLog) -> None:
        self._promised -= 1
        if not self._waiting:
            self._oldest_since = time.monotonic()
        self._waiting.append(row)
        self._something_waits.set()

    def is_full(self) -> bool:
        """Whether the next request will be refused."""
        return len(self._waiting) + self._promised >= self._capacity_rows

    def state(self) -> dict[str, Any]:
        """For the health report."""
        oldest = 0.0 if self._oldest_since is None else time.monotonic() - self._oldest_since
        return {
            "booked_rows": self._booked,
            "waiting_rows": len(self._waiting),
            "oldest_waiting_seconds": round(oldest, 1),
            "set_aside_rows": self._set_aside,
            "capacity_rows": self._capacity_rows,
            "last_error": self._last_error,
        }

    async def drain(self) -> None:
        """Writes what waits, in batches, until `stop`; pauses ever longer while the database fails."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            await self._something_waits.wait()
            if await self.write_batch():
                pause = _FIRST_PAUSE_SECONDS
                if not self._waiting:
                    await self._pause(_GATHER_SECONDS)
            else:
                await self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Let `drain` end after the batch that it is writing. Cancelling it could leave a transaction half done."""
        self._stopping.set()
        self._something_waits.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def write_batch(self) -> bool:
        """Writes one batch; False when the database would not take it now, and then it still waits."""
        batch = [self._waiting[place] for place in range(min(_BATCH_ROWS, len(self._waiting)))]
        try:
            if batch:
                await self._writer.write(batch)
        except DATABASE_ERRORS as problem:
            if is_about_the_row(problem):
                return await self._write_one_by_one(batch)
            self._note(problem)
            return False
        self._written(len(batch))
        return True

    async def _write_one_by_one(self, batch: list[RequestLog]) -> bool:
        """After a row was refused: books the others, and leaves that one in the log instead of blocking the rest."""
        for row in batch:
            try:
                await self._writer.write([row])
            except DATABASE_ERRORS as problem:
                if not is_about_the_row(problem):
                    self._note(problem)
                    return False
                self._set_aside += 1
                _logger.error("ledger row refused", extra={"reason": type(problem).__name__, "row": asdict(row)})
                self._booked -= 1
            self._written(1)
        return True

    def _written(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._booked += count
        self._last_error = None
        if self._waiting:
            self._oldest_since = time.monotonic()
        else:
            self._oldest_since = None
            self._something_waits.clear()

    def _note(self, problem: BaseException) -> None:
        if self._last_error is None:
            _logger.error("ledger cannot reach its database", extra={"reason": type(problem).__name__})
        self._last_error = type(problem).__name__

    async def flush(self, timeout_seconds: float) -> int:
        """Writes all that waits, for at most that long; returns the number of rows that are left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._waiting and await self.write_batch():
                    pass
        return len(self._waiting)


@asynccontextmanager
async def queue_ledger(
    writer: RowWriter, capacity_rows: int, flush_timeout_seconds: float = 10.0
) -> AsyncIterator[QueueLedger]:
    """A ledger with its writing task; flushed at the end."""
    ledger = QueueLedger(writer, capacity_rows)
    task = asyncio.create_task(ledger.drain(), name="ledger writer")
    try:
        yield ledger
    finally:
        ledger.stop()
        await asyncio.wait([task], timeout=flush_timeout_seconds)
        task.cancel()
        lost = await ledger.flush(flush_timeout_seconds)
        if lost:
            _logger.error("ledger rows lost: the database did not take them in time", extra={"rows": lost})
