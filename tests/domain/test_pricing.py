"""What tokens cost, exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import ModelPricing, price_for
from proxy.domain.values import CostAmount, ModelName

_property = settings(max_examples=150, deadline=None, database=None, derandomize=True)

GLM, DEEPSEEK, KIMI = "z-ai/glm-4.6", "deepseek-ai/DeepSeek-V3.1-Terminus", "moonshotai/Kimi-K2-Instruct-0905"


def pricing(
    model: str = GLM, input_cost: str = "0.0001", output_cost: str = "0.0002", max_context_tokens: int = 128_000
) -> ModelPricing:
    return ModelPricing(
        model=ModelName(model),
        provider=ModelName(model).provider,
        input_cost_per_1m_tokens=Decimal(input_cost),
        output_cost_per_1m_tokens=Decimal(output_cost),
        max_context_tokens=max_context_tokens,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(("input_cost", "output_cost"), [("-0.0001", "0"), ("0", "-0.000000000001"), ("-1", "-1")])
def test_prices_cannot_be_negative(input_cost: str, output_cost: str) -> None:
    with pytest.raises(InvalidValue, match=r"^Cost per 1M tokens cannot be negative$"):
        pricing(input_cost=input_cost, output_cost=output_cost)


def test_a_model_may_be_free() -> None:
    assert pricing(input_cost="0", output_cost="0").cost(10**6, 10**6) == CostAmount(Decimal(0))


@pytest.mark.parametrize("tokens", [0, -1])
def test_context_window_must_be_greater_than_zero(tokens: int) -> None:
    with pytest.raises(InvalidValue, match=r"^Max context tokens must be greater than zero$"):
        pricing(max_context_tokens=tokens)


def test_smallest_context_window_is_one_token() -> None:
    assert pricing(max_context_tokens=1).max_context_tokens == 1


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "usd"),
    [
        (0, 0, "0"),
        (1_000_000, 0, "3"),
        (0, 1_000_000, "15"),
        (1_000_000, 1_000_000, "18"),
        (1, 0, "0.000003"),
        (0, 1, "0.000015"),
        (1_234, 567, "0.012207"),
    ],
)
def test_cost_is_tokens_times_price_per_million(input_tokens: int, output_tokens: int, usd: str) -> None:
    price = pricing(input_cost="3", output_cost="15")
    assert price.cost(input_tokens, output_tokens) == CostAmount(Decimal(usd))


@pytest.mark.parametrize(
    ("model", "input_cost", "output_cost", "window"),
    [
        (GLM, "0.0001", "0.0002", 128_000),
        (DEEPSEEK, "0.0003", "0.0005", 64_000),
        (KIMI, "0.0005", "0.0010", 200_000),
    ],
)
def test_seeded_prices_never_give_a_cost_of_zero(model: str, input_cost: str, output_cost: str, window: int) -> None:
    price = pricing(model, input_cost, output_cost, window)
    assert price.cost(1, 0).usd == Decimal(input_cost).scaleb(-6) > 0
    assert price.cost(0, 1).usd == Decimal(output_cost).scaleb(-6) > 0


def test_a_typical_request_at_the_seeded_price_is_not_rounded_to_nothing() -> None:
    cost = pricing().cost(10, 20)
    assert cost.usd == Decimal("0.000000005")
    assert str(cost) == "$0.000000"


_tokens = st.integers(min_value=0, max_value=10**10)
_prices = st.decimals(min_value=0, max_value=999, places=12)


@_property
@given(_tokens, _tokens, _prices, _prices)
def test_cost_is_the_exact_formula(i: int, o: int, input_cost: Decimal, output_cost: Decimal) -> None:
    price = pricing(input_cost=str(input_cost), output_cost=str(output_cost))
    expected = (i * Fraction(input_cost) + o * Fraction(output_cost)) / 10**6
    assert Fraction(price.cost(i, o).usd) == expected


def test_negative_counts_give_no_cost() -> None:
    with pytest.raises(InvalidValue, match="Cost cannot be negative"):
        pricing().cost(-1, 0)


# Which row applies


def rows(*names: str) -> dict[str, ModelPricing]:
    return {name: pricing(name) for name in names}


def test_price_of_the_model_asked_for() -> None:
    prices = rows(GLM, KIMI)
    assert price_for(prices, GLM, GLM) is prices[GLM]


@pytest.mark.parametrize("served", [None, ""])
def test_price_of_the_model_asked_for_when_the_answer_names_none(served: str | None) -> None:
    prices = rows(GLM, KIMI)
    assert price_for(prices, GLM, served) is prices[GLM]


def test_price_of_the_model_that_served_counts() -> None:
    prices = rows(GLM, KIMI)
    assert price_for(prices, GLM, KIMI) is prices[KIMI]


def test_a_served_snapshot_with_a_price_of_its_own_costs_that() -> None:
    prices = rows("gpt-4o", "gpt-4o-2024-08-06")
    assert price_for(prices, "gpt-4o", "gpt-4o-2024-08-06") is prices["gpt-4o-2024-08-06"]


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("openai/gpt-4o", "openai/gpt-4o-2024-08-06"),
        ("claude-sonnet-4", "claude-sonnet-4-20250514"),
    ],
)
def test_a_served_snapshot_without_a_price_costs_what_was_asked_for(asked: str, served: str) -> None:
    prices = rows(asked)
    assert price_for(prices, asked, served) is prices[asked]


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (GLM, KIMI),
        ("gpt-4", "gpt-4o"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        (GLM, f"{GLM}:free"),
    ],
)
def test_another_model_without_a_price_has_an_unknown_cost(asked: str, served: str) -> None:
    """Only a dated snapshot is the model that was asked for; a name that begins alike may cost a tenth, or nothing."""
    assert price_for(rows(asked), asked, served) is None


def test_no_row_no_price() -> None:
    assert price_for({}, GLM, None) is None
    assert price_for({}, GLM, GLM) is None
    assert price_for(rows(KIMI), GLM, "z-ai/glm-4.6-2026-01-01") is None
