"""The price table in the database, and its copy in memory."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from decimal import Decimal
from typing import Any

from proxy.application.ports import ModelPricingRepository
from proxy.domain.pricing import ModelPricing
from proxy.domain.values import ModelName
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS

_logger = logging.getLogger(__name__)
_REFRESH_SECONDS = 60.0


class PiccoloModelPricing:
    """ModelPricingRepository on either engine."""

    def __init__(self, database: Database) -> None:
        self._table = database.model_pricing

    async def get_by_model(self, model: str) -> ModelPricing | None:
        found = await self._table.select().where(self._table.model_name == model).first()
        return None if found is None else _from_columns(found)

    async def get_all(self) -> Sequence[ModelPricing]:
        return [_from_columns(columns) for columns in await self._table.select().order_by(self._table.model_name)]


def _from_columns(columns: dict[str, Any]) -> ModelPricing:
    return ModelPricing(
        model=ModelName(columns["model_name"]),
        provider=columns["provider_name"],
        input_cost_per_1m_tokens=Decimal(columns["input_cost_per_1m_tokens"]),
        output_cost_per_1m_tokens=Decimal(columns["output_cost_per_1m_tokens"]),
        max_context_tokens=columns["max_context_tokens"],
        updated_at=columns["updated_at"].astimezone(UTC),
    )


class RefreshingPriceBook:
    """PriceBook: read at the start and again every minute; keeps the last prices while the database is away."""

    def __init__(self, repository: ModelPricingRepository) -> None:
        self._repository = repository
        self._prices: Mapping[str, ModelPricing] = {}

    def current(self) -> Mapping[str, ModelPricing]:
        return self._prices

    async def load(self) -> None:
        """Raises DATABASE_ERRORS."""
        self._prices = {price.model.value: price for price in await self._repository.get_all()}

    async def refresh(self) -> None:
        """Loads if the database lets it."""
        try:
            await self.load()
        except DATABASE_ERRORS as problem:
            _logger.warning("prices not refreshed", extra={"reason": type(problem).__name__})


@asynccontextmanager
async def price_book(repository: ModelPricingRepository) -> AsyncIterator[RefreshingPriceBook]:
    """A price book that keeps itself fresh until the end."""
    book = RefreshingPriceBook(repository)
    await book.load()
    async with repeating(book.refresh, lambda: _REFRESH_SECONDS, "price book"):
        yield book
