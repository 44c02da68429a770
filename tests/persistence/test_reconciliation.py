"""Rows of uncertain cost, asked for at a real server and booked on both engines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from proxy.application.reconcile import NoAnswer, Pace, ProviderBusy, ProviderRefused, Reconciliation, Search
from proxy.domain.reconciliation import Bill, Outcome, ReconcileReport, UnsettledRow
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.domain.values import ModelName, TokenCount
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.reconciliation import _CENSUS, _FIND, LedgerReconciliation
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.reconcile import OpenRouterBills, read_bill, reconciling
from tests.generations import KEY, NOW, Generations, estimated_row, remembering, usd
from tests.harness import gateway_over
from tests.persistence.booked_rows import book, sum_up

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def provider() -> AsyncIterator[Generations]:
    async with remembering() as generations:
        yield generations


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
def bills(provider: Generations, http: aiohttp.ClientSession) -> OpenRouterBills:
    return OpenRouterBills(http, ProviderEndpoint(provider.url, {"Authorization": f"Bearer {KEY}"}))


@pytest.fixture
def rows(database: Database) -> LedgerReconciliation:
    return LedgerReconciliation(database, "OpenRouter")


async def reconcile(
    rows: LedgerReconciliation, bills: OpenRouterBills, now: datetime = NOW, search: Search | None = None, **how: Any
) -> ReconcileReport:
    report = ReconcileReport()
    await Reconciliation(rows, bills, Pace(100), lambda: now).run(search or Search(), report, **how)
    return report


async def booked(database: Database) -> dict[str | None, RequestLog]:
    return {row.generation_id: row for row in await PiccoloRequestLogs(database).get_recent(1000)}


async def remembered(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    async with session(database) as work:
        found = await work.fetch(f"SELECT {', '.join(columns)} FROM cost_reconciliations ORDER BY row_timestamp")
    return [tuple(row) for row in found]


async def test_the_bill_replaces_the_estimate_and_the_estimate_is_kept(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1", "0.002")])
    provider.bill("gen-1", "0.001234567891", native_tokens_prompt=12, native_tokens_completion=7, is_byok=False)
    report = await reconcile(rows, bills)
    row = (await booked(database))["gen-1"]
    assert (row.reported_cost, row.estimated_cost) == (usd("0.001234567891"), usd("0.002"))
    assert (row.cost_source, row.usage_source) == (CostSource.REPORTED, UsageSource.REPORTED)
    assert (row.input_tokens, row.output_tokens) == (TokenCount(12), TokenCount(7))
    assert row.status is RequestStatus.CLIENT_DISCONNECTED
    assert await remembered(
        database, "outcome", "attempts", "provider_total_cost_usd", "previous_cost_usd", "previous_cost_source"
    ) == [("billed", 1, "0.001234567891", "0.002", "computed")]
    drift = report.models["a/one"]
    assert (drift.estimated_usd, drift.billed_usd) == (Decimal("0.002"), Decimal("0.001234567891"))
    assert drift.percent() == Decimal("-38.27")


async def test_only_rows_of_uncertain_cost_with_a_generation_of_this_provider_are_asked_for(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    known: dict[str, Any] = {
        "cost_source": CostSource.REPORTED,
        "reported_cost": usd("0.1"),
        "usage_source": UsageSource.REPORTED,
    }
    success: dict[str, Any] = {"status": RequestStatus.SUCCESS}
    refused: dict[str, Any] = {"status": RequestStatus.REFUSED, "usage_source": UsageSource.NONE}
    nothing: dict[str, Any] = {"cost_source": CostSource.NONE, "usage_source": UsageSource.NONE}
    await book(
        database,
        [
            estimated_row("gen-unknown-cost", None, **success, usage_source=UsageSource.REPORTED),
            estimated_row("gen-computed-cost", **success, usage_source=UsageSource.REPORTED),
            estimated_row("gen-estimated-usage", **{**known, **success, "usage_source": UsageSource.ESTIMATED}),
            estimated_row("gen-hung-up", **known),
            estimated_row("gen-interrupted", **{**known, "status": RequestStatus.INTERRUPTED}),
            estimated_row("gen-known", **known, **success),
            estimated_row("gen-of-the-demo", provider_name="Demo"),
            estimated_row("chatcmpl-of-another", **success),
            estimated_row(None, None, status=RequestStatus.INTERRUPTED),
            estimated_row(None, None, status=RequestStatus.INTERRUPTED),
            estimated_row(None, None, **refused),
            estimated_row("gen-nothing-billed", None, **nothing),
            estimated_row(None, None, **nothing),
            estimated_row(None, None, **nothing, status=RequestStatus.GATEWAY_ERROR),
        ],
    )
    report = await reconcile(rows, bills)
    assert set(provider.asked) == {
        *("gen-unknown-cost", "gen-computed-cost", "gen-estimated-usage", "gen-hung-up", "gen-interrupted")
    }
    assert report.cannot_be_asked == {"interrupted": 2, "success": 1}


async def test_counts_that_were_reported_stay_and_bills_without_counts_change_none(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1", usage_source=UsageSource.REPORTED), estimated_row("gen-2")])
    provider.bill("gen-1", "0.001", native_tokens_prompt=12, native_tokens_completion=7)
    provider.bill("gen-2", "0", native_tokens_prompt=None)
    await reconcile(rows, bills)
    found = await booked(database)
    for row in found.values():
        assert (row.input_tokens, row.output_tokens) == (TokenCount(10), TokenCount(5))
        assert row.cost_source is CostSource.REPORTED
    assert found["gen-1"].usage_source is UsageSource.REPORTED
    assert (found["gen-2"].usage_source, found["gen-2"].reported_cost) == (UsageSource.ESTIMATED, usd("0"))


async def test_what_was_answered_is_not_asked_again(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row(f"gen-{number}") for number in range(6)])
    for number in range(6):
        provider.bill(f"gen-{number}", "0.001")
    await reconcile(rows, bills, limit=4)
    assert len(provider.asked) == 4
    await reconcile(rows, bills)
    assert sorted(provider.asked) == [f"gen-{number}" for number in range(6)]
    report = await reconcile(rows, bills, NOW + DAY, Search(again=True))
    assert (len(provider.asked), report.total().asked) == (6, 0)


async def test_rows_of_one_moment_are_all_found_page_by_page(database: Database, rows: LedgerReconciliation) -> None:
    some = [estimated_row(f"gen-{number}", timestamp=NOW + (number // 4) * MINUTE) for number in range(10)]
    await book(database, some)
    found: list[UnsettledRow] = []
    while page := await rows.find(Search(), NOW, found[-1] if found else None, 3):
        found += page
    assert {row.id for row in found} == {row.id for row in some}
    assert len(found) == 10
    assert [row.timestamp for row in found] == sorted(row.timestamp for row in some)


async def test_since_and_until_bound_the_rows(database: Database, rows: LedgerReconciliation) -> None:
    await book(database, [estimated_row(f"gen-{hour}", timestamp=NOW + hour * HOUR) for hour in range(4)])
    search = Search(since=NOW + HOUR, until=NOW + 3 * HOUR)
    assert [row.generation_id for row in await rows.find(search, NOW, None, 10)] == ["gen-1", "gen-2"]
    assert (await rows.census(search, NOW)).to_ask == 2


async def test_an_unknown_generation_is_asked_for_later_and_given_up_after_a_day(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1")])

    async def ask(at: datetime, *, again: bool = False) -> ReconcileReport:
        return await reconcile(rows, bills, at, Search(again=again))

    assert (await ask(NOW)).total().outcomes == {Outcome.NOT_FOUND: 1}
    early = await ask(NOW + 4 * MINUTE)
    assert (early.total().asked, early.ask_again_later, early.given_up) == (0, 1, 0)
    assert (await ask(NOW + 5 * MINUTE)).total().outcomes == {Outcome.NOT_FOUND: 1}
    assert (await ask(NOW + 14 * MINUTE)).total().asked == 0
    assert (await ask(NOW + 23 * HOUR)).total().outcomes == {Outcome.NOT_FOUND: 1}
    assert (await ask(NOW + 30 * HOUR)).total().outcomes == {Outcome.GIVEN_UP: 1}
    late = await ask(NOW + 300 * DAY)
    assert (late.total().asked, late.ask_again_later, late.given_up) == (0, 0, 1)
    assert await remembered(database, "outcome", "attempts") == [("given_up", 4)]
    assert (await booked(database))["gen-1"].cost_source is CostSource.COMPUTED
    provider.bill("gen-1", "0.001")
    assert (await ask(NOW + 300 * DAY, again=True)).total().outcomes == {Outcome.BILLED: 1}
    assert (await booked(database))["gen-1"].reported_cost == usd("0.001")


async def test_a_day_of_outages_is_not_a_day_of_absence(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1")])
    provider.fail("gen-1", 503)
    assert (await reconcile(rows, bills)).total().outcomes == {Outcome.NO_ANSWER: 1}
    del provider.bills["gen-1"]
    assert (await reconcile(rows, bills, NOW + 2 * DAY)).total().outcomes == {Outcome.NOT_FOUND: 1}


async def test_two_processes_at_once_book_a_bill_once(
    database: Database, rows: LedgerReconciliation, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1", "0.002")])
    (row,) = await rows.find(Search(), NOW, None, 10)
    bill = Bill(usd("0.001"), TokenCount(12), TokenCount(7))
    other = LedgerReconciliation(database, "OpenRouter")
    await asyncio.gather(*(each.book(row, bill, NOW) for each in (rows, other) * 5))
    await other.book(row, replace(bill, cost=usd("9")), NOW)
    await other.postpone(row, Outcome.NOT_FOUND, NOW)
    assert (await booked(database))["gen-1"].reported_cost == usd("0.001")
    assert await remembered(database, "outcome", "attempts", "previous_cost_usd") == [("billed", 1, "0.002")]


async def test_reports_show_the_bill_also_of_hours_that_were_summed_up(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row("gen-1", "0.002", timestamp=NOW - 300 * DAY)])
    await sum_up(database)
    provider.bill("gen-1", "0.005")
    await reconcile(rows, bills)
    for _ in range(2):
        total = (await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))).total()
        assert (total.cost_usd("reported"), total.cost_usd("computed")) == (Decimal("0.005"), Decimal(0))
        await sum_up(database)


async def test_a_bill_for_a_row_that_is_kept_no_more_is_no_trouble(
    database: Database, rows: LedgerReconciliation
) -> None:
    await book(database, [estimated_row("gen-1")])
    (row,) = await rows.find(Search(), NOW, None, 10)
    await database.request_logs.raw("DELETE FROM request_logs")
    await rows.book(row, Bill(usd("0.001")), NOW)
    await rows.forget(NOW)
    assert await remembered(database, "outcome") == [("billed",)]
    await rows.forget(NOW + MINUTE)
    assert await remembered(database, "outcome") == []


async def test_the_migration_may_run_again(database: Database, rows: LedgerReconciliation) -> None:
    await book(database, [estimated_row("gen-1")])
    (row,) = await rows.find(Search(), NOW, None, 10)
    await rows.postpone(row, Outcome.NOT_FOUND, NOW)
    await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%23:58%'")
    assert len(await migrate(database)) == 1
    assert await remembered(database, "outcome") == [("not_found",)]


@pytest.mark.parametrize("statement", [_FIND, _CENSUS], ids=["find", "census"])
async def test_rows_are_found_by_an_index(database: Database, statement: str) -> None:
    await book(database, [estimated_row(None, status=RequestStatus.SUCCESS) for _ in range(2000)])
    arguments = ["OpenRouter", NOW - DAY, NOW + DAY, NOW, NOW - DAY, UUID(int=0), 200]
    given = arguments[: 7 if statement is _FIND else 4]
    async with session(database) as work:
        if database.is_postgres:
            await work.execute("ANALYZE request_logs")
            ((table,),) = await work.fetch("SELECT DISTINCT tableoid::regclass::text FROM request_logs")
            ((index,),) = await work.fetch(
                "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = $1::text::regclass AND"
                " pg_get_indexdef(indexrelid) LIKE '% WHERE %generation_id%'",
                table,
            )
            plan = await work.fetch(f"EXPLAIN {statement}", *given)
        else:
            table, index = "request_logs", "request_logs_unsettled"
            given = [str(value) if isinstance(value, UUID) else value for value in given]
            plan = await work.fetch(f"EXPLAIN QUERY PLAN {statement}", *given)
    shown = " ".join(str(tuple(row)) for row in plan)
    assert index in shown, shown
    assert f"Seq Scan on {table} " not in shown
    assert f"SCAN {table}" not in shown


# The wire format


def test_a_bill_is_read_to_the_last_digit() -> None:
    body = b'\n {"data": {"id": "gen-1", "total_cost": 0.1000000000000000000001, "native_tokens_prompt": 3, "x": [1]}}'
    assert read_bill(body) == Bill(usd("0.1000000000000000000001"), TokenCount(3), None)
    assert read_bill(b'{"data": {"total_cost": 1e-7}}') == Bill(usd("0.0000001"))


@pytest.mark.parametrize("data", ['{"total_cost": null}', "{}"])
def test_a_generation_that_is_not_accounted_for_yet_has_no_bill(data: str) -> None:
    assert read_bill(f'{{"data": {data}}}'.encode()) is None


@pytest.mark.parametrize(
    "body",
    [
        *("", "<html>", "[]", "{}", '{"data": null}', '{"error": {"code": 500}}', "[" * 100_000, "\xff"),
        *(
            f'{{"data": {{"total_cost": {cost}}}}}'
            for cost in ("-1", "1e6", '"NaN"', '"Infinity"', "true", "[]", '"x"')
        ),
        '{"data": {"total_cost": 1, "native_tokens_prompt": -1}}',
        '{"data": {"total_cost": 1, "native_tokens_completion": 1e30}}',
        '{"data": {"total_cost": 1, "native_tokens_completion": 9223372036854775808}}',
        *(f'{{"data": {{"total_cost": {cost}}}}}' for cost in ("1e999999999", "1e-99999999", '"0E-99999999"')),
    ],
)
def test_what_is_no_bill_is_not_booked(body: str) -> None:
    with pytest.raises(NoAnswer):
        read_bill(body.encode("latin-1"))


async def test_errors_are_told_apart(
    bills: OpenRouterBills, provider: Generations, http: aiohttp.ClientSession
) -> None:
    for status in (402, 403):
        provider.fail("gen-1", status)
        with pytest.raises(ProviderRefused, match=f"HTTP {status}"):
            await bills.bill("gen-1")
    stranger = OpenRouterBills(http, ProviderEndpoint(provider.url, {}))
    with pytest.raises(ProviderRefused, match="check OPENROUTER_API_KEY"):
        await stranger.bill("gen-1")
    provider.fail("gen-1", 429, Retry_After="7")
    with pytest.raises(ProviderBusy) as busy:
        await bills.bill("gen-1")
    assert busy.value.retry_after_seconds == 7.0
    for status, about_the_row in ((500, False), (529, False), (400, True), (302, True)):
        provider.fail("gen-1", status, Location="/elsewhere")
        with pytest.raises(NoAnswer, match=f"HTTP {status}") as failure:
            await bills.bill("gen-1")
        assert failure.value.about_the_row is about_the_row
    nobody = OpenRouterBills(http, ProviderEndpoint("http://127.0.0.1:1/", {}))
    with pytest.raises(NoAnswer, match="cannot be reached"):
        await nobody.bill("gen-1")


async def test_the_id_is_sent_as_one_argument(bills: OpenRouterBills, provider: Generations) -> None:
    strange = "gen-1&id=gen-2 +%20/#é"
    provider.bill(strange, "0.001")
    assert await bills.bill(strange) == Bill(usd("0.001"))
    assert provider.asked == [strange]


# In the background


async def test_the_background_asks_for_a_few_rows_that_are_neither_fresh_nor_old(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    some = [estimated_row(f"gen-{number}", timestamp=NOW - DAY) for number in range(25)]
    fresh, old = NOW - 5 * MINUTE, NOW - 7 * DAY
    await book(
        database,
        [
            *some,
            estimated_row("gen-fresh", timestamp=fresh),
            estimated_row("gen-old", timestamp=old - MINUTE),
            estimated_row("gen-just-in", timestamp=old),
        ],
    )
    provider.bills = {f"gen-{number}": '{"total_cost": 0.001}' for number in range(25)}
    async with asyncio.timeout(30):
        async with reconciling(rows, bills, 0.01, pace=Pace(1000), now=lambda: NOW, jitter=lambda: 0.0):
            while len(await remembered(database, "outcome")) < 26:
                await asyncio.sleep(0.01)
    assert len(provider.asked) == len(set(provider.asked)) == 26
    assert not {"gen-fresh", "gen-old"} & set(provider.asked)
    costs = [row.reported_cost for row in (await booked(database)).values()]
    assert costs.count(usd("0.001")) == 25


async def test_a_background_round_has_at_most_twenty_rows(
    database: Database, rows: LedgerReconciliation, bills: OpenRouterBills, provider: Generations
) -> None:
    await book(database, [estimated_row(f"gen-{number}", timestamp=NOW - DAY) for number in range(25)])
    pauses = iter([0.0, 0.0])  # the first pause and the first round's
    async with asyncio.timeout(30):
        async with reconciling(rows, bills, 1000.0, pace=Pace(1000), now=lambda: NOW, jitter=lambda: next(pauses, 1.0)):
            while len(await remembered(database, "outcome")) < 20:
                await asyncio.sleep(0.01)
    assert len(provider.asked) == 20


async def test_trouble_in_the_background_is_logged_and_the_next_round_tries_again(
    database: Database,
    rows: LedgerReconciliation,
    bills: OpenRouterBills,
    provider: Generations,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await book(database, [estimated_row("gen-1", timestamp=NOW - DAY)])
    provider.fail("gen-1", 402)
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(30):
        async with reconciling(rows, bills, 0.01, 30, pace=Pace(1000), now=lambda: NOW, jitter=lambda: 0.0):
            while len(provider.asked) < 2:
                await asyncio.sleep(0.01)
            await database.request_logs.raw("ALTER TABLE cost_reconciliations RENAME TO away")
            while "Error" not in str([vars(record).get("reason") for record in caplog.records]):
                await asyncio.sleep(0.01)
            await database.request_logs.raw("ALTER TABLE away RENAME TO cost_reconciliations")
            provider.bill("gen-1", "0.001")
            while not await remembered(database, "outcome"):
                await asyncio.sleep(0.01)
    reasons = {vars(record).get("reason") for record in caplog.records if record.levelno == logging.WARNING}
    assert "the account has no credits left (HTTP 402)" in reasons
    assert "costs reconciled" in {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize(("seconds", "expected"), [(0.05, "0.001"), (0.0, None)])
async def test_the_gateway_does_it_unless_told_not_to(
    database_url: str, provider: Generations, seconds: float, expected: str | None
) -> None:
    provider.bill("gen-1", "0.001")
    async with open_database(database_url) as database:
        await book(database, [estimated_row("gen-1", timestamp=datetime.now(UTC) - HOUR)])
    settings: dict[str, Any] = {"openrouter_api_key": KEY, "reconcile_seconds": seconds}
    async with gateway_over(provider.url, database_url, prices_sync_seconds=0.0, **settings) as gateway:
        row = await gateway.row()
        for _ in range(1000 if expected else 20):
            if row.reported_cost is None:
                await asyncio.sleep(0.01)
                row = await gateway.row()
    assert row.reported_cost == (usd(expected) if expected else None)


async def test_the_row_found_is_the_row_booked(database: Database, rows: LedgerReconciliation) -> None:
    row = estimated_row("gen-1", "0.000000000001", model=ModelName("b/two"), timestamp=NOW + timedelta(microseconds=7))
    await book(database, [row])
    (found,) = await rows.find(Search(), NOW, None, 1)
    assert found == UnsettledRow(
        id=row.id,
        timestamp=row.timestamp,
        model="b/two",
        generation_id="gen-1",
        usage_source=UsageSource.ESTIMATED,
        cost_source=CostSource.COMPUTED,
        estimated=usd("0.000000000001"),
    )
