"""Leasing: never too much over all processes, and nothing kept that nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.application.allowances import AppliedBudget
from proxy.domain.access.scopes import EACH, GATEWAY, Scope, Subject
from proxy.domain.budgets import Charge, Period, Window
from proxy.domain.errors import BudgetExceeded
from proxy.infrastructure.budgets.purse import Hold
from proxy.infrastructure.budgets.upkeep import Upkeep
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import USD, Process, Start, a_budget, charged_row, leases, put, spent


async def admitted(process: Process, *budgets: object, amount: str = "0.01") -> Hold | None:
    """What was set aside for a request, None if it was refused."""
    with suppress(BudgetExceeded):
        return await process.begin(amount, *budgets)  # type: ignore[arg-type]
    return None


async def answer_recalls(processes: Sequence[Process], ending: asyncio.Event) -> None:
    while not ending.is_set():
        for process in processes:
            await process.upkeep.answer_recalls()
        await asyncio.sleep(0.02)


async def test_as_many_requests_as_the_budget_has_money_for(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("p")
    results = await asyncio.gather(*(admitted(process, budget) for _ in range(200)))
    assert sum(result is not None for result in results) == 100
    assert sum((await leases(database, budget)).values()) == USD


@pytest.mark.parametrize("count", [2, 4])
async def test_also_over_several_processes(database: Database, start: Start, count: int) -> None:
    """Those that have leased more than they need give it back when another one asks.

    Who leases ahead while the last of a crowd is refused has that money until it is recalled: a moment later others
    have it, as the refusal says.
    """
    budget = await put(database, a_budget("1"))
    processes = [start(f"p{number}") for number in range(count)]
    ending = asyncio.Event()
    answering = asyncio.create_task(answer_recalls(processes, ending))
    for process in processes:  # each has a slice before the crowd comes
        assert await admitted(process, budget)
    results = await asyncio.gather(*(admitted(processes[number % count], budget) for number in range(200)))
    async with asyncio.timeout(5):
        while sum(result is not None for result in results) < 100 - count:
            results += await asyncio.gather(*(admitted(process, budget) for process in processes))
    results += await asyncio.gather(*(admitted(process, budget) for process in processes))  # nobody gets any more
    ending.set()
    await answering
    assert sum(result is not None for result in results) == 100 - count
    assert sum((await leases(database, budget)).values()) == USD


async def test_what_was_not_needed_can_be_had_again(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("p")
    held = [await process.begin("0.25", budget) for _ in range(4)]
    assert await admitted(process, budget) is None
    for each in held:
        process.end(each, "0.05")
    assert len([await process.begin("0.2", budget) for _ in range(4)]) == 4
    assert await admitted(process, budget) is None
    await process.drain()
    assert await spent(database, budget) == USD // 5


async def test_what_cost_more_than_was_set_aside_is_not_had_by_others(database: Database, start: Start) -> None:
    budget, one, other = await put(database, a_budget("1")), start("one"), start("other")
    one.end(await one.begin("0.1", budget), "0.9")
    await one.drain()
    assert await admitted(other, budget, amount="0.11") is None
    assert await admitted(other, budget, amount="0.1") is not None


async def test_what_cost_more_than_was_set_aside_leaves_the_rest(database: Database, start: Start) -> None:
    budget, process, other = await put(database, a_budget("1")), start("p"), start("other")
    process.end(await process.begin("0.01", budget), "0.8")
    await process.drain()
    await process.begin("0.05", budget)
    await other.begin("0.05", budget)
    assert await admitted(process, budget, amount="0.11") is None
    process.end(await process.begin("0.1", budget), "0.1")
    await process.drain()
    assert sum((await leases(database, budget)).values()) == USD // 10


async def test_a_soft_budget_that_becomes_hard_has_what_is_left(database: Database, start: Start) -> None:
    soft, process, other = await put(database, a_budget("1", is_hard=False)), start("p"), start("other")
    for cost in ("0.5", "0.1"):
        process.end(await process.begin("0.1", soft), cost)
    await process.drain()
    hard = replace(soft, is_hard=True)
    await process.begin("0.3", hard)
    assert await leases(database, soft) == {"p": 3 * USD // 10}
    assert await admitted(other, hard, amount="0.11") is None
    await other.begin("0.1", hard)


async def test_the_refusal_names_the_budget_and_what_is_left(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("0.5", name="tiny")), start("p")
    process.end(await process.begin("0.4", budget), "0.4")
    await process.drain()
    with pytest.raises(BudgetExceeded) as refused:
        await process.begin("0.2", budget)
    message = str(refused.value)
    assert "Budget 'tiny' of $0.5" in message
    assert "$0.4 spent" in message
    assert "resets at" in message
    assert refused.value.headers == {"x-should-retry": "false"}
    assert refused.value.retry_after_seconds is not None
    assert refused.value.retry_after_seconds > 1


async def test_what_is_only_reserved_is_worth_a_retry(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("0.5")), start("p")
    await process.begin("0.4", budget)
    with pytest.raises(BudgetExceeded, match=r"\$0 spent, \$0\.[45] reserved") as refused:
        await process.begin("0.2", budget)
    assert (refused.value.retry_after_seconds, refused.value.headers) == (1.0, {})


async def test_all_budgets_of_a_request_or_none(database: Database, start: Start) -> None:
    wide, narrow = await put(database, a_budget("1")), await put(database, a_budget("0.02"))
    process = start("p")
    results = [await admitted(process, wide, narrow) for _ in range(5)]
    assert [result is not None for result in results] == [True, True, False, False, False]
    assert sum(account.held for account in process.book.accounts.values()) == 4 * USD // 100


async def test_idle_money_is_given_back(database: Database, start: Start) -> None:
    now = [1000.0]
    budget, process = await put(database, a_budget("1")), start("p", now)
    held = await process.begin("0.01", budget)
    await process.upkeep.settle_idle()
    assert (await leases(database, budget))["p"] > USD // 100
    now[0] += 3
    await process.upkeep.settle_idle()
    assert await leases(database, budget) == {"p": USD // 100}
    process.end(held, "0.01")
    await process.drain()
    now[0] += 61
    for _ in range(2):
        await process.upkeep.settle_idle()
    assert (await leases(database, budget), process.book.accounts) == ({}, {})
    await process.begin("0.99", budget)


async def test_idle_money_is_kept_while_the_database_is_away(database: Database, start: Start) -> None:
    now = [1000.0]
    budget, process = await put(database, a_budget("1")), start("p", now)
    process.end(await process.begin("0.01", budget), "0.01")
    async with session(database) as to:
        await to.execute("ALTER TABLE budget_leases RENAME TO hidden")
    now[0] += 3
    await process.upkeep.settle_idle()
    process.end(await process.begin("0.01", budget), "0.01")
    async with session(database) as to:
        await to.execute("ALTER TABLE hidden RENAME TO budget_leases")
    await process.drain()
    now[0] += 3
    await process.upkeep.settle_idle()
    assert await leases(database, budget) == {"p": 0}


async def test_each_end_user_has_an_account(database: Database, start: Start) -> None:
    budget = await put(database, a_budget("0.01", Subject(Scope.END_USER, EACH)))
    process = start("p")
    for name in ("alice", "bob", "Grüße" * 60):
        subject = Subject(Scope.END_USER, name)
        await process.begin("0.01", budget, subject=subject)
        with pytest.raises(BudgetExceeded):
            await process.begin("0.01", budget, subject=subject)


async def test_a_soft_budget_refuses_nothing_and_warns(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("0.01", is_hard=False, warn_percent=50)), start("p")
    applied = [AppliedBudget(budget, GATEWAY)]
    held = await process.begin("1", budget)
    assert process.book.purse(applied).warning() is None
    process.end(held, "0.005")
    assert process.book.purse(applied).warning() == "trial; spent=0.005; amount=0.01"
    await process.drain()
    await process.upkeep.look()
    assert process.book.purse(applied).warning() == "trial; spent=0.005; amount=0.01"
    assert await leases(database, budget) == {}


async def test_another_amount_counts_at_once(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("p")
    await process.begin("0.1", budget)
    lower = await put(database, replace(budget, amount_usd=budget.amount_usd / 10))
    assert await admitted(process, lower) is None
    higher = await put(database, replace(budget, amount_usd=budget.amount_usd * 2))
    await process.begin("1.9", higher)


async def test_a_budget_that_is_gone_holds_nobody_up(database: Database, start: Start) -> None:
    process = start("p")
    held = await process.begin("5", a_budget("1"))
    process.end(held, "5")
    await process.drain()


async def test_a_new_period_begins_with_nothing_spent(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1", window=Window(Period.MONTH))), start("p")
    before = datetime(2020, 1, 31, tzinfo=UTC)
    charges = [Charge(budget.id, "", budget.window.bucket(before), USD)]
    process.unbooked.append(charged_row(charges))
    await process.drain()
    await process.begin("1", budget)


async def test_a_dead_holders_lease_is_another_ones_after_a_while(database: Database, start: Start) -> None:
    now = [1000.0]
    budget, dead, alive = await put(database, a_budget("1")), start("dead"), start("alive", now)
    await dead.begin("1", budget)
    assert await admitted(alive, budget) is None
    async with session(database) as to:
        await to.execute("UPDATE budget_leases SET renewed_at = $1", datetime(2020, 1, 1, tzinfo=UTC))
    alive.book.refusals.clear()
    assert await admitted(alive, budget) is not None


async def test_a_lease_that_may_be_lost_is_not_used(database: Database, start: Start) -> None:
    now = [1000.0]
    budget, sleeper, other = await put(database, a_budget("1")), start("sleeper", now), start("other")
    await sleeper.begin("0.01", budget)
    now[0] += 3600  # asleep: others have its lease by now
    async with session(database) as to:
        await to.execute("DELETE FROM budget_leases")
    await other.begin("0.9", budget)
    assert await admitted(sleeper, budget, amount="0.11") is None


async def test_what_a_paused_machine_had_leased_is_not_used(database: Database, start: Start) -> None:
    """Its clock has stood still, and that by which others go has not."""
    budget, paused, other = await put(database, a_budget("1")), start("paused", [1000.0]), start("other")
    wall = [datetime.now(UTC).timestamp()]
    upkeep = Upkeep(paused.book, wall_clock=lambda: wall[0])
    await paused.begin("0.01", budget)
    await upkeep.mind_the_clock()
    assert await admitted(paused, budget, amount="0.01") is not None
    async with session(database) as to:
        await to.execute("UPDATE budget_leases SET renewed_at = $1", datetime.now(UTC) - timedelta(minutes=11))
    await other.begin("0.9", budget)
    wall[0] += 11 * 60
    await upkeep.renew()  # the process lives again, but what it had has been given away
    await upkeep.mind_the_clock()
    assert await admitted(paused, budget, amount="0.11") is None


async def test_a_clock_that_is_set_by_a_little_costs_no_lease(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("one", [1000.0])
    wall = [datetime.now(UTC).timestamp()]
    upkeep = Upkeep(process.book, wall_clock=lambda: wall[0])
    await process.begin("0.01", budget)
    for step in (0.4, 60.0, -3600.0, 120.0):
        wall[0] += step
        await upkeep.mind_the_clock()
        (account,) = process.book.accounts.values()
        assert account.may_set_aside(USD // 100, process.book.clock())


async def test_what_is_booked_and_not_yet_reported_is_counted_once(database: Database, start: Start) -> None:
    """The writer's statement is over a moment before its rows are told to be booked."""
    process = start("booking")
    budget = await put(database, a_budget("1"))
    process.end(await process.begin("0.2", budget), "0.2")
    await process.writer.write([ledger_row(row) for row in process.unbooked], process.holder)
    (account,) = process.book.accounts.values()
    standing = await process.book.bank.look(account)
    assert standing is not None
    account.learn(standing)
    assert account.spent() == standing.spent == USD // 5
    process.book.booked([ledger_row(row) for row in process.unbooked])
    assert account.spent() == USD // 5
