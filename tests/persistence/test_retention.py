"""Rows go after their time, their sums stay; partitions are made ahead and dropped whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiosqlite
import asyncpg
import pytest

from proxy.api.app_keys import GATEWAY
from proxy.bootstrap.gateway import running_gateway
from proxy.domain.request_log import RequestLog
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.domain.values import ModelName
from proxy.infrastructure.health import HealthMonitor
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.partitions import Partition, make_partitions, missing_spans, partitions
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.sessions import PostgresSession, SqliteSession, session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.persistence.usage_rollups import _sum_up
from proxy.settings import Settings
from tests.persistence.booked_rows import DAY, HOUR, book, requests_of, some_rows, state_of, sum_up

KEPT_DAYS = 10
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def upkeep(
    database: Database, days: int = KEPT_DAYS, at: datetime | None = None, after_pause: Callable[[], Any] | None = None
) -> LedgerUpkeep:
    async def no_sleep(_seconds: float) -> None:
        if after_pause is not None:
            await after_pause()

    return LedgerUpkeep(database, days, clock=lambda: at or datetime.now(UTC), sleep=no_sleep)


async def make_partitions_since(database: Database, start: datetime) -> None:
    """As if the gateway had run since then; SQLite has none."""
    async with session(database) as work:
        for days in range((TODAY - start) // DAY):
            day = start + days * DAY
            if isinstance(work, PostgresSession):
                await work.execute(
                    f"CREATE TABLE request_logs_{day:%Y%m%d} PARTITION OF request_logs"
                    f" FOR VALUES FROM ('{day.isoformat()}') TO ('{(day + DAY).isoformat()}')"
                )


async def report_of(database: Database) -> dict[str, Any]:
    return (await LedgerUsageReports(database).report(UsageQuery(Dimension.DAY))).as_dict()


async def kept(database: Database) -> list[RequestLog]:
    return list(await PiccoloRequestLogs(database).get_recent(10_000))


async def test_old_rows_go_and_the_report_stays_the_same(database: Database) -> None:
    start = TODAY - 14 * DAY
    rows = some_rows(1200, start, 14 * DAY)
    await make_partitions_since(database, start)
    await book(database, rows)
    before = await report_of(database)
    total = await PiccoloRequestLogs(database).get_total_cost(start)
    await upkeep(database).run()
    cutoff = TODAY - KEPT_DAYS * DAY
    left = await kept(database)
    assert {row.id for row in rows if row.timestamp > cutoff + DAY} <= {row.id for row in left}
    assert all(row.timestamp >= cutoff - DAY for row in left)
    assert len(left) < len(rows)
    assert await report_of(database) == before
    assert await PiccoloRequestLogs(database).get_total_cost(start) == total
    await upkeep(database).run()
    assert await report_of(database) == before


async def test_without_a_limit_nothing_goes(database: Database) -> None:
    rows = some_rows(50, TODAY - 2000 * DAY, 1900 * DAY)
    await book(database, rows)
    await upkeep(database, days=0).run()
    assert len(await kept(database)) == 50


async def test_rows_that_come_after_their_hour_is_sealed_are_added_once_and_go_too(database: Database) -> None:
    start = TODAY - 14 * DAY
    rows = some_rows(600, start, 14 * DAY)
    await make_partitions_since(database, start)
    await book(database, rows[:500])
    await upkeep(database).run()
    await book(database, rows[500:])
    expected = len(requests_of(rows))
    for _ in range(3):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert report.total().requests == expected
        assert report.total().input_tokens == sum(row.input_tokens.value for row in rows)
        assert report.total().response_times.total() == expected
        await upkeep(database).run()
    assert all(row.timestamp >= TODAY - (KEPT_DAYS + 1) * DAY for row in await kept(database))


async def test_rows_that_were_booked_before_are_not_counted_again_when_they_are_gone(database: Database) -> None:
    """A spool of long ago is replayed: it knows which of its rows were booked."""
    start = TODAY - 14 * DAY
    rows = some_rows(600, start, 14 * DAY)
    await make_partitions_since(database, start)
    await book(database, rows)
    await upkeep(database).run()
    left = {row.id for row in await kept(database)}
    before = await report_of(database)
    recent = some_rows(5, TODAY - DAY, HOUR, seed=8)  # lost by the database in a power cut: they come back
    async with row_writer(database) as writer:
        await writer.write([ledger_row(row) for row in [*rows, *recent]], again=True)
    assert {row.id for row in await kept(database)} == left | {row.id for row in recent}
    await upkeep(database).run()
    after = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
    assert after.total().requests == len(requests_of([*rows, *recent]))
    assert before["total"]["requests"] == len(requests_of(rows))


async def test_rows_that_come_while_others_are_being_deleted_are_counted(database: Database) -> None:
    """Between two batches; on PostgreSQL there are batches only for rows without a partition of their own."""
    rows = some_rows(1500, TODAY - 20 * DAY, DAY)
    late = requests_of(some_rows(30, TODAY - 20 * DAY, DAY, seed=8))
    most = len(late)
    await book(database, rows)

    async def one_more() -> None:
        if late:
            await book(database, [late.pop()])

    await upkeep(database, after_pause=one_more).run()
    came = most - len(late)
    assert came > 0
    for _ in range(2):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert report.total().requests == len(requests_of(rows)) + came
        await upkeep(database).run()
    assert await kept(database) == []


async def test_rows_that_come_between_the_sums_and_the_seal_are_in_the_sums(database: Database) -> None:
    start = TODAY - 14 * DAY
    rows = some_rows(300, start, 2 * DAY)
    await make_partitions_since(database, start)
    await book(database, rows[:200])
    await sum_up(database)
    await book(database, rows[200:])
    async with session(database) as work:
        if isinstance(work, PostgresSession):
            await upkeep(database)._drop_partitions(work)
        else:
            await upkeep(database)._forget_rows(cast("SqliteSession", work))
    report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
    assert report.total().requests == len(requests_of(rows))
    assert await kept(database) == []


async def test_a_process_that_is_late_does_not_sum_up_hours_whose_rows_are_gone(database: Database) -> None:
    """It saw that they had changed before another process sealed them."""
    start = TODAY - 14 * DAY
    await make_partitions_since(database, start)
    rows = some_rows(100, start, DAY)
    await book(database, rows)
    await upkeep(database).run()
    assert await kept(database) == []
    async with session(database) as work, work.snapshot(writing=True):
        await _sum_up(work, start, start + DAY)
    report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
    assert report.total().requests == len(requests_of(rows))


async def test_any_order_of_writing_correcting_summing_and_forgetting_keeps_the_count(database: Database) -> None:
    """A random walk over what can happen, against a plain counter."""
    chance = random.Random(4)  # noqa: S311
    rows = some_rows(400, TODAY - 13 * DAY, 13 * DAY)
    await make_partitions_since(database, TODAY - 12 * DAY)
    booked = 0
    days = 12
    while booked < len(rows):
        step = chance.choice(["book", "book", "sum", "forget", "touch"])
        if step == "book":
            count = chance.randrange(1, 60)
            await book(database, rows[booked : booked + count])
            booked = min(booked + count, len(rows))
        elif step == "sum":
            await sum_up(database)
        elif step == "forget":
            days = max(days - 1, 6)
            await upkeep(database, days).run()
        else:
            await database.request_logs.raw("UPDATE request_logs SET attempts = attempts + 1 WHERE status = 'success'")
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        requests = len(requests_of(rows[:booked]))
        assert report.total().requests == requests, step
        tokens = sum(row.input_tokens.value for row in rows[:booked])
        assert report.total().input_tokens == tokens, step
        assert report.total().response_times.total() == requests, step


async def test_several_processes_do_not_disturb_each_other(database_url: str) -> None:
    async with open_database(database_url) as one, open_database(database_url) as two:
        rows = some_rows(900, TODAY - 14 * DAY, 14 * DAY)
        await make_partitions_since(one, TODAY - 14 * DAY)

        async def write(database: Database, part: list[RequestLog]) -> None:
            for start in range(0, len(part), 50):
                await book(database, part[start : start + 50])

        await asyncio.gather(
            *(upkeep(database).step() for database in (one, two, one, two)),
            write(one, rows[:500]),
            write(two, [*(row for row in rows[:500] if row.timestamp > TODAY - (KEPT_DAYS - 1) * DAY), *rows[500:]]),
        )
        for _ in range(2):
            report = await LedgerUsageReports(two).report(UsageQuery(Dimension.MODEL))
            assert report.total().requests == len(requests_of(rows))
            await upkeep(one).step()


async def test_a_row_that_is_not_committed_when_its_hour_ends_is_not_lost(postgres_url: str) -> None:
    """Such a row leaves no note; so the first sums of an hour wait for whoever is writing."""
    (row,) = some_rows(1, TODAY - 2 * DAY, HOUR)
    async with open_database(postgres_url) as database:
        writer = await asyncpg.connect(postgres_url)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(
            """INSERT INTO request_logs (id, timestamp, response_time_ms) VALUES ($1, $2, 5)""", row.id, row.timestamp
        )
        await writer.execute("DELETE FROM usage_changes")
        summing = asyncio.create_task(sum_up(database))
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'request_logs'::regclass"
        while not summing.done() and not await writer.fetch(waiting):
            await asyncio.sleep(0.01)
        await transaction.commit()
        await writer.close()
        await summing
        assert (await state_of(database)).rolled_until > row.timestamp
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert report.total().requests == 1


async def last_end(database: Database) -> datetime:
    """Of the partitions."""
    async with session(database) as work:
        assert isinstance(work, PostgresSession)
        return (await partitions(work))[-1].end


async def test_a_turn_that_fails_keeps_nobody_from_the_next_one(postgres_url: str) -> None:
    """The lock is the session's, and connections go back to their pool as they are."""
    async with open_database(postgres_url) as first, open_database(postgres_url) as second:

        def no_time() -> datetime:
            raise OSError("the clock has stopped")

        failing = LedgerUpkeep(first, 30, clock=no_time)
        with pytest.raises(OSError, match="clock"):
            await failing.run()
        async with asyncio.timeout(10):  # the server sees soon that the connection has ended, but not at once
            while await last_end(second) <= TODAY + 40 * DAY:
                await upkeep(second, at=TODAY + 40 * DAY).run()


