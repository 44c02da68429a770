"""Charging budgets in the transaction that books the rows.

Only a row that was really added is charged, so a row that is booked again, by whomever, is charged once. A charge goes
from what the row's process has leased (`budget_leases.booked`) to what was spent (`budget_spend`): their sum stays.

What would be more than 63 bits hold stays at that: it is more than any budget has, and a sum that PostgreSQL refuses
would take all later rows of the budget with it, while SQLite would go on with a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import aiosqlite

from proxy.domain.budgets import Charge
from proxy.infrastructure.persistence.rows import LedgerRow

RELEASE: Final = "DELETE FROM budget_leases WHERE holder = {}"
MOST_BIG_INT: Final = 2**63 - 1
# Sums of several buckets may be longer, and SQLite has no exact type for them: their halves are added by themselves.
HIGH_SUM: Final = "COALESCE(SUM(picodollars >> 32), 0)"
LOW_SUM: Final = "COALESCE(SUM(picodollars & 4294967295), 0)"
_ADD = "ON CONFLICT (budget_id, subject_id, bucket) DO UPDATE SET picodollars = "
_ADD_SQLITE = f"{_ADD} MIN(picodollars, {MOST_BIG_INT} - ?4) + ?4"
_ADD_POSTGRES = f"{_ADD} LEAST(budget_spend.picodollars, {MOST_BIG_INT} - excluded.picodollars) + excluded.picodollars"
_SUM_POSTGRES = f"LEAST(SUM(picodollars), {MOST_BIG_INT})::bigint AS picodollars"

_SPEND = f"INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars) VALUES (?, ?, ?, ?) {_ADD_SQLITE}"  # noqa: S608
_BOOK = f"""UPDATE budget_leases SET booked = MIN(booked, {MOST_BIG_INT} - ?1) + ?1
    WHERE budget_id = ?2 AND subject_id = ?3 AND holder = ?4"""  # noqa: S608
_BOOK_LEASES = f"""UPDATE budget_leases AS lease
        SET booked = LEAST(lease.booked, {MOST_BIG_INT} - of_lease.picodollars) + of_lease.picodollars
        FROM (
            SELECT budget_id, subject_id, {_SUM_POSTGRES}
            FROM charged GROUP BY budget_id, subject_id
        ) AS of_lease
        WHERE lease.budget_id = of_lease.budget_id AND lease.subject_id = of_lease.subject_id AND lease.holder ="""  # noqa: S608
POSTGRES_CHARGE: Final = f"""WITH charged AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[])
            AS charge (budget_id, subject_id, bucket, picodollars)
    ),
    spent AS (
        INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
        SELECT * FROM charged ORDER BY budget_id, subject_id, bucket
        {_ADD_POSTGRES}
    )
    {_BOOK_LEASES} $5"""  # noqa: S608
_BOOKED = "SELECT id FROM request_logs WHERE id IN ({})"


def postgres_counting(insert: str) -> str:
    """The statement that adds rows and says how many."""
    return f"WITH added AS ({insert} RETURNING id) SELECT count(*) FROM added"  # noqa: S608  # all names are ours


def postgres_charging(insert: str, columns: int) -> str:
    """The same, which charges those that it has added. Its last arguments: five arrays, the holder.

    Sums are added in one order by everybody, so that two processes never wait for each other.
    """
    arrays = ("uuid[]", "uuid[]", "text[]", "timestamptz[]", "bigint[]")
    places = ", ".join(f"${columns + place}::{kind}" for place, kind in enumerate(arrays, 1))
    return f"""WITH added AS ({insert} RETURNING id),
        charged AS (
            SELECT budget_id, subject_id, bucket, {_SUM_POSTGRES}
            FROM unnest({places}) AS charge (row_id, budget_id, subject_id, bucket, picodollars)
            JOIN added ON added.id = row_id GROUP BY budget_id, subject_id, bucket
        ),
        spent AS (
            INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
            SELECT * FROM charged ORDER BY budget_id, subject_id, bucket
            {_ADD_POSTGRES}
        ),
        leased AS (
            {_BOOK_LEASES} ${columns + len(arrays) + 1}
        )
        SELECT count(*) FROM added"""  # noqa: S608  # all names are ours


@dataclass(slots=True)
class _Sum:
    """What rows are charged together to one account in one part of time."""

    budget_id: UUID
    subject_id: str
    bucket: datetime
    picodollars: int = 0

    def is_of(self, charge: Charge) -> bool:
        return (self.budget_id, self.subject_id, self.bucket) == charge[:3]


def _sums(rows: Sequence[LedgerRow]) -> list[_Sum]:
    """One for each budget, subject and bucket."""
    sums: list[_Sum] = []
    latest: dict[tuple[int, str], _Sum] = {}  # the hashes of UUIDs and of times are slow: neither is a key
    for row in rows:
        for charge in row.charges:
            account = (charge.budget_id.int, charge.subject_id)
            found = latest.get(account)
            if found is not None and found.bucket != charge.bucket:  # a period has ended meanwhile
                found = next((each for each in sums if each.is_of(charge)), None)
            if found is None:
                found = _Sum(charge.budget_id, charge.subject_id, charge.bucket)
                sums.append(found)
            latest[account] = found
            found.picodollars = min(found.picodollars + charge.picodollars, MOST_BIG_INT)
    return sums


def whole_sum(high: int | Decimal, low: int | Decimal) -> int:
    """Of HIGH_SUM and LOW_SUM as either engine gives them."""
    return (int(high) << 32) + int(low)


def sums_of(rows: Sequence[LedgerRow]) -> list[list[Any]]:
    """What POSTGRES_CHARGE takes before the holder, four arrays: one sum for each budget, subject and bucket."""
    sums = _sums(rows)
    if not sums:
        return []
    return [
        [each.budget_id for each in sums],
        [each.subject_id for each in sums],
        [each.bucket for each in sums],
        [each.picodollars for each in sums],
    ]


def charge_columns(rows: Sequence[LedgerRow]) -> list[list[object]]:
    """The five arrays."""
    charges = [(row.id, charge) for row in rows for charge in row.charges]
    return [
        [row_id for row_id, _charge in charges],
        [charge.budget_id for _row_id, charge in charges],
        [charge.subject_id for _row_id, charge in charges],
        [charge.bucket for _row_id, charge in charges],
        [charge.picodollars for _row_id, charge in charges],
    ]


async def sqlite_booked(connection: aiosqlite.Connection, rows: Sequence[LedgerRow]) -> set[str]:
    """Which of the rows the table has, as its ids are written there."""
    if not rows:
        return set()
    places = ", ".join("?" * len(rows))
    found = await connection.execute_fetchall(_BOOKED.format(places), [row.id for row in rows])
    return {str(id_) for (id_,) in found}


async def sqlite_charge(connection: aiosqlite.Connection, rows: Sequence[LedgerRow], holder: str) -> None:
    """Charges these rows."""
    for each in _sums(rows):
        budget_id, amount = str(each.budget_id), each.picodollars
        await connection.execute(_SPEND, (budget_id, each.subject_id, str(each.bucket), amount))
        await connection.execute(_BOOK, (amount, budget_id, each.subject_id, holder))
