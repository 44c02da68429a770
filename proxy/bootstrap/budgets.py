"""Composing budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.infrastructure.budgets.bank import Bank
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.budgets.upkeep import keeping
from proxy.infrastructure.ledger.ledger import SpoolLedger
from proxy.infrastructure.persistence.database import Database


@asynccontextmanager
async def budget_book(database: Database, ledger: SpoolLedger) -> AsyncIterator[LeasedBudgets]:
    """The budgets of the process whose ledger this is; to be left before it."""
    book = LeasedBudgets(Bank(database, ledger.holder))
    ledger.on_booked = book.booked
    async with keeping(book):
        yield book
