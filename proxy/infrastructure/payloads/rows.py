"""Payloads in the database: written in batches, deleted in batches, found by request id."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import astuple, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from proxy.application.payloads import StoredBody, StoredPayload
from proxy.domain.storable import is_storable
from proxy.infrastructure.payloads.preparing import GZIP_FORMAT, PayloadRow
from proxy.infrastructure.persistence.batch_table import BatchTable
from proxy.infrastructure.persistence.database import Database

_TYPES = ("uuid", "text", "timestamptz", "bytea", "int8", "bool", "bytea", "int8", "bool", "text")
_COLUMNS = dict(zip((field.name for field in fields(PayloadRow)), _TYPES, strict=True))


class PayloadRows:
    """The table of payloads on either engine. Everything raises DATABASE_ERRORS."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = BatchTable(database, "request_payloads", _COLUMNS)

    async def write(self, rows: Sequence[PayloadRow]) -> None:
        """All of them or none; those that are there already (by id) are left as they are."""
        await self._table.write([astuple(row) for row in rows])

    async def delete_before(self, moment: datetime, limit: int) -> int:
        """Deletes the oldest rows, at most `limit`; returns how many."""
        return await self._table.delete_before(moment, limit)

    async def find(self, request_id: str) -> Sequence[StoredPayload]:
        if not is_storable(request_id):
            return []
        table = self._database.request_payloads
        query = table.select().order_by(table.timestamp, ascending=False)
        row_id = _row_id(request_id)
        is_meant = table.request_id == request_id
        return [
            _stored(row) for row in await query.where(is_meant if row_id is None else is_meant | (table.id == row_id))
        ]


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
