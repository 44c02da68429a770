"""A latency that rises at once, falls slowly, and is forgotten."""

from __future__ import annotations

import math

import pytest

from proxy.domain.routing.peak_ewma import PeakEwma


def test_nothing_measured_is_not_fast() -> None:
    assert PeakEwma().value(1000.0) is None


def test_a_peak_counts_at_once() -> None:
    latency = PeakEwma(decay_seconds=10)
    latency.observe(1.0, now=0.0)
    latency.observe(5.0, now=0.0)
    assert latency.value(0.0) == 5.0


def test_a_low_time_counts_by_how_long_the_last_one_is_ago() -> None:
    latency = PeakEwma(decay_seconds=10)
    latency.observe(5.0, now=100.0)
    latency.observe(1.0, now=100.0)
    assert latency.value(100.0) == 5.0
    latency.observe(1.0, now=110.0)
    assert latency.value(110.0) == pytest.approx(5 / math.e + 1 * (1 - 1 / math.e))


def test_what_is_not_observed_any_more_is_forgotten() -> None:
    """Else a deployment that was slow once, and is avoided since, would be avoided for ever."""
    latency = PeakEwma(decay_seconds=10)
    latency.observe(5.0, now=0.0)
    assert latency.value(10.0) == pytest.approx(5 / math.e)
    assert latency.value(1e6) == pytest.approx(0.0)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    latency = PeakEwma()
    latency.observe(2.0, now=7.0)
    assert latency.value(7.0) == 2.0
    assert latency.value(6.0) == 2.0
