"""Leases and what was spent, in the database.

What is free of a budget is its amount, less what was spent in its window, less what is leased. A lease is what a
process was granted less what it has booked; the statement that books a row moves its charge from the lease to what
was spent (proxy/infrastructure/persistence/charges.py), so the two always add up. A process states what it was granted
as a whole, not as a change: a statement whose answer was lost is simply made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from proxy.domain.budgets import PICODOLLARS_PER_USD, Period, Window
from proxy.infrastructure.budgets.account import LEASE_SECONDS, Account, AccountKey, Standing
from proxy.infrastructure.persistence.charges import HIGH_SUM, LOW_SUM, MOST_BIG_INT, whole_sum
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import Session, session_within

_SHARES = 4  # a process is granted at most this part of what is free for each that holds a lease
_KEPT_DAYS = 400
_TIMEOUT_SECONDS: Final = 2.0

_OF_ACCOUNT = "budget_id = $1 AND subject_id = $2"
_BUDGET = "SELECT amount_usd, period, window_seconds FROM budgets WHERE id = $1"
# One statement, so one snapshot: a row that is booked between two would be missing in what was spent, and in the lease.
_ELSEWHERE = "holder <> $4 AND granted > booked AND renewed_at > $5"
_SPENT = f"FROM budget_spend WHERE {_OF_ACCOUNT} AND bucket >= $3"
_STANDING = f"""SELECT
        (SELECT {HIGH_SUM} {_SPENT}),
        (SELECT {LOW_SUM} {_SPENT}),
        CAST(COALESCE(SUM(granted - booked) FILTER (WHERE {_ELSEWHERE}), 0) AS BIGINT),
        COUNT(*) FILTER (WHERE {_ELSEWHERE}),
        MAX(booked) FILTER (WHERE holder = $4)
    FROM budget_leases WHERE {_OF_ACCOUNT}"""  # noqa: S608
_GRANT = """INSERT INTO budget_leases (budget_id, subject_id, holder, granted, booked, held, recalled, renewed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (budget_id, subject_id, holder)
    DO UPDATE SET granted = excluded.granted, held = excluded.held, recalled = excluded.recalled,
        renewed_at = excluded.renewed_at"""
_CLOSE = f"DELETE FROM budget_leases WHERE {_OF_ACCOUNT} AND holder = $3"  # noqa: S608
_RECALL = f"""UPDATE budget_leases SET recalled = $3
    WHERE {_OF_ACCOUNT} AND holder <> $4 AND granted > booked AND recalled <> $3"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to a wish for more. `granted` is the account's whole sum; `is_removed`: there is no such budget."""

    granted: int
    standing: Standing
    is_removed: bool = False


_NO_BUDGET = Standing(0, 0, 0, 0, 0)


class Bank:
    """All statements, for one process. Each raises DATABASE_ERRORS, or TimeoutError when it takes too long."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self.holder = holder

    async def lease(self, account: Account, needed: int) -> Lease:
        """So much more than the account has, or better a slice; nothing if there is not that much."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to, to.transaction():
            standing, own = await self._standing(to, account, is_locked=True)
            if standing is None:
                return Lease(account.granted, _NO_BUDGET, is_removed=True)
            free = standing.amount - standing.spent - standing.leased_elsewhere - own
            free = min(free, MOST_BIG_INT - account.granted)  # what the column holds: the next account begins anew
            if free < needed:
                return Lease(account.granted, standing)
            granted = account.granted + min(free, max(needed, free // (_SHARES * (standing.holders_elsewhere + 1))))
            await self._grant(to, account, granted)
            return Lease(granted, standing)

    async def look(self, account: Account) -> Standing | None:
        """How the budget stands; None when there is no such budget."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            return (await self._standing(to, account, is_locked=False))[0]

    async def tell(self, account: Account) -> None:
        """What the account has been granted, less what it has given back, and what it has set aside."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await self._grant(to, account, account.granted)

    async def recall(self, key: AccountKey) -> None:
        """Asks the others for what they do not need."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute(_RECALL, str(key.budget_id), key.subject_id, True, self.holder)

    async def recalled(self) -> set[AccountKey]:
        """Of which of our leases others need something."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            rows = await to.fetch(
                "SELECT budget_id, subject_id FROM budget_leases WHERE holder = $1 AND recalled", self.holder
            )
        return {AccountKey(UUID(str(budget_id)), subject_id) for budget_id, subject_id in rows}

    async def renew(self) -> None:
        """Says that this process lives, and takes the leases away of those who have not said so for long."""
        now = datetime.now(UTC)
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute("UPDATE budget_leases SET renewed_at = $1 WHERE holder = $2", now, self.holder)
            await to.execute(
                "DELETE FROM budget_leases WHERE renewed_at < $1", now - timedelta(seconds=2 * LEASE_SECONDS)
            )

    async def close(self, key: AccountKey) -> None:
        """Ends a lease of which nothing is left."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute(_CLOSE, str(key.budget_id), key.subject_id, self.holder)

    async def forget_the_past(self) -> None:
        """Sums that count in no window any more, and those of budgets that are gone, but for totals."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute(
                """DELETE FROM budget_spend WHERE bucket < $1
                AND NOT EXISTS (SELECT 1 FROM budgets WHERE budgets.id = budget_id AND period IN ($2, $3))""",
                datetime.now(UTC) - timedelta(days=_KEPT_DAYS),
                Period.TOTAL.value,
                Period.ROLLING.value,
            )

    async def _standing(self, to: Session, account: Account, *, is_locked: bool) -> tuple[Standing | None, int]:
        """And what our own lease has outstanding in the database.

        That is less than nothing if requests have cost more than was granted: it is in what was spent, and again in
        what the account needs.
        """
        key, now = account.key, datetime.now(UTC)
        of_account = (str(key.budget_id), key.subject_id)
        lock = " FOR UPDATE" if is_locked and to.is_postgres else ""  # SQLite's transaction keeps the others out
        budget = await to.fetch(_BUDGET + lock, of_account[0])
        if not budget:
            return None, 0
        ((amount_usd, period, window_seconds),) = budget
        since = Window(Period(period), window_seconds).counts_since(now)
        alive_since = now - timedelta(seconds=LEASE_SECONDS)
        ((high, low, leased, holders, own),) = await to.fetch(_STANDING, *of_account, since, self.holder, alive_since)
        booked = account.booked if own is None else own
        amount = int(Decimal(amount_usd) * PICODOLLARS_PER_USD)
        return Standing(amount, whole_sum(high, low), leased, holders, booked), account.granted - booked

    async def _grant(self, to: Session, account: Account, granted: int) -> None:
        await to.execute(
            _GRANT,
            str(account.key.budget_id),
            account.key.subject_id,
            self.holder,
            granted,
            min(account.booked, MOST_BIG_INT),
            min(account.held, MOST_BIG_INT),
            False,
            datetime.now(UTC),
        )
