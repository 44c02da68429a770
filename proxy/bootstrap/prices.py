"""Composing what the command line does with prices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.application.ports import PriceHistory
from proxy.bootstrap.storage import migrated_database
from proxy.domain.pricing import PriceChanges
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.http import client_session
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.price_sync import PriceListUnavailable, PriceSync
from proxy.settings import Settings

__all__ = ["PriceListUnavailable", "price_history", "sync_prices"]


@asynccontextmanager
async def price_history(settings: Settings) -> AsyncIterator[PriceHistory]:
    """The price table. Raises InvalidValue or DATABASE_ERRORS."""
    async with migrated_database(settings) as database:
        yield PiccoloModelPricing(database)


async def sync_prices(settings: Settings, *, dry_run: bool = False) -> tuple[PriceChanges, int]:
    """What the upstream's prices changed, and how many of its models have none that is fixed.

    Raises PriceListUnavailable, InvalidValue or DATABASE_ERRORS.
    """
    key = settings.openrouter_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    endpoint = ProviderEndpoint(settings.openrouter_base_url, headers)
    timeouts = settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds
    async with price_history(settings) as history, client_session(*timeouts) as session:
        return await PriceSync(session, endpoint, history).run(dry_run=dry_run)
