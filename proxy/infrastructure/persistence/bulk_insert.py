"""Writing many ledger rows at once.

Piccolo builds an instance and a query for each row, which costs 0.15-0.2 ms and stalls the event loop for over 100 ms
at 500 rows. Here the driver gets plain values, and PostgreSQL a COPY, or, when some rows are there already, one
statement with an array for each column.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiosqlite
from piccolo.columns import UUID, BigInt, Boolean, Integer, Numeric, SmallInt, Timestamptz, Varchar
from piccolo.engine.postgres import PostgresEngine

from proxy.infrastructure.persistence.charges import (
    POSTGRES_CHARGE,
    RELEASE,
    charge_columns,
    postgres_charging,
    postgres_counting,
    sqlite_booked,
    sqlite_charge,
    sums_of,
)
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import BUSY_TIMEOUT_SECONDS, sqlite_path
from proxy.infrastructure.persistence.errors import is_about_reaching
from proxy.infrastructure.persistence.pooled import pooled
from proxy.infrastructure.persistence.rows import COLUMNS, LedgerRow, column_values
from proxy.infrastructure.persistence.tables import RequestLogTable
from proxy.infrastructure.turns import in_turns

_ARRAY_TYPES = {
    UUID: "uuid[]",
    Varchar: "text[]",
    Timestamptz: "timestamptz[]",
    SmallInt: "int2[]",
    Integer: "int4[]",
    BigInt: "int8[]",
    Boolean: "bool[]",
    Numeric: "numeric[]",
}
_TABLE_COLUMNS = {column._meta.db_column_name: type(column) for column in RequestLogTable._meta.columns}  # noqa: SLF001
_INTO = f"INSERT INTO request_logs ({', '.join(COLUMNS)})"
# Rows of sealed hours may have been dropped after they were summed: who has booked them before does not do so again.
_SEALED = "(SELECT COALESCE(sealed_until, '{}') FROM usage_state)"
_SQLITE_ROW = ", ".join(f"?{place}" for place in range(1, len(COLUMNS) + 1))
_SQLITE_AGAIN = f"WHERE ?{COLUMNS.index('timestamp') + 1} >= {_SEALED.format('')}"
_SQLITE_INSERT = f"{_INTO} SELECT {_SQLITE_ROW} WHERE true ON CONFLICT DO NOTHING"
_SQLITE_INSERT_AGAIN = f"{_INTO} SELECT {_SQLITE_ROW} {_SQLITE_AGAIN} ON CONFLICT DO NOTHING"
_ARRAYS = ", ".join(f"${place}::{_ARRAY_TYPES[_TABLE_COLUMNS[name]]}" for place, name in enumerate(COLUMNS, 1))
_POSTGRES_ROWS = f"SELECT * FROM unnest({_ARRAYS}) AS spooled ({', '.join(COLUMNS)})"  # noqa: S608  # all names are ours
_POSTGRES_AGAIN = f"WHERE spooled.timestamp >= {_SEALED.format('-infinity')}"
_POSTGRES_INSERT = f"{_INTO} {_POSTGRES_ROWS} ON CONFLICT DO NOTHING"
_POSTGRES_INSERT_AGAIN = f"{_INTO} {_POSTGRES_ROWS} {_POSTGRES_AGAIN} ON CONFLICT DO NOTHING"

_TIMEOUT_SECONDS = 15.0
_Connection = Any  # asyncpg's, as its pool gives it


class RowWriter(Protocol):
    """Books rows and their charges in one transaction; those booked before (by id) are left as they are."""

    async def write(self, rows: Sequence[LedgerRow], holder: str = "", *, again: bool = False) -> int:
        """How many were not there before. Raises DATABASE_ERRORS; then none of the rows is booked.

        `holder` is the process that served the requests: charges are taken from what it has leased, if it is named.
        `again` says that the rows have been booked before, so that those of sealed hours are not to be looked for.
        """
        ...

    async def release(self, holder: str) -> None:
        """Ends what the process has leased of budgets: all its rows are booked. Raises DATABASE_ERRORS."""
        ...


@asynccontextmanager
async def row_writer(database: Database) -> AsyncIterator[RowWriter]:
    """The writer for a database's engine."""
    if isinstance(database.engine, PostgresEngine):
        yield _PostgresRows(database.engine)
    else:
        writer = _SqliteRows(database)
        try:
            yield writer
        finally:
            await writer.close()


