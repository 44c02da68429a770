"""Retries: when to try again, how long to wait, what ends the attempts, and what the breaker is told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiohttp import ClientResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.errors import (
    CircuitOpen,
    DeadlineExceeded,
    GatewayError,
    PermanentUpstreamError,
    TransientUpstreamError,
    UpstreamError,
)
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.resilience import Resilience, RetryPolicy, Timing
from tests.harness import FakeTime

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)
FAR = 1e9
_LOGGER = "proxy.infrastructure"


@dataclass(frozen=True)
class Answered:
    """As much of a response as retrying looks at."""

    method: str = "POST"
    status: int = 200


ANSWER = cast("ClientResponse", Answered())
Outcome = ClientResponse | UpstreamError | Callable[[], Any]


def transient(retry_after_seconds: float | None = None) -> TransientUpstreamError:
    return TransientUpstreamError("overloaded", kind="http_503", status=503, retry_after_seconds=retry_after_seconds)


def permanent() -> PermanentUpstreamError:
    return PermanentUpstreamError("bad request", status=400)


@dataclass
class Attempts:
    """Calls that end as told, one outcome each, the last one again and again; a function is run to get the outcome."""

    outcomes: list[Outcome]
    calls: int = 0

    async def __call__(self) -> ClientResponse:
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if callable(outcome):
            outcome = await outcome()
        if isinstance(outcome, UpstreamError):
            raise outcome
        return outcome


@dataclass
class Rig:
    """A Resilience with its breaker, in time that passes only by waiting."""

    time: FakeTime = field(default_factory=FakeTime)
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    deployment: str = "OpenRouter"

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.deployment, clock=lambda: self.time.now)
        self.resilience = Resilience(self.breaker, self.policy, self.time.timing())

    async def run(
        self, *outcomes: Outcome, deadline: float = FAR, blamed: set[str] | None = None
    ) -> tuple[ClientResponse | GatewayError, int]:
        """How the run ended, and after how many attempts."""
        attempts = Attempts(list(outcomes))
        try:
            return await self.resilience.run(attempts, deadline, blamed), attempts.calls
        except GatewayError as error:
            return error, attempts.calls

    def open(self) -> None:
        """As if other requests had failed."""
        for permit in [self.breaker.allow() for _ in range(5)]:
            self.breaker.failed(permit, transient())


# How long to wait


def test_waits_double_from_one_second() -> None:
    assert [RetryPolicy().delay_seconds(attempt, None, 0.0) for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]


def test_waits_double_from_the_given_base() -> None:
    assert [RetryPolicy(base_seconds=0.5).delay_seconds(attempt, None, 0.0) for attempt in (1, 2)] == [0.5, 1.0]


@_property
@given(st.integers(1, 10), st.floats(0, 1))
def test_jitter_shortens_a_wait_by_at_most_half_and_never_lengthens_it(attempt: int, jitter: float) -> None:
    wait = RetryPolicy().delay_seconds(attempt, None, jitter)
    full = 2.0 ** (attempt - 1)
    assert wait is not None
    assert full / 2 <= wait <= full


def test_jitter_is_not_idle() -> None:
    """Clients that failed together must not come back together."""
    assert len({RetryPolicy().delay_seconds(1, None, jitter / 10) for jitter in range(10)}) == 10


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(0.0, 2.0), (1.9, 2.0), (2.5, 2.5), (30.0, 30.0), (30.1, None), (3600.0, None)],
)
def test_a_longer_retry_after_is_waited_for_up_to_the_cap(retry_after: float, expected: float | None) -> None:
    assert RetryPolicy(retry_after_cap_seconds=30.0).delay_seconds(2, retry_after, 0.0) == expected


def test_jitter_does_not_undercut_retry_after() -> None:
    assert RetryPolicy().delay_seconds(1, 7.0, 1.0) == 7.0


# Attempts and waits of a run


@pytest.mark.parametrize(("failures", "waits"), [(0, []), (1, [1.0]), (2, [1.0, 2.0]), (3, [1.0, 2.0, 4.0])])
async def test_a_later_attempt_may_succeed(failures: int, waits: list[float]) -> None:
    rig = Rig()
    ended, calls = await rig.run(*(transient() for _ in range(failures)), ANSWER)
    assert ended is ANSWER
    assert calls == failures + 1
    assert rig.time.waits == waits
    assert rig.breaker.failure_count == 0


async def test_after_three_retries_the_last_error_is_handed_back() -> None:
    rig = Rig()
    last = transient()
    ended, calls = await rig.run(transient(), transient(), transient(), last, ANSWER)
    assert ended is last
    assert last.retries_exhausted
    assert calls == 4
    assert rig.time.waits == [1.0, 2.0, 4.0]


async def test_no_retries_when_none_are_wanted() -> None:
    rig = Rig(policy=RetryPolicy(max_retries=0))
    _, calls = await rig.run(transient(), ANSWER)
    assert (calls, rig.time.waits) == (1, [])


async def test_a_permanent_error_is_not_retried() -> None:
    rig = Rig()
    error = permanent()
    ended, calls = await rig.run(error, ANSWER)
    assert ended is error
    assert (calls, rig.time.waits) == (1, [])
    assert not error.retries_exhausted


async def test_a_permanent_error_ends_the_retries() -> None:
    rig = Rig()
    ended, calls = await rig.run(transient(), permanent(), ANSWER)
    assert isinstance(ended, PermanentUpstreamError)
    assert (calls, rig.time.waits) == (2, [1.0])


async def test_retry_after_is_honoured() -> None:
    rig = Rig()
    _, calls = await rig.run(transient(5.0), transient(0.5), transient(30.0), ANSWER)
    assert calls == 4
    assert rig.time.waits == [5.0, 2.0, 30.0]


async def test_a_retry_after_over_the_cap_is_handed_back_at_once() -> None:
    rig = Rig()
    error = transient(31.0)
    ended, calls = await rig.run(error, ANSWER)
    assert ended is error
    assert (calls, rig.time.waits) == (1, [])


async def test_jitter_reaches_the_waits() -> None:
    time = FakeTime()
    timing = Timing(sleep=time.sleep, clock=lambda: time.now, jitter=lambda: 1.0)
    resilience = Resilience(Breaker("OpenRouter", clock=timing.clock), RetryPolicy(), timing)
    with pytest.raises(TransientUpstreamError):
        await resilience.run(Attempts([transient()]), FAR)
    assert time.waits == [0.5, 1.0, 2.0]


# The deadline of a run


@pytest.mark.parametrize(
    ("seconds", "waits"), [(0.5, []), (1.5, [1.0]), (2.9, [1.0]), (3.5, [1.0, 2.0]), (6.9, [1.0, 2.0])]
)
async def test_no_wait_passes_the_deadline(seconds: float, waits: list[float]) -> None:
    """A wait that would end after it is not begun: the error comes at once."""
    rig = Rig()
    ended, calls = await rig.run(transient(), deadline=rig.time.now + seconds)
    assert isinstance(ended, TransientUpstreamError)
    assert rig.time.waits == waits
    assert calls == len(waits) + 1


async def test_attempts_that_take_long_use_up_the_deadline() -> None:
    rig = Rig()

    async def slow() -> UpstreamError:
        rig.time.now += 30
        return transient()

    _, calls = await rig.run(slow, deadline=rig.time.now + 62)
    assert calls == 2  # over after 30 s and 61 s; a wait of 2 s more would pass it


@pytest.mark.parametrize("late_seconds", [0.0, 1.0])
async def test_no_attempt_begins_after_the_deadline(late_seconds: float) -> None:
    """Fallbacks come here with the time that their predecessors have left them."""
    rig = Rig()
    ended, calls = await rig.run(ANSWER, deadline=rig.time.now - late_seconds)
    assert calls == 0
    assert isinstance(ended, DeadlineExceeded)
    assert rig.breaker.failure_count == 0


# What a run tells the breaker, and the breaker a run


async def test_a_request_whose_retries_are_used_up_counts_once() -> None:
    rig = Rig()
    for failed in range(1, 5):
        await rig.run(transient())
        assert (rig.breaker.failure_count, rig.breaker.state) == (failed, "closed")
    await rig.run(transient())
    assert rig.breaker.state == "open"


async def test_a_request_that_runs_several_times_counts_once() -> None:
    """Its models stand behind one deployment; another request, and another deployment, count for themselves."""
    rig, other = Rig(), Rig(deployment="another")
    blamed: set[str] = set()
    for _ in range(3):
        await rig.run(transient(), blamed=blamed)
    assert rig.breaker.failure_count == 1
    await rig.run(transient(), blamed=set())
    await rig.run(transient())
    assert rig.breaker.failure_count == 3
    await other.run(transient(), blamed=blamed)
    assert other.breaker.failure_count == 1


async def test_a_probe_that_fails_counts_whoever_makes_it() -> None:
    rig = Rig()
    blamed: set[str] = set()
    await rig.run(transient(), blamed=blamed)
    rig.open()
    rig.time.now += 30
    await rig.run(transient(), blamed=blamed)
    assert (rig.breaker.state, rig.breaker.open_remaining) == ("open", 30.0)


async def test_a_failure_that_a_retry_mended_does_not_count() -> None:
    rig = Rig()
    for _ in range(10):
        await rig.run(transient(), transient(), transient(), ANSWER)
    assert rig.breaker.failure_count == 0


async def test_a_permanent_error_neither_counts_nor_mends() -> None:
    rig = Rig()
    for _ in range(4):
        await rig.run(transient())
    for _ in range(10):
        await rig.run(permanent())
    assert (rig.breaker.failure_count, rig.breaker.state) == (4, "closed")


async def test_an_open_breaker_refuses_without_an_attempt() -> None:
    rig = Rig()
    rig.open()
    ended, calls = await rig.run(ANSWER)
    assert isinstance(ended, CircuitOpen)
    assert ended.retry_after_seconds == 30.0
    assert (calls, rig.time.waits) == (0, [])


async def test_a_breaker_that_opens_meanwhile_ends_the_retries() -> None:
    """Each attempt asks: other requests' failures stop this one too."""
    rig = Rig()

    async def others_fail() -> UpstreamError:
        rig.open()
        return transient()

    ended, calls = await rig.run(others_fail, ANSWER)
    assert isinstance(ended, CircuitOpen)
    assert calls == 1
    assert rig.breaker.state == "open"


