"""What the bank reads of a budget while others book."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from proxy.domain.budgets import Period, Window
from proxy.domain.errors import BudgetExceeded
from proxy.infrastructure.persistence.database import Database
from tests.budgets.conftest import Start, a_budget, put

_WAITS = "SELECT count(*) FROM pg_locks WHERE relation = 'budget_leases'::regclass AND NOT granted"
_SPEND = """INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
    SELECT budget_id, subject_id, '1970-01-01Z', granted - booked FROM budget_leases WHERE holder = 'booking'"""
_BOOK = "UPDATE budget_leases SET booked = granted WHERE holder = 'booking'"


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """Only there can somebody book meanwhile."""
    return postgres_url


async def test_what_is_booked_while_a_budget_is_read_does_not_look_free(
    database: Database, database_url: str, start: Start
) -> None:
    booking, leasing = start("booking"), start("leasing")
    budget = await put(database, a_budget("1", window=Window(Period.TOTAL)))
    await booking.begin("0.6", budget)
    await booking.book.finish()
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE budget_leases IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(leasing.begin("0.41", budget))
            async with asyncio.timeout(10):
                while not await connection.fetchval(_WAITS):
                    await asyncio.sleep(0.01)
            await connection.execute(_SPEND)
            await connection.execute(_BOOK)
    finally:
        await connection.close()
    with pytest.raises(BudgetExceeded, match=r"\$0.6 spent, \$0 reserved"):
        await asking
