"""What the bank reads of a budget while others book, and leases of which it never hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from proxy.domain.budgets import Period, Window
from proxy.domain.errors import BudgetExceeded, NotServing
from proxy.infrastructure.persistence.database import Database
from tests.budgets.conftest import USD, Start, a_budget, leases, put

_WAITS = "SELECT count(*) FROM pg_locks WHERE relation = 'budget_leases'::regclass AND NOT granted"
_SPEND = """INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
    SELECT budget_id, subject_id, '1970-01-01Z', granted - booked FROM budget_leases WHERE holder = 'booking'"""
_BOOK = "UPDATE budget_leases SET booked = granted WHERE holder = 'booking'"

# Whose answer is lost although it goes through, also when the server is asked to cancel it.
_SLOW_COMMIT = """CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(2.5); RETURN NULL; EXCEPTION WHEN query_canceled THEN RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER lingering AFTER INSERT ON budget_leases DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION linger()"""
_SLOW_NO_MORE = "DROP TRIGGER lingering ON budget_leases"
_COMMITS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND wait_event = 'PgSleep'"
_IS_LEASED = "SELECT count(*) FROM budget_leases WHERE holder = 'p'"
_LOCK = "SELECT * FROM budgets FOR UPDATE"
_IS_ASKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """Only there can somebody book meanwhile."""
    return postgres_url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def until(connection: asyncpg.Connection, question: str) -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval(question):
            await asyncio.sleep(0.01)


async def test_what_is_booked_while_a_budget_is_read_does_not_look_free(
    database: Database, database_url: str, start: Start
) -> None:
    booking, leasing = start("booking"), start("leasing")
    budget = await put(database, a_budget("1", window=Window(Period.TOTAL)))
    await booking.begin("0.6", budget)
    await booking.book.finish()
    async with connected(database_url) as connection, connection.transaction():
        await connection.execute("LOCK TABLE budget_leases IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(leasing.begin("0.41", budget))
        await until(connection, _WAITS)
        await connection.execute(_SPEND)
        await connection.execute(_BOOK)
    with pytest.raises(BudgetExceeded, match=r"\$0.6 spent, \$0 reserved"):
        await asking


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_lease_of_which_no_answer_comes_is_given_back(
    database: Database, database_url: str, start: Start, hangs_up: bool
) -> None:
    """The client hangs up, or the time is over, while the transaction is committed."""
    process, other = start("p"), start("other")
    budget = await put(database, a_budget("1"))
    async with connected(database_url) as connection:
        await connection.execute(_SLOW_COMMIT)
        asking = asyncio.create_task(process.begin("0.01", budget))
        await until(connection, _COMMITS)
        if hangs_up:
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if hangs_up else NotServing):
            await asking
        await until(connection, _IS_LEASED)
        await connection.execute(_SLOW_NO_MORE)
    assert await leases(database, budget) == {"p": USD // 4}
    asking_other = asyncio.create_task(other.begin("1", budget))
    while not asking_other.done():
        await process.upkeep.answer_recalls()
        await asyncio.sleep(0.05)
    await asking_other
    assert await leases(database, budget) == {"p": 0, "other": USD}


async def test_also_when_nobody_asks_for_it(database: Database, database_url: str, start: Start) -> None:
    process = start("p")
    budget = await put(database, a_budget("1"))
    async with connected(database_url) as connection:
        await connection.execute(_SLOW_COMMIT)
        asking = asyncio.create_task(process.begin("0.01", budget))
        await until(connection, _COMMITS)
        asking.cancel()
        await asyncio.wait([asking])
        await until(connection, _IS_LEASED)
    await process.upkeep.settle_idle()
    assert await leases(database, budget) == {"p": 0}


async def test_who_hangs_up_before_there_is_more_leaves_what_was_there(
    database: Database, database_url: str, start: Start
) -> None:
    process = start("p")
    budget = await put(database, a_budget("1"))
    process.end(await process.begin("0.1", budget), "0")
    await process.book.finish()
    (account,) = process.book.accounts.values()
    free = account.free
    async with connected(database_url) as connection, connection.transaction():
        await connection.execute(_LOCK)
        asking = asyncio.create_task(process.begin("0.9", budget))
        await until(connection, _IS_ASKED)
        asking.cancel()
        await asyncio.wait([asking])
    assert account.free == free > 0
