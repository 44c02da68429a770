"""Prices as the upstream's own model list gives them, taken into the price table."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from proxy.application.ports import PriceHistory
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import check_price, per_1m_tokens
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import ModelPricing, PriceChanges, PriceSource
from proxy.domain.storable import is_storable
from proxy.domain.values import ModelName
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.periodic import now_and_then
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.tables import NAME_LENGTH

_logger = logging.getLogger(__name__)
_FETCH_TIMEOUT_SECONDS = 30.0
_FIRST_WITHIN_SECONDS = 60.0
_RETRY_SECONDS = 900.0
_OK = 200
_MAX_INT = 2**31 - 1
_PER_TOKEN = {
    "cached_input_cost_per_1m_tokens": "input_cache_read",
    "cache_write_cost_per_1m_tokens": "input_cache_write",
    "cache_write_1h_cost_per_1m_tokens": "input_cache_write_1h",
    "audio_input_cost_per_1m_tokens": "audio",
    "image_input_cost_per_1m_tokens": "image_token",  # not `image`, which is for a whole picture
    "reasoning_cost_per_1m_tokens": "internal_reasoning",
    "audio_output_cost_per_1m_tokens": "audio_output",
}
_BASE = {"input_cost_per_1m_tokens": "prompt", "output_cost_per_1m_tokens": "completion"}
# What an override for long prompts alone may have; what it has besides is another condition, like an hour of the day.
_OF_LONG_PROMPTS = {
    "min_prompt_tokens",
    *_BASE.values(),
    *_PER_TOKEN.values(),
    *("request", "image", "image_output", "web_search", "input_audio_cache"),  # are not for tokens, or not told apart
}


class _Listed(msgspec.Struct):
    id: str
    pricing: dict[str, Any]
    context_length: Any = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_lists = msgspec.json.Decoder(_List)
_models = msgspec.json.Decoder(_Listed, float_hook=Decimal)


class PriceListUnavailable(Exception):
    """The upstream gives no list of models that can be read."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """What an upstream asks at a moment; `ignored` models have no price, or one that varies."""

    prices: Sequence[ModelPricing]
    ignored: int
    asked_at: datetime


class PriceSync:
    """Takes an upstream's prices into the price table."""

    def __init__(
        self,
        session: ClientSession,
        endpoint: ProviderEndpoint,
        history: PriceHistory,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._history = history
        self._now = now

    async def run(self, *, dry_run: bool = False) -> tuple[PriceChanges, int]:
        """What changed, and how many models were ignored. Raises PriceListUnavailable or DATABASE_ERRORS."""
        listed = await self._fetch()
        changes = await self._history.supersede(listed.prices, listed.asked_at, dry_run=dry_run)
        return changes, listed.ignored

    async def _fetch(self) -> PriceList:
        url = self._endpoint.base_url.rstrip("/") + "/models"
        timeout = ClientTimeout(total=_FETCH_TIMEOUT_SECONDS)
        asked_at = self._now()
        try:
            async with self._session.get(
                url, headers=self._endpoint.headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != _OK:
                    raise PriceListUnavailable(f"it answered HTTP {response.status}")
                return price_list(await response.read(), asked_at)
        except (ClientError, OSError, TimeoutError) as problem:
            raise PriceListUnavailable(type(problem).__name__) from problem


def price_list(body: bytes, asked_at: datetime) -> PriceList:
    """Raises PriceListUnavailable when the body is no list of models; single models that make no sense are ignored."""
    try:
        listed = _lists.decode(body).data
    except (ValueError, RecursionError) as problem:
        raise PriceListUnavailable("its answer is no list of models") from problem
    prices = {price.model.value: price for entry in listed if (price := _price(entry, asked_at))}
    return PriceList(list(prices.values()), len(listed) - len(prices), asked_at)


def _price(entry: msgspec.Raw, asked_at: datetime) -> ModelPricing | None:
    """None for a model without a fixed price (OpenRouter's routers cost "-1"), or with one that cannot be kept."""
    try:
        model = _models.decode(entry)
        given, name = model.pricing, ModelName(model.id)
        prompt, completion = _usd(given.get("prompt")), _usd(given.get("completion"))
        if prompt is None or completion is None or len(model.id) > NAME_LENGTH or not is_storable(model.id):
            return None
        return ModelPricing(
            model=name,
            provider=name.provider,
            input_cost_per_1m_tokens=per_1m_tokens(prompt),
            output_cost_per_1m_tokens=per_1m_tokens(completion),
            max_context_tokens=_context(model.context_length),
            updated_at=asked_at,
            request_fee_usd=_usd(given.get("request")) or None,
            valid_from=asked_at,
            source=PriceSource.SYNC,
            tiers=_tiers(given.get("overrides")),
            **_own_prices(given),
        )
    except (ValueError, RecursionError, InvalidOperation):  # InvalidValue and msgspec's errors are ValueErrors
        return None


def _own_prices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of some kinds of tokens; None for those that have none."""
    return {price: _per_1m(given.get(key)) for price, key in _PER_TOKEN.items()}


def _tiers(overrides: Any) -> Sequence[PriceTier]:
    """Prices of long requests, from `min_prompt_tokens` on; single ones that make no sense are ignored."""
    listed = overrides if isinstance(overrides, list) else []
    found = [tier for each in listed if isinstance(each, dict) and (tier := _tier(each)) is not None]
    return list({tier.conditions: tier for tier in found}.values())


def _tier(given: Mapping[str, Any]) -> PriceTier | None:
    least = given.get("min_prompt_tokens")
    if type(least) is not int or least < 2 or not given.keys() <= _OF_LONG_PROMPTS:  # noqa: PLR2004  # above one token
        return None
    try:
        usd = {name: _usd(given.get(key)) for name, key in _BASE.items()}
        prices = {name: per_1m_tokens(price) for name, price in usd.items() if price is not None}
        prices |= {name: price for name, price in _own_prices(given).items() if price is not None}
        return PriceTier(prices, above_input_tokens=least - 1) if prices else None
    except (ValueError, InvalidOperation):  # as of a model: the prices of all other requests are good
        return None


def _per_1m(given: Any) -> Decimal | None:
    """None for zero too: OpenRouter writes "0" where there is no such price, not where such tokens are free."""
    usd = _usd(given)
    return per_1m_tokens(usd) if usd else None


def _usd(given: Any) -> Decimal | None:
    """Raises InvalidOperation for text that is no number, InvalidValue for what is no price (such as "-1")."""
    if isinstance(given, bool) or not isinstance(given, str | int | Decimal) or given == "":
        return None
    price = Decimal(given)
    check_price("a price", price)
    return price


def _context(given: Any) -> int | None:
    return given if type(given) is int and 0 < given <= _MAX_INT else None


@asynccontextmanager
async def syncing(
    sync: PriceSync,
    every_seconds: float,
    refresh: Callable[[], Awaitable[None]],
    jitter: Callable[[], float] = random.random,
) -> AsyncIterator[None]:
    """Takes the upstream's prices in now and then until the end, for the first time within a minute.

    `refresh` is called after each change. `jitter` is a random number from 0 to 1, so that many gateways do not ask at
    once; a failure is logged and tried again within a quarter of an hour.
    """

    async def step() -> float | None:
        return None if await _synced(sync, refresh) else _RETRY_SECONDS

    async with now_and_then(
        step, every_seconds, "price sync", first_within_seconds=_FIRST_WITHIN_SECONDS, jitter=jitter
    ):
        yield


async def _synced(sync: PriceSync, refresh: Callable[[], Awaitable[None]]) -> bool:
    try:
        changes, _ = await sync.run()
    except (PriceListUnavailable, InvalidValue, *DATABASE_ERRORS) as problem:
        _logger.warning("prices not synced", extra={"reason": str(problem) or type(problem).__name__})
        return False
    if changes.added or changes.changed:
        counts = {"added": len(changes.added), "changed": len(changes.changed)}
        _logger.info("prices synced", extra=counts)
        await refresh()
    return True
