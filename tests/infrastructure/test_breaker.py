"""The circuit breaker alone, in time that passes by hand."""

from __future__ import annotations

import logging

import pytest

from proxy.domain.errors import CircuitOpen, TransientUpstreamError
from proxy.infrastructure.breaker import Breaker, Permit
from tests.harness import FakeTime

ERROR = TransientUpstreamError("overloaded", kind="http_503", status=503)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def breaker(time: FakeTime) -> Breaker:
    """Opens after 5 failures, cools down for 30 s."""
    return Breaker("OpenRouter", clock=lambda: time.now)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(breaker.allow(), ERROR)


def half_open(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, 5)
    time.now += 30


def refused(breaker: Breaker) -> CircuitOpen:
    with pytest.raises(CircuitOpen) as caught:
        breaker.allow()
    return caught.value


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_a_new_one_is_closed(breaker: Breaker) -> None:
    assert breaker.state == "closed"
    assert breaker.allow().is_probe is False


def test_four_failures_do_not_open_it(breaker: Breaker) -> None:
    fail(breaker, 4)
    assert breaker.state == "closed"
    assert not breaker.allow().is_probe


def test_the_fifth_failure_opens_it(breaker: Breaker) -> None:
    fail(breaker, 5)
    assert breaker.state == "open"
    assert refused(breaker).retry_after_seconds == 30.0


def test_the_threshold_is_a_setting(time: FakeTime) -> None:
    breaker = Breaker("OpenRouter", failure_threshold=1, cooldown_seconds=2.0, clock=lambda: time.now)
    fail(breaker)
    assert refused(breaker).retry_after_seconds == 2.0


def test_a_success_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 4)
    breaker.succeeded(breaker.allow())
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"


def test_a_call_that_tells_nothing_leaves_the_count_as_it_is(breaker: Breaker) -> None:
    fail(breaker, 4)
    for _ in range(10):
        breaker.release(breaker.allow())
    assert breaker.failure_count == 4
    fail(breaker)
    assert breaker.state == "open"


def test_it_stays_open_until_the_cool_down_is_over(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, 5)
    time.now += 29.5
    assert breaker.state == "open"
    assert refused(breaker).retry_after_seconds == 0.5
    time.now += 0.5
    assert breaker.state == "half_open"


def test_refusals_neither_count_nor_prolong(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, 5)
    time.now += 20
    for _ in range(100):
        refused(breaker)
    assert breaker.open_remaining == 10.0


def test_of_a_hundred_callers_one_is_let_through_when_half_open(breaker: Breaker, time: FakeTime) -> None:
    half_open(breaker, time)
    permits: list[Permit] = []
    refusals: list[CircuitOpen] = []
    for _ in range(100):
        try:
            permits.append(breaker.allow())
        except CircuitOpen as error:
            refusals.append(error)
    assert [permit.is_probe for permit in permits] == [True]
    assert len(refusals) == 99
    assert all(0 < error.retry_after_seconds <= 30 for error in refusals)


def test_a_long_probe_stays_the_only_one_for_a_cool_down(breaker: Breaker, time: FakeTime) -> None:
    """It may be a whole answer, which has minutes, and hang: the upstream may be well long before its time is over."""
    half_open(breaker, time)
    hanging = breaker.allow()
    time.now += 29
    refused(breaker)
    assert breaker.refusing_seconds() > 0
    time.now += 1
    assert breaker.refusing_seconds() == 0
    breaker.succeeded(breaker.allow())
    assert breaker.state == "closed"
    breaker.failed(hanging, ERROR)
    assert breaker.state == "closed"


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, time: FakeTime) -> None:
    half_open(breaker, time)
    breaker.succeeded(breaker.allow())
    assert breaker.state == "closed"
    assert breaker.failure_count == 0
    assert not any(breaker.allow().is_probe for _ in range(10))
    fail(breaker, 4)
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_for_a_full_cool_down(breaker: Breaker, time: FakeTime) -> None:
    half_open(breaker, time)
    probe = breaker.allow()
    time.now += 7
    breaker.failed(probe, ERROR)
    assert breaker.state == "open"
    assert refused(breaker).retry_after_seconds == 30.0
    time.now += 30
    assert breaker.allow().is_probe


