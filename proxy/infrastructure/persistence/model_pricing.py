"""The price table in the database: one row for a model and the moment from which its prices hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from piccolo.engine.sqlite import SQLiteEngine, TransactionType

from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import exact_text
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import EPOCH, PRICES, ModelPricing, PriceChanges, PriceSource
from proxy.domain.storable import is_storable
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.tables import NAME_LENGTH

_TIMEOUT_SECONDS = 10.0
_ROWS_PER_INSERT = 50  # Piccolo stalls the event loop for 10 ms at that
_IN_FORCE = """
    SELECT price.* FROM model_price_history price
    WHERE price.valid_from = (
        SELECT MAX(dated.valid_from) FROM model_price_history dated
        WHERE dated.model_name = price.model_name AND dated.valid_from <= {}
    )
"""
# Writers wait for each other, readers for nobody.
_POSTGRES_LOCK = "LOCK TABLE model_price_history IN SHARE ROW EXCLUSIVE MODE"


class PiccoloModelPricing:
    """PriceHistory on either engine. A model that only `model_pricing` has is priced by that row, from the epoch on."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._seeds = database.model_pricing
        self._table = database.model_price_history
        self._now = now

    async def get_by_model(self, model: str) -> ModelPricing | None:
        if not is_storable(model):
            return None
        table = self._table
        found = (
            await table.select()
            .where((table.model_name == model) & (table.valid_from <= self._now()))
            .order_by(table.valid_from, ascending=False)
            .first()
        )
        if found is not None:
            return _from_history(found)
        seed = await self._seeds.select().where(self._seeds.model_name == model).first()
        return None if seed is None else _from_seed(seed)

    async def get_all(self) -> Sequence[ModelPricing]:
        prices = {columns["model_name"]: _from_seed(columns) for columns in await self._seeds.select()}
        for columns in await self._table.raw(_IN_FORCE, self._now()):
            prices[columns["model_name"]] = _from_history(columns)
        return [prices[model] for model in sorted(prices)]

    async def history(self, model: str) -> Sequence[ModelPricing]:
        if not is_storable(model):
            return []
        table = self._table
        rows = await table.select().where(table.model_name == model).order_by(table.valid_from, ascending=False)
        if rows:
            return [_from_history(columns) for columns in rows]
        seed = await self.get_by_model(model)
        return [] if seed is None else [seed]

    async def upcoming(self) -> Sequence[ModelPricing]:
        table = self._table
        rows = await table.select().where(table.valid_from > self._now()).order_by(table.valid_from)
        return [_from_history(columns) for columns in rows]

    async def count(self) -> int:
        prices: int = await self._table.count()
        return prices

    async def set(self, price: ModelPricing, valid_from: datetime) -> bool:
        row = self._table(**_to_columns(price, valid_from, PriceSource.SET))
        added = await self._insert(row)
        return bool(added)

    async def supersede(
        self, prices: Sequence[ModelPricing], valid_from: datetime, *, dry_run: bool = False
    ) -> PriceChanges:
        if dry_run:
            return (await self._compare(prices, valid_from))[0]
        async with self._one_writer():
            changes, news = await self._compare(prices, valid_from)
            for start in range(0, len(news), _ROWS_PER_INSERT):
                some = news[start : start + _ROWS_PER_INSERT]
                await self._insert(*(self._table(**_to_columns(price, valid_from, PriceSource.SYNC)) for price in some))
        return changes

    async def _compare(
        self, prices: Sequence[ModelPricing], valid_from: datetime
    ) -> tuple[PriceChanges, list[ModelPricing]]:
        in_force = {price.model.value: price for price in await self.get_all()}
        added: list[str] = []
        changed: list[str] = []
        unchanged: list[str] = []
        news: list[ModelPricing] = []
        for model, price in {price.model.value: price for price in prices}.items():
            old = in_force.get(model)
            if old is not None and (old.valid_from >= valid_from or price.costs_the_same_as(old)):
                unchanged.append(model)  # a row that is younger than this list knows better
                continue
            (changed if old else added).append(model)
            news.append(price)
        return PriceChanges(tuple(added), tuple(changed), tuple(unchanged)), news

    async def _insert(self, *rows: Any) -> Sequence[Mapping[str, Any]]:
        table = self._table
        added: Sequence[Mapping[str, Any]] = (
            await table.insert(*rows)
            .on_conflict(target=(table.model_name, table.valid_from), action="DO NOTHING")
            .returning(table.id)
        )
        return added

    @asynccontextmanager
    async def _one_writer(self) -> AsyncIterator[None]:
        """A transaction in which nobody else adds prices."""
        engine = self._database.engine
        if isinstance(engine, SQLiteEngine):
            async with engine.transaction(transaction_type=TransactionType.immediate):
                yield
        else:
            async with engine.transaction():
                await self._table.raw(_POSTGRES_LOCK)
                yield


