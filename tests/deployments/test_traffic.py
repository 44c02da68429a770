"""What a deployment's answers tell of it."""

from __future__ import annotations

import pytest

from proxy.infrastructure.deployments.traffic import Traffic
from proxy.infrastructure.retry_budget import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    return Traffic(clock)


def test_streams_and_whole_answers_are_not_compared(traffic: Traffic, clock: Clock) -> None:
    latency = traffic.streams
    assert latency.ewma_seconds is None
    latency.answered(0.2)
    latency.answered(4.0)
    assert latency.ewma_seconds == 4.0
    clock.now += 60
    assert (latency.ewma_seconds or 0) < 1.0
    assert traffic.latency(stream=True) is latency
    assert traffic.latency(stream=False).ewma_seconds is None


def test_only_slow_failures_count_as_latency(traffic: Traffic) -> None:
    latency = traffic.whole_answers
    latency.failed(30.0)
    assert latency.ewma_seconds is None  # nothing is known of its answers
    latency.answered(1.0)
    latency.failed(0.001)
    assert latency.ewma_seconds == 1.0
    latency.failed(30.0)
    assert latency.ewma_seconds == 30.0


def test_p95_needs_some_answers(traffic: Traffic) -> None:
    for number in range(1, 20):
        traffic.streams.answered(number)
        assert traffic.streams.p95_seconds() is None
    for number in range(20, 101):
        traffic.streams.answered(number)
    assert traffic.streams.p95_seconds() == 95


def test_outcomes_are_of_the_last_hundred_calls(traffic: Traffic, clock: Clock) -> None:
    outcomes = traffic.outcomes
    assert (outcomes.success_rate, outcomes.last_failed, outcomes.last_error) == (None, False, None)
    outcomes.failed("http_503")
    assert (outcomes.success_rate, outcomes.last_failed) == (0.0, True)
    clock.now += 7
    for _ in range(99):
        outcomes.answered()
    assert (outcomes.success_rate, outcomes.last_failed) == (0.99, False)
    assert (outcomes.last_error, outcomes.last_error_seconds_ago()) == ("http_503", 7)
    outcomes.answered()
    assert outcomes.success_rate == 1.0


def test_a_model_cools_down_for_the_longest_time_that_was_asked_for(traffic: Traffic, clock: Clock) -> None:
    cooling = traffic.cool_downs
    cooling.begin("a", 10)
    cooling.begin("a", 3)
    assert (cooling.seconds_left("a"), cooling.seconds_left("b")) == (10, 0)
    clock.now += 6
    assert cooling.models() == {"a": 4}
    clock.now += 4
    assert (cooling.seconds_left("a"), cooling.models()) == (0, {})


def test_a_model_cools_down_for_an_hour_at_most(traffic: Traffic, clock: Clock) -> None:
    cooling = traffic.cool_downs
    for seconds in (3601, 86_400, 1e308):
        cooling.begin("a", seconds)
    assert cooling.models() == {"a": 3600}
    clock.now += 3600
    assert (cooling.seconds_left("a"), cooling.models()) == (0, {})


def test_models_that_cool_down_are_not_remembered_without_end(traffic: Traffic, clock: Clock) -> None:
    for number in range(5000):
        traffic.cool_downs.begin(f"model-{number}", 10)
    assert len(traffic.cool_downs.models()) == 1000
    clock.now += 11
    traffic.cool_downs.begin("another", 10)
    assert traffic.cool_downs.models() == {"another": 10}


def test_use_is_of_the_running_minute(traffic: Traffic, clock: Clock) -> None:
    traffic.minute.count(requests=1)
    traffic.minute.count(tokens=30)
    assert traffic.minute.so_far() == (1, 30)
    clock.now += 60
    assert traffic.minute.so_far() == (0, 0)


@pytest.mark.parametrize(("requests", "allowed"), [(0, 3), (15, 3), (20, 4), (100, 20)])
def test_retries_are_a_share_of_the_requests_and_a_few_always(requests: int, allowed: int) -> None:
    budget = RetryBudget(percent=20, min_retries=3)
    budget.requests = requests
    assert [budget.take() for _ in range(allowed + 1)] == [True] * allowed + [False]
    budget.give_back()
    assert budget.take()
