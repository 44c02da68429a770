"""What the admin API takes for prices, by the names of the price table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proxy.api.admin.bodies import Moment, Name, no_list
from proxy.domain.exact_prices import check_price
from proxy.domain.price_tiers import MOST_TIERS, PriceTier, by_precedence
from proxy.domain.pricing import PRICES, ModelPricing, PriceSource
from proxy.domain.values import ModelName


def _price(usd: Decimal) -> Decimal:
    check_price("a price", usd)
    return usd


def _distinct(tiers: Sequence[PriceTierBody]) -> Sequence[PriceTierBody]:
    by_precedence([tier.made() for tier in tiers])
    return tiers


_Price = Annotated[Decimal, Field(ge=0), BeforeValidator(no_list), AfterValidator(_price)]


class _Prices(BaseModel):
    """Prices in USD, each of which may be left out."""

    model_config = ConfigDict(extra="forbid")

    input_cost_per_1m_tokens: _Price | None = None
    output_cost_per_1m_tokens: _Price | None = None
    cached_input_cost_per_1m_tokens: _Price | None = None
    cache_write_cost_per_1m_tokens: _Price | None = None
    audio_input_cost_per_1m_tokens: _Price | None = None
    image_input_cost_per_1m_tokens: _Price | None = None
    reasoning_cost_per_1m_tokens: _Price | None = None
    request_fee_usd: _Price | None = None
    cache_write_1h_cost_per_1m_tokens: _Price | None = None
    audio_output_cost_per_1m_tokens: _Price | None = None
    image_output_cost_per_1m_tokens: _Price | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not null, by their names in ModelPricing."""
        return {name: usd for name in PRICES if (usd := getattr(self, name)) is not None}


class PriceTierBody(_Prices):
    """Prices of requests with more input than so many tokens, of those of a service tier, or both.

    What is null costs what it does in other requests.
    """

    above_input_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    service_tier: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        self.made()
        return self

    def made(self) -> PriceTier:
        return PriceTier(self.given(), self.above_input_tokens, self.service_tier)


class PriceBody(_Prices):
    """A model's prices in USD from a moment on; what is null costs what other input or output tokens do."""

    model: Name
    input_cost_per_1m_tokens: _Price
    output_cost_per_1m_tokens: _Price
    tiers: Annotated[list[PriceTierBody], Field(max_length=MOST_TIERS), AfterValidator(_distinct)] = []
    max_context_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)] | None = None
    valid_from: Moment | None = None

    def made(self) -> ModelPricing:
        now = datetime.now(UTC)
        model = ModelName(self.model)
        return ModelPricing(
            model=model,
            provider=model.provider,
            max_context_tokens=self.max_context_tokens,
            updated_at=now,
            valid_from=self.valid_from or now,
            source=PriceSource.SET,
            tiers=[tier.made() for tier in self.tiers],
            **self.given(),
        )
