"""Traces are stored in the background, and purged in time; on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.application.traces import TraceMode
from proxy.domain.request_log import RequestStatus
from proxy.infrastructure.background import Bounds, writing
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.purge import Purge
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.traces import BOUNDS, BackgroundTraces, TraceRow, TraceRows, trace_store
from tests.harness import FakeTime
from tests.traces.conftest import FALLEN_BACK, PLAIN, book, row, trace_row


@dataclass
class Writer:
    """A TraceWriter that is held up until it is opened."""

    written: list[TraceRow] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, rows: Sequence[TraceRow]) -> None:
        await self.is_open.wait()
        self.written.extend(rows)

    def names(self) -> list[str]:
        return [row.request_id for row in self.written]


@asynccontextmanager
async def running(writer: Writer, mode: TraceMode, bounds: Bounds = BOUNDS) -> AsyncIterator[BackgroundTraces]:
    store = BackgroundTraces(writer, mode, replace(bounds, gather_seconds=0))
    async with writing(store.queue, "traces"):
        yield store


async def count(database: Database) -> int:
    ((found),) = await database.request_logs.raw("SELECT COUNT(*) AS n FROM request_traces")
    return int(found["n"])


@pytest.mark.parametrize(
    ("mode", "names"), [(TraceMode.NOTABLE, ["choice", "failed"]), (TraceMode.ALL, ["choice", "failed", "plain"])]
)
async def test_the_mode_says_whose_traces_are_kept(mode: TraceMode, names: list[str]) -> None:
    writer = Writer()
    writer.is_open.set()
    async with running(writer, mode) as store:
        store.offer(row("choice"), FALLEN_BACK)
        store.offer(row("failed", status=RequestStatus.UPSTREAM_ERROR), PLAIN)
        store.offer(row("plain"), PLAIN)
    assert writer.names() == names
    assert store.state()["mode"] == mode.value
    assert store.state()["stored"] == len(names)


async def test_too_many_are_dropped_and_counted() -> None:
    writer = Writer()
    async with running(writer, TraceMode.ALL, replace(BOUNDS, queue_items=5)) as store:
        for number in range(8):
            store.offer(row(str(number)), PLAIN)
        assert (store.state()["waiting"], store.state()["dropped"]) == (5, 3)
        writer.is_open.set()
    assert writer.names() == list("01234")


async def test_the_end_waits_for_no_batch_to_fill() -> None:
    writer = Writer()
    writer.is_open.set()
    store = BackgroundTraces(writer, TraceMode.ALL, replace(BOUNDS, gather_seconds=3600, first_pause_seconds=3600))
    async with writing(store.queue, "traces"):
        store.offer(row("last"), PLAIN)
    assert writer.names() == ["last"]


async def test_long_traces_take_more_room_than_short_ones() -> None:
    writer = Writer()
    long = replace(FALLEN_BACK, attempts=FALLEN_BACK.attempts * 100)
    async with running(writer, TraceMode.ALL, replace(BOUNDS, queue_bytes=50_000)) as store:
        store.offer(row("short"), PLAIN)
        store.offer(row("long"), long)
        store.offer(row("short too"), PLAIN)
        writer.is_open.set()
    assert writer.names() == ["short", "short too"]


async def test_what_is_offered_can_be_found(database: Database) -> None:
    booked = row("mine")
    await book(database, (booked, None))
    async with trace_store(database, TraceMode.NOTABLE, 7, 0) as traces:
        traces.offer(booked, FALLEN_BACK)
    found = await LedgerRequestArchive(database).find("mine")
    assert found is not None
    assert found.trace == FALLEN_BACK


async def test_off_stores_none(database: Database) -> None:
    async with trace_store(database, TraceMode.OFF, 7, 0) as traces:
        traces.offer(row(), FALLEN_BACK)
        assert traces.state() == {"mode": "off"}
    assert await count(database) == 0


async def test_writing_a_trace_again_changes_nothing(database: Database) -> None:
    written = trace_row(row())
    await TraceRows(database).write([written])
    await TraceRows(database).write([written, trace_row(row("other"))])
    assert await count(database) == 2


@pytest.mark.parametrize(
    ("trace_days", "ledger_days", "left"), [(7, 0, 2), (0, 7, 2), (7, 30, 2), (30, 7, 2), (0, 0, 3)]
)
async def test_traces_go_in_time_and_never_outlive_the_rows(
    database: Database, trace_days: int, ledger_days: int, left: int
) -> None:
    now = datetime.now(UTC)
    ages = [timedelta(days=8), timedelta(days=6), timedelta(0)]
    await TraceRows(database).write([trace_row(row(timestamp=now - age)) for age in ages])
    async with trace_store(database, TraceMode.OFF, trace_days, ledger_days), asyncio.timeout(10):
        while await count(database) != left:
            await asyncio.sleep(0.02)


async def test_old_traces_are_purged_in_small_batches(database: Database) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    rows = [row(str(number), timestamp=now - timedelta(days=7, seconds=1)) for number in range(230)]
    await TraceRows(database).write([trace_row(each) for each in [*rows, row("young", timestamp=now)]])
    time = FakeTime()
    assert await Purge(TraceRows(database), "traces", 7, lambda: now, time.sleep).run() == 230
    assert len(time.waits) == 3
    assert await count(database) == 1
