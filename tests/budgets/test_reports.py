"""How a budget for each of many stands."""

from __future__ import annotations

from datetime import UTC, datetime

from proxy.domain.access.scopes import Scope, Subject
from proxy.infrastructure.budgets.reports import SqlBudgetReports
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import USD, a_budget, put

_SPEND = "INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars) VALUES ($1, $2, $3, $4)"
_LEASE = """INSERT INTO budget_leases (budget_id, subject_id, holder, granted, renewed_at)
    VALUES ($1, $2, 'p', $3, $4)"""
USERS = 1010


async def test_of_more_than_a_thousand_each_that_is_told_is_told_right(database: Database) -> None:
    """Users who are not among those that spent the most, and are just now asking, had spent nothing by the report."""
    budget = await put(database, a_budget("9000", Subject(Scope.END_USER, "*")))
    now = datetime.now(UTC)
    bucket = budget.window.bucket(now)
    async with session(database) as to:
        for number in range(1, USERS + 1):
            await to.execute(_SPEND, str(budget.id), f"user {number}", bucket, number * USD)
        for number in (1, USERS):
            await to.execute(_LEASE, str(budget.id), f"user {number}", USD, now)
    report = await SqlBudgetReports(database).report(budget)
    told = {each["subject"]: each for each in report["subjects"]}
    assert len(told) == 1000
    assert all(each["spent_usd"] == name.removeprefix("user ") for name, each in told.items())
    assert (told[f"user {USERS}"]["leased_usd"], told[f"user {USERS}"]["remaining_usd"]) == ("1", "7989")
