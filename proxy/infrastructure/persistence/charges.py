"""Charging budgets in the transaction that books the rows.

Only a row that was really added is charged, so a row that is booked again, by whomever, is charged once. A charge goes
from what the row's process has leased (`budget_leases.booked`) to what was spent (`budget_spend`): their sum stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import aiosqlite

from proxy.domain.budgets import Charge
from proxy.infrastructure.persistence.rows import LedgerRow

RELEASE: Final = "DELETE FROM budget_leases WHERE holder = {}"
_ADD = "ON CONFLICT (budget_id, subject_id, bucket) DO UPDATE SET picodollars = budget_spend.picodollars"

_SPEND = f"INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars) VALUES (?, ?, ?, ?) {_ADD} + ?4"  # noqa: S608
_BOOK = "UPDATE budget_leases SET booked = booked + ? WHERE budget_id = ? AND subject_id = ? AND holder = ?"
_BOOK_LEASES = """UPDATE budget_leases AS lease SET booked = lease.booked + of_lease.picodollars
        FROM (
            SELECT budget_id, subject_id, SUM(picodollars)::bigint AS picodollars
            FROM charged GROUP BY budget_id, subject_id
        ) AS of_lease
        WHERE lease.budget_id = of_lease.budget_id AND lease.subject_id = of_lease.subject_id AND lease.holder ="""
POSTGRES_CHARGE: Final = f"""WITH charged AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[])
            AS charge (budget_id, subject_id, bucket, picodollars)
    ),
    spent AS (
        INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
        SELECT * FROM charged ORDER BY budget_id, subject_id, bucket
        {_ADD} + excluded.picodollars
    )
    {_BOOK_LEASES} $5"""  # noqa: S608
_BOOKED = "SELECT id FROM request_logs WHERE id IN ({})"


def postgres_charging(insert: str, columns: int) -> str:
    """The statement that adds rows, and charges those that it has added. Its last arguments: five arrays, the holder.

    Sums are added in one order by everybody, so that two processes never wait for each other.
    """
    arrays = ("uuid[]", "uuid[]", "text[]", "timestamptz[]", "bigint[]")
    places = ", ".join(f"${columns + place}::{kind}" for place, kind in enumerate(arrays, 1))
    return f"""WITH added AS ({insert} RETURNING id),
        charged AS (
            SELECT budget_id, subject_id, bucket, SUM(picodollars)::bigint AS picodollars
            FROM unnest({places}) AS charge (row_id, budget_id, subject_id, bucket, picodollars)
            JOIN added ON added.id = row_id GROUP BY budget_id, subject_id, bucket
        ),
        spent AS (
            INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars)
            SELECT * FROM charged ORDER BY budget_id, subject_id, bucket
            {_ADD} + excluded.picodollars
        )
        {_BOOK_LEASES} ${columns + len(arrays) + 1}"""  # noqa: S608  # all names are ours


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
            found.picodollars += charge.picodollars
    return sums


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
