"""What tokens cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from proxy.domain.errors import InvalidValue
from proxy.domain.values import CostAmount, ModelName

_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})")
_ONE_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class ModelPricing:
    """A model's prices in USD per 1M tokens and the length of its context window in tokens."""

    model: ModelName
    provider: str
    input_cost_per_1m_tokens: Decimal
    output_cost_per_1m_tokens: Decimal
    max_context_tokens: int
    updated_at: datetime

    def __post_init__(self) -> None:
        if self.input_cost_per_1m_tokens < 0 or self.output_cost_per_1m_tokens < 0:
            raise InvalidValue("Cost per 1M tokens cannot be negative")
        if self.max_context_tokens <= 0:
            raise InvalidValue("Max context tokens must be greater than zero")

    def cost(self, input_tokens: int, output_tokens: int) -> CostAmount:
        """`input/1e6 * input_cost_per_1m + output/1e6 * output_cost_per_1m`, exact."""
        total = input_tokens * self.input_cost_per_1m_tokens + output_tokens * self.output_cost_per_1m_tokens
        return CostAmount(total / _ONE_MILLION)


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
