"""The price table's copy in memory."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from proxy.application.ports import PriceHistory
from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import ModelPricing
from proxy.infrastructure.periodic import once, repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.seed_prices import SEED_PRICES

_logger = logging.getLogger(__name__)
_LOOK_SECONDS, _REFRESH_SECONDS = 1.0, 60.0


class RefreshingPriceBook:
    """PriceBook: read at the start and when there are more prices; keeps the last ones while the database is away.

    Before the first reading it holds the seeds. It is read every minute besides: seeds may be changed, which are not
    counted.

    A price that was read before it is in force takes effect at its moment, not at the next reading.
    """

    def __init__(
        self,
        repository: PriceHistory,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seeds: Sequence[ModelPricing] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._now = now
        self._prices: Mapping[str, ModelPricing] = {price.model.value: price for price in seeds}
        self._upcoming: deque[ModelPricing] = deque()
        self._clock = clock
        self._reading = asyncio.Lock()  # who has begun earlier would put older prices in the place of newer ones
        self._count: int | None = None  # of the prices when they were read; None: to be read again
        self._read_at = -math.inf
        self._is_told = False

    def current(self) -> Mapping[str, ModelPricing]:
        while self._upcoming and self._upcoming[0].valid_from <= self._now():
            price = self._upcoming.popleft()
            known = self._prices.get(price.model.value)
            if known is None or known.valid_from < price.valid_from:
                self._prices = {**self._prices, price.model.value: price}
        return self._prices

    async def load(self) -> None:
        """Raises DATABASE_ERRORS, or InvalidValue for a price that cannot be read."""
        async with self._reading:
            self._read_at = self._clock()
            self._count = await self._repository.count()  # first: what is added meanwhile is read again
            upcoming = deque(await self._repository.upcoming())  # then: what comes into force meanwhile is in both
            self._prices = {price.model.value: price for price in await self._repository.get_all()}
            self._upcoming = upcoming
            self._is_told = False

    async def refresh(self) -> None:
        """Loads if the database lets it."""
        await self._if_it_can(self.load)

    async def keep_up(self) -> None:
        """Loads if there are more prices than when they were read, or that is long ago."""
        await self._if_it_can(self._load_if_due)

    async def _load_if_due(self) -> None:
        is_old = self._clock() - self._read_at >= _REFRESH_SECONDS
        if is_old or self._count is None or await self._repository.count() != self._count:
            await self.load()

    async def _if_it_can(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except InvalidValue as problem:
            _logger.error("prices not refreshed", extra={"reason": str(problem)})
        except DATABASE_ERRORS as problem:
            self._count = None
            if not self._is_told:
                _logger.warning("prices not refreshed", extra={"reason": type(problem).__name__})
            self._is_told = True


@asynccontextmanager
async def price_book(repository: PriceHistory, database_is_here: asyncio.Event) -> AsyncIterator[RefreshingPriceBook]:
    """A price book that keeps itself fresh until the end, with the seeds until the database is there.

    Raises as `load` does if it is there already.
    """
    book = RefreshingPriceBook(repository, seeds=SEED_PRICES)
    if database_is_here.is_set():
        await book.load()
    async with once(database_is_here, repeating(book.keep_up, lambda: _LOOK_SECONDS, "price book")):
        yield book