async def test_of_many_requests_that_fail_together_five_open_it_and_the_others_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All twenty try once and wait; when five have failed again, the others are refused their second attempt."""
    rig = Rig(policy=RetryPolicy(max_retries=1))
    attempts = Attempts([transient()])
    with caplog.at_level(logging.ERROR, _LOGGER):
        ended = await asyncio.gather(*(rig.resilience.run(attempts, FAR) for _ in range(20)), return_exceptions=True)
    assert sorted(type(error).__name__ for error in ended) == ["CircuitOpen"] * 15 + ["TransientUpstreamError"] * 5
    assert attempts.calls == 25
    assert [record.message for record in caplog.records] == ["circuit opened"]


async def test_a_probe_is_not_retried() -> None:
    """One call tells what is to be known; everybody else is waiting for it."""
    rig = Rig()
    rig.open()
    rig.time.now += 30
    ended, calls = await rig.run(transient(), ANSWER)
    assert isinstance(ended, TransientUpstreamError)
    assert (calls, rig.time.waits, rig.breaker.state) == (1, [], "open")
    assert rig.breaker.open_remaining == 30.0


async def test_a_probe_that_succeeds_closes_it() -> None:
    rig = Rig()
    rig.open()
    rig.time.now += 30
    assert (await rig.run(ANSWER))[0] is ANSWER
    assert rig.breaker.state == "closed"


async def test_a_probe_that_the_upstream_refuses_lets_the_next_one_in() -> None:
    rig = Rig()
    rig.open()
    rig.time.now += 30
    await rig.run(permanent())
    assert rig.breaker.state == "half_open"
    assert (await rig.run(ANSWER))[0] is ANSWER


async def test_a_defect_in_a_probe_lets_the_next_one_in() -> None:
    rig = Rig()
    rig.open()
    rig.time.now += 30

    async def defect() -> ClientResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await rig.resilience.run(defect, FAR)
    assert (await rig.run(ANSWER))[0] is ANSWER


# Runs that are cancelled


async def _never() -> ClientResponse:
    await asyncio.Event().wait()
    return ANSWER


async def _cancel(task: asyncio.Task[Any]) -> None:
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_attempt_counts_nothing() -> None:
    rig = Rig()
    for _ in range(4):
        await rig.run(transient())
    for _ in range(3):
        await _cancel(asyncio.create_task(rig.resilience.run(_never, FAR)))
    assert (rig.breaker.failure_count, rig.breaker.state) == (4, "closed")


async def test_a_cancelled_probe_lets_the_next_one_in() -> None:
    rig = Rig()
    rig.open()
    rig.time.now += 30
    probe = asyncio.create_task(rig.resilience.run(_never, FAR))
    await asyncio.sleep(0)
    assert isinstance((await rig.run(ANSWER))[0], CircuitOpen)
    await _cancel(probe)
    assert rig.breaker.state == "half_open"
    assert (await rig.run(ANSWER))[0] is ANSWER


async def test_a_cancelled_wait_counts_nothing() -> None:
    breaker = Breaker("OpenRouter", failure_threshold=1)
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(
        Resilience(breaker, RetryPolicy(), Timing(sleep=sleep)).run(Attempts([transient()]), FAR)
    )
    await waiting.wait()
    await _cancel(task)
    assert (breaker.failure_count, breaker.state) == (0, "closed")


# What is logged


async def test_each_retry_is_logged_with_its_number_wait_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    """In a word of ours: an upstream's message may quote the prompt."""
    with caplog.at_level(logging.INFO, _LOGGER):
        await Rig().run(transient(), transient(5.0), ANSWER)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    facts = [
        {key: record.__dict__[key] for key in ("retry", "max_retries", "wait_seconds", "reason")}
        for record in caplog.records
    ]
    assert facts == [
        {"retry": 1, "max_retries": 3, "wait_seconds": 1.0, "reason": "http_503"},
        {"retry": 2, "max_retries": 3, "wait_seconds": 5.0, "reason": "http_503"},
    ]


async def test_what_is_not_retried_is_not_logged_as_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with caplog.at_level(logging.INFO, _LOGGER):
        await rig.run(permanent())
        await rig.run(transient(31.0))
        await rig.run(transient(), deadline=rig.time.now + 0.1)
    assert caplog.records == []
