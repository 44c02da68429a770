"""What tokens cost, and since when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from proxy.domain.chat import Usage
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import EXACT, ONE_MILLIONTH, check_price
from proxy.domain.price_tiers import PriceTier, by_precedence
from proxy.domain.values import CostAmount, ModelName

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})")
_NOTHING = Decimal(0)

_Detail = tuple[int | None, Decimal | None]  # how many tokens, and what a million of them costs


class PriceSource(StrEnum):
    """Who said that a model costs this."""

    SEED = "seed"  # shipped with the gateway
    SYNC = "sync"  # the upstream's own list
    SET = "set"  # the operator


@dataclass(frozen=True, slots=True)
class ModelPricing:
    """A model's prices in USD per 1M tokens from a moment on, and the length of its context window in tokens.

    A price that is None is not a price of its own: cached, cache-write, audio and image tokens are input tokens,
    reasoning tokens and those of what is spoken or drawn are output tokens, and cost what those do; what is kept in a
    cache for an hour costs what is written to it otherwise. `tiers` are for some requests, and the first that holds for
    one counts. `updated_at` is when the row was written.
    """

    model: ModelName
    provider: str
    input_cost_per_1m_tokens: Decimal
    output_cost_per_1m_tokens: Decimal
    max_context_tokens: int | None
    updated_at: datetime
    cached_input_cost_per_1m_tokens: Decimal | None = None
    cache_write_cost_per_1m_tokens: Decimal | None = None
    audio_input_cost_per_1m_tokens: Decimal | None = None
    image_input_cost_per_1m_tokens: Decimal | None = None
    reasoning_cost_per_1m_tokens: Decimal | None = None
    request_fee_usd: Decimal | None = None
    cache_write_1h_cost_per_1m_tokens: Decimal | None = None
    audio_output_cost_per_1m_tokens: Decimal | None = None
    image_output_cost_per_1m_tokens: Decimal | None = None
    valid_from: datetime = EPOCH
    source: PriceSource = PriceSource.SEED
    tiers: Sequence[PriceTier] = ()
    by_tier: Sequence[tuple[PriceTier, ModelPricing]] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if any(price.is_finite() and price < 0 for price in self._base_prices()):
            raise InvalidValue("Cost per 1M tokens cannot be negative")
        for name in PRICES:
            price = getattr(self, name)
            if price is not None:
                check_price(name, price)
        if self.max_context_tokens is not None and self.max_context_tokens <= 0:
            raise InvalidValue("Max context tokens must be greater than zero")
        if self.tiers != ():
            object.__setattr__(self, "tiers", tuple(by_precedence(self.tiers)))
            object.__setattr__(self, "by_tier", tuple((tier, self._in(tier)) for tier in self.tiers))

    def _in(self, tier: PriceTier) -> ModelPricing:
        """All prices that a request of the tier has."""
        if unknown := sorted(tier.prices.keys() - set(PRICES)):
            raise InvalidValue(f"{unknown[0]} is no price")
        own: Mapping[str, Any] = tier.prices
        return replace(self, tiers=(), **own)

    def cost(self, input_tokens: int, output_tokens: int) -> CostAmount:
        """`input/1e6 * input_cost_per_1m + output/1e6 * output_cost_per_1m` and the request's fee, exact."""
        return self.cost_of(Usage(input_tokens, output_tokens))

    def cost_of(self, usage: Usage) -> CostAmount:
        """What the tokens cost, exactly; those with a price of their own at that, each token once.

        Details that add up to more than their total count only as far as the total goes.
        """
        for tier, price in self.by_tier:
            if tier.holds_for(usage.input_tokens, usage.service_tier):
                return price.cost_of(usage)
        input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
        if usage.cached_tokens or usage.cache_write_tokens or usage.audio_tokens or usage.image_tokens:
            per_1m = _apart(input_tokens, self.input_cost_per_1m_tokens, self._input_details(usage))
        else:
            per_1m = EXACT.multiply(input_tokens, self.input_cost_per_1m_tokens)
        if usage.reasoning_tokens or usage.audio_output_tokens or usage.image_output_tokens:
            output = _apart(output_tokens, self.output_cost_per_1m_tokens, self._output_details(usage))
            per_1m = EXACT.add(per_1m, output)
        else:
            per_1m = EXACT.fma(output_tokens, self.output_cost_per_1m_tokens, per_1m)
        total = EXACT.scaleb(per_1m, ONE_MILLIONTH)
        return CostAmount(total if self.request_fee_usd is None else EXACT.add(total, self.request_fee_usd))

    def _input_details(self, usage: Usage) -> Sequence[_Detail]:
        written, price = usage.cache_write_tokens, self.cache_write_1h_cost_per_1m_tokens
        for_an_hour = 0 if price is None else _part(usage.cache_write_1h_tokens or 0, written or 0)
        return (
            (usage.cached_tokens, self.cached_input_cost_per_1m_tokens),
            (for_an_hour, price),
            ((written or 0) - for_an_hour, self.cache_write_cost_per_1m_tokens),
            (usage.audio_tokens, self.audio_input_cost_per_1m_tokens),
            (usage.image_tokens, self.image_input_cost_per_1m_tokens),
        )

    def _output_details(self, usage: Usage) -> Sequence[_Detail]:
        return (
            (usage.reasoning_tokens, self.reasoning_cost_per_1m_tokens),
            (usage.audio_output_tokens, self.audio_output_cost_per_1m_tokens),
            (usage.image_output_tokens, self.image_output_cost_per_1m_tokens),
        )

    def costs_the_same_as(self, other: ModelPricing) -> bool:
        """Whether all prices are equal, whatever their dates, sources and context windows."""
        return all(getattr(self, name) == getattr(other, name) for name in (*PRICES, "tiers"))

    def _base_prices(self) -> Iterator[Decimal]:
        yield self.input_cost_per_1m_tokens
        yield self.output_cost_per_1m_tokens