class _PostgresRows:
    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine

    async def write(self, rows: Sequence[LedgerRow], holder: str = "", *, again: bool = False) -> int:
        """Rows are new but for those of a batch whose answer was lost: they are copied, which is cheapest."""
        async with self._connection() as connection:
            if not again and await _copied(connection, rows, holder):
                return len(rows)
            return await _insert(connection, rows, holder, again=again)

    async def release(self, holder: str) -> None:
        async with self._connection() as connection:
            await connection.execute(RELEASE.format("$1"), holder)

    def _connection(self) -> AbstractAsyncContextManager[_Connection]:
        return pooled(self._engine, _TIMEOUT_SECONDS)


async def _copied(connection: _Connection, rows: Sequence[LedgerRow], holder: str) -> bool:
    """Books the rows, all of which must be new, with their charges; False, and nothing is booked, if that cannot be.

    Whoever is cancelled, or waits in vain, leaves the transaction open and ends the connection: asyncpg's own context
    would ask a server that does not answer for a rollback, and wait.
    """
    await connection.execute("BEGIN")
    try:
        records = in_turns(map(column_values, rows))
        await connection.copy_records_to_table("request_logs", records=records, columns=COLUMNS)
        if sums := sums_of(rows):
            await connection.execute(POSTGRES_CHARGE, *sums, holder)
    except Exception as problem:
        if connection.is_closed() or is_about_reaching(problem):
            raise
        await connection.execute("ROLLBACK")
        return False  # some are there, or make no sense: the statement knows what to do, and says what is wrong
    await connection.execute("COMMIT")
    return True


async def _insert(connection: _Connection, rows: Sequence[LedgerRow], holder: str, *, again: bool) -> int:
    insert = _POSTGRES_INSERT_AGAIN if again else _POSTGRES_INSERT
    statement = postgres_counting(insert)
    arguments: list[object] = [list(column) for column in zip(*map(column_values, rows), strict=True)]
    if any(row.charges for row in rows):
        statement = postgres_charging(insert, len(COLUMNS))
        arguments += [*charge_columns(rows), holder]
    added: int = await connection.fetchval(statement, *arguments)
    return added


class _SqliteRows:
    """Keeps one connection: opening one costs a thread."""

    def __init__(self, database: Database) -> None:
        self._path = sqlite_path(database.url)
        self._connection: aiosqlite.Connection | None = None
        self._one_at_a_time = asyncio.Lock()

    async def write(self, rows: Sequence[LedgerRow], holder: str = "", *, again: bool = False) -> int:
        statement = _SQLITE_INSERT_AGAIN if again else _SQLITE_INSERT
        async with self._one_at_a_time, self._transaction() as connection:
            charged = [row for row in rows if row.charges]
            added = await connection.executemany(statement, [column_values(row) for row in rows])
            if charged and added.rowcount < len(rows):  # some were there before: which?
                await connection.execute("ROLLBACK")  # a savepoint would copy each page that any batch changes
                await connection.execute("BEGIN IMMEDIATE")
                before = await sqlite_booked(connection, charged)
                await connection.executemany(statement, [column_values(row) for row in rows])
                new = await sqlite_booked(connection, charged) - before
                charged = [row for row in charged if str(row.id) in new]
            await sqlite_charge(connection, charged, holder)
            return added.rowcount

    async def release(self, holder: str) -> None:
        async with self._one_at_a_time, self._transaction() as connection:
            await connection.execute(RELEASE.format("?"), (holder,))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        if self._connection is None:
            self._connection = await aiosqlite.connect(self._path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            await self._connection.execute("PRAGMA synchronous=NORMAL")
        if self._connection.in_transaction:  # left by a write that was cancelled
            await self._connection.execute("ROLLBACK")
        await self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            await self._connection.execute("ROLLBACK")
            raise
        await self._connection.execute("COMMIT")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
