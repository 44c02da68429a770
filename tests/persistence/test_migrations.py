"""The schema that migrations make, on both engines."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.engine import describe, engine_for, sqlite_path
from proxy.infrastructure.persistence.migrations import migrate, pending_migrations
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.tables import ModelPricingTable, RequestLogTable

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
}
INDEXED = {
    ("request_logs", "id", True),
    ("request_logs", "request_id", False),
    ("request_logs", "timestamp", False),
    ("request_logs", "provider_name", False),
    ("model_pricing", "id", True),
    ("model_pricing", "model_name", True),
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
    assert await _indexes(database) == INDEXED


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
    for table in (RequestLogTable, ModelPricingTable):
        assert list(columns[table._meta.tablename]) == [column._meta.db_column_name for column in table._meta.columns]


async def test_prices_are_seeded_exactly_once(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        assert len(await migrate(database)) == 2
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
        prices = await PiccoloModelPricing(database).get_all()
    assert [price.input_cost_per_1m_tokens for price in prices] == [Decimal(7)] * 3


async def _run(*command: str, url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    results = await asyncio.gather(*(_run(sys.executable, "-m", "proxy", "migrate", url=empty_url) for _ in range(4)))
    assert [code for code, _ in results] == [0] * 4, results
    assert sum("Nothing to do" in output for _, output in results) == 3
    async with open_database(empty_url) as database:
        assert await pending_migrations(database) == []
        assert len(await PiccoloModelPricing(database).get_all()) == 3
        assert len(await database.request_logs.raw("SELECT name FROM migration")) == 2


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


def test_a_database_is_described_without_its_password() -> None:
    shown = describe("postgresql://me:s3cret@db.example:5433/ledger?sslmode=require")
    assert shown == "PostgreSQL db.example:5433/ledger"


async def test_sqlite_uses_write_ahead_logging(sqlite_url: str) -> None:
    async with open_database(sqlite_url):
        pass
    connection: Any = sqlite3.connect(sqlite_path(sqlite_url))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with pytest.raises((OSError, asyncpg.PostgresError)):
        async with open_database("postgresql://nobody@127.0.0.1:1/none"):
            pass
