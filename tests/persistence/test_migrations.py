"""The schema that migrations make, on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sqlite3
import stat
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import run_forwards
from piccolo.engine.sqlite import SQLiteEngine, TransactionType

import piccolo_migrations
from proxy.domain.price_tiers import PriceTier
from proxy.domain.request_log import RequestLog
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.engine import describe, engine_for, sqlite_path
from proxy.infrastructure.persistence.migrations import (
    _point_piccolo_at,
    known_migrations,
    migrate,
    pending_migrations,
)
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.payload_table import RequestPayloadTable
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.tables import ModelPricingTable, RequestLogTable
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.traces import TraceRow, TraceRows

SEEDED = {
    "z-ai/glm-4.6": ("0.0001", "0.0002", 128_000),
    "deepseek-ai/DeepSeek-V3.1-Terminus": ("0.0003", "0.0005", 64_000),
    "moonshotai/Kimi-K2-Instruct-0905": ("0.0005", "0.0010", 200_000),
}
POSTGRES_TYPES = {
    "request_logs": {
        "id": "uuid",
        "request_id": "character varying",
        "timestamp": "timestamp with time zone",
        "requested_model": "character varying",
        "model_used": "character varying",
        "model_provider": "character varying",
        "provider_name": "character varying",
        "status": "character varying",
        "http_status": "smallint",
        "error_type": "character varying",
        "stream": "boolean",
        "attempts": "smallint",
        "was_fallback": "boolean",
        "input_tokens": "bigint",
        "output_tokens": "bigint",
        "cached_tokens": "bigint",
        "reasoning_tokens": "bigint",
        "usage_source": "character varying",
        "estimated_cost_usd": "numeric",
        "reported_cost_usd": "numeric",
        "cost_source": "character varying",
        "response_time_ms": "integer",
        "time_to_first_byte_ms": "integer",
        "generation_id": "character varying",
        "key_id": "uuid",
        "team_id": "uuid",
        "organisation_id": "uuid",
        "end_user": "character varying",
        "service_tier": "character varying",
    },
    "model_pricing": {
        "id": "uuid",
        "model_name": "character varying",
        "provider_name": "character varying",
        "input_cost_per_1m_tokens": "numeric",
        "output_cost_per_1m_tokens": "numeric",
        "max_context_tokens": "integer",
        "updated_at": "timestamp with time zone",
    },
    "request_payloads": {
        "id": "uuid",
        "request_id": "character varying",
        "timestamp": "timestamp with time zone",
        "request_body": "bytea",
        "request_bytes": "bigint",
        "request_truncated": "boolean",
        "response_body": "bytea",
        "response_bytes": "bigint",
        "response_truncated": "boolean",
        "content_type": "character varying",
    },
    "request_traces": {
        "id": "uuid",
        "request_id": "character varying",
        "timestamp": "timestamp with time zone",
        "trace": "text",
    },
}
INDEXED = {
    ("request_logs", "id", True),
    ("request_logs", "request_id", False),
    ("request_logs", "timestamp", False),
    ("request_logs", "provider_name", False),
    ("request_logs", "key_id", False),
    ("model_pricing", "id", True),
    ("model_pricing", "model_name", True),
    ("request_payloads", "id", True),
    ("request_payloads", "request_id", False),
    ("request_payloads", "timestamp", False),
    ("request_traces", "id", True),
    ("request_traces", "request_id", False),
    ("request_traces", "timestamp", False),
}


async def _columns(database: Database) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    for table in POSTGRES_TYPES:
        if database.is_postgres:
            query = f"""SELECT column_name AS name, data_type AS type
                FROM information_schema.columns WHERE table_name = '{table}'"""
        else:
            query = f"SELECT name, type FROM pragma_table_info('{table}')"
        tables[table] = {row["name"]: row["type"] for row in await database.request_logs.raw(query)}
    return tables


async def _indexes(database: Database) -> set[tuple[str, str, bool]]:
    found = set()
    for table in POSTGRES_TYPES:
        if database.is_postgres:
            query = f"""SELECT a.attname AS name, i.indisunique AS is_unique FROM pg_index i
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
                WHERE i.indrelid = '{table}'::regclass"""
        else:
            query = f"""SELECT ii.name AS name, il."unique" AS is_unique
                FROM pragma_index_list('{table}') il, pragma_index_info(il.name) ii"""
        found |= {(table, row["name"], bool(row["is_unique"])) for row in await database.request_logs.raw(query)}
    return found


async def test_the_schema_has_the_columns_types_and_indexes_it_should(database: Database) -> None:
    columns = await _columns(database)
    if database.is_postgres:
        assert columns == POSTGRES_TYPES
    else:  # SQLite has few types of its own; what counts is that Piccolo converts each column's values
        assert {table: set(names) for table, names in columns.items()} == {
            table: set(names) for table, names in POSTGRES_TYPES.items()
        }
        assert columns["request_logs"]["timestamp"] == "TIMESTAMPTZ"
        assert columns["request_logs"]["estimated_cost_usd"] == "NUMERIC(18, 12)"
        assert columns["request_logs"]["id"] == "UUID"
    # A partitioned table's key has the column that it is partitioned by.
    assert await _indexes(database) == INDEXED | (
        {("request_logs", "timestamp", True)} if database.is_postgres else set()
    )


async def test_money_keeps_twelve_decimals(database: Database) -> None:
    if not database.is_postgres:
        return  # SQLite has no scales; the round trip is tested with the repository
    rows = await database.request_logs.raw(
        "SELECT numeric_scale FROM information_schema.columns WHERE data_type = 'numeric'"
        " AND table_name IN ('request_logs', 'model_pricing')"
    )
    assert [row["numeric_scale"] for row in rows] == [12, 12, 12, 12]


async def test_the_migrations_agree_with_the_tables(database: Database) -> None:
    """Whoever changes a table and forgets the migration finds out here."""
    columns = await _columns(database)
    for table in (RequestLogTable, ModelPricingTable, RequestPayloadTable):
        assert list(columns[table._meta.tablename]) == [column._meta.db_column_name for column in table._meta.columns]


async def _migrate_to(database: Database, last: str) -> None:
    """As an earlier version of the gateway would."""
    _point_piccolo_at(database)
    with contextlib.redirect_stdout(io.StringIO()):
        await run_forwards("proxy", migration_id=last)


async def test_rows_of_the_earlier_table_are_kept_and_counted(empty_url: str) -> None:
    """From long ago, from this month, from the future, and more than one from an hour."""
    now = datetime.now(UTC)
    ages = [timedelta(days=days) for days in (20_000, 800, 400, 40, 40, 3, 0, -1, -300)]
    async with open_database(empty_url) as database:
        await _migrate_to(database, "2026-11-22T22:40:00:000000")
        for age in ages:
            await database.request_logs.raw(
                "INSERT INTO request_logs (id, request_id, timestamp, model_used, model_provider, provider_name,"
                " status, cost_source, usage_source, reported_cost_usd, response_time_ms, stream,"
                " attempts, was_fallback, input_tokens, output_tokens) VALUES"
                " ({}, {}, {}, 'm', 'm', 'p', 'success', 'reported', 'reported', {}, 7, false, 1, false, 1, 2)",
                uuid4(),
                str(age),
                now - age,
                Decimal("0.000000000001"),
            )
        assert "2026-11-22T23:55:00:000000" in await migrate(database)
        rows = await PiccoloRequestLogs(database).get_recent(100)
        assert [row.request_id for row in rows] == [str(age) for age in reversed(ages)]
        assert [row.timestamp for row in rows] == [now - age for age in reversed(ages)]
        for _ in range(2):
            report = await LedgerUsageReports(database).report(UsageQuery(Dimension.MODEL))
            assert report.rows["m"].requests == len(ages)
            assert report.rows["m"].cost_usd() == len(ages) * Decimal("0.000000000001")
            await LedgerUpkeep(database, retention_days=0).run()


async def test_a_migration_that_stopped_half_way_is_finished_by_the_next_run(empty_url: str) -> None:
    """What it does and the note that it was done are two transactions."""
    async with open_database(empty_url) as database:
        await migrate(database)
        await PiccoloRequestLogs(database).save(RequestLog(model=ModelName("m"), provider_name="p"))
        await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%23:55%'")
        assert await migrate(database) == ["2026-11-22T23:55:00:000000"]
        assert len(await PiccoloRequestLogs(database).get_recent(10)) == 1
        if database.is_postgres:
            assert await database.request_logs.raw("SELECT 1 FROM ONLY request_logs_default") == []


async def test_whom_requests_were_for_is_added_once_and_sums_of_before_are_nobodys(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await _migrate_to(database, "2026-11-23T02:00:00:000000")
        for table in ("usage_hourly", "usage_daily"):
            await database.request_logs.raw(
                f"INSERT INTO {table} (start, model, provider, status, cost_source, requests, input_tokens,"
                " output_tokens, unknown_costs, microdollars, picodollars)"
                " VALUES ({}, 'm', 'p', 'success', 'reported', 3, 1, 1, 0, 5, 7)",
                datetime(2026, 3, 1, tzinfo=UTC),
            )
        await database.request_logs.raw("UPDATE usage_state SET rolled_until = {}", datetime(2026, 3, 9, tzinfo=UTC))
        for pending in ("%05:10%", "nothing"):
            await migrate(database)
            reports = LedgerUsageReports(database)
            for by in (Dimension.KEY, Dimension.TEAM, Dimension.ORGANISATION):
                rows = (await reports.report(UsageQuery(by))).rows
                assert {name: usage.requests for name, usage in rows.items()} == {"": 3}
            await PiccoloRequestLogs(database).save(RequestLog(model=ModelName("m"), provider_name="p", end_user="u"))
            await database.request_logs.raw("DELETE FROM request_logs")
            await database.request_logs.raw("DELETE FROM migration WHERE name LIKE {}", pending)


async def test_prices_of_before_have_none_of_what_is_spoken_or_drawn(empty_url: str) -> None:
    last, *later = (f"2026-11-30T{hour}:00:00:000000" for hour in (14, 16, 18))
    columns = ("cache_write_1h", "audio_output", "image_output")
    async with open_database(empty_url) as database:
        await _migrate_to(database, "2026-11-23T05:20:00:000000")
        before = await database.request_logs.raw("SELECT * FROM model_price_history")
        assert before
        assert not [name for name in before[0] if name.startswith(columns)]
        assert await migrate(database) == [last, *later]
        prices = await PiccoloModelPricing(database).get_all()
        assert {price.audio_output_cost_per_1m_tokens for price in prices} == {None}
        dear = replace(prices[0], audio_output_cost_per_1m_tokens=Decimal("80.5"))
        assert await PiccoloModelPricing(database).set(dear, datetime(2026, 3, 1, tzinfo=UTC))
        await database.request_logs.raw("ALTER TABLE model_price_history DROP COLUMN image_output_cost_per_1m_tokens")
        await database.request_logs.raw("DELETE FROM migration WHERE name = {}", last)
        assert await migrate(database) == [last]
        found = await PiccoloModelPricing(database).get_by_model(dear.model.value)
        assert found is not None
        assert (found.audio_output_cost_per_1m_tokens, found.image_output_cost_per_1m_tokens) == (Decimal("80.5"), None)


async def test_prices_of_before_have_no_tiers(empty_url: str) -> None:
    last, later = "2026-11-30T16:00:00:000000", "2026-11-30T18:00:00:000000"
    async with open_database(empty_url) as database:
        await _migrate_to(database, "2026-11-30T14:00:00:000000")
        assert "tiers" not in (await database.request_logs.raw("SELECT * FROM model_price_history"))[0]
        assert await migrate(database) == [last, later]
        prices = PiccoloModelPricing(database)
        assert {price.tiers for price in await prices.get_all()} == {()}
        tier = PriceTier({"input_cost_per_1m_tokens": Decimal("2.5")}, above_input_tokens=200_000)
        dear = replace((await prices.get_all())[0], tiers=(tier,))
        assert await prices.set(dear, datetime(2026, 3, 1, tzinfo=UTC))
        await database.request_logs.raw("DELETE FROM migration WHERE name = {}", last)
        assert await migrate(database) == [last]
        found = await prices.get_by_model(dear.model.value)
        assert found is not None
        assert found.tiers == (tier,)


async def test_rows_of_before_say_nothing_of_a_service_tier(empty_url: str) -> None:
    last = "2026-11-30T18:00:00:000000"
    async with open_database(empty_url) as database:
        await _migrate_to(database, "2026-11-30T16:00:00:000000")
        await database.request_logs.raw(
            "INSERT INTO request_logs (id, request_id, timestamp, model_used, model_provider, provider_name, status,"
            " stream, attempts, was_fallback, input_tokens, output_tokens, usage_source, cost_source, response_time_ms)"
            " VALUES ({}, 'r', {}, 'm', 'm', 'p', 'success', {}, 1, {}, 0, 0, 'none', 'none', 0)",
            uuid4(),
            datetime(2026, 3, 1, tzinfo=UTC),
            False,
            False,
        )
        for _ in range(2):
            assert await migrate(database) == [last]
            await database.request_logs.raw("DELETE FROM migration WHERE name = {}", last)
        flex = RequestLog(model=ModelName("m"), provider_name="p", service_tier="flex")
        await PiccoloRequestLogs(database).save(flex)
        rows = await PiccoloRequestLogs(database).get_recent(2)
        assert [row.service_tier for row in rows] == ["flex", None]


async def test_prices_are_seeded_exactly_once(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        assert await migrate(database) != []
        assert await migrate(database) == []
        prices = await PiccoloModelPricing(database).get_all()
    assert {price.model.value: price for price in prices}.keys() == SEEDED.keys()
    for price in prices:
        expected = SEEDED[price.model.value]
        assert price.input_cost_per_1m_tokens == Decimal(expected[0])
        assert price.output_cost_per_1m_tokens == Decimal(expected[1])
        assert price.max_context_tokens == expected[2]
        assert price.provider == price.model.provider


async def test_a_price_that_is_there_is_not_seeded_over(empty_url: str) -> None:
    """A migration that ran half, or rows brought from elsewhere."""
    async with open_database(empty_url) as database:
        await migrate(database)
        await database.model_pricing.update({"input_cost_per_1m_tokens": Decimal(7)}, force=True)
        await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%22:40%'")
        assert len(await migrate(database)) == 1
        prices = await database.model_pricing.select(database.model_pricing.input_cost_per_1m_tokens)
    assert [price["input_cost_per_1m_tokens"] for price in prices] == [Decimal(7)] * 3


async def test_the_table_of_payloads_is_made_once_and_keeps_what_is_in_it(empty_url: str) -> None:
    """A migration that ran and was not noted."""
    async with open_database(empty_url) as database:
        await migrate(database)
        payloads = database.request_payloads
        await payloads.insert(payloads(request_id="kept", request_body=b"\x1f\x8b"))
        await payloads.raw("DELETE FROM migration WHERE name LIKE '%23:59%'")
        assert len(await migrate(database)) == 1
        assert [row["request_body"] for row in await payloads.select()] == [b"\x1f\x8b"]


async def test_the_table_of_traces_is_made_once_and_keeps_what_is_in_it(empty_url: str) -> None:
    """A migration that ran and was not noted."""
    async with open_database(empty_url) as database:
        await migrate(database)
        row = TraceRow(uuid4(), "kept", datetime.now(UTC), '{"v":1}')
        await TraceRows(database).write([row])
        await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%-23T02:00%'")
        assert await migrate(database) == ["2026-11-23T02:00:00:000000"]
        assert [found["trace"] for found in await database.request_logs.raw("SELECT trace FROM request_traces")] == [
            row.trace
        ]


async def _run(*command: str, url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def test_the_names_of_the_files_tell_the_ids_of_the_migrations() -> None:
    """One of another name would never be seen to be pending."""
    modules = BaseMigrationManager().get_migration_modules(str(Path(piccolo_migrations.__file__).parent))
    assert known_migrations() == sorted(modules)


async def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    results = await asyncio.gather(*(_run(sys.executable, "-m", "proxy", "migrate", url=empty_url) for _ in range(4)))
    assert [code for code, _ in results] == [0] * 4, results
    assert sum("Nothing to do" in output for _, output in results) == 3
    async with open_database(empty_url) as database:
        assert await pending_migrations(database) == []
        assert len(await PiccoloModelPricing(database).get_all()) == 3
        applied = await database.request_logs.raw("SELECT name FROM migration")
        assert len(applied) == len({row["name"] for row in applied}) > 2


async def test_the_piccolo_command_finds_the_project(empty_url: str) -> None:
    piccolo = str(Path(sys.executable).parent / "piccolo")
    code, output = await _run(piccolo, "migrations", "forwards", "proxy", url=empty_url)
    assert code == 0, output
    async with open_database(empty_url) as database:
        assert await migrate(database) == []
    code, output = await _run(piccolo, "migrations", "check", url=empty_url)
    assert code == 0, output


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///", "", "/some/file.db"])
def test_an_unknown_kind_of_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with sqlite:/// or postgresql://"):
        engine_for(url)


def test_sqlite_urls_are_relative_with_three_slashes_and_absolute_with_four() -> None:
    assert sqlite_path("sqlite:///data/a.db") == Path("data/a.db")
    assert sqlite_path("sqlite:////data/a.db") == Path("/data/a.db")


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://me:s3cret@db.example:5433/ledger?sslmode=require", "db.example:5433"),
        ("postgresql://me:s3,cret@a:5432,[::1]:5433,c/ledger", "a:5432,[::1]:5433,c"),
        ("postgresql://me:s3cret@/ledger?host=a,b&port=5432,5433", "a,b"),
        ("postgresql://me:s3cret@/ledger?host=/run/postgresql", "local socket"),
        ("postgresql://me:s3cret@%2Frun%2Fpostgresql/ledger", "local socket"),
        ("postgresql:///ledger", "local socket"),
    ],
)
def test_a_database_is_described_without_its_password(url: str, where: str) -> None:
    assert describe(url) == f"PostgreSQL {where}/ledger"


async def test_sqlite_uses_write_ahead_logging(sqlite_url: str) -> None:
    async with open_database(sqlite_url):
        pass
    connection: Any = sqlite3.connect(sqlite_path(sqlite_url))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def still_running(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads that were started since and are not about to end."""
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(5)
    return [thread for thread in started if thread.is_alive()]


