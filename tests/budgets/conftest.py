"""Budgets in a real database, and processes' books over it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from proxy.application.allowances import AppliedBudget
from proxy.domain.access.scopes import GATEWAY, Subject
from proxy.domain.budgets import Budget, Charge, Period, Window
from proxy.domain.request_log import RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.budgets.bank import Bank
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.budgets.purse import Hold, LeasedPurse
from proxy.infrastructure.budgets.upkeep import Upkeep
from proxy.infrastructure.persistence.access_rows import BUDGET_COLUMNS, budget_row
from proxy.infrastructure.persistence.bulk_insert import RowWriter, row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.sessions import session
from tests.persistence.conftest import database

__all__ = ["database"]
USD = 10**12


def a_budget(amount_usd: str = "1", subject: Subject = GATEWAY, **members: Any) -> Budget:
    members = {"id": uuid4(), "name": "trial", "window": Window(Period.MONTH), **members}
    return Budget(subject=subject, amount_usd=Decimal(amount_usd), **members)


async def put(database: Database, budget: Budget) -> Budget:
    """Writes a budget, or another amount for it."""
    columns, row = (*BUDGET_COLUMNS, "created_at"), (*budget_row(budget), datetime.now(UTC))
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    insert = f"INSERT INTO budgets ({', '.join(columns)}) VALUES ({places})"
    async with session(database) as to:
        await to.execute(f"{insert} ON CONFLICT (id) DO UPDATE SET amount_usd = excluded.amount_usd", *row)
    return budget


async def spent(database: Database, budget: Budget) -> int:
    async with session(database) as to:
        rows = await to.fetch("SELECT picodollars FROM budget_spend WHERE budget_id = $1", str(budget.id))
    return sum(int(amount) for (amount,) in rows)


async def leases(database: Database, budget: Budget) -> dict[str, int]:
    """What is leased, by holder."""
    async with session(database) as to:
        rows = await to.fetch("SELECT holder, granted - booked FROM budget_leases WHERE budget_id = $1", str(budget.id))
    return {holder: int(amount) for holder, amount in rows}


def charged_row(charges: Sequence[Charge]) -> RequestLog:
    return RequestLog(model=ModelName("m/x"), provider_name="p", charges=tuple(charges))


@dataclass
class Process:
    """A gateway's part of the budgets, without the gateway."""

    database: Database
    writer: RowWriter
    book: LeasedBudgets
    upkeep: Upkeep
    unbooked: list[RequestLog] = field(default_factory=list)
    purses: dict[tuple[AppliedBudget, ...], LeasedPurse] = field(default_factory=dict)

    @property
    def holder(self) -> str:
        return self.book.bank.holder

    async def begin(self, amount_usd: str, *budgets: Budget, subject: Subject = GATEWAY) -> Hold:
        """Sets money aside for a request."""
        applied = tuple(AppliedBudget(budget, subject) for budget in budgets)
        purse = self.purses.setdefault(applied, self.book.purse(applied))
        needed = int(Decimal(amount_usd) * USD), datetime.now(UTC)
        return purse.set_aside_at_once(*needed) or await purse.set_aside(*needed)

    def end(self, hold: Hold, cost_usd: str) -> None:
        """The request has cost that much, and waits to be booked."""
        charges = [each._replace(picodollars=int(Decimal(cost_usd) * USD)) for each in hold.charges]
        hold.settle(charges)
        self.unbooked.append(charged_row(charges))

    async def drain(self) -> None:
        rows, self.unbooked = [ledger_row(row) for row in self.unbooked], []
        await self.writer.write(rows, self.holder)
        self.book.booked(rows)


Start = Callable[..., Process]


@pytest.fixture
async def start(database: Database) -> AsyncIterator[Start]:
    """Starts processes. Time is the real one, or `now[0]`."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(row_writer(database))

        def begin(name: str, now: list[float] | None = None) -> Process:
            book = LeasedBudgets(Bank(database, name), time.monotonic if now is None else lambda: now[0])
            stack.push_async_callback(book.finish)
            return Process(database, writer, book, Upkeep(book))

        yield begin
