"""CostTracking.track_cost with tokens that have a price of their own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from semantic_kernel import Kernel

from proxy.application.plugins import CostTracking
from proxy.domain.price_tiers import PriceTier
from proxy.domain.values import CostAmount
from tests.application.conftest import FakePrices, price


async def test_a_service_tier_has_its_prices() -> None:
    flex = PriceTier({"input_cost_per_1m_tokens": Decimal(1)}, service_tier="flex")
    prices = FakePrices({"a/b": replace(price("a/b", "2", "10"), tiers=(flex,))})
    kernel = Kernel()
    kernel.add_plugin(CostTracking(prices), "CostTracking")
    for named, expected in (("flex", 1), ("default", 2), (None, 2)):
        result = await kernel.invoke(
            plugin_name="CostTracking",
            function_name="track_cost",
            model="a/b",
            input_tokens=1_000_000,
            output_tokens=0,
            service_tier=named,
        )
        assert result is not None
        assert result.value == CostAmount(Decimal(expected))


async def test_each_kind_of_token_costs_its_own_price() -> None:
    full = replace(
        price("a/b", "2", "10"),
        cached_input_cost_per_1m_tokens=Decimal("0.2"),
        cache_write_cost_per_1m_tokens=Decimal("2.5"),
        audio_input_cost_per_1m_tokens=Decimal(40),
        image_input_cost_per_1m_tokens=Decimal(3),
        reasoning_cost_per_1m_tokens=Decimal(12),
        cache_write_1h_cost_per_1m_tokens=Decimal(4),
        audio_output_cost_per_1m_tokens=Decimal(80),
        image_output_cost_per_1m_tokens=Decimal(30),
    )
    kernel = Kernel()
    kernel.add_plugin(CostTracking(FakePrices({"a/b": full})), "CostTracking")
    counts: dict[str, Any] = {
        "cached_tokens": 100_000,
        "cache_write_tokens": 200_000,
        "audio_tokens": 300_000,
        "image_tokens": 100_000,
        "reasoning_tokens": 400_000,
        "cache_write_1h_tokens": 100_000,
        "audio_output_tokens": 100_000,
        "image_output_tokens": 100_000,
    }
    result = await kernel.invoke(
        plugin_name="CostTracking",
        function_name="track_cost",
        model="a/b",
        input_tokens=1_000_000,
        output_tokens=1_000_000,
        **counts,
    )
    assert result is not None
    assert result.value == CostAmount(
        Decimal("0.02") + Decimal("0.65") + 12 + Decimal("0.9") + Decimal("4.8") + 8 + 3 + 4
    )
