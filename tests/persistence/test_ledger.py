"""The ledger's queue: nothing lost while the database is away, nothing promised that cannot be kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest

from proxy.domain.errors import LedgerFull
from proxy.domain.request_log import RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.ledger.queue import QueueLedger, queue_ledger
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs


@dataclass
class Writer:
    """A RowWriter that can be away, and that can dislike a row."""

    rows: list[RequestLog] = field(default_factory=list)
    is_away: bool = False
    disliked: str = ""

    async def write(self, rows: Sequence[RequestLog]) -> None:
        if self.is_away:
            raise ConnectionRefusedError
        if any(row.request_id == self.disliked for row in rows):
            raise asyncpg.DataError("no")
        self.rows += rows


def row(request_id: str = "r") -> RequestLog:
    return RequestLog(model=ModelName("m"), provider_name="p", request_id=request_id)


def book(ledger: QueueLedger, *rows: RequestLog) -> None:
    for one in rows:
        ledger.admit()
        ledger.settle(one)


async def test_rows_reach_the_database_by_themselves(database: Database) -> None:
    rows = [row(str(number)) for number in range(500)]
    repository = PiccoloRequestLogs(database)
    async with row_writer(database) as writer, queue_ledger(writer, 1000) as ledger:
        book(ledger, *rows)
        async with asyncio.timeout(10):
            while ledger.state()["booked_rows"] < 500:
                await asyncio.sleep(0.01)
    assert {one.id for one in await repository.get_recent(1000)} == {one.id for one in rows}


async def test_stopping_writes_what_waits(database: Database) -> None:
    async with row_writer(database) as writer, queue_ledger(writer, 1000) as ledger:
        book(ledger, *(row() for _ in range(777)))
    assert len(await PiccoloRequestLogs(database).get_recent(1000)) == 777


async def test_stopping_at_any_moment_of_a_write_loses_nothing(database: Database) -> None:
    """Cancelling the write would leave a transaction open, and the last rows behind it."""
    async with row_writer(database) as writer:
        for turns in range(30):
            async with queue_ledger(writer, 1000) as ledger:
                book(ledger, row())
                for _ in range(turns):
                    await asyncio.sleep(0)
    assert len(await PiccoloRequestLogs(database).get_recent(1000)) == 30


async def test_rows_wait_while_the_database_is_away() -> None:
    writer = Writer(is_away=True)
    ledger = QueueLedger(writer, 10)
    book(ledger, row("a"), row("b"))
    assert not await ledger.write_batch()
    assert ledger.state()["waiting_rows"] == 2
    assert ledger.state()["last_error"] == "ConnectionRefusedError"
    writer.is_away = False
    assert await ledger.write_batch()
    assert [one.request_id for one in writer.rows] == ["a", "b"]
    assert ledger.state()["last_error"] is None
    assert ledger.state()["waiting_rows"] == 0


async def test_a_full_ledger_refuses_rather_than_forgets() -> None:
    ledger = QueueLedger(Writer(is_away=True), 3)
    book(ledger, row(), row())
    ledger.admit()
    assert ledger.is_full()
    with pytest.raises(LedgerFull) as refused:
        ledger.admit()
    assert refused.value.retry_after_seconds > 0
    ledger.settle(row())
    assert ledger.state()["waiting_rows"] == 3


async def test_a_row_that_is_refused_does_not_block_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(disliked="bad")
    ledger = QueueLedger(writer, 10)
    book(ledger, row("a"), row("bad"), row("b"))
    assert await ledger.write_batch()
    assert [one.request_id for one in writer.rows] == ["a", "b"]
    assert ledger.state() | {"booked_rows": 2, "set_aside_rows": 1, "waiting_rows": 0} == ledger.state()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "bad" in str(record.__dict__["row"])


async def test_what_cannot_be_written_in_time_is_counted_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with queue_ledger(Writer(is_away=True), 10, flush_timeout_seconds=0.05) as ledger:
        book(ledger, row())
    assert any(record.__dict__.get("rows") == 1 for record in caplog.records)