PRICES = (
    "input_cost_per_1m_tokens",
    "output_cost_per_1m_tokens",
    "cached_input_cost_per_1m_tokens",
    "cache_write_cost_per_1m_tokens",
    "audio_input_cost_per_1m_tokens",
    "image_input_cost_per_1m_tokens",
    "reasoning_cost_per_1m_tokens",
    "request_fee_usd",
    "cache_write_1h_cost_per_1m_tokens",
    "audio_output_cost_per_1m_tokens",
    "image_output_cost_per_1m_tokens",
)


@dataclass(frozen=True, slots=True)
class PriceChanges:
    """What a price list changed, by model name. `added` had no price before."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    def and_then(self, later: PriceChanges) -> PriceChanges:
        """Both lists' changes together."""
        return PriceChanges(self.added + later.added, self.changed + later.changed, self.unchanged + later.unchanged)


def _apart(tokens: int, price: Decimal, details: Sequence[_Detail]) -> Decimal:
    """What tokens cost, those with a price of their own at that. For a million of each."""
    per_1m = _NOTHING
    for count, own_price in details:
        if count and own_price is not None:
            apart = _part(count, tokens)
            tokens -= apart
            per_1m = EXACT.fma(apart, own_price, per_1m)
    return EXACT.fma(tokens, price, per_1m)


def _part(count: int, total: int) -> int:
    return max(0, min(count, total))


def price_for(prices: Mapping[str, ModelPricing], asked: str, served: str | None) -> ModelPricing | None:
    """The price row that applies to an answer, None when there is none.

    Providers answer with the model that really ran: another one (its own price counts), or a dated snapshot of the
    one asked for (`gpt-4o` served as `gpt-4o-2024-08-06`), which costs what the asked one does.
    """
    if not served or served == asked:
        return prices.get(asked)
    price = prices.get(served)
    if price is None and served.startswith(asked) and _DATE.fullmatch(served, len(asked)):
        price = prices.get(asked)
    return price