_FILL = "INSERT INTO filled VALUES (zeroblob(10000000))"


@pytest.mark.parametrize("is_told", [True, False], ids=["raised", "swallowed"])
async def test_a_transaction_that_fills_the_disk_leaves_no_thread_behind(sqlite_url: str, is_told: bool) -> None:
    """SQLite has rolled back by then; the thread would keep the process from ending."""
    async with open_database(sqlite_url) as database:
        raw = database.request_logs.raw
        await raw("CREATE TABLE filled (x)")
        before = set(threading.enumerate())

        async def fill() -> None:
            async with database.engine.transaction():
                await raw("PRAGMA max_page_count = 1")  # no more than there are
                with contextlib.nullcontext() if is_told else contextlib.suppress(sqlite3.OperationalError):
                    await raw(_FILL)

        with pytest.raises(sqlite3.OperationalError, match="full" if is_told else "no transaction"):
            await fill()
        assert still_running(before) == []
        await raw(_FILL)  # in a connection of its own again


async def test_a_transaction_that_cannot_begin_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is not a database. " * 100)
    engine = engine_for(f"sqlite:///{tmp_path / 'text.db'}")
    assert isinstance(engine, SQLiteEngine)
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        async with engine.transaction(transaction_type=TransactionType.immediate):
            pass
    assert still_running(before) == []


def modes_in(directory: Path) -> dict[str, int]:
    """The permissions of the directory and of what is in it."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}


async def test_a_new_database_is_its_owners_alone(tmp_path: Path) -> None:
    """There may be prompts in it."""
    new = tmp_path / "new"
    async with open_database(f"sqlite:///{new / 'a.db'}") as database:
        await migrate(database)
        async with session(database):
            modes = modes_in(new)
    assert {name: modes[name] for name in ("new", "a.db", "a.db-wal", "a.db-shm")} == {
        "new": 0o700,
        "a.db": 0o600,
        "a.db-wal": 0o600,
        "a.db-shm": 0o600,
    }


async def test_a_database_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    old.chmod(0o755)
    (old / "a.db").touch()
    (old / "a.db").chmod(0o640)
    async with open_database(f"sqlite:///{old / 'a.db'}") as database:
        await migrate(database)
    modes = modes_in(old)
    assert (modes["old"], modes["a.db"]) == (0o755, 0o640)


async def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with pytest.raises((OSError, asyncpg.PostgresError)):
        async with open_database("postgresql://nobody@127.0.0.1:1/none"):
            pass
