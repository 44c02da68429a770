"""Storing traces in the background, as compact text in a table of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from proxy.application.traces import NoTraces, TraceMode, TraceStore
from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace
from proxy.infrastructure.background import BackgroundWriter, Bounds, writing
from proxy.infrastructure.persistence.batch_table import BatchTable
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.purge import purging

BOUNDS = Bounds(queue_items=5_000, queue_bytes=16 * 1024 * 1024, batch_items=200, batch_bytes=1024 * 1024)
_ENTRY_BYTES = 300  # about what a candidate, a drop or an attempt takes in memory
_COLUMNS = {"id": "uuid", "request_id": "text", "timestamp": "timestamptz", "trace": "text"}

_Item = tuple[RequestLog, RequestTrace]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A row of the table, its fields in the order of the table's columns; `id` is that of the ledger's row."""

    id: UUID
    request_id: str
    timestamp: datetime
    trace: str


class TraceWriter(Protocol):
    """Where rows go."""

    async def write(self, rows: Sequence[TraceRow]) -> None:
        """Raises DATABASE_ERRORS; then none of the rows is stored."""
        ...


class TraceRows:
    """The table of traces on either engine. Everything raises DATABASE_ERRORS."""

    def __init__(self, database: Database) -> None:
        self._table = BatchTable(database, "request_traces", _COLUMNS)

    async def write(self, rows: Sequence[TraceRow]) -> None:
        """All of them or none; those that are there already (by id) are left as they are."""
        await self._table.write([astuple(row) for row in rows])

    async def delete_before(self, moment: datetime, limit: int) -> int:
        """Deletes the oldest rows, at most `limit`; returns how many."""
        return await self._table.delete_before(moment, limit)


class BackgroundTraces:
    """TraceStore over a BackgroundWriter."""

    def __init__(self, writer: TraceWriter, mode: TraceMode, bounds: Bounds = BOUNDS) -> None:
        self.queue = BackgroundWriter("traces", _held_bytes, _prepared, writer.write, bounds)
        self.mode = mode

    def offer(self, row: RequestLog, trace: RequestTrace) -> None:
        if self.mode is TraceMode.ALL or trace.is_notable(row):
            self.queue.offer((row, trace))

    def state(self) -> Mapping[str, Any]:
        return {"mode": self.mode.value, **self.queue.state()}


def _held_bytes(item: _Item) -> int:
    trace = item[1]
    return _ENTRY_BYTES * (1 + len(trace.candidates) + len(trace.dropped) + len(trace.attempts))


async def _prepared(batch: Sequence[_Item]) -> list[TraceRow]:
    return [TraceRow(row.id, row.request_id, row.timestamp, trace.compact()) for row, trace in batch]


@asynccontextmanager
async def trace_store(
    database: Database, mode: TraceMode, trace_days: int, ledger_days: int
) -> AsyncIterator[TraceStore]:
    """Keeps traces for `trace_days`, and no longer than the ledger keeps rows; 0 days: for ever.

    Traces of earlier days are forgotten in time also when none are kept any more.
    """
    rows = TraceRows(database)
    days = min((days for days in (trace_days, ledger_days) if days), default=0)
    async with purging(rows, "traces", days):
        if mode is TraceMode.OFF:
            yield NoTraces()
            return
        store = BackgroundTraces(rows, mode)
        async with writing(store.queue, "traces"):
            yield store