class AdministeredPrices(PiccoloModelPricing):
    """The same for the admin API: what it asks for raises NotServing while the database is away."""

    async def get_by_model(self, model: str) -> ModelPricing | None:
        async with _answering():
            return await super().get_by_model(model)

    async def get_all(self) -> Sequence[ModelPricing]:
        async with _answering():
            return await super().get_all()

    async def set(self, price: ModelPricing, valid_from: datetime) -> bool:
        async with _answering():
            return await super().set(price, valid_from)


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            yield
    except DATABASE_ERRORS as problem:
        raise not_serving(problem) from problem


def _from_history(columns: Mapping[str, Any]) -> ModelPricing:
    """Raises InvalidValue for a row that somebody has written by hand, and not well."""
    model = columns["model_name"]
    try:
        prices: dict[str, Any] = {name: None if columns[name] is None else Decimal(columns[name]) for name in PRICES}
        return ModelPricing(
            model=ModelName(model),
            provider=columns["provider_name"],
            max_context_tokens=columns["max_context_tokens"],
            updated_at=columns["recorded_at"].astimezone(UTC),
            valid_from=columns["valid_from"].astimezone(UTC),
            source=PriceSource(columns["source"]),
            tiers=[PriceTier.from_told(tier) for tier in json.loads(columns["tiers"] or "[]")],
            **prices,
        )
    except (AttributeError, TypeError, ValueError, InvalidOperation) as problem:
        raise InvalidValue(f"A price of {model} in model_price_history cannot be read: {problem!r}") from problem


def _from_seed(columns: Mapping[str, Any]) -> ModelPricing:
    return ModelPricing(
        model=ModelName(columns["model_name"]),
        provider=columns["provider_name"],
        input_cost_per_1m_tokens=Decimal(columns["input_cost_per_1m_tokens"]),
        output_cost_per_1m_tokens=Decimal(columns["output_cost_per_1m_tokens"]),
        max_context_tokens=columns["max_context_tokens"],
        updated_at=columns["updated_at"].astimezone(UTC),
        valid_from=EPOCH,
        source=PriceSource.SEED,
    )


def _to_columns(price: ModelPricing, valid_from: datetime, source: PriceSource) -> dict[str, Any]:
    """Raises InvalidValue for a name that no column takes, and for a moment without a time zone."""
    if len(price.model.value) > NAME_LENGTH:
        raise InvalidValue(f"Model name cannot be longer than {NAME_LENGTH} characters")
    if not is_storable(price.model.value):
        raise InvalidValue("Model name must be text without NUL characters and lone surrogates")
    if valid_from.tzinfo is None or valid_from < EPOCH:
        raise InvalidValue("Prices need a moment with a time zone, from 1970 on")
    dated = replace(price, valid_from=valid_from.astimezone(UTC), source=source)
    prices = {name: getattr(dated, name) for name in PRICES}
    return {
        "model_name": dated.model.value,
        "provider_name": dated.provider[:NAME_LENGTH],
        "valid_from": dated.valid_from,
        "source": dated.source.value,
        "max_context_tokens": dated.max_context_tokens,
        "recorded_at": dated.updated_at,
        "tiers": json.dumps([tier.told() for tier in dated.tiers]) if dated.tiers else None,
        **{name: None if usd is None else exact_text(usd) for name, usd in prices.items()},
    }
