"""Who is asked, in the background, for prices and for bills: providers that tell them as OpenRouter does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from aiohttp import ClientSession

from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.periodic import once, repeating
from proxy.infrastructure.persistence.arrival import Arrival
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.reconciliation import LedgerReconciliation
from proxy.infrastructure.price_book import RefreshingPriceBook
from proxy.infrastructure.price_sync import PriceSync, syncing
from proxy.infrastructure.reconcile import OpenRouterBills, reconciling
from proxy.settings import Settings

_LOOK_SECONDS = 1.0

Providers = Callable[[], Mapping[str, ProviderEndpoint]]
_Following = Callable[[str, ProviderEndpoint], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def following_prices_and_bills(
    settings: Settings, providers: Providers, session: ClientSession, arrival: Arrival, prices: RefreshingPriceBook
) -> AsyncIterator[None]:
    """Asks `providers`, by name, from time to time until the end: those that there are then."""
    database = arrival.database

    @asynccontextmanager
    async def following(name: str, endpoint: ProviderEndpoint) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if settings.prices_sync_seconds:
                sync = PriceSync(session, endpoint, PiccoloModelPricing(database))
                asking = syncing(sync, settings.prices_sync_seconds, prices.refresh)
                await stack.enter_async_context(once(arrival.here, asking))
            if settings.reconcile_seconds:
                rows, bills = LedgerReconciliation(database, name), OpenRouterBills(session, endpoint)
                asking = reconciling(rows, bills, settings.reconcile_seconds, settings.ledger_retention_days)
                await stack.enter_async_context(once(arrival.here, asking))
            yield

    async with _each_that_is_there(providers, following):
        yield


@asynccontextmanager
async def _each_that_is_there(providers: Providers, following: _Following) -> AsyncIterator[None]:
    """Follows each provider for as long as it is there, and where it is: looked at once a second."""
    followed: dict[str, tuple[ProviderEndpoint, AsyncExitStack]] = {}

    async def look() -> None:
        there = providers()
        for name, (endpoint, stack) in list(followed.items()):
            if there.get(name) != endpoint:
                del followed[name]
                await stack.aclose()
        for name, endpoint in there.items():
            if name not in followed:
                stack = AsyncExitStack()
                await stack.enter_async_context(following(name, endpoint))
                followed[name] = endpoint, stack

    async with AsyncExitStack() as at_the_end:
        at_the_end.push_async_callback(_close, followed)
        await at_the_end.enter_async_context(repeating(look, lambda: _LOOK_SECONDS, "providers to ask for prices"))
        yield


async def _close(followed: Mapping[str, tuple[ProviderEndpoint, AsyncExitStack]]) -> None:
    for _, stack in followed.values():
        await stack.aclose()
