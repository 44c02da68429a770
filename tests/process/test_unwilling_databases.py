"""What PostgreSQL refuses at a start is told with what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import Databases
from tests.process.test_failed_starts import ended

Told = Callable[[str], Awaitable[str]]


@pytest.fixture(params=["migrate", "serve"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Told:
    """What the command says with that database before it ends."""
    return lambda url: asyncio.to_thread(ended, tmp_path, request.param, {"DATABASE_URL": url})


async def test_a_parameter_that_nobody_knows_is_the_urls(empty_postgres_url: str, told: Told) -> None:
    said = await told(f"{empty_postgres_url}&channel_binding=prefer")
    assert 'unrecognized configuration parameter "channel_binding". What follows the ? of DATABASE_URL' in said


async def test_who_may_only_read_is_told_of_the_primary(empty_postgres_url: str, told: Told) -> None:
    said = await told(f"{empty_postgres_url}&default_transaction_read_only=on")
    assert "in a read-only transaction. Of several hosts DATABASE_URL finds the primary" in said


async def test_a_role_without_rights_is_told_of_them(
    postgres_databases: Databases, empty_postgres_url: str, told: Told
) -> None:
    connection = await asyncpg.connect(postgres_databases.server)
    await connection.execute("CREATE ROLE guest LOGIN")
    said = await told(empty_postgres_url.replace("postgres:@", "guest:@"))
    await connection.execute("DROP ROLE guest")
    await connection.close()
    assert "permission denied for schema public. The role must own the tables" in said
