"""Value objects at their boundaries."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.errors import GatewayError, InvalidValue
from proxy.domain.values import CostAmount, ModelName, TokenCount, estimate_tokens

_property = settings(max_examples=100, deadline=None, database=None, derandomize=True)

AT_LEAST_TWELVE_DECIMALS = Decimal("0.000000000001")


# ModelName


@pytest.mark.parametrize("nothing", [None, "", " ", "\t\n", "\u00a0"])
def test_model_name_refuses_null_and_blank(nothing: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^Model name cannot be null or empty$"):
        ModelName(nothing)


def test_refused_value_is_a_gateway_error_and_a_value_error() -> None:
    assert issubclass(InvalidValue, GatewayError)
    assert issubclass(InvalidValue, ValueError)


def test_model_name_is_not_trimmed() -> None:
    assert ModelName(" z-ai/glm-4.6 ").value == " z-ai/glm-4.6 "


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("z-ai/glm-4.6", "z-ai"),
        ("moonshotai/Kimi-K2-Instruct-0905", "moonshotai"),
        ("a/b/c", "a"),
        ("a/", "a"),
        ("gpt-4o", "unknown"),
        ("/gpt-4o", "unknown"),
        ("/", "unknown"),
    ],
)
def test_provider_is_the_text_before_the_first_slash(name: str, provider: str) -> None:
    assert ModelName(name).provider == provider


def test_model_names_are_equal_by_value_and_case_counts() -> None:
    assert ModelName("a/b") == ModelName("a/b")
    assert len({ModelName("a/b"), ModelName("a/b")}) == 1
    assert ModelName("a/b") != ModelName("a/B")
    assert ModelName("a/b") != ModelName("a/b ")


def test_model_name_prints_as_its_value() -> None:
    assert str(ModelName("z-ai/glm-4.6")) == "z-ai/glm-4.6"


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ModelName("a/b").value = "c"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        TokenCount(1).value = -1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        CostAmount(Decimal(1)).usd = Decimal(-1)  # type: ignore[misc]


# TokenCount


@pytest.mark.parametrize("count", [-1, -(2**63)])
def test_token_count_refuses_negative(count: int) -> None:
    with pytest.raises(InvalidValue, match=r"^Token count cannot be negative$"):
        TokenCount(count)


@pytest.mark.parametrize("count", [0, 1, 2**53 + 1])
def test_token_count_takes_zero_and_more(count: int) -> None:
    assert TokenCount(count).value == count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("abc", 0), ("Test", 1), ("Testing", 1), ("Hello wo", 2), ("Hello world", 2), ("Hello world!", 3)],
)
def test_estimate_is_four_characters_to_a_token_rounded_down(text: str, tokens: int) -> None:
    assert TokenCount.estimate_from_text(text) == TokenCount(tokens)
    assert estimate_tokens(len(text)) == tokens


def test_estimate_counts_characters_not_bytes() -> None:
    assert TokenCount.estimate_from_text("日本語で") == TokenCount(1)


@pytest.mark.parametrize(("count", "exceeds"), [(199_999, False), (200_000, False), (200_001, True)])
def test_exceeds_limit_is_strictly_greater(count: int, exceeds: bool) -> None:
    assert TokenCount(count).exceeds_limit(200_000) is exceeds


def test_no_tokens_do_not_exceed_a_limit_of_zero() -> None:
    assert not TokenCount(0).exceeds_limit(0)
    assert TokenCount(1).exceeds_limit(0)


def test_token_counts_compare_by_size() -> None:
    assert TokenCount(1) < TokenCount(2)
    assert max(TokenCount(9), TokenCount(10)) == TokenCount(10)


# CostAmount


@pytest.mark.parametrize("usd", ["-0.000000000001", "-1", "-1E+30"])
def test_cost_refuses_negative(usd: str) -> None:
    with pytest.raises(InvalidValue, match=r"^Cost cannot be negative$"):
        CostAmount(Decimal(usd))


@pytest.mark.parametrize("usd", ["NaN", "-NaN", "sNaN", "Infinity", "-Infinity"])
def test_cost_refuses_what_is_no_amount(usd: str) -> None:
    with pytest.raises(InvalidValue, match=r"^Cost must be a finite amount$"):
        CostAmount(Decimal(usd))


@pytest.mark.parametrize("usd", ["0", "-0", "0.000000000001", "12.34"])
def test_cost_takes_zero_and_more(usd: str) -> None:
    assert CostAmount(Decimal(usd)).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "$0.000000"),
        ("12", "$12.000000"),
        ("0.0000014", "$0.000001"),
        ("0.0000005", "$0.000000"),
        ("0.0000015", "$0.000002"),
        ("0.0000025", "$0.000002"),
        ("0.0000035", "$0.000004"),
        ("0.00000250000000001", "$0.000003"),
        ("1E-12", "$0.000000"),
        ("1E+3", "$1000.000000"),
        ("-0", "$0.000000"),
        ("-0E+3", "$0.000000"),
        ("1E+30", "$1" + 30 * "0" + ".000000"),
        ("123456789012345678901234567890.1234565", "$123456789012345678901234567890.123456"),
    ],
)
def test_display_is_rounded_half_even_at_six_decimals(usd: str, shown: str) -> None:
    assert str(CostAmount(Decimal(usd))) == shown


def test_display_leaves_the_amount_as_it_is() -> None:
    cost = CostAmount(AT_LEAST_TWELVE_DECIMALS)
    assert str(cost) == "$0.000000"
    assert cost.usd == AT_LEAST_TWELVE_DECIMALS
    assert cost != CostAmount(Decimal(0))


@_property
@given(st.decimals(min_value=0, max_value=10**9, places=12))
def test_cost_keeps_every_digit(usd: Decimal) -> None:
    assert CostAmount(usd).usd.as_tuple() == usd.as_tuple()


def test_costs_compare_by_amount() -> None:
    assert CostAmount(Decimal("0.1")) == CostAmount(Decimal("0.10"))
    assert CostAmount(Decimal("0.9")) < CostAmount(Decimal("0.10000000000001") * 10)
