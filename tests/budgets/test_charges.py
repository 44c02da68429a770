"""Rows and their charges are booked together, once, on both engines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import msgspec
import pytest

from proxy.application.allowances import AppliedBudget
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.budgets import MOST_PICODOLLARS, Charge, Period, Window, picodollars
from proxy.infrastructure.budgets.reports import SqlBudgetReports
from proxy.infrastructure.ledger.records import (
    SpooledIntent,
    intent_payload,
    interrupted,
    outcome_payload,
    read,
)
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.charges import MOST_BIG_INT, sums_of
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.rows import LedgerRow, ledger_row
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import Start, a_budget, charged_row, leases, put, spent
from tests.ledger.conftest import intent_of, row

BUCKET = datetime(2026, 11, 1, tzinfo=UTC)


def charged(budget_id: object, picodollars: int, subject_id: str = "") -> LedgerRow:
    return ledger_row(charged_row([Charge(budget_id, subject_id, BUCKET, picodollars)]))  # type: ignore[arg-type]


async def lease(database: Database, budget_id: object, holder: str, granted: int) -> None:
    async with session(database) as to:
        await to.execute(
            "INSERT INTO budget_leases (budget_id, subject_id, holder, granted, renewed_at)"
            " VALUES ($1, '', $2, $3, $4)",
            str(budget_id),
            holder,
            granted,
            datetime.now(UTC),
        )


async def test_a_charge_goes_from_the_lease_to_what_was_spent(database: Database) -> None:
    budget, other = await put(database, a_budget()), await put(database, a_budget())
    for one in (budget, other):
        await lease(database, one.id, "me", 100)
        await lease(database, one.id, "you", 50)
    both = ledger_row(charged_row([Charge(budget.id, "", BUCKET, 7), Charge(other.id, "", BUCKET, 7)]))
    async with row_writer(database) as writer:
        await writer.write([charged(budget.id, 10), both, charged(budget.id, 1)], "me")
        await writer.write([charged(budget.id, 2)], "you")
    assert (await spent(database, budget), await spent(database, other)) == (20, 7)
    assert await leases(database, budget) == {"me": 82, "you": 48}
    assert await leases(database, other) == {"me": 93, "you": 50}


async def test_a_row_that_is_written_again_is_charged_once(database: Database) -> None:
    budget = await put(database, a_budget())
    await lease(database, budget.id, "me", 100)
    first, second, third = (charged(budget.id, 10) for _ in range(3))
    async with row_writer(database) as writer:
        assert await writer.write([first, second], "me") == 2
        assert await writer.write([second, third], "me") == 1
        assert await writer.write([first, second, third], "me", again=True) == 0
    assert await spent(database, budget) == 30
    assert await leases(database, budget) == {"me": 70}


async def test_subjects_and_buckets_are_kept_apart(database: Database) -> None:
    budget = await put(database, a_budget())
    later = ledger_row(charged_row([Charge(budget.id, "alice", BUCKET + timedelta(days=30), 5)]))
    async with row_writer(database) as writer:
        await writer.write([charged(budget.id, 1, "alice"), charged(budget.id, 2, "bob"), later], "me")
    async with session(database) as to:
        rows = await to.fetch("SELECT subject_id, picodollars FROM budget_spend ORDER BY picodollars")
    assert [(subject, int(amount)) for subject, amount in rows] == [("alice", 1), ("bob", 2), ("alice", 5)]


async def test_what_a_holder_leased_is_released_alone(database: Database) -> None:
    budget = await put(database, a_budget())
    for holder in ("me", "you"):
        await lease(database, budget.id, holder, 100)
    async with row_writer(database) as writer:
        await writer.release("me")
        await writer.release("nobody")
    assert await leases(database, budget) == {"you": 100}


async def test_rows_without_charges_cost_no_more_statements(database: Database) -> None:
    async with row_writer(database) as writer:
        await writer.write([ledger_row(row())], "me")
    async with session(database) as to:
        assert await to.fetch("SELECT * FROM budget_spend") == []


def test_the_spool_keeps_charges_and_holds() -> None:
    charges = [Charge(uuid4(), "alice", BUCKET, 10**18), Charge(uuid4(), "", BUCKET, 0)]
    outcome = read(outcome_payload(ledger_row(replace(row(), charges=charges))))
    assert isinstance(outcome, LedgerRow)
    assert [(each.budget_id, each.subject_id, each.bucket, each.picodollars) for each in outcome.charges] == [
        (each.budget_id, each.subject_id, each.bucket, each.picodollars) for each in charges
    ]
    intent = read(intent_payload(intent_of(row())._replace(holds=charges)))
    assert isinstance(intent, SpooledIntent)
    assert interrupted(intent).charges == outcome.charges


@pytest.mark.parametrize("again", [False, True])
async def test_sums_stay_at_the_most_that_a_column_holds(database: Database, again: bool) -> None:
    """Spools of earlier versions have such charges. Whatever comes afterwards is booked like any other."""
    budget = await put(database, a_budget())
    await lease(database, budget.id, "me", 100)
    absurd = msgspec.structs.replace(charged(budget.id, 0), charges=(Charge(budget.id, "", BUCKET, MOST_BIG_INT),))
    rows = [absurd, charged(budget.id, 7), charged(budget.id, 8), charged(budget.id, 9)]
    async with row_writer(database) as writer:
        await writer.write(rows[:2], "me", again=again)
        await writer.write(rows[2:3], "me", again=again)
        await writer.write(rows, "me", again=again)
    async with session(database) as to:
        assert await to.fetch("SELECT COUNT(*) FROM request_logs") == [(4,)]
        ((picodollars,),) = await to.fetch("SELECT picodollars FROM budget_spend")
    assert picodollars == MOST_BIG_INT
    assert isinstance(picodollars, int)
    assert await leases(database, budget) == {"me": 100 - MOST_BIG_INT}


async def test_sums_of_several_parts_of_time_are_exact(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget(window=Window(Period.ROLLING, 60))), start("p")
    now = datetime.now(UTC)
    buckets = [budget.window.bucket(now + timedelta(seconds=ahead)) for ahead in (0, 1, 2)]
    amounts = [MOST_BIG_INT, MOST_BIG_INT, 5]
    rows = [
        msgspec.structs.replace(charged(budget.id, 0), charges=(Charge(budget.id, "", bucket, amount),))
        for bucket, amount in zip(buckets, amounts, strict=True)
    ]
    await process.writer.write(rows, process.holder)
    standing = await process.book.bank.look(process.book.accounts_of([AppliedBudget(budget, GATEWAY)])[0])
    assert standing is not None
    assert standing.spent == sum(amounts)
    report = await SqlBudgetReports(database).report(budget)
    assert [each["spent_usd"] for each in report["subjects"]] == ["18446744.073709551619"]


def test_nothing_is_charged_more_than_all_of_a_budget() -> None:
    (charge,) = ledger_row(charged_row([Charge(uuid4(), "", BUCKET, 2**64)])).charges
    assert charge.picodollars == MOST_PICODOLLARS
    for usd in ("9000000", "9000000.000000000001", "9300000", "1e999999"):
        assert picodollars(Decimal(usd)) == MOST_PICODOLLARS
    assert picodollars(Decimal("8999999.9999999999991")) == MOST_PICODOLLARS
    assert picodollars(Decimal("8999999.999999999999")) == MOST_PICODOLLARS - 1


@pytest.mark.parametrize("subject", ["x" * 65, "Grüße", "line\nbreak", "\ud800"])
def test_a_subject_that_is_long_or_odd_is_known_by_its_hash(subject: str) -> None:
    (charge,) = ledger_row(charged_row([Charge(uuid4(), subject, BUCKET, 1)])).charges
    assert len(charge.subject_id) == 64
    assert charge.subject_id.isalnum()


def test_rows_are_summed_by_budget_subject_and_part_of_time() -> None:
    one, other = uuid4(), uuid4()
    later = BUCKET + timedelta(days=30)
    rows = [
        ledger_row(charged_row([Charge(one, "", BUCKET, 1), Charge(other, "a", BUCKET, 10)])),
        ledger_row(charged_row([Charge(one, "", later, 100), Charge(other, "b", BUCKET, 20)])),
        ledger_row(charged_row([Charge(one, "", BUCKET, 2), Charge(other, "a", BUCKET, 30)])),  # booked late
        ledger_row(charged_row([Charge(one, "", later, 200)])),
    ]
    sums = set(zip(*sums_of(rows), strict=True))
    assert sums == {(one, "", BUCKET, 3), (one, "", later, 300), (other, "a", BUCKET, 40), (other, "b", BUCKET, 20)}
    assert sums_of([]) == []
