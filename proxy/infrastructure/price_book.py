"""The price table's copy in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from proxy.application.ports import PriceHistory
from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import ModelPricing
from proxy.infrastructure.periodic import once, repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.seed_prices import SEED_PRICES

_logger = logging.getLogger(__name__)
_REFRESH_SECONDS = 60.0


class RefreshingPriceBook:
    """PriceBook: read at the start and again every minute; keeps the last prices while the database is away.

    Before the first reading it holds the seeds.

    A price that was read before it is in force takes effect at its moment, not at the next reading.
    """

    def __init__(
        self,
        repository: PriceHistory,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seeds: Sequence[ModelPricing] = (),
    ) -> None:
        self._repository = repository
        self._now = now
        self._prices: Mapping[str, ModelPricing] = {price.model.value: price for price in seeds}
        self._upcoming: deque[ModelPricing] = deque()

    def current(self) -> Mapping[str, ModelPricing]:
        while self._upcoming and self._upcoming[0].valid_from <= self._now():
            price = self._upcoming.popleft()
            known = self._prices.get(price.model.value)
            if known is None or known.valid_from < price.valid_from:
                self._prices = {**self._prices, price.model.value: price}
        return self._prices

    async def load(self) -> None:
        """Raises DATABASE_ERRORS, or InvalidValue for a price that cannot be read."""
        upcoming = deque(await self._repository.upcoming())  # first: what comes into force meanwhile is in both
        self._prices = {price.model.value: price for price in await self._repository.get_all()}
        self._upcoming = upcoming

    async def refresh(self) -> None:
        """Loads if the database lets it."""
        try:
            await self.load()
        except InvalidValue as problem:
            _logger.error("prices not refreshed", extra={"reason": str(problem)})
        except DATABASE_ERRORS as problem:
            _logger.warning("prices not refreshed", extra={"reason": type(problem).__name__})


@asynccontextmanager
async def price_book(repository: PriceHistory, database_is_here: asyncio.Event) -> AsyncIterator[RefreshingPriceBook]:
    """A price book that keeps itself fresh until the end, with the seeds until the database is there.

    Raises as `load` does if it is there already.
    """
    book = RefreshingPriceBook(repository, seeds=SEED_PRICES)
    if database_is_here.is_set():
        await book.load()
    async with once(database_is_here, repeating(book.refresh, lambda: _REFRESH_SECONDS, "price book")):
        yield book
