"""Deleting what has been kept long enough in tables beside the ledger, also after writing to them was turned off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS

_logger = logging.getLogger(__name__)
_INTERVAL_SECONDS = 600.0
_BATCH_ROWS = 100
_PAUSE_SECONDS = 0.05


class Purgeable(Protocol):
    """A table with times."""

    async def delete_before(self, moment: datetime, limit: int) -> int:
        """Deletes the oldest rows, at most `limit`; returns how many. Raises DATABASE_ERRORS."""
        ...


class Purge:
    """Forgets rows older than so many days. Several processes may do it at once. `what` names them in logs."""

    def __init__(
        self,
        rows: Purgeable,
        what: str,
        retention_days: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = rows
        self._what = what
        self._retention = timedelta(days=retention_days)
        self._clock = clock
        self._sleep = sleep

    async def step(self) -> None:
        """One turn, if the database lets it."""
        try:
            await self.run()
        except DATABASE_ERRORS as problem:
            _logger.warning("purge of %s put off", self._what, extra={"reason": type(problem).__name__})

    async def run(self) -> int:
        """Deletes what is too old, a few rows at a time; returns how many. Raises DATABASE_ERRORS."""
        cutoff = self._clock() - self._retention
        deleted = 0
        while count := await self._rows.delete_before(cutoff, _BATCH_ROWS):
            deleted += count
            await self._sleep(_PAUSE_SECONDS)
        if deleted:
            _logger.info("old %s deleted", self._what, extra={"rows": deleted})
        return deleted


@asynccontextmanager
async def purging(rows: Purgeable, what: str, retention_days: int) -> AsyncIterator[None]:
    """Does it every ten minutes until the end; 0 days: never."""
    if not retention_days:
        yield
        return
    async with repeating(Purge(rows, what, retention_days).step, lambda: _INTERVAL_SECONDS, f"purge of {what}"):
        yield
