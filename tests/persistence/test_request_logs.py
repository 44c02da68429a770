"""The ledger's rows, written and read on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from proxy.application.administration.ports import Page
from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_the_row
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.persistence.request_list import LedgerRequestList
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from tests.persistence.booked_rows import sum_up

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
FULL = RequestLog(
    model=ModelName("z-ai/glm-4.6"),
    provider_name="OpenRouter",
    request_id="req-1",
    timestamp=NOW,
    requested_model="auto",
    status=RequestStatus.STREAM_BROKEN,
    http_status=200,
    error_type="stream_timeout",
    stream=True,
    attempts=3,
    was_fallback=True,
    input_tokens=TokenCount(123),
    output_tokens=TokenCount(2**40),
    cached_tokens=7,
    reasoning_tokens=0,
    usage_source=UsageSource.ESTIMATED,
    estimated_cost=CostAmount(Decimal("0.000000000001")),
    reported_cost=CostAmount(Decimal("123.456789012345")),
    cost_source=CostSource.REPORTED,
    response_time_ms=1234,
    time_to_first_byte_ms=56,
    generation_id="gen-abc",
    key_id=UUID("0197f1a2-0000-7000-8000-000000000001"),
    team_id=UUID("0197f1a2-0000-7000-8000-000000000002"),
    organisation_id=UUID("0197f1a2-0000-7000-8000-000000000003"),
    end_user="zoë",
    service_tier="flex",
)
BARE = RequestLog(model=ModelName("x"), provider_name="none", timestamp=NOW + timedelta(seconds=1))


def costing(usd: str, at: datetime = NOW, *, reported: str | None = None) -> RequestLog:
    return RequestLog(
        model=ModelName("m"),
        provider_name="p",
        timestamp=at,
        estimated_cost=CostAmount(Decimal(usd)),
        reported_cost=None if reported is None else CostAmount(Decimal(reported)),
    )


async def test_a_row_comes_back_as_it_was_saved(database: Database) -> None:
    repository = PiccoloRequestLogs(database)
    assert await repository.save(FULL) == FULL
    await repository.save(BARE)
    assert await repository.get_recent(10) == [BARE, FULL]


async def test_both_ways_of_writing_book_the_same(database: Database) -> None:
    repository = PiccoloRequestLogs(database)
    async with row_writer(database) as writer:
        assert await writer.write([ledger_row(FULL)]) == 1
        assert await writer.write([ledger_row(FULL), ledger_row(BARE)]) == 1  # those that were not there
        assert await writer.write([ledger_row(FULL)], again=True) == 0
    assert await repository.get_recent(10) == [BARE, FULL]
    await repository.save(FULL)
    assert len(await repository.get_recent(10)) == 2


async def test_a_failed_batch_books_nothing_and_the_next_one_works(database: Database) -> None:
    async with row_writer(database) as writer:
        impossible = msgspec.structs.replace(ledger_row(costing("1")), status=None)
        with pytest.raises(DATABASE_ERRORS) as refused:
            await writer.write([ledger_row(FULL), impossible])
        assert is_about_the_row(refused.value)
        await writer.write([ledger_row(BARE)])
    assert await PiccoloRequestLogs(database).get_recent(10) == [BARE]


async def test_recent_rows_are_the_newest_in_order(database: Database) -> None:
    repository = PiccoloRequestLogs(database)
    rows = [costing("1", NOW + timedelta(minutes=minute)) for minute in (3, 1, 2)]
    await repository.save_all(rows)
    assert await repository.get_recent(2) == [rows[0], rows[2]]


@pytest.mark.parametrize("count", [0, -1])
async def test_asking_for_no_rows_is_refused(database: Database, count: int) -> None:
    with pytest.raises(InvalidValue, match="greater than zero"):
        await PiccoloRequestLogs(database).get_recent(count)


async def test_the_total_is_exact(database: Database) -> None:
    """Where floats are not: ten times 0.1, a thousand times the smallest amount, and large sums beside them."""
    repository = PiccoloRequestLogs(database)
    amounts = ["0.1"] * 10 + ["0.000000000001"] * 1000 + ["999.999999999999"] * 300
    rows = [costing(amount) for amount in amounts]
    async with row_writer(database) as writer:
        await writer.write([ledger_row(one) for one in rows])
    assert (await repository.get_total_cost(NOW)).usd == sum(Decimal(amount) for amount in amounts)


async def test_the_total_prefers_what_was_billed_and_leaves_out_the_unknown(database: Database) -> None:
    repository = PiccoloRequestLogs(database)
    await repository.save_all([costing("5", reported="0.25"), costing("0.5"), BARE])
    assert (await repository.get_total_cost(NOW)).usd == Decimal("0.75")


async def test_the_total_counts_from_that_moment_on_in_any_time_zone(database: Database) -> None:
    repository = PiccoloRequestLogs(database)
    await repository.save_all([costing("1", NOW - timedelta(microseconds=1)), costing("2", NOW)])
    assert (await repository.get_total_cost(NOW)).usd == 2
    assert (await repository.get_total_cost(NOW.astimezone(timezone(timedelta(hours=9))))).usd == 2
    assert (await repository.get_total_cost(NOW + timedelta(days=1))).usd == 0


async def test_what_no_column_takes_is_clamped(database: Database) -> None:
    wild = RequestLog(
        model=ModelName("nul\x00 and \ud800 " + "x" * 1000),
        provider_name="p" * 1000,
        request_id="r" * 1000,
        timestamp=NOW,
        error_type="e" * 1000,
        attempts=10**6,
        input_tokens=TokenCount(10**30),
        cached_tokens=-(10**30),
        response_time_ms=10**12,
        time_to_first_byte_ms=10**12,
        estimated_cost=CostAmount(Decimal(10) ** 20),
        generation_id="g" * 1000,
        end_user="\x00\ud800" + "u" * 1000,
        service_tier="t" * 1000,
    )
    repository = PiccoloRequestLogs(database)
    async with row_writer(database) as writer:
        await writer.write([ledger_row(wild)])
    (row,) = await repository.get_recent(1)
    assert row.model.value.startswith("nul and ? xxx")
    assert len(row.model.value) == 255
    assert row.input_tokens.value == 2**63 - 1
    assert row.end_user == "?" + "u" * 254
    assert row.service_tier == "t" * 64
    assert row.estimated_cost is not None


@pytest.mark.parametrize(
    ("name", "model", "provider"),
    [
        ("\x00", "unknown", "unknown"),
        ("\x00 \x00", "unknown", "unknown"),
        (" " * 255 + "x", "unknown", "unknown"),
        ("or/\x00", "or/", "or"),
        ("\x00/x", "/x", "unknown"),
    ],
)
async def test_a_name_that_is_blank_when_it_is_cleaned_is_unknown(
    database: Database, name: str, model: str, provider: str
) -> None:
    async with row_writer(database) as writer:
        for requested in (name, "\x00"):
            one = RequestLog(model=ModelName(name), provider_name="\x00", timestamp=NOW, requested_model=requested)
            await writer.write([ledger_row(one)])
    rows = await PiccoloRequestLogs(database).get_recent(2)
    assert [(row.model.value, row.provider_name) for row in rows] == [(model, "unknown")] * 2
    assert {row.requested_model for row in rows} == {model, "unknown"}
    columns = await database.request_logs.select(database.request_logs.model_provider)
    assert {each["model_provider"] for each in columns} == {provider}


async def test_rows_that_were_booked_without_a_name_are_read_as_unknown(database: Database) -> None:
    blank = msgspec.structs.replace(ledger_row(BARE), request_id="req-2", model_used="", requested_model="")
    async with row_writer(database) as writer:
        await writer.write([ledger_row(FULL), blank])
    assert [row.model.value for row in await PiccoloRequestLogs(database).get_recent(2)] == ["unknown", "z-ai/glm-4.6"]
    for asked in ("req-2", str(BARE.id)):
        found = await LedgerRequestArchive(database).find(asked)
        assert found is not None
        assert found.row.model.value == "unknown"
    listed = await LedgerRequestList(database).page(Page())
    assert [row["model_used"] for row in listed] == ["unknown", "z-ai/glm-4.6"]
    for _ in range(2):
        report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
        assert {name: usage.requests for name, usage in report.rows.items()} == {"unknown": 1, "z-ai/glm-4.6": 1}
        await sum_up(database)


async def test_a_row_that_cannot_be_read_is_left_out_and_the_others_are_shown(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    strange = msgspec.structs.replace(ledger_row(BARE), request_id="req-1", status="of a later version")
    async with row_writer(database) as writer:
        await writer.write([ledger_row(FULL), strange])
    assert await PiccoloRequestLogs(database).get_recent(10) == [FULL]
    found = await LedgerRequestArchive(database).find("req-1")
    assert found is not None
    assert (found.row, list(found.others)) == (FULL, [])
    assert await LedgerRequestArchive(database).find(str(BARE.id)) is None
    assert str(BARE.id) in str([vars(each).get("row") for each in caplog.records])


async def test_a_row_stays_small(database: Database) -> None:
    """Under 500 bytes; measured where a row's size can be asked for."""
    if not database.is_postgres:
        return
    await PiccoloRequestLogs(database).save(FULL)
    rows = await database.request_logs.raw("SELECT pg_column_size(request_logs.*) AS size FROM request_logs")
    assert rows[0]["size"] < 500


async def test_prices_are_found_by_the_whole_name(database: Database) -> None:
    repository = PiccoloModelPricing(database)
    found = await repository.get_by_model("z-ai/glm-4.6")
    assert found is not None
    assert found.max_context_tokens == 128_000
    assert await repository.get_by_model("glm-4.6") is None
    assert [price.model.value for price in await repository.get_all()] == sorted(
        ["z-ai/glm-4.6", "deepseek-ai/DeepSeek-V3.1-Terminus", "moonshotai/Kimi-K2-Instruct-0905"]
    )
