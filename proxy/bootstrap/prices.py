"""Composing what the command line does with prices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from proxy.application.administration import prices
from proxy.application.administration.administration import Actor, Administration
from proxy.application.ports import PriceHistory
from proxy.bootstrap.administration import command_principal
from proxy.bootstrap.config_file import billing_providers
from proxy.bootstrap.storage import existing_database, migrated_database
from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import ModelPricing, PriceChanges
from proxy.infrastructure.http import client_session
from proxy.infrastructure.persistence.access_store import SqlAccessStore
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.price_sync import PriceListUnavailable, PriceSync
from proxy.settings import Settings

__all__ = ["PriceListUnavailable", "price_history", "set_price", "sync_prices"]

_NOTHING_TO_SYNC = (
    "There is nothing to sync from: no provider of kind openrouter is configured, and the prices of the built-in demo "
    "upstream are not real. Set OPENROUTER_API_KEY, OPENROUTER_BASE_URL, or a provider in gateway.yaml."
)


@asynccontextmanager
async def price_history(settings: Settings) -> AsyncIterator[PriceHistory]:
    """The price table. Raises InvalidValue or DATABASE_ERRORS."""
    async with existing_database(settings) as database:
        yield PiccoloModelPricing(database)


async def set_price(
    settings: Settings, model: str, made_of: Callable[[ModelPricing | None], ModelPricing]
) -> ModelPricing | None:
    """Sets what is made of the model's price in force; None if it has one from that very moment on already.

    Raises InvalidValue or DATABASE_ERRORS.
    """
    async with migrated_database(settings) as database:
        history = PiccoloModelPricing(database)
        price = made_of(await history.get_by_model(model))
        is_set = await prices.set_price(_administration(database), history, Actor(command_principal()), price)
        return price if is_set else None


def _administration(database: Database) -> Administration:
    return Administration(store := SqlAccessStore(database), store, dict)


async def sync_prices(settings: Settings, *, dry_run: bool = False) -> tuple[PriceChanges, int]:
    """What the upstreams' prices changed, and how many of their models have none that is fixed.

    A provider whose list cannot be read keeps nobody from the others' prices. It is raised for in the end, when what
    was taken over is noted: PriceListUnavailable. Raises InvalidValue or DATABASE_ERRORS, too.
    """
    providers = billing_providers(settings)
    if not providers:
        raise InvalidValue(_NOTHING_TO_SYNC)
    timeouts = settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds
    all_changes, all_ignored = PriceChanges(), 0
    failed: dict[str, PriceListUnavailable] = {}
    opened = existing_database if dry_run else migrated_database
    async with opened(settings) as database, client_session(*timeouts) as session:
        history = PiccoloModelPricing(database)
        for name, endpoint in providers.items():
            try:
                changes, ignored = await PriceSync(session, endpoint, history).run(dry_run=dry_run)
            except PriceListUnavailable as problem:
                failed[name] = problem
                continue
            all_changes, all_ignored = all_changes.and_then(changes), all_ignored + ignored
        if not dry_run:
            await prices.note_sync(_administration(database), Actor(command_principal()), all_changes)
    if failed:
        raise _unavailable(failed, len(providers), dry_run=dry_run)
    return all_changes, all_ignored


def _unavailable(failed: Mapping[str, PriceListUnavailable], providers: int, *, dry_run: bool) -> PriceListUnavailable:
    """With the providers' names, where there are several."""
    if providers == 1:
        return next(iter(failed.values()))
    of_others = "" if dry_run or len(failed) == providers else "; the other providers' prices are taken over"
    return PriceListUnavailable("; ".join(f"{name}: {problem}" for name, problem in failed.items()) + of_others)
