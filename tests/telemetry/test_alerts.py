"""The alerts fire when somebody has to do something, and only then: judged by what a running gateway shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.harness import HELLO, FakeTime, Upstream, fails, says
from tests.telemetry.alerting import ALERTS, Moment, longest_minutes
from tests.telemetry.conftest import Start
from tests.telemetry.scraping import scrape

FAST = {**HELLO, "model": "fast"}
SCRAPED_EACH = 15.0
BREAKER_FIRES_AFTER = 5


class Watched:
    """A gateway that is scraped as Prometheus does, over minutes of an hour that passes at once."""

    def __init__(self, gateway: Any, time: FakeTime) -> None:
        self.history: list[Moment] = []
        self._gateway, self._time = gateway, time

    async def minutes(self, count: int, *, asked: bool) -> None:
        """With one request a minute, or none."""
        for _ in range(count):
            if asked:
                await self._gateway.chat(FAST)
            for _ in range(4):
                self._time.now += SCRAPED_EACH
                self.history.append(Moment(self._time.now, await scrape(self._gateway)))


async def _watched(start: Start, write: Callable[..., None], upstream: Upstream) -> Watched:
    """Its provider has just failed so often that the breaker is open."""
    time = FakeTime()
    write(routing={"max_attempts": 1})
    gateway = await start(time.timing())
    upstream.answer(fails(500))
    for _ in range(5):
        await gateway.chat(FAST)
    return Watched(gateway, time)


async def test_a_provider_that_fails_for_minutes_is_told(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    """Though its breaker is half-open between two probes, and while one of them waits for an answer."""
    assert ALERTS["LlmGatewayBreakerOpen"]["for"] == f"{BREAKER_FIRES_AFTER}m"
    watched = await _watched(start, write, upstream)
    await watched.minutes(8, asked=True)
    states = {sample.value for moment in watched.history for sample in moment.page.of("llmgateway_breaker_state")}
    assert {1, 2} <= states
    assert longest_minutes("LlmGatewayBreakerOpen", watched.history) >= BREAKER_FIRES_AFTER


async def test_a_provider_that_answers_again_is_not_told(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    watched = await _watched(start, write, upstream)
    await watched.minutes(1, asked=True)
    upstream.answer(says())
    await watched.minutes(8, asked=True)
    assert longest_minutes("LlmGatewayBreakerOpen", watched.history) < BREAKER_FIRES_AFTER


async def test_a_provider_that_nobody_asks_any_more_is_not_told(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    watched = await _watched(start, write, upstream)
    await watched.minutes(12, asked=False)
    assert longest_minutes("LlmGatewayBreakerOpen", watched.history) < BREAKER_FIRES_AFTER
