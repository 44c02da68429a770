"""Keeping the ledger in shape in the background: sums, partitions, and rows that have been kept long enough.

Only one process does it at a time (an advisory lock on PostgreSQL, the write lock on SQLite); the others have nothing
left to do. Trouble with the database is logged, and the next turn tries again.

Hours are *sealed* before their rows go: from then on their sums are what is known of them (see `usage_rollups.py`).
PostgreSQL drops partitions whose last row is old enough. SQLite deletes a few hundred rows at a time, in the quieter
hours of the day as the last week's sums show them; rows that are a day overdue go at any hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from statistics import median

from piccolo.engine.postgres import PostgresEngine

from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.partitions import drop, make_partitions, partitions
from proxy.infrastructure.persistence.pooled import pooled, transaction
from proxy.infrastructure.persistence.server import WITHOUT_TIME_LIMITS
from proxy.infrastructure.persistence.sessions import PostgresSession, Session, SqliteSession, session
from proxy.infrastructure.persistence.usage_rollups import (
    DAY,
    HOUR,
    LOCK_TIMEOUT_MS,
    floor,
    read_state,
    resum_changed,
    roll_up,
)

_logger = logging.getLogger(__name__)
_INTERVAL_SECONDS = 60.0
_ADVISORY_LOCK = 5_417_036_642_202  # any number, the same in every version
_TURNS_TO_WORRY = 3  # a lock that is not to be had, or a database that is away, may put off one or two
_BATCH_ROWS = 500
_PAUSE_SECONDS = 0.05
_VACUUM_PAGES = 200
_INCREMENTAL = 2
_WEEK = timedelta(days=7)
_SEAL = "UPDATE usage_state SET sealed_until = $1 WHERE sealed_until IS NULL OR sealed_until < $1"
# A late row that has not been added to its hour's sums yet stays until it has.
_DELETE_BATCH = """
    DELETE FROM request_logs WHERE id IN (
        SELECT id FROM request_logs WHERE timestamp < $1 AND id NOT IN (
            SELECT row_id FROM usage_changes WHERE hour < $1 AND row_id IS NOT NULL
        ) ORDER BY timestamp LIMIT $2
    ) AND timestamp < $1
"""


class LedgerUpkeep:
    """Rollups, partitions and retention of one database; `retention_days` 0 keeps rows for ever."""

    def __init__(
        self,
        database: Database,
        retention_days: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._retention_days = retention_days
        self._clock = clock
        self._sleep = sleep
        self._failures = 0
        self._last_error = ""

    @property
    def trouble(self) -> str | None:
        """What is wrong, for people, when the last turns have all failed."""
        if self._failures < _TURNS_TO_WORRY:
            return None
        return f"the ledger's sums, partitions and retention are put off again and again ({self._last_error})"

    async def step(self) -> None:
        """One turn, if the database lets it."""
        try:
            await self.run()
        except DATABASE_ERRORS as problem:
            self._failures += 1
            self._last_error = type(problem).__name__
            _logger.warning("upkeep of the ledger put off", extra={"reason": self._last_error})
        else:
            self._failures = 0

    async def run(self) -> None:
        """One turn. Raises DATABASE_ERRORS; what was begun is then done at the next one."""
        if isinstance(self._database.engine, PostgresEngine):
            await self._run_alone(self._database.engine)
            return
        async with session(self._database) as work:
            await roll_up(work)
            if self._retention_days and isinstance(work, SqliteSession):
                await self._forget_rows(work)

    async def _run_alone(self, engine: PostgresEngine) -> None:
        """The lock is a transaction's, on another connection: behind a pooler a session's would never be given back."""
        async with pooled(engine, None) as guard, transaction(guard):
            await guard.execute(WITHOUT_TIME_LIMITS)
            if await guard.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADVISORY_LOCK):
                async with pooled(engine, None) as connection:
                    await self._tidy(PostgresSession(connection))

    async def _tidy(self, work: PostgresSession) -> None:
        await make_partitions(work, self._clock(), daily=self._retention_days > 0)
        await roll_up(work)
        if self._retention_days:
            await self._drop_partitions(work)

    async def _drop_partitions(self, work: PostgresSession) -> None:
        cutoff = floor(self._cutoff(), DAY)
        known = await partitions(work)
        old = [part for part in known if part.end <= cutoff]
        seal = min([cutoff, *(part.start for part in known if part.end > cutoff)])
        state = await read_state(work)
        if seal > state.rolled_until:
            return
        if old or (seal > state.sealed_until and await _has_rows_before(work, seal)):
            async with work.locked("request_logs", "ACCESS EXCLUSIVE", LOCK_TIMEOUT_MS):
                await resum_changed(work, seal)
                await work.execute(_SEAL, seal)
                for part in old:
                    await drop(work, part)
            _logger.info("old partitions dropped", extra={"partitions": [part.name for part in old]})
        await self._delete_in_batches(work)  # what came too late for a partition of its own: few rows, as a rule

    async def _forget_rows(self, work: SqliteSession) -> None:
        overdue = timedelta(0) if await _is_quiet(work, self._clock()) else DAY
        seal = floor(self._cutoff() - overdue, HOUR)
        if seal > (await read_state(work)).rolled_until:
            return
        if await _has_rows_before(work, seal):
            async with work.snapshot(writing=True):
                await resum_changed(work, seal)
                await work.execute(_SEAL, seal)
            await self._delete_in_batches(work)
        await self._give_space_back(work)

    async def _delete_in_batches(self, work: Session) -> None:
        seal = (await read_state(work)).sealed_until
        deleted = 0
        while count := await work.execute(_DELETE_BATCH, seal, _BATCH_ROWS):
            deleted += count
            await self._sleep(_PAUSE_SECONDS)
        if deleted:
            _logger.info("old rows deleted", extra={"rows": deleted})

    async def _give_space_back(self, work: SqliteSession) -> None:
        """A file from before incremental vacuum is rewritten once, when it has something to give back."""
        ((mode,),) = await work.fetch("PRAGMA auto_vacuum")
        while (free := await _free_pages(work)) > 0:
            if mode != _INCREMENTAL:
                await work.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
                await work.execute("VACUUM")
                return
            await work.execute_to_the_end(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
            if await _free_pages(work) == free:
                return
            await self._sleep(_PAUSE_SECONDS)

    def _cutoff(self) -> datetime:
        return self._clock() - timedelta(days=self._retention_days)


async def _has_rows_before(work: Session, seal: datetime) -> bool:
    return bool(await work.fetch("SELECT 1 FROM request_logs WHERE timestamp < $1 LIMIT 1", seal))


async def _free_pages(work: SqliteSession) -> int:
    ((pages,),) = await work.fetch("PRAGMA freelist_count")
    return int(pages)


async def _is_quiet(work: Session, now: datetime) -> bool:
    """Whether this hour of the day had no more requests in the last week than half of the hours had."""
    counts = dict.fromkeys((f"{hour:02}" for hour in range(24)), 0)
    for hour, requests in await work.fetch(
        "SELECT substr(start, 12, 2), SUM(requests) FROM usage_hourly WHERE start >= $1 GROUP BY 1", now - _WEEK
    ):
        counts[hour] = requests
    return counts[f"{now.astimezone(UTC):%H}"] <= median(counts.values())


@asynccontextmanager
async def keeping_up(upkeep: LedgerUpkeep) -> AsyncIterator[None]:
    """Does it every minute until the end."""
    async with repeating(upkeep.step, lambda: _INTERVAL_SECONDS, "ledger upkeep"):
        yield
