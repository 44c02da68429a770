"""Composing budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import ClientSession

from proxy.infrastructure.budgets.bank import Bank
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.budgets.notices import NoticeClaims
from proxy.infrastructure.budgets.upkeep import keeping
from proxy.infrastructure.budgets.webhook import BudgetWebhook, telling
from proxy.infrastructure.ledger.ledger import SpoolLedger
from proxy.infrastructure.persistence.database import Database
from proxy.settings import Settings


@asynccontextmanager
async def budget_book(
    settings: Settings, database: Database, ledger: SpoolLedger, session: ClientSession
) -> AsyncIterator[LeasedBudgets]:
    """The budgets of the process whose ledger this is; to be left before it."""
    book = LeasedBudgets(Bank(database, ledger.holder))
    ledger.on_booked = book.booked
    tell = None
    async with AsyncExitStack() as stack:
        if settings.budget_webhook_url is not None:
            url = settings.budget_webhook_url.get_secret_value()
            webhook = BudgetWebhook(url, session, NoticeClaims(database))
            await stack.enter_async_context(telling(webhook))
            tell = webhook.offer
        await stack.enter_async_context(keeping(book, tell))
        yield book
