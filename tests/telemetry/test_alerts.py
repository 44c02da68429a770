"""The alerts fire when somebody has to do something, and only then: judged by what a running gateway shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from proxy.infrastructure.ledger.spool import Spool
from tests.harness import HELLO, FakeTime, Upstream, chunk, cut, fails, says, streams
from tests.telemetry.alerting import ALERTS, DASHBOARD, Moment, has_risen, longest_minutes, selected, series_of
from tests.telemetry.conftest import Start
from tests.telemetry.scraping import Scrape, scrape

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


def _shares() -> dict[str, str]:
    """Expressions of the share of requests that fail: numerator / denominator, and for the alert a bound."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    (panel,) = (each for each in panels if each["title"] == "Share of requests that failed")
    alert, *_ = ALERTS["LlmGatewayErrors"]["expr"].split(">")
    shown: str = panel["targets"][0]["expr"]
    return {"alert": alert, "dashboard": shown.replace("$job", ".*").replace("$model", ".*")}


@pytest.fixture(params=["alert", "dashboard"])
def share(request: pytest.FixtureRequest) -> str:
    return _shares()[request.param]


def _of(share: str, page: Scrape) -> tuple[float, float]:
    """How many failed, and of how many."""
    failed, all_of_them = share.split("/")
    return selected(failed, page), selected(all_of_them, page)


async def test_an_outage_is_all_requests_that_an_open_breaker_fails(
    start: Start, upstream: Upstream, share: str
) -> None:
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(500))
    assert [(await gateway.chat(FAST))[0] for _ in range(9)] == [500] * 5 + [503] * 4
    assert _of(share, await scrape(gateway)) == (9, 9)


@pytest.mark.parametrize(("status", "failed"), [(400, 0), (404, 0), (402, 1), (429, 1), (401, 1)])
async def test_what_clients_do_wrong_is_no_failure(
    start: Start, upstream: Upstream, share: str, status: int, failed: int
) -> None:
    """401 and 402 are about the gateway's own account, and answered with 502 and 402; 429 is about its quota."""
    gateway = await start(FakeTime().timing())
    await gateway.chat(FAST)
    await gateway.chat(b"{")  # refused by the gateway
    upstream.answer(fails(status))
    await gateway.chat(FAST)
    assert _of(share, await scrape(gateway)) == (failed, 2)


async def test_where_nothing_has_failed_yet_the_share_is_shown_as_none_instead_of_not_at_all(start: Start) -> None:
    """There is no series of failures then, and what is divided of nothing is nothing."""
    gateway = await start(FakeTime().timing())
    await gateway.chat(FAST)
    page = await scrape(gateway)
    failed, _ = _shares()["dashboard"].split("/")
    assert not series_of(failed, page)
    *_, otherwise = _shares()["dashboard"].split(" or ")
    assert otherwise.startswith("0 * sum(")
    assert selected(otherwise, page) == 1


async def test_a_broken_stream_is_a_failure(start: Start, upstream: Upstream, share: str) -> None:
    gateway = await start(FakeTime().timing())
    upstream.answer(streams(chunk("Hi"), then=cut))
    await gateway.raw_chat({**FAST, "stream": True})
    assert _of(share, await scrape(gateway)) == (1, 1)


async def test_rows_that_are_set_aside_before_the_first_scrape_are_told(start: Start, tmp_path: Path) -> None:
    """As what a crash has left, or an upgrade cannot read, is: the first page has them already."""
    spool = Spool(tmp_path / "data" / "spool", max_bytes=2**26)
    spool.reserve()
    spool.note_outcome(uuid4(), b"O and an outcome that is none")
    spool._lock.close()  # its process dies
    gateway = await start(llmgateway_data_dir=str(tmp_path / "data"))
    async with asyncio.timeout(10):
        while not (page := await scrape(gateway)).value("llmgateway_ledger_set_aside_rows"):
            await asyncio.sleep(0.02)
    assert has_risen("LlmGatewayRowsSetAside", [Moment(0, page), Moment(600, page)])
    assert not has_risen("LlmGatewayRowsSetAside", [Moment(seconds, page) for seconds in (0, 600, 3600, 4200)])
