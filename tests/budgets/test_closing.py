"""Accounts that nobody used for long are closed, whatever comes in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy.domain.budgets import Budget
from proxy.infrastructure.budgets.account import Account
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import USD, Process, Start, a_budget, leases, put


async def used(process: Process, budget: Budget, cost_usd: str = "0.4") -> Account:
    """The account of a budget after one request, which is booked."""
    process.end(await process.begin(cost_usd, budget), cost_usd)
    await process.drain()
    (account,) = process.book.accounts.values()
    return account


async def closing(process: Process, account: Account, now: list[float]) -> asyncio.Task[None]:
    """A minute later: the account's end has begun, and waits for the database."""
    await process.book.finish()
    now[0] += 3
    await process.upkeep.settle_idle()
    now[0] += 61
    lock = process.book.leasing(account.key)
    ending = asyncio.create_task(process.upkeep.settle_idle())
    async with asyncio.timeout(10):
        while not lock.locked():
            await asyncio.sleep(0)
    return ending


async def test_who_comes_while_an_account_is_closed_leases_for_the_next_one(database: Database, start: Start) -> None:
    now = [1000.0]
    budget, process = await put(database, a_budget("1")), start("p", now)
    over = await used(process, budget)
    ending = await closing(process, over, now)
    await process.begin("0.1", budget)
    await ending
    (account,) = process.book.accounts.values()
    assert account is not over
    await process.begin("0.1", budget)
    await process.book.finish()
    assert await leases(database, budget) == {"p": account.granted}


async def test_what_is_set_aside_while_an_account_is_closed_keeps_it(database: Database, start: Start) -> None:
    """A request that can cost nothing needs no lease; if it costs something all the same, that counts here."""
    now = [1000.0]
    budget, process = await put(database, a_budget("1")), start("p", now)
    account = await used(process, budget)
    ending = await closing(process, account, now)
    held = await process.begin("0", budget)
    await ending
    process.end(held, "0.1")
    assert list(process.book.accounts.values()) == [account]
    assert account.consumed == USD // 2
    assert (await leases(database, budget), account.has_lease) == ({}, False)


def gives_back(process: Process, account: Account) -> asyncio.Task[None]:
    return asyncio.create_task(process.upkeep.answer_recalls())


def tells(process: Process, account: Account) -> asyncio.Task[None]:
    account.told_held = -1
    return asyncio.create_task(process.upkeep.settle_idle())


def leases_ahead(process: Process, account: Account) -> asyncio.Task[None]:
    process.book.refusals.clear()
    process.book.lease_ahead(account, USD // 2)
    return asyncio.create_task(process.book.finish())


@pytest.mark.parametrize("telling", [gives_back, tells, leases_ahead])
async def test_nothing_is_told_of_an_account_that_is_over(
    database: Database, start: Start, telling: Callable[[Process, Account], asyncio.Task[None]]
) -> None:
    """Whoever has waited for the account's lock while it was closed: the next one has the lease to itself."""
    budget, process, other = await put(database, a_budget("1")), start("p"), start("other")
    account = await used(process, budget, "0.1")
    lock = process.book.leasing(account.key)
    await process.book.finish()
    await other.book.bank.recall(account.key)
    waiting = telling(process, account)
    async with lock:
        async with asyncio.timeout(10):
            while "waiters:1" not in repr(lock):
                await asyncio.sleep(0.01)
        await process.book.bank.close(account.key)
        process.book.forget(account)
    await waiting
    assert await leases(database, budget) == {}


@pytest.mark.parametrize("ahead", [True, False])
async def test_of_a_budget_that_was_removed_while_in_use_nothing_stays(
    database: Database, start: Start, ahead: bool
) -> None:
    """Keys that live for a day may have budgets that do: a process must not keep something of each."""
    now = [1000.0]
    budget, process = await put(database, a_budget("1")), start("p", now)
    account = await used(process, budget, "0.1")
    await process.book.finish()
    assert account.free > 0
    async with session(database) as to:
        await to.execute("DELETE FROM budgets WHERE id = $1", str(budget.id))
    if ahead:
        process.book.lease_ahead(account, account.free + 1)
        await process.book.finish()
    else:
        process.end(await process.begin("0.9", budget), "0.9")
        await process.drain()
    assert account.is_removed
    now[0] += 61
    for _ in range(2):  # what is left is given back, and then closed
        await process.upkeep.settle_idle()
    assert process.book.accounts == {}
    assert await leases(database, budget) == {}