async def test_partitions_are_made_ahead_for_days_or_months(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        for days, at in ((1, TODAY), (1, TODAY + 5 * DAY), (0, TODAY + 40 * DAY)):
            await upkeep(database, days, at).run()
        async with session(database) as work:
            assert isinstance(work, PostgresSession)
            found = await partitions(work)
        covered = [TODAY + day * DAY for day in (*range(13), *range(40, 48))]
        assert all(sum(part.start <= day < part.end for part in found) == 1 for day in covered)
        assert found[-1].end >= TODAY + 47 * DAY
        assert found[-1].end.day == 1
        assert sum(part.end - part.start == DAY for part in found) >= 12


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("days", [0, KEPT_DAYS], ids=["months", "days"])
async def test_days_are_those_of_utc_whatever_the_zone_of_the_database(postgres_url: str, zone: str, days: int) -> None:
    """Also in a session that has the zone of its database, as one of before or of a pooler may have."""
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    plain = await asyncpg.connect(postgres_url)
    await plain.execute(f"ALTER DATABASE {name} SET timezone TO '{zone}'")
    await plain.close()
    zoned = await asyncpg.connect(postgres_url)
    try:
        async with open_database(postgres_url) as database:
            await make_partitions_since(database, TODAY - 14 * DAY)
            await book(database, some_rows(300, TODAY - 14 * DAY, 14 * DAY))
            await make_partitions(PostgresSession(zoned), TODAY + DAY, daily=days > 0)
            await upkeep(database, days, TODAY + 2 * DAY).run()
            async with session(database) as work:
                assert isinstance(work, PostgresSession)
                assert await work.fetch("SHOW timezone") == [("UTC",)]
                found = await partitions(work)
        assert found == await partitions(PostgresSession(zoned))
        assert all(part.name == f"request_logs_{part.start:%Y%m%d}" for part in found)
        assert all(part.start == part.start.replace(hour=0) for part in found)
        assert (found[0].start > TODAY - 14 * DAY) is (days > 0)
        assert found[-1].end >= TODAY + 9 * DAY
    finally:
        await zoned.close()


async def test_rows_of_the_default_partition_move_into_the_one_that_is_made_for_them(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        future = TODAY + 10 * DAY + HOUR
        row = RequestLog(model=ModelName("m"), provider_name="p", timestamp=future)
        await book(database, [row])
        for _ in range(2):
            await upkeep(database, 30, TODAY + 9 * DAY).run()
        assert await database.request_logs.raw("SELECT 1 FROM ONLY request_logs_default") == []
        assert await kept(database) == [row]


async def test_old_partitions_are_dropped_not_deleted_from(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        await make_partitions_since(database, TODAY - 14 * DAY)
        await book(database, some_rows(300, TODAY - 14 * DAY, 14 * DAY))
        await upkeep(database).run()
        async with session(database) as work:
            assert isinstance(work, PostgresSession)
            assert (await partitions(work))[0].start == TODAY - KEPT_DAYS * DAY


def test_missing_spans_fill_the_gaps_between_what_is_there() -> None:
    first = datetime(2026, 1, 30, tzinfo=UTC)
    known = [Partition("a", first, first + DAY), Partition("b", first + 4 * DAY, first + 5 * DAY)]
    february = datetime(2026, 2, 1, tzinfo=UTC)
    assert list(missing_spans(known, first, first + 6 * DAY, daily=False)) == [
        (first + DAY, february),
        (february, first + 4 * DAY),
        (first + 5 * DAY, datetime(2026, 3, 1, tzinfo=UTC)),
    ]
    daily = list(missing_spans(known, first, first + 6 * DAY, daily=True))
    assert daily == [(first + n * DAY, first + (n + 1) * DAY) for n in (1, 2, 3, 5, 6)]


async def _pages(url: str) -> tuple[int, int]:
    async with aiosqlite.connect(url.removeprefix("sqlite:///")) as connection:
        ((mode,),) = await connection.execute_fetchall("PRAGMA auto_vacuum")
        ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
    return mode, pages


@pytest.mark.parametrize("is_new", [True, False], ids=["new file", "file from before"])
async def test_sqlite_gives_the_space_back(tmp_path: Path, is_new: bool) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    if not is_new:
        async with aiosqlite.connect(tmp_path / "a.db") as connection:
            await connection.execute("CREATE TABLE other (x)")
    async with open_database(url) as database:
        await migrate(database)
        await book(database, some_rows(8000, TODAY - 60 * DAY, HOUR, keys=[None]))
        mode, before = await _pages(url)
        assert (mode == 2) is is_new
        await upkeep(database).run()
        assert await kept(database) == []
        mode, after = await _pages(url)
        assert mode == 2
        assert after < before / 4


async def test_sqlite_waits_for_a_quiet_hour_but_not_for_more_than_a_day(sqlite_url: str) -> None:
    """Noon is busy: its rows of the last week say so."""
    noon, night = TODAY - DAY + 12 * HOUR, TODAY - DAY + 3 * HOUR
    async with open_database(sqlite_url) as database:
        recent = [row for days in range(1, 6) for row in some_rows(40, noon - days * DAY, HOUR, seed=days)]
        quiet = [row for hours in range(14) for row in some_rows(2, noon - 3 * DAY - hours * HOUR, HOUR, seed=hours)]
        expired = some_rows(20, noon - (KEPT_DAYS + 1) * DAY + 2 * HOUR, HOUR, seed=99)
        overdue = some_rows(20, noon - (KEPT_DAYS + 3) * DAY, HOUR, seed=98)
        await book(database, [*recent, *quiet, *expired, *overdue])
        await upkeep(database, at=noon).run()
        ids = {row.id for row in await kept(database)}
        assert ids >= {row.id for row in expired}
        assert not ids & {row.id for row in overdue}
        await upkeep(database, at=night + DAY).run()
        assert {row.id for row in await kept(database)} == {row.id for row in [*recent, *quiet]}


async def test_a_database_that_is_away_is_no_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'never_migrated.db'}") as database:
        tried = upkeep(database)
        for _ in range(2):
            await tried.step()
        assert tried.trouble is None
    assert "put off" in caplog.text


async def test_upkeep_that_fails_again_and_again_is_in_the_health_report(sqlite_url: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"database_url": sqlite_url, "llmgateway_data_dir": str(tmp_path / "data")}
    told = "the ledger's sums, partitions and retention are put off again and again (OperationalError)"
    async with running_gateway(Settings(**given)) as gateway, open_database(sqlite_url) as database:
        monitor = gateway.app[GATEWAY].health
        assert isinstance(monitor, HealthMonitor)
        await database.request_logs.raw("ALTER TABLE usage_state RENAME TO elsewhere")
        for _ in range(3):
            await monitor._upkeep.step()
        report = monitor.report()
        assert told in report.degraded
        assert not report.cannot_serve
        await database.request_logs.raw("ALTER TABLE elsewhere RENAME TO usage_state")
        await monitor._upkeep.step()
        assert told not in monitor.report().degraded
