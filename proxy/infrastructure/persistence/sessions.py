"""One connection of either engine, for statements that Piccolo has no words for.

Statements number their arguments `$1`, `$2`, … on both engines. Times go in and come back as aware UTC datetimes on
PostgreSQL, and as the text that SQLite keeps (`2026-11-22 12:00:00+00:00`) on SQLite; `moment` reads both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import aiosqlite
from piccolo.engine.postgres import PostgresEngine

from proxy.domain.usage_report import bucket_of
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import sqlite_path
from proxy.infrastructure.persistence.pooled import pooled, transaction

_SQLITE_BUSY_SECONDS = 5.0


class Session(Protocol):
    """A connection; statements outside of a transaction commit by themselves."""

    @property
    def is_postgres(self) -> bool: ...

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Sequence[Any]]: ...

    async def execute(self, statement: str, *arguments: object) -> int:
        """How many rows the statement has changed."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """A transaction of which each statement sees what others have committed by then; on SQLite others wait."""
        ...

    def snapshot(self, *, writing: bool) -> AbstractAsyncContextManager[None]:
        """A transaction that sees the database as of one moment; on SQLite a writing one keeps other writers out."""
        ...


@asynccontextmanager
async def session(database: Database) -> AsyncIterator[Session]:
    """Raises DATABASE_ERRORS."""
    if isinstance(database.engine, PostgresEngine):
        async with pooled(database.engine, None) as connection:
            yield PostgresSession(connection)
        return
    path = sqlite_path(database.url)
    sqlite = await database.idle.take(path)
    if sqlite is None:
        sqlite = await _opened(path)
        database.idle.opened(sqlite, path)
    try:
        yield SqliteSession(sqlite)
    except BaseException:  # who knows what it was doing
        await database.idle.drop(sqlite)
        raise
    await database.idle.give_back(sqlite)


async def _opened(path: Path) -> aiosqlite.Connection:
    sqlite = await aiosqlite.connect(path, timeout=_SQLITE_BUSY_SECONDS, isolation_level=None)
    try:
        await sqlite.execute("PRAGMA synchronous=NORMAL")
        await sqlite.create_function("latency_bucket", 1, _bucket, deterministic=True)
    except BaseException:
        await sqlite.close()
        raise
    return sqlite


@asynccontextmanager
async def session_within(database: Database, seconds: float) -> AsyncIterator[Session]:
    """The same for at most so long. Raises TimeoutError, too: a server that is frozen is not waited for."""
    if not isinstance(database.engine, PostgresEngine):
        async with asyncio.timeout(seconds), session(database) as opened:
            yield opened
        return
    async with pooled(database.engine, seconds) as connection:
        yield PostgresSession(connection)


def _bucket(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else bucket_of(milliseconds)


def moment(value: Any) -> datetime | None:
    """A time as either engine gives it, in UTC."""
    if value is None:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return found.astimezone(UTC)


class PostgresSession:
    is_postgres = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Sequence[Any]]:
        found: Sequence[Sequence[Any]] = await self._connection.fetch(statement, *arguments)
        return found

    async def execute(self, statement: str, *arguments: object) -> int:
        _, _, count = (await self._connection.execute(statement, *arguments)).rpartition(" ")
        return int(count) if count.isdecimal() else 0

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return transaction(self._connection, isolation="read_committed")

    def snapshot(self, *, writing: bool) -> AbstractAsyncContextManager[None]:
        return transaction(self._connection, isolation="repeatable_read", readonly=not writing)

    @asynccontextmanager
    async def locked(self, table: str, mode: str, timeout_ms: int) -> AsyncIterator[None]:
        """A transaction that begins with the lock on the table; a lock that is not to be had in time is an error.

        Whoever writes a row locks the partitioned table, so its partitions, which are vacuumed, are left alone.
        """
        async with transaction(self._connection):
            await self.execute(f"SET LOCAL lock_timeout = {timeout_ms}")
            await self.execute(f"LOCK TABLE ONLY {table} IN {mode} MODE")
            yield


class SqliteSession:
    is_postgres = False

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(statement, _named(arguments)))

    async def execute(self, statement: str, *arguments: object) -> int:
        async with self._connection.execute(statement, _named(arguments)) as cursor:
            return cursor.rowcount

    async def execute_to_the_end(self, statement: str) -> None:
        """For a PRAGMA that does a part of its work at each step."""
        await self._connection.executescript(statement)

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return self.snapshot(writing=True)

    @asynccontextmanager
    async def snapshot(self, *, writing: bool) -> AsyncIterator[None]:
        await self._connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield
        except BaseException:
            await self._connection.execute("ROLLBACK")
            raise
        await self._connection.execute("COMMIT")


def _named(arguments: Sequence[object]) -> dict[str, object]:
    return {
        str(place): str(value.astimezone(UTC)) if isinstance(value, datetime) else value
        for place, value in enumerate(arguments, 1)
    }
