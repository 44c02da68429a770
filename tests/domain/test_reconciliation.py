"""What bills do to rows and sums, and when rows are asked for again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from proxy.domain.reconciliation import (
    Bill,
    Drift,
    Outcome,
    ReconcileReport,
    UnsettledRow,
    outcome_of_absence,
    pause_after,
)
from proxy.domain.request_log import CostSource, UsageSource
from proxy.domain.values import CostAmount, TokenCount
from tests.generations import NOW, usd

ROW = UnsettledRow(uuid4(), NOW, "a/one", "gen-1", UsageSource.ESTIMATED, CostSource.COMPUTED, usd("0.002"))


def test_a_row_is_given_up_when_it_has_been_unknown_for_a_day() -> None:
    assert outcome_of_absence(ROW, NOW) is Outcome.NOT_FOUND
    since = replace(ROW, missing_since=NOW)
    assert outcome_of_absence(since, NOW + timedelta(hours=24, microseconds=-1)) is Outcome.NOT_FOUND
    assert outcome_of_absence(since, NOW + timedelta(hours=24)) is Outcome.GIVEN_UP


@pytest.mark.parametrize(("attempts", "minutes"), [(0, 5), (1, 5), (2, 10), (3, 20), (7, 320), (8, 360), (10**9, 360)])
def test_pauses_double_up_to_six_hours(attempts: int, minutes: int) -> None:
    assert pause_after(attempts) == timedelta(minutes=minutes)


def test_the_providers_counts_replace_estimates_only() -> None:
    counts = TokenCount(12), TokenCount(7)
    bill = Bill(usd("0.001"), *counts)
    assert bill.tokens_for(ROW) == counts
    assert bill.tokens_for(replace(ROW, usage_source=UsageSource.NONE)) == counts
    assert bill.tokens_for(replace(ROW, usage_source=UsageSource.REPORTED)) is None
    assert Bill(usd("0.001"), counts[0], None).tokens_for(ROW) is None


def test_drift_compares_only_rows_with_both_an_estimate_and_a_bill() -> None:
    report = ReconcileReport()
    drift = report.models["a/one"]
    drift.count(ROW, Outcome.BILLED, Bill(usd("0.003")))
    drift.count(replace(ROW, estimated=None), Outcome.BILLED, Bill(usd("0.5")))
    drift.count(ROW, Outcome.NOT_FOUND)
    report.models["b/two"].count(replace(ROW, estimated=usd("0.004")), Outcome.BILLED, Bill(usd("0.001")))
    assert (drift.asked, drift.unanswered) == (3, 1)
    assert (drift.estimated_usd, drift.billed_usd) == (Decimal("0.002"), Decimal("0.503"))
    assert drift.percent() == Decimal("50.00")
    total = report.total()
    assert (total.asked, total.unanswered, total.billed_usd) == (4, 1, Decimal("0.504"))
    assert total.percent() == Decimal("-33.33")


def test_there_is_no_drift_without_an_estimate() -> None:
    drift = Drift()
    drift.count(replace(ROW, estimated=CostAmount(Decimal(0))), Outcome.BILLED, Bill(usd("0.1")))
    assert drift.percent() is None