def test_it_can_open_again_and_again(breaker: Breaker, time: FakeTime) -> None:
    half_open(breaker, time)
    for _ in range(3):
        breaker.failed(breaker.allow(), ERROR)
        refused(breaker)
        time.now += 30
    breaker.succeeded(breaker.allow())
    half_open(breaker, time)
    assert breaker.allow().is_probe


def test_a_probe_that_tells_nothing_lets_the_next_one_in(breaker: Breaker, time: FakeTime) -> None:
    """Its client hung up, or the upstream answered 4xx."""
    half_open(breaker, time)
    first = breaker.allow()
    breaker.release(first)
    assert breaker.state == "half_open"
    second = breaker.allow()
    assert second.is_probe
    breaker.release(first)
    refused(breaker)


def test_handing_a_permit_back_twice_is_harmless(breaker: Breaker, time: FakeTime) -> None:
    half_open(breaker, time)
    probe = breaker.allow()
    breaker.succeeded(probe)
    breaker.release(probe)
    assert breaker.state == "closed"


# Calls that began before it opened, and end after.


def test_a_late_success_does_not_close_it(breaker: Breaker, time: FakeTime) -> None:
    old = breaker.allow()
    fail(breaker, 5)
    breaker.succeeded(old)
    assert breaker.state == "open"
    assert breaker.failure_count == 5


def test_a_late_success_does_not_stand_in_for_the_probe(breaker: Breaker, time: FakeTime) -> None:
    old = breaker.allow()
    half_open(breaker, time)
    probe = breaker.allow()
    breaker.succeeded(old)
    assert breaker.state == "half_open"
    refused(breaker)
    breaker.failed(probe, ERROR)
    assert breaker.state == "open"


def test_late_failures_do_not_prolong_the_cool_down(breaker: Breaker, time: FakeTime) -> None:
    old = [breaker.allow() for _ in range(50)]
    fail(breaker, 5)
    time.now += 10
    for permit in old:
        breaker.failed(permit, ERROR)
    assert breaker.open_remaining == 20.0
    assert breaker.failure_count == 5


def test_a_late_failure_does_not_open_it_again(breaker: Breaker, time: FakeTime) -> None:
    old = [breaker.allow() for _ in range(50)]
    half_open(breaker, time)
    for permit in old[:25]:
        breaker.failed(permit, ERROR)
    assert breaker.state == "half_open"
    breaker.succeeded(breaker.allow())
    for permit in old[25:]:
        breaker.failed(permit, ERROR)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_a_late_success_does_not_start_the_count_anew(breaker: Breaker, time: FakeTime) -> None:
    old = breaker.allow()
    half_open(breaker, time)
    breaker.succeeded(breaker.allow())
    fail(breaker, 4)
    breaker.succeeded(old)
    fail(breaker)
    assert breaker.state == "open"


# Logs


def test_every_change_of_state_is_logged(breaker: Breaker, time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "proxy.infrastructure.breaker"):
        fail(breaker, 4)
        assert messages(caplog) == []
        fail(breaker)
        time.now += 30
        breaker.failed(breaker.allow(), ERROR)
        time.now += 30
        breaker.succeeded(breaker.allow())
        breaker.succeeded(breaker.allow())
    assert [(record.message, record.levelname, record.__dict__["state"]) for record in caplog.records] == [
        ("circuit opened", "ERROR", "open"),
        ("circuit half-open, probing", "INFO", "half_open"),
        ("circuit opened", "ERROR", "open"),
        ("circuit half-open, probing", "INFO", "half_open"),
        ("circuit closed", "INFO", "closed"),
    ]
    assert all(record.__dict__["deployment"] == "OpenRouter" for record in caplog.records)
    opened = caplog.records[0].__dict__
    assert (opened["failures"], opened["cooldown_seconds"], opened["reason"]) == (5, 30.0, "http_503")
