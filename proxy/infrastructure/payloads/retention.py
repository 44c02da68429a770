"""Deleting payloads that have been kept long enough, also after storing has been turned off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS

_logger = logging.getLogger(__name__)
_INTERVAL_SECONDS = 600.0
_BATCH_ROWS = 100
_PAUSE_SECONDS = 0.05


class PayloadPurge:
    """Forgets payloads older than so many days. Several processes may do it at once."""

    def __init__(
        self,
        rows: PayloadRows,
        retention_days: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = rows
        self._retention = timedelta(days=retention_days)
        self._clock = clock
        self._sleep = sleep

    async def step(self) -> None:
        """One turn, if the database lets it."""
        try:
            await self.run()
        except DATABASE_ERRORS as problem:
            _logger.warning("purge of payloads put off", extra={"reason": type(problem).__name__})

    async def run(self) -> int:
        """Deletes what is too old, a few rows at a time; returns how many. Raises DATABASE_ERRORS."""
        cutoff = self._clock() - self._retention
        deleted = 0
        while count := await self._rows.delete_before(cutoff, _BATCH_ROWS):
            deleted += count
            await self._sleep(_PAUSE_SECONDS)
        if deleted:
            _logger.info("old payloads deleted", extra={"rows": deleted})
        return deleted


@asynccontextmanager
async def purging(rows: PayloadRows, retention_days: int) -> AsyncIterator[None]:
    """Does it every ten minutes until the end; 0 days: never."""
    if not retention_days:
        yield
        return
    async with repeating(PayloadPurge(rows, retention_days).step, lambda: _INTERVAL_SECONDS, "payload purge"):
        yield
