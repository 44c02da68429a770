"""Prices of some requests: which of them counts, and what it leaves as it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from proxy.domain.chat import Usage
from proxy.domain.errors import InvalidValue
from proxy.domain.price_tiers import PriceTier, priced_service_tier
from proxy.domain.pricing import ModelPricing
from proxy.domain.values import ModelName

NO_SERVICE_TIERS = ("auto", "default", "standard", "", " ", "Flex", "flex\n", "f" * 65)


def tier(input_cost: int, above: int | None = None, service_tier: str | None = None, **more: Decimal) -> PriceTier:
    return PriceTier({"input_cost_per_1m_tokens": Decimal(input_cost), **more}, above, service_tier)


def priced(*tiers: PriceTier) -> ModelPricing:
    return ModelPricing(
        ModelName("m"), "p", Decimal(1), Decimal(10), None, datetime(2026, 1, 1, tzinfo=UTC), tiers=tiers
    )


ALL = priced(
    tier(2, above=1000), tier(3, above=5000), tier(4, service_tier="flex"), tier(5, above=1000, service_tier="flex")
)


@pytest.mark.parametrize(
    ("input_tokens", "service_tier", "input_cost"),
    [
        (1000, None, 1),
        (1001, None, 2),
        (5000, None, 2),
        (5001, None, 3),
        (1000, "flex", 4),
        (1001, "flex", 5),
        (9999, "flex", 5),
        (1000, "priority", 1),
        (1001, "priority", 2),
    ],
)
def test_the_tier_that_says_most_counts_for_all_tokens(
    input_tokens: int, service_tier: str | None, input_cost: int
) -> None:
    cost = ALL.cost_of(Usage(input_tokens, 100, service_tier=service_tier)).usd
    assert cost == Decimal(input_cost * input_tokens + 10 * 100) / 1_000_000


def test_what_came_from_a_cache_makes_a_request_long_and_what_a_tier_does_not_name_stays() -> None:
    long = tier(2, above=1000, cached_input_cost_per_1m_tokens=Decimal("0.2"))
    price = replace(priced(long), cached_input_cost_per_1m_tokens=Decimal("0.1"), request_fee_usd=Decimal(3))
    assert price.cost_of(Usage(1000, 100, cached_tokens=900)).usd == Decimal("3.00119")
    assert price.cost_of(Usage(1100, 100, cached_tokens=900)).usd == Decimal("3.00158")


def test_prices_are_the_same_if_their_tiers_are_whatever_their_order() -> None:
    first, second = tier(2, above=1000), tier(4, service_tier="flex")
    assert priced(first, second).costs_the_same_as(priced(second, first))
    assert not priced(first, second).costs_the_same_as(priced(first))
    assert not priced(first).costs_the_same_as(priced(tier(3, above=1000)))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: tier(1), "needs above_input_tokens, service_tier, or both"),
        (lambda: PriceTier({}, 5), "needs at least one price"),
        (lambda: tier(1, above=0), "above_input_tokens must be from 1"),
        *((lambda name=name: tier(1, service_tier=name), "like flex") for name in NO_SERVICE_TIERS),
        (lambda: tier(1, service_tier="fast"), "not fast"),
        (lambda: priced(tier(1, above=5), tier(2, above=5)), "same above_input_tokens and service_tier"),
        (lambda: priced(tier(-1, above=5)), "cannot be negative"),
        (lambda: priced(*(tier(1, above=number) for number in range(1, 34))), "more than 32 price tiers"),
        (lambda: priced(PriceTier({"model": Decimal(1)}, 5)), "model is no price"),
        (lambda: PriceTier.from_told({"above_input_tokens": 5, "input_cost_per_1m_tokens": "dear"}), "cannot be read"),
        (lambda: PriceTier.from_told({"above_input_tokens": "5", "input_cost_per_1m_tokens": "1"}), "cannot be read"),
    ],
)
def test_what_is_no_tier_is_refused(made: Any, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        made()


def test_a_tier_comes_back_as_it_was_told() -> None:
    told = {"above_input_tokens": 200_000, "service_tier": "flex", "input_cost_per_1m_tokens": "0.1234567890123456789"}
    assert PriceTier.from_told(told).told() == told


@pytest.mark.parametrize(
    ("named", "priced_as"),
    [("flex", "flex"), ("Priority", "priority"), ("fast", "priority"), ("scale", "scale"), ("on_demand", "on_demand")],
)
def test_service_tiers_are_priced_by_what_answers_call_them(named: str, priced_as: str) -> None:
    assert priced_service_tier(named) == priced_as


@pytest.mark.parametrize("named", [None, "", "auto", "default", "standard", "standard_only", "AUTO"])
def test_the_usual_tier_has_no_name(named: str | None) -> None:
    assert priced_service_tier(named) is None
