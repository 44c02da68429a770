"""The prices that the gateway ships with, for as long as the price table cannot be read."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from piccolo_migrations.proxy_2026_11_22t22_40_00_000000 import PRICES, SEEDED_AT
from proxy.domain.pricing import ModelPricing
from proxy.domain.values import ModelName

SEED_PRICES: Final = tuple(
    ModelPricing(
        model=ModelName(model),
        provider=ModelName(model).provider,
        input_cost_per_1m_tokens=Decimal(input_cost),
        output_cost_per_1m_tokens=Decimal(output_cost),
        max_context_tokens=context,
        updated_at=SEEDED_AT,
    )
    for model, input_cost, output_cost, context in PRICES
)
