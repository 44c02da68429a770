"""Reports against plain arithmetic over the same rows, whether they come from sums, from rows or from both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from math import ceil
from uuid import uuid4

import pytest

from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.usage_report import ERROR_STATUSES, Dimension, Usage, UsageQuery, bucket_of
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports, Segment, Source, segments
from proxy.infrastructure.persistence.usage_rollups import BEGINNING, RollupState, floor
from tests.persistence.booked_rows import DAY, HOUR, START, book, requests_of, some_rows, state_of, sum_up

MINUTE = timedelta(minutes=1)


def name_of(row: RequestLog, by: Dimension) -> str:
    return {
        Dimension.MODEL: row.model.value,
        Dimension.PROVIDER: row.provider_name,
        Dimension.DAY: f"{row.timestamp:%Y-%m-%d}",
        Dimension.STATUS: row.status.value,
        Dimension.KEY: str(row.key_id or ""),
        Dimension.TEAM: str(row.team_id or ""),
        Dimension.ORGANISATION: str(row.organisation_id or ""),
    }[by]


def exact(rows: Sequence[RequestLog], share: float, measure: str) -> int | None:
    times = sorted(time for row in requests_of(rows) if (time := getattr(row, measure)) is not None)
    return times[ceil(share * len(times)) - 1] if times else None


def agree(usage: Usage, rows: Sequence[RequestLog], shown: dict[str, dict[str, int]]) -> None:
    assert usage.requests == len(requests_of(rows))
    assert usage.errors == sum(row.status in ERROR_STATUSES for row in rows)
    assert usage.input_tokens == sum(row.input_tokens.value for row in rows)
    assert usage.output_tokens == sum(row.output_tokens.value for row in rows)
    assert usage.requests_of_unknown_cost == sum(row.cost_source is CostSource.UNKNOWN for row in rows)
    assert usage.picodollars.keys() <= {CostSource.REPORTED, CostSource.COMPUTED}
    for source in CostSource:
        costs = [cost.usd for row in rows if row.cost_source is source and (cost := row.cost()) is not None]
        assert usage.cost_usd(source.value) == sum(costs, Decimal(0))
    for measure in ("response_time_ms", "time_to_first_byte_ms"):
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            expected = exact(rows, share, measure)
            assert shown[measure][name] == (None if expected is None else pytest.approx(expected, rel=0.05))


async def check(database: Database, rows: Sequence[RequestLog], query: UsageQuery) -> None:
    report = await LedgerUsageReports(database).report(query)
    inside = [
        row
        for row in rows
        if (query.since is None or row.timestamp >= query.since)
        and (query.until is None or row.timestamp < query.until)
    ]
    assert set(report.rows) == {name_of(row, query.by) for row in inside}
    shown = report.as_dict()
    for one in shown["data"]:  # type: ignore[attr-defined]
        name = one[query.by.value] or ""  # null is nobody
        agree(report.rows[name], [row for row in inside if name_of(row, query.by) == name], one)
    agree(report.total(), inside, shown["total"])  # type: ignore[arg-type]


@pytest.mark.parametrize("by", Dimension)
async def test_a_report_is_the_same_with_and_without_sums(database: Database, by: Dimension) -> None:
    rows = some_rows(1500)
    await book(database, rows)
    queries = [
        UsageQuery(by),
        UsageQuery(by, START + 5 * HOUR + timedelta(minutes=20), START + 2 * DAY + timedelta(microseconds=1)),
        UsageQuery(by, START.replace(hour=0) + DAY, START.replace(hour=0) + 2 * DAY),
        UsageQuery(by, START + timedelta(minutes=40), START + timedelta(minutes=50)),
    ]
    for query in queries:
        await check(database, rows, query)
    await sum_up(database)
    assert (await state_of(database)).rolled_until > START + 3 * DAY
    for query in queries:
        await check(database, rows, query)


async def test_a_hedged_request_is_one_request_and_all_its_calls_are_paid(database: Database) -> None:
    """From sums of which the late ones are read from rows, and from sums alone."""
    answered = RequestLog(
        model=ModelName("m"),
        provider_name="two",
        timestamp=START,
        estimated_cost=CostAmount(Decimal("0.1")),
        cost_source=CostSource.COMPUTED,
        response_time_ms=10,
        time_to_first_byte_ms=5,
    )
    billed = replace(
        answered,
        id=uuid4(),
        provider_name="one",
        status=RequestStatus.HEDGED,
        input_tokens=TokenCount(7),
        reported_cost=CostAmount(Decimal("0.02")),
        cost_source=CostSource.REPORTED,
        response_time_ms=9000,
        time_to_first_byte_ms=8000,
    )
    unknown = replace(billed, id=uuid4(), estimated_cost=None, reported_cost=None, cost_source=CostSource.UNKNOWN)
    await book(database, [answered])
    await sum_up(database)
    await book(database, [billed, unknown])
    for _ in range(2):
        for by in Dimension:
            report = await LedgerUsageReports(database).report(UsageQuery(by))
            total = report.total()
            assert (total.requests, total.errors, total.requests_of_unknown_cost) == (1, 0, 1)
            assert (total.input_tokens, total.cost_usd()) == (14, Decimal("0.12"))
            assert total.response_times == {bucket_of(10): 1}
            assert total.first_byte_times == {bucket_of(5): 1}
        apart = (await LedgerUsageReports(database).report(UsageQuery(Dimension.STATUS))).rows["hedged"]
        assert (apart.requests, apart.input_tokens, apart.requests_of_unknown_cost) == (0, 14, 1)
        assert apart.cost_usd("reported") == Decimal("0.02")
        assert not apart.response_times
        await sum_up(database)
    assert not (await state_of(database)).changed


async def test_sums_are_read_not_rows(database: Database) -> None:
    """What makes reports fast; also, they must not change when retention takes rows away."""
    rows = some_rows(300)
    await book(database, rows)
    await sum_up(database)
    await database.request_logs.raw("DELETE FROM request_logs")
    await check(database, rows, UsageQuery(Dimension.MODEL))
    async with session(database) as work:
        await work.execute("UPDATE usage_hourly SET requests = 0")
    await check(database, rows, UsageQuery(Dimension.DAY, until=START + 10 * DAY))  # all whole days: from the days


async def test_rows_that_come_late_are_counted_once_before_and_after_their_hour_is_summed_up_again(
    database: Database,
) -> None:
    rows = some_rows(500)
    await book(database, rows[:400])
    await sum_up(database)
    await book(database, rows[400:])
    await book(database, rows[350:450])  # a spool that is replayed again
    assert (await state_of(database)).changed
    await check(database, rows, UsageQuery(Dimension.MODEL))
    for _ in range(2):
        await sum_up(database)
        assert not (await state_of(database)).changed
        await check(database, rows, UsageQuery(Dimension.MODEL))


async def test_costs_that_are_corrected_later_are_in_the_next_report(database: Database) -> None:
    rows = some_rows(200)
    await book(database, rows)
    await sum_up(database)
    await database.request_logs.raw(
        "UPDATE request_logs SET reported_cost_usd = 1.5, cost_source = 'reported' WHERE id = {}", rows[0].id
    )
    known = sum((cost.usd for row in rows[1:] if (cost := row.cost()) is not None), Decimal("1.5"))
    for _ in range(2):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.STATUS))
        assert report.total().cost_usd() == known
        await sum_up(database)


async def test_rows_of_the_running_hour_and_of_a_clock_that_is_ahead_are_counted(database: Database) -> None:
    now = datetime.now(UTC)
    rows = some_rows(100, now - 2 * HOUR, 6 * HOUR)
    for part in (rows[:50], rows[50:]):
        await book(database, part)
        await sum_up(database)
    await check(database, rows, UsageQuery(Dimension.MODEL))
    assert (await state_of(database)).rolled_until <= now


async def test_rows_are_counted_that_come_after_the_database_s_clock_was_ahead(database: Database) -> None:
    """Their hour has sums already, and has not ended: nothing notes that they are not in them."""
    now = datetime.now(UTC)
    rows = some_rows(100, now - 2 * HOUR, 4 * HOUR)
    await book(database, rows[:50])
    await sum_up(database)
    for ahead in (HOUR, 3 * DAY):
        async with session(database) as work:
            await work.execute("UPDATE usage_state SET rolled_until = $1", floor(now + ahead, HOUR))
        await sum_up(database)
        assert now - HOUR - 3 * MINUTE < (await state_of(database)).rolled_until <= now
    await book(database, rows[50:])
    await sum_up(database)
    await check(database, rows, UsageQuery(Dimension.MODEL))


async def test_what_is_sealed_stays_so_when_the_clock_was_ahead(database: Database) -> None:
    """What retention has taken is in the sums alone."""
    sealed = floor(datetime.now(UTC) + DAY, HOUR)
    async with session(database) as work:
        await work.execute("UPDATE usage_state SET rolled_until = $1, sealed_until = $2", sealed + DAY, sealed)
    await sum_up(database)
    await sum_up(database)
    assert (await state_of(database)).rolled_until == sealed


async def test_days_are_utc_days_and_bounds_have_their_own_zone(database: Database) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    moments = [midnight - timedelta(microseconds=1), midnight, midnight + timedelta(hours=23, minutes=59)]
    await book(database, [RequestLog(model=ModelName("m"), provider_name="p", timestamp=moment) for moment in moments])
    if database.is_postgres:
        await database.request_logs.raw(
            "ALTER DATABASE " + database.url.split("?")[0].rpartition("/")[2] + " SET timezone TO 'Asia/Kolkata'"
        )
    async with open_database(database.url) as elsewhere:
        for _ in range(2):
            report = await LedgerUsageReports(elsewhere).report(UsageQuery(Dimension.DAY))
            assert {day: usage.requests for day, usage in report.rows.items()} == {"2026-03-01": 1, "2026-03-02": 2}
            tokyo = datetime.fromisoformat("2026-03-02T09:00:00+09:00")
            report = await LedgerUsageReports(elsewhere).report(UsageQuery(Dimension.DAY, tokyo))
            assert report.total().requests == 2
            await sum_up(elsewhere)


async def test_sums_of_extreme_rows_are_exact(database: Database) -> None:
    """What a hostile upstream reports must not break the report of all others; tokens are cut at 10**12 a request."""
    rows = [
        RequestLog(
            model=ModelName("m"),
            provider_name="p",
            timestamp=START,
            input_tokens=TokenCount(2**63),
            estimated_cost=CostAmount(Decimal(cost)),
            cost_source=CostSource.COMPUTED,
            response_time_ms=2**31,
        )
        for cost in ("0.000000000001", "1999.999999999999", "0.1", "0.2") * 50
    ]
    await book(database, rows)
    for _ in range(2):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert report.rows["m"].input_tokens == 200 * 10**12
        assert report.rows["m"].cost_usd() == 50 * Decimal("2000.3")
        assert await PiccoloRequestLogs(database).get_total_cost(START) == CostAmount(50 * Decimal("2000.3"))
        await sum_up(database)


async def test_a_database_without_rows_gives_an_empty_report(database: Database) -> None:
    for _ in range(2):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert report.rows == {}
        assert report.total().cost_usd() == 0
        await sum_up(database)


@pytest.mark.parametrize(
    "moment", [BEGINNING, datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)]
)
async def test_bounds_where_the_calendar_begins_and_ends_are_as_any_others(
    database: Database, moment: datetime
) -> None:
    rows = some_rows(10)
    booked = len(requests_of(rows))
    await book(database, rows)
    for _ in range(2):
        for query in (UsageQuery(Dimension.MODEL, moment), UsageQuery(Dimension.MODEL, None, moment)):
            total = (await LedgerUsageReports(database).report(query)).total()
            assert total.requests == (
                booked if (query.since == BEGINNING or query.until not in (None, BEGINNING)) else 0
            )
        await sum_up(database)


@pytest.mark.parametrize("seed", range(200))
def test_segments_cover_the_query_once_and_nothing_twice(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    first = datetime(2026, 3, 1, tzinfo=UTC)
    hours = sorted(chance.sample(range(96), chance.randrange(6)))
    rolled, sealed = first + chance.randrange(96) * HOUR, first + chance.choice([0, 0, 30]) * HOUR
    changed = [hour for at in hours if sealed <= (hour := first + at * HOUR) < rolled]
    state = RollupState(max(rolled, sealed), sealed if sealed > first else BEGINNING, changed)
    since = first + chance.randrange(96 * 60) * timedelta(minutes=1)
    query = UsageQuery(Dimension.DAY, since, since + chance.randrange(1, 96 * 60) * timedelta(minutes=1))
    cut = [segment for segment in segments(query, state) if segment.source is not Source.LATE_ROWS]
    assert all(before.end == after.start for before, after in pairwise(cut))
    assert query.since is not None
    assert query.until is not None
    if query.since >= state.sealed_until:
        assert cut[0].start == query.since
    if query.until >= state.sealed_until:
        assert cut[-1].end == query.until
    for segment in cut:
        if segment.source is Source.ROWS:
            assert segment.start >= state.sealed_until
        else:
            assert segment.end <= state.rolled_until
            assert not any(segment.start <= hour < segment.end for hour in changed)
            unit = DAY if segment.source is Source.DAYS else HOUR
            assert (segment.start - first) % unit == (segment.end - first) % unit == timedelta(0)


def test_whole_days_are_read_from_days() -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC)
    assert segments(UsageQuery(Dimension.DAY), RollupState(day + 2 * DAY + HOUR, BEGINNING)) == [
        Segment(Source.DAYS, BEGINNING, day + 2 * DAY),
        Segment(Source.HOURS, day + 2 * DAY, day + 2 * DAY + HOUR),
        Segment(Source.ROWS, day + 2 * DAY + HOUR, datetime(9999, 12, 31, tzinfo=UTC)),
    ]
