"""The ledger's row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import CostAmount, ModelName, TokenCount


def row(**members: Any) -> RequestLog:
    return RequestLog(**{"model": ModelName("z-ai/glm-4.6"), "provider_name": "OpenRouter", **members})


def test_a_row_has_an_id_of_its_own() -> None:
    first, second = row(), row()
    assert isinstance(first.id, UUID)
    assert first.id != second.id


def test_a_row_is_stamped_with_the_present_in_utc() -> None:
    before = datetime.now(UTC)
    stamp = row().timestamp
    assert before <= stamp <= datetime.now(UTC)
    assert stamp.utcoffset() == timedelta(0)


@pytest.mark.parametrize("name", [None, "", " ", "\t\n"])
def test_provider_name_cannot_be_blank(name: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^Provider name cannot be null or empty$"):
        row(provider_name=name)


def test_response_time_cannot_be_negative() -> None:
    with pytest.raises(InvalidValue, match=r"^Response time cannot be negative$"):
        row(response_time_ms=-1)


def test_a_response_may_take_no_measurable_time() -> None:
    assert row(response_time_ms=0).response_time_ms == 0


def test_total_tokens_is_input_and_output_together() -> None:
    assert row(input_tokens=TokenCount(2**53), output_tokens=TokenCount(3)).total_tokens() == 2**53 + 3
    assert row(input_tokens=TokenCount(10)).total_tokens() == 10
    assert row(output_tokens=TokenCount(20)).total_tokens() == 20
    assert row().total_tokens() == 0


@pytest.mark.parametrize(
    ("reported", "estimated", "cost"),
    [
        (None, None, None),
        (None, "0.2", "0.2"),
        ("0.1", None, "0.1"),
        ("0.1", "0.2", "0.1"),
        ("0", "0.2", "0"),
        (None, "0", "0"),
    ],
)
def test_cost_is_what_was_billed_else_the_estimate_else_unknown(
    reported: str | None, estimated: str | None, cost: str | None
) -> None:
    def amount(usd: str | None) -> CostAmount | None:
        return None if usd is None else CostAmount(Decimal(usd))

    assert row(reported_cost=amount(reported), estimated_cost=amount(estimated)).cost() == amount(cost)


def test_what_is_not_known_is_none_and_never_zero() -> None:
    booked = row()
    assert booked.estimated_cost is None
    assert booked.reported_cost is None
    assert booked.cost_source is CostSource.UNKNOWN
    assert booked.cached_tokens is None
    assert booked.reasoning_tokens is None
    assert booked.time_to_first_byte_ms is None
    assert booked.http_status is None
    assert booked.was_fallback is False


def test_words_in_the_table_are_stable() -> None:
    """They are stored: renaming one orphans the rows that hold it."""
    assert [status.value for status in RequestStatus] == [
        "success",
        "replayed",
        "refused",
        "upstream_error",
        "stream_broken",
        "client_disconnected",
        "interrupted",
        "gateway_error",
        "hedged",
    ]
    assert [source.value for source in CostSource] == ["reported", "computed", "unknown", "none"]
    assert [source.value for source in UsageSource] == ["reported", "estimated", "none"]
