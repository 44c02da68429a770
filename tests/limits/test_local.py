"""Limits in one process, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import Priority, TokenEstimate
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.shares import Share
from tests.limits.conftest import Build, Limiter, applied

KEY = Subject(Scope.KEY, "7d0a")


async def admitted(limiter: Limiter, *limits: object, **wanted: object) -> bool:
    try:
        (await limiter.enter(*limits, **wanted)).leave(0, 0)  # type: ignore[arg-type]
    except RateLimited:
        return False
    return True


async def test_ten_times_the_rate_gets_the_limit_in_each_minute(build: Build) -> None:
    limiter = await build()
    limit = applied(requests_per_minute=600)
    times = []
    for step in range(5 * 6000):  # five minutes
        limiter.clock.now = 1000 + step / 100
        if await admitted(limiter, limit):
            times.append(limiter.clock.now)
    for begin in range(1000, 1240):
        within = sum(begin <= moment < begin + 60 for moment in times)
        assert within <= 606, begin
        if begin == 1000 or begin >= 1060:  # between them the first minute's burst has left
            assert within >= 594, begin


async def test_four_processes_share_a_limit(build: Build) -> None:
    limit = applied(requests_per_minute=602)
    limiters = [await build() for _ in range(4)]
    for rank, limiter in enumerate(limiters):
        limiter.counting.divide(Share(4, rank))
    let_in = 0
    for step in range(6000):
        limiter = limiters[step % 4]
        limiter.clock.now = 1000 + step / 100
        let_in += await admitted(limiter, limit)
    assert let_in == 602


async def test_a_small_limit_lets_every_process_do_something() -> None:
    assert [Share(4, rank).of(6) for rank in range(4)] == [2, 2, 1, 1]
    assert [Share(4, rank).of(1) for rank in range(4)] == [1, 1, 1, 1]


async def test_the_refusal_says_who_what_and_when(build: Build) -> None:
    limiter = await build()
    limit = applied(KEY, requests_per_minute=3)
    for _ in range(3):
        await limiter.enter(limit)
    limiter.clock.now += 10
    with pytest.raises(RateLimited) as caught:
        await limiter.enter(limit)
    assert str(caught.value) == (
        "Rate limit reached for key '7d0a' on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 1m10s."
    )
    assert caught.value.retry_after_seconds == pytest.approx(70)
    assert caught.value.headers == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m50s",
    }
    limiter.clock.now += 69.9
    assert not await admitted(limiter, limit)
    limiter.clock.now += 0.2
    assert await admitted(limiter, limit)


async def test_one_full_limit_takes_nothing_of_the_others(build: Build) -> None:
    limiter = await build()
    wide, narrow = applied(requests_per_minute=10), applied(KEY, requests_per_minute=1)
    await limiter.enter(wide, narrow)
    for _ in range(5):
        assert not await admitted(limiter, wide, narrow)
    granted = await limiter.enter(wide)
    assert granted.headers["x-ratelimit-remaining-requests"] == "8"


async def test_tokens_are_corrected_to_what_was_used(build: Build) -> None:
    limiter = await build()
    limit = applied(tokens_per_minute=1000, output_tokens_per_minute=900)
    estimate = TokenEstimate(100, 800)
    granted = await limiter.enter(limit, estimate=estimate)
    assert granted.headers["x-ratelimit-remaining-tokens"] == "100"
    with pytest.raises(RateLimited, match="Used 900, Requested 900"):
        await limiter.enter(limit, estimate=estimate)
    granted.leave(50, 40)
    granted.leave(50, 40)  # counts once
    again = await limiter.enter(limit, estimate=TokenEstimate(10, 100))
    assert again.headers["x-ratelimit-remaining-tokens"] == "760"  # of the output tokens: 900 - 40 - 100
    again.leave(10, 5000)  # more than estimated
    assert not await admitted(limiter, limit, estimate=TokenEstimate(1, 1))


async def test_a_correction_finds_the_window_that_has_passed(build: Build) -> None:
    limiter = await build()
    limit = applied(tokens_per_minute=1000)
    granted = await limiter.enter(limit, estimate=TokenEstimate(0, 1000))
    limiter.clock.now += 60
    granted.leave(0, 400)
    fresh = await limiter.enter(limit, estimate=TokenEstimate(0, 600))
    assert fresh.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_an_estimate_above_the_limit_may_pass_alone(build: Build) -> None:
    limiter = await build()
    limit = applied(tokens_per_minute=1000)
    (await limiter.enter(limit, estimate=TokenEstimate(10, 8192))).leave(10, 20)
    with pytest.raises(RateLimited, match=r"Requested 8202.*more than the limit.*Lower max_tokens"):
        await limiter.enter(limit, estimate=TokenEstimate(10, 8192))


async def test_what_nobody_asks_for_any_more_is_forgotten(build: Build) -> None:
    limiter = await build()
    rule = uuid4()
    for number in range(5000):
        limiter.clock.now += 0.5
        subject = Subject(Scope.END_USER, f"user-{number}")
        (await limiter.enter(applied(subject, rule, requests_per_minute=5, concurrent_requests=1))).leave(0, 0)
    assert limiter.local.keys <= 250  # two minutes' users


async def test_places_are_given_back(build: Build) -> None:
    limiter = await build()
    limit = applied(KEY, concurrent_requests=2)
    first, _second = [await limiter.enter(limit) for _ in range(2)]
    with pytest.raises(RateLimited, match=r"on concurrent requests: Limit 2, Requested 1; all are taken") as caught:
        await limiter.enter(limit)
    assert caught.value.retry_after_seconds == 1
    first.leave(0, 0)
    first.leave(0, 0)
    await limiter.enter(limit)
    assert not await admitted(limiter, limit)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_is_served_by_priority_and_then_in_turn(build: Build) -> None:
    limiter = await build()
    limit = applied(GATEWAY, concurrent_requests=1)
    running = await limiter.enter(limit)
    served: list[str] = []

    async def ask(name: str, priority: Priority) -> None:
        granted = await limiter.enter(limit, priority=priority)
        served.append(name)
        granted.leave(0, 0)

    tasks = []
    for name, priority in [("l", 0), ("n1", 1), ("n2", 1), ("h1", 2), ("h2", 2)]:
        tasks.append(asyncio.create_task(ask(name, Priority(priority))))
        await settled()
    running.leave(0, 0)
    await asyncio.gather(*tasks)
    assert served == ["h1", "h2", "n1", "n2", "l"]


async def test_a_full_queue_turns_away_the_lowest(build: Build) -> None:
    limiter = await build(queue=2)
    limit = applied(GATEWAY, concurrent_requests=1)
    running = await limiter.enter(limit)
    low = asyncio.create_task(limiter.enter(limit, priority=Priority.LOW))
    normal = asyncio.create_task(limiter.enter(limit))
    await settled()
    other = asyncio.create_task(limiter.enter(limit))  # pushes the low one out
    with pytest.raises(RateLimited, match="a request of higher priority came"):
        await low
    with pytest.raises(RateLimited, match="too many wait already"):
        await limiter.enter(limit)
    high = asyncio.create_task(limiter.enter(limit, priority=Priority.HIGH))
    with pytest.raises(RateLimited, match="a request of higher priority came"):
        await other
    running.leave(0, 0)
    (await high).leave(0, 0)
    (await normal).leave(0, 0)


async def test_low_priority_does_not_wait_in_a_half_full_queue(build: Build) -> None:
    limiter = await build(queue=4)
    limit = applied(GATEWAY, concurrent_requests=1)
    running = await limiter.enter(limit)
    waiting = [asyncio.create_task(limiter.enter(limit)) for _ in range(2)]
    await settled()
    with pytest.raises(RateLimited, match="too many wait for a request of low priority"):
        await limiter.enter(limit, priority=Priority.LOW)
    running.leave(0, 0)
    for task in waiting:
        (await task).leave(0, 0)


async def test_nobody_waits_longer_than_the_deadline(build: Build) -> None:
    limiter = await build(wait_seconds=0.01)
    limit = applied(GATEWAY, concurrent_requests=1)
    await limiter.enter(limit)
    with pytest.raises(RateLimited, match=r"none was free within 0.01 s"):
        await limiter.enter(limit)


@pytest.mark.parametrize("steps", range(8))
async def test_cancelling_anywhere_leaks_no_place(build: Build, steps: int) -> None:
    limiter = await build()
    limit = applied(GATEWAY, concurrent_requests=1)
    running = await limiter.enter(limit)
    task = asyncio.create_task(limiter.enter(limit))
    await settled()
    running.leave(0, 0)
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.cancel():
        results = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError | Pass)
    if not task.cancelled():
        task.result().leave(0, 0)
    async with asyncio.timeout(5):
        (await limiter.enter(limit)).leave(0, 0)
    assert limiter.local.keys == 0
    assert limiter.counting.state()["waiting"] == 0
