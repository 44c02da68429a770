"""Payloads in the database: written in batches, deleted in batches, found by request id."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import astuple, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiosqlite
from piccolo.engine.postgres import PostgresEngine

from proxy.application.payloads import StoredBody, StoredPayload
from proxy.infrastructure.payloads.preparing import GZIP_FORMAT, PayloadRow
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import sqlite_path

_TIMEOUT_SECONDS = 15.0
_SQLITE_BUSY_SECONDS = 5.0  # the ledger comes first
_VACUUM_PAGES = 500
_COLUMNS = tuple(field.name for field in fields(PayloadRow))
_ARRAYS = ("uuid", "text", "timestamptz", "bytea", "int8", "bool", "bytea", "int8", "bool", "text")
_INTO = f"INSERT INTO request_payloads ({', '.join(_COLUMNS)})"
_SQLITE_INSERT = f"{_INTO} VALUES ({', '.join('?' for _ in _COLUMNS)}) ON CONFLICT DO NOTHING"
_UNNESTED = ", ".join(f"${place}::{name}[]" for place, name in enumerate(_ARRAYS, 1))
_POSTGRES_INSERT = f"{_INTO} SELECT * FROM unnest({_UNNESTED}) ON CONFLICT DO NOTHING"  # noqa: S608  # all names are ours
_OLDEST = "SELECT id FROM request_payloads WHERE timestamp < {} ORDER BY timestamp LIMIT {}"
_POSTGRES_DELETE = f"DELETE FROM request_payloads WHERE id IN ({_OLDEST.format('$1', '$2')})"  # noqa: S608
_SQLITE_DELETE = f"DELETE FROM request_payloads WHERE id IN ({_OLDEST.format('?', '?')})"  # noqa: S608


class PayloadRows:
    """The table of payloads on either engine. Everything raises DATABASE_ERRORS."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, rows: Sequence[PayloadRow]) -> None:
        """All of them or none; those that are there already (by id) are left as they are."""
        values = [astuple(row) for row in rows]
        if self._database.is_postgres:
            await self._postgres(_POSTGRES_INSERT, *map(list, zip(*values, strict=True)))
        else:
            await self._sqlite(_SQLITE_INSERT, [tuple(_for_sqlite(value) for value in row) for row in values])

    async def delete_before(self, moment: datetime, limit: int) -> int:
        """Deletes the oldest rows, at most `limit`; returns how many."""
        if self._database.is_postgres:
            return int((await self._postgres(_POSTGRES_DELETE, moment, limit)).rpartition(" ")[2])
        return await self._sqlite(
            _SQLITE_DELETE, [(_for_sqlite(moment), limit)], f"PRAGMA incremental_vacuum({_VACUUM_PAGES})"
        )

    async def find(self, request_id: str) -> Sequence[StoredPayload]:
        table = self._database.request_payloads
        query = table.select().order_by(table.timestamp, ascending=False)
        row_id = _row_id(request_id)
        is_meant = table.request_id == request_id
        return [
            _stored(row) for row in await query.where(is_meant if row_id is None else is_meant | (table.id == row_id))
        ]

    async def _postgres(self, statement: str, *arguments: object) -> str:
        engine = self._database.engine
        if not isinstance(engine, PostgresEngine) or engine.pool is None:
            raise ConnectionError("the connection pool is closed")
        connection = await engine.pool.acquire(timeout=_TIMEOUT_SECONDS)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return str(await connection.execute(statement, *arguments))
        except (TimeoutError, asyncio.CancelledError):
            connection.terminate()  # to cancel properly one must ask the server, which may be frozen
            raise
        finally:
            await engine.pool.release(connection)

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


def _for_sqlite(value: object) -> object:
    """As Piccolo keeps it there, and reads it."""
    if isinstance(value, datetime):
        return str(value.astimezone(UTC))
    return str(value) if isinstance(value, UUID) else value


def _row_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _stored(row: dict[str, Any]) -> StoredPayload:
    return StoredPayload(
        id=row["id"],
        request_id=row["request_id"],
        timestamp=row["timestamp"].astimezone(UTC),
        request=_body(row, "request"),
        response=_body(row, "response"),
        content_type=row["content_type"],
    )


def _body(row: dict[str, Any], which: str) -> StoredBody | None:
    compressed = row[f"{which}_body"]
    if compressed is None:
        return None
    body = zlib.decompress(compressed, GZIP_FORMAT)
    return StoredBody(body, row[f"{which}_bytes"], bool(row[f"{which}_truncated"]))
