# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Tables beside the ledger: written in batches, deleted in batches, and never in the ledger's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiosqlite
from piccolo.engine.postgres import PostgresEngine

from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import sqlite_path
from proxy.infrastructure.persistence.pooled import pooled

_TIMEOUT_SECONDS = 15.0
_SQLITE_BUSY_SECONDS = 5.0  # the ledger comes first
_VACUUM_PAGES = 500


class BatchTable:
    """A table with an `id` and a `timestamp`. `columns` gives PostgreSQL's type of each. All raises DATABASE_ERRORS."""

    def __init__(self, database: Database, name: str, columns: Mapping[str, str]) -> None:
        self._database = database
        into = f"INSERT INTO {name} ({', '.join(columns)})"
        oldest = f"SELECT id FROM {name} WHERE timestamp < {{}} ORDER BY timestamp LIMIT {{}}"
        if database.is_postgres:
            unnested = ", ".join(f"${place}::{type_name}[]" for place, type_name in enumerate(columns.values(), 1))
            self._insert = f"{into} SELECT * FROM unnest({unnested}) ON CONFLICT DO NOTHING"
            self._delete = f"DELETE FROM {name} WHERE id IN ({oldest.format('$1', '$2')})"
        else:
            self._insert = f"{into} VALUES ({', '.join('?' for _ in columns)}) ON CONFLICT DO NOTHING"
            self._delete = f"DELETE FROM {name} WHERE id IN ({oldest.format('?', '?')})"

    async def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """All of them or none; those that are there already (by id) are left as they are."""
        engine = self._database.engine
        if isinstance(engine, PostgresEngine):
            await _on(engine, self._insert, *map(list, zip(*rows, strict=True)))
        else:
            await self._sqlite(self._insert, [tuple(_for_sqlite(value) for value in row) for row in rows])

    async def delete_before(self, moment: datetime, limit: int) -> int:
        """Deletes the oldest rows, at most `limit`; returns how many."""
        engine = self._database.engine
        if isinstance(engine, PostgresEngine):
            return int((await _on(engine, self._delete, moment, limit)).rpartition(" ")[2])
        vacuum = f"PRAGMA incremental_vacuum({_VACUUM_PAGES})"
        return await self._sqlite(self._delete, [(_for_sqlite(moment), limit)], vacuum)

    async def _sqlite(self, statement: str, values: Sequence[tuple[Any, ...]], afterwards: str = "") -> int:
        path = sqlite_path(self._database.url)
        async with aiosqlite.connect(path, timeout=_SQLITE_BUSY_SECONDS, isolation_level=None) as connection:
            await connection.execute("PRAGMA synchronous=NORMAL")
            await connection.execute("BEGIN IMMEDIATE")
            async with connection.executemany(statement, values) as cursor:
                count = cursor.rowcount
            await connection.execute("COMMIT")
            if afterwards and count:
                await connection.executescript(afterwards)  # a PRAGMA that does a part of its work at each step
            return count


async def _on(engine: PostgresEngine, statement: str, *arguments: object) -> str:
    async with pooled(engine, _TIMEOUT_SECONDS) as connection:
        return str(await connection.execute(statement, *arguments))


def _for_sqlite(value: object) -> object:
    """As Piccolo keeps it there, and reads it."""
    if isinstance(value, datetime):
        return str(value.astimezone(UTC))
    return str(value) if isinstance(value, UUID) else value
