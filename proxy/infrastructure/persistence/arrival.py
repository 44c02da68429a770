"""A database that need not be there when the gateway starts.

A PostgreSQL server that cannot be reached is waited for. It gets its connection pool when it is there and its schema is
up to date; until then whoever writes finds none, as in any outage. Piccolo's own queries would do without a pool, so
tasks that use them begin `once` it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from proxy.infrastructure.persistence.database import Database, connect, disconnect
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_reaching
from proxy.infrastructure.persistence.migrations import migrate

_logger = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0
_PAUSE_SECONDS = 2.0


class Arrival:
    """`here` is set when the database may be used; before, `trouble` says what kind of error there was last."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.here = asyncio.Event()
        self.trouble: str | None = None

    @property
    def description(self) -> str:
        """For people."""
        note = f" (cannot be reached: {self.trouble}; rows wait in the spool)" if self.trouble else ""
        return self.database.description + note

    async def come(self) -> None:
        """Opens the database with its schema up to date. Raises DATABASE_ERRORS, or what a migration raises."""
        database = self.database
        if database.is_postgres:
            await database.ping(_TIMEOUT_SECONDS)
            await migrate(database)
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await connect(database)
        else:
            await connect(database)
            await migrate(database)
        self.trouble = None
        self.here.set()

    def note(self, problem: Exception) -> None:
        """It is not there, or cannot be used yet."""
        kind = type(problem).__name__
        if kind != self.trouble:
            database = {"database": self.database.description, "reason": kind}
            _logger.error("database cannot be used, requests are served and rows wait in the spool", extra=database)
        self.trouble = kind

    async def keep_trying(self) -> None:
        """Returns when it is there. An error that will not pass by itself may be mended by then, so none ends this."""
        while not self.here.is_set():
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await self.come()
            except DATABASE_ERRORS as problem:
                self.note(problem)
            except Exception as problem:
                _logger.exception("database cannot be migrated")
                self.note(problem)
        _logger.info("database is there, rows are booked", extra={"database": self.database.description})


@asynccontextmanager
async def arriving(database: Database) -> AsyncIterator[Arrival]:
    """Open already, or waited for in the background if it is a PostgreSQL server that cannot be reached.

    Raises DATABASE_ERRORS, or what a migration raises, for all other trouble.
    """
    arrival = Arrival(database)
    waiting: asyncio.Task[None] | None = None
    try:
        try:
            await arrival.come()
        except DATABASE_ERRORS as problem:
            if not (database.is_postgres and is_about_reaching(problem)):
                raise
            arrival.note(problem)
            waiting = asyncio.create_task(arrival.keep_trying(), name="database arrival")
        yield arrival
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        await disconnect(database)
