"""Tokens with a price of their own, counted once; prices as exact numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.chat import Usage
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import exact_text, per_1m_tokens
from proxy.domain.pricing import PRICES, ModelPricing
from proxy.domain.values import CostAmount, ModelName

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)
OPTIONAL = PRICES[2:]
PLAIN = ModelPricing(ModelName("m"), "p", Decimal(2), Decimal(10), None, datetime(2026, 1, 1, tzinfo=UTC))
FULL = replace(
    PLAIN,
    cached_input_cost_per_1m_tokens=Decimal("0.2"),
    cache_write_cost_per_1m_tokens=Decimal("2.5"),
    audio_input_cost_per_1m_tokens=Decimal(40),
    image_input_cost_per_1m_tokens=Decimal(3),
    reasoning_cost_per_1m_tokens=Decimal(12),
    cache_write_1h_cost_per_1m_tokens=Decimal(4),
    audio_output_cost_per_1m_tokens=Decimal(80),
    image_output_cost_per_1m_tokens=Decimal(30),
)


def with_price(name: str, value: Decimal | None, price: ModelPricing = PLAIN) -> ModelPricing:
    changed: dict[str, Any] = {name: value}
    return replace(price, **changed)


def usd(price: ModelPricing, input_tokens: int, output_tokens: int, **details: int | None) -> Decimal:
    return price.cost_of(Usage(input_tokens, output_tokens, **details)).usd  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, "2 + 10"),
        ({"cached_tokens": 400_000}, "0.08 + 1.2 + 10"),
        ({"cache_write_tokens": 400_000}, "1.0 + 1.2 + 10"),
        ({"audio_tokens": 400_000}, "16 + 1.2 + 10"),
        ({"image_tokens": 400_000}, "1.2 + 1.2 + 10"),
        ({"reasoning_tokens": 400_000}, "2 + 4.8 + 6"),
        ({"audio_output_tokens": 400_000}, "2 + 32 + 6"),
        ({"image_output_tokens": 400_000}, "2 + 12 + 6"),
        ({"cache_write_tokens": 400_000, "cache_write_1h_tokens": 100_000}, "0.75 + 0.4 + 1.2 + 10"),
        ({"cache_write_tokens": 400_000, "cache_write_1h_tokens": 500_000}, "1.6 + 1.2 + 10"),
        (
            {"reasoning_tokens": 100_000, "audio_output_tokens": 200_000, "image_output_tokens": 300_000},
            "2 + 1.2 + 16 + 9 + 4",
        ),
        (
            {"cached_tokens": 100_000, "cache_write_tokens": 200_000, "audio_tokens": 300_000, "image_tokens": 100_000},
            "0.02 + 0.5 + 12 + 0.3 + 0.6 + 10",
        ),
    ],
)
def test_tokens_with_a_price_of_their_own_cost_that_and_the_others_the_base_price(
    details: dict[str, int], expected: str
) -> None:
    total = sum(Decimal(term) for term in expected.split(" + "))
    assert usd(FULL, 1_000_000, 1_000_000, **details) == total


def test_without_a_price_of_their_own_they_cost_what_other_tokens_do() -> None:
    details = {"cached_tokens": 10, "cache_write_tokens": 20, "audio_tokens": 5, "image_tokens": 5}
    assert usd(PLAIN, 100, 50, reasoning_tokens=30, **details) == PLAIN.cost(100, 50).usd


def test_an_hour_in_the_cache_costs_what_writing_to_it_does_if_nothing_else_is_said() -> None:
    price = replace(FULL, cache_write_1h_cost_per_1m_tokens=None)
    assert usd(price, 100, 0, cache_write_tokens=60, cache_write_1h_tokens=40) == usd(
        FULL, 100, 0, cache_write_tokens=60
    )
    unpriced = replace(price, cache_write_cost_per_1m_tokens=None)
    assert usd(unpriced, 100, 0, cache_write_tokens=60, cache_write_1h_tokens=40) == PLAIN.cost(100, 0).usd


def test_details_larger_than_their_total_are_counted_up_to_it() -> None:
    assert usd(FULL, 10, 10, cached_tokens=1000, reasoning_tokens=1000) == Decimal("0.000122")
    assert usd(FULL, 10, 0, cached_tokens=6, cache_write_tokens=6, audio_tokens=6) == Decimal("0.0000112")


@pytest.mark.parametrize("nothing", [None, 0, -5])
def test_nothing_and_less_than_nothing_change_nothing(nothing: int | None) -> None:
    details = {"cached_tokens": nothing, "audio_tokens": nothing, "reasoning_tokens": nothing}
    assert usd(FULL, 100, 100, **details) == usd(FULL, 100, 100)


def test_free_cached_tokens_are_free() -> None:
    free = replace(PLAIN, cached_input_cost_per_1m_tokens=Decimal(0))
    assert usd(free, 100, 0, cached_tokens=100) == 0


def test_the_fee_is_for_the_request_and_not_for_its_tokens() -> None:
    price = replace(PLAIN, request_fee_usd=Decimal("0.005"))
    assert price.cost(0, 0) == CostAmount(Decimal("0.005"))
    assert price.cost(1_000_000, 0) == CostAmount(Decimal("2.005"))


_counts = st.integers(min_value=0, max_value=2**63 - 1)
_prices = st.decimals(min_value=0, max_value=10**8, places=24)
_optional_prices = st.one_of(st.none(), _prices)
_INPUT = {
    "cached_tokens": "cached_input_cost_per_1m_tokens",
    "cache_write_1h_tokens": "cache_write_1h_cost_per_1m_tokens",
    "cache_write_tokens": "cache_write_cost_per_1m_tokens",
    "audio_tokens": "audio_input_cost_per_1m_tokens",
    "image_tokens": "image_input_cost_per_1m_tokens",
}
_OUTPUT = {
    "reasoning_tokens": "reasoning_cost_per_1m_tokens",
    "audio_output_tokens": "audio_output_cost_per_1m_tokens",
    "image_output_tokens": "image_output_cost_per_1m_tokens",
}


def _shared(rest: int, base: Decimal, shares: list[tuple[int | None, Decimal | None]]) -> Fraction:
    """What tokens cost, of which some have a price of their own."""
    cost = Fraction(0)
    for count, own in shares:
        if count is not None and own is not None:
            part = min(count, rest)
            cost, rest = cost + part * Fraction(own), rest - part
    return cost + rest * Fraction(base)


@_property
@given(
    st.fixed_dictionaries(
        dict.fromkeys(("input_tokens", "output_tokens"), _counts)
        | {name: st.one_of(st.none(), _counts) for name in (*_INPUT, *_OUTPUT)}
    ),
    st.fixed_dictionaries(
        dict.fromkeys(PRICES[:2], _prices) | dict.fromkeys(OPTIONAL, _optional_prices),
    ),
)
def test_cost_is_exact_whatever_the_counts_and_prices(counts: dict[str, Any], prices: dict[str, Any]) -> None:
    """Against fractions, which never round; each token is in exactly one product."""
    price = replace(PLAIN, **prices)
    told = Usage(**counts)
    written, for_an_hour = counts["cache_write_tokens"] or 0, counts["cache_write_1h_tokens"] or 0
    for_an_hour = 0 if prices[_INPUT["cache_write_1h_tokens"]] is None else min(for_an_hour, written)
    counts |= {"cache_write_1h_tokens": for_an_hour, "cache_write_tokens": written - for_an_hour}
    expected = _shared(
        counts["input_tokens"], prices[PRICES[0]], [(counts[name], prices[own]) for name, own in _INPUT.items()]
    ) + _shared(
        counts["output_tokens"], prices[PRICES[1]], [(counts[name], prices[own]) for name, own in _OUTPUT.items()]
    )
    expected = expected / 10**6 + Fraction(prices["request_fee_usd"] or 0)
    assert Fraction(price.cost_of(told).usd) == expected


def test_the_longest_counts_and_prices_are_not_rounded() -> None:
    count, longest, shortest = 2**63 - 1, Decimal("999999999.123456789012345678901234567891"), Decimal("1e-30")
    price = replace(PLAIN, input_cost_per_1m_tokens=longest, cached_input_cost_per_1m_tokens=shortest)
    expected = ((count - 3) * Fraction(longest) + 3 * Fraction(shortest)) / 10**6
    assert Fraction(usd(price, count, 0, cached_tokens=3)) == expected


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize(
    "wrong", ["-0.1", "NaN", "sNaN", "Infinity", "-Infinity", "1e9", "1e999999", "1e-31", "1E-999999", "1e-999999999"]
)
def test_what_cannot_be_a_price_is_refused(name: str, wrong: str) -> None:
    with pytest.raises(InvalidValue):
        with_price(name, Decimal(wrong))


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_refusal_names_the_price(name: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{name} cannot be negative$"):
        with_price(name, Decimal(-1))


@pytest.mark.parametrize(
    ("per_token", "per_million"),
    [
        ("0.00000025", "0.25"),
        ("0.000003", "3"),
        ("0", "0"),
        ("1e-12", "0.000001"),
        ("0.00000019999999999999998", "0.19999999999999998"),
        ("0.000000123456789012345678", "0.123456789012345678"),
    ],
)
def test_a_price_per_token_is_one_per_million_exactly(per_token: str, per_million: str) -> None:
    assert exact_text(per_1m_tokens(Decimal(per_token))) == per_million


@_property
@given(_prices)
def test_a_price_as_text_is_the_same_price(price: Decimal) -> None:
    text = exact_text(price)
    assert Decimal(text) == price
    assert len(text) <= 64
    assert "E" not in text


def test_prices_are_the_same_whatever_their_date_source_and_window() -> None:
    other = replace(FULL, valid_from=datetime(2026, 5, 1, tzinfo=UTC), max_context_tokens=5)
    assert FULL.costs_the_same_as(other)
    assert FULL.costs_the_same_as(replace(FULL, input_cost_per_1m_tokens=Decimal("2.000")))
    for name in PRICES:
        assert not FULL.costs_the_same_as(with_price(name, Decimal(99), FULL)), name
    assert not FULL.costs_the_same_as(replace(FULL, cached_input_cost_per_1m_tokens=None))
