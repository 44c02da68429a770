"""How a budget stands: BudgetReports, from the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.domain.budgets import Budget, usd
from proxy.domain.usage_report import plain_usd
from proxy.infrastructure.budgets.account import LEASE_SECONDS
from proxy.infrastructure.persistence.charges import HIGH_SUM, LOW_SUM, whole_sum
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.sessions import session_within

_TIMEOUT_SECONDS = 10.0
_MOST_SUBJECTS = 1000
_SPENT = f"""SELECT subject_id, {HIGH_SUM}, {LOW_SUM} FROM budget_spend
    WHERE budget_id = $1 AND bucket >= $2
    GROUP BY subject_id ORDER BY SUM(CAST(picodollars AS DOUBLE PRECISION)) DESC LIMIT {_MOST_SUBJECTS}"""  # noqa: S608
_LEASED = """SELECT subject_id, holder, granted - booked, held FROM budget_leases
    WHERE budget_id = $1 AND granted > booked AND renewed_at > $2 ORDER BY holder"""


class SqlBudgetReports:
    """`leased` is what processes have taken to set aside from; `reserved` the part of it that running requests have."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, budget: Budget) -> Mapping[str, Any]:
        now = datetime.now(UTC)
        try:
            async with session_within(self._database, _TIMEOUT_SECONDS) as to, to.snapshot(writing=False):
                spent = await to.fetch(_SPENT, str(budget.id), budget.window.counts_since(now))
                alive_since = now - timedelta(seconds=LEASE_SECONDS)
                leased = await to.fetch(_LEASED, str(budget.id), alive_since)
        except DATABASE_ERRORS as problem:
            raise not_serving(problem) from problem
        resets_at = budget.window.resets_at(now)
        return {
            "resets_at": None if resets_at is None else resets_at.isoformat(),
            "subjects": _by_subject(budget, spent, leased),
        }


def _by_subject(
    budget: Budget, spent: Sequence[Sequence[Any]], leased: Sequence[Sequence[Any]]
) -> list[dict[str, Any]]:
    """One entry, but for a budget for each of a scope: there one for each of those that have spent the most of it."""
    sums = {subject: whole_sum(high, low) for subject, high, low in spent}
    leases: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    totals: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    are_all = len(spent) < _MOST_SUBJECTS
    for subject, holder, amount, held in leased:
        if subject not in sums and not are_all:
            continue  # what it has spent was not read
        leases[subject].append({"holder": holder, "leased_usd": _usd(amount), "reserved_usd": _usd(max(0, held))})
        before = totals[subject]
        totals[subject] = before[0] + int(amount), before[1] + max(0, int(held))
    names = dict.fromkeys([*sums, *leases]) or {"": None}
    return [
        {
            "subject": name or budget.subject.id,
            "spent_usd": _usd(sums.get(name, 0)),
            "leased_usd": _usd(totals[name][0]),
            "reserved_usd": _usd(totals[name][1]),
            "remaining_usd": _usd(max(0, budget.amount_picodollars - sums.get(name, 0) - totals[name][0])),
            "warning": sums.get(name, 0) * 100 >= budget.amount_picodollars * budget.warn_percent,
            "leases": leases[name],
        }
        for name in names
    ]


def _usd(picodollars: int) -> str:
    return plain_usd(usd(int(picodollars)))
