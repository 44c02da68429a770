"""The circuit breaker through the running gateway: a dead upstream is left alone, and asked once whether it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from proxy.domain.request_log import RequestStatus
from proxy.infrastructure.resilience import Timing
from tests.conftest import StartGateway
from tests.harness import HELLO, FakeTime, TestGateway, Upstream, chunk, cut, ending, fails, says, stall, streams

STREAMED = {**HELLO, "stream": True}
AUTO = {**HELLO, "model": "auto"}


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake_time: FakeTime) -> TestGateway:
    """A gateway with the delays and thresholds that a deployment has."""
    return await start_gateway(fake_time.timing(), retry_base_seconds=1.0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def break_it(gateway: TestGateway, upstream: Upstream) -> None:
    """Five requests that fail on every attempt."""
    upstream.answer(fails(503))
    for _ in range(5):
        assert (await gateway.chat())[0] == 503
    assert upstream.calls == 20


async def state(gateway: TestGateway) -> Any:
    _, health = await gateway.get("/health")
    return health["deployments"]["OpenRouter"]["circuit_breaker"]


async def never(request: web.Request) -> web.StreamResponse:
    await stall(request)
    return web.Response()


async def test_a_busy_model_does_not_close_its_provider(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(429))
    for _ in range(6):
        assert (await gateway.chat())[0] == 429
    upstream.answer(says())
    assert (await gateway.chat({**HELLO, "model": "another/model"}))[0] == 200


async def test_after_five_used_up_requests_the_upstream_is_left_alone(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    await break_it(gateway, upstream)
    waits = len(fake_time.waits)
    upstream.answer(never)  # an answer at all shows that nobody asked
    for body in (HELLO, STREAMED):
        status, headers, answer = await gateway.chat(body)
        assert status == 503
        assert headers["retry-after"] == "30"
        assert answer["error"]["code"] == "provider_unavailable"
    assert upstream.calls == 0
    assert len(fake_time.waits) == waits
    assert await state(gateway) == "open"
    newest = (await gateway.rows(7))[0]
    assert (newest.status, newest.http_status, newest.attempts) == (RequestStatus.REFUSED, 503, 0)
    assert newest.error_type == "CircuitOpen"


async def test_four_are_not_enough(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(503))
    for _ in range(4):
        await gateway.chat()
    upstream.answer(says())
    assert (await gateway.chat())[0] == 200
    upstream.answer(fails(503))
    for _ in range(4):
        await gateway.chat()
    assert await state(gateway) == "closed"


async def test_retry_after_counts_down(gateway: TestGateway, upstream: Upstream, fake_time: FakeTime) -> None:
    await break_it(gateway, upstream)
    fake_time.now += 22.5
    _, headers, _ = await gateway.chat()
    assert headers["retry-after"] == "8"


async def test_a_breaker_that_opens_ends_the_retries_of_a_request_that_waits(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    first_waits, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        if not first_waits.is_set():
            first_waits.set()
            await go_on.wait()

    gateway = await start_gateway(Timing(sleep=sleep), retry_base_seconds=1.0)
    upstream.answer(fails(503))
    first = asyncio.create_task(gateway.chat())
    await first_waits.wait()
    for _ in range(5):
        await gateway.chat()
    go_on.set()
    status, headers, body = await first
    assert (status, body["error"]["code"]) == (503, "provider_unavailable")
    assert 0 < int(headers["retry-after"]) <= 30
    assert upstream.calls == 21
    assert sorted(row.attempts for row in await gateway.rows(6)) == [1, 4, 4, 4, 4, 4]


async def test_of_many_requests_after_the_cool_down_one_probes(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    await break_it(gateway, upstream)
    fake_time.now += 30
    answered = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        await answered.wait()
        return await says()(request)

    upstream.answer(slowly)
    requests = [asyncio.create_task(gateway.chat()) for _ in range(50)]
    await until(lambda: sum(request.done() for request in requests) == 49)
    assert upstream.calls == 1
    answered.set()
    statuses = [status for status, _, _ in await asyncio.gather(*requests)]
    assert sorted(statuses) == [200] + [503] * 49
    assert await state(gateway) == "closed"
    assert (await gateway.chat())[0] == 200


async def test_a_probe_that_fails_is_not_repeated(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    await break_it(gateway, upstream)
    fake_time.now += 30
    upstream.answer(fails(502), says())
    assert (await gateway.chat())[0] == 502
    status, headers, _ = await gateway.chat()
    assert (status, headers["retry-after"]) == (503, "30")
    assert upstream.calls == 1
    fake_time.now += 30
    assert (await gateway.chat())[0] == 200


async def test_a_stream_can_be_the_probe(gateway: TestGateway, upstream: Upstream, fake_time: FakeTime) -> None:
    await break_it(gateway, upstream)
    fake_time.now += 30
    upstream.answer(streams(chunk("a"), *ending()))
    assert (await gateway.raw_chat(STREAMED))[0] == 200
    assert await state(gateway) == "closed"


async def test_a_probe_whose_client_hangs_up_lets_the_next_one_in(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    await break_it(gateway, upstream)
    fake_time.now += 30
    upstream.answer(never, says())
    probe = asyncio.create_task(gateway.chat())
    await until(lambda: upstream.calls == 1)
    probe.cancel()
    await until(lambda: upstream.cancelled == 1)
    assert (await gateway.chat())[0] == 200
    assert await state(gateway) == "closed"


# What never opens it: with a threshold of one, anything that counted would.


@pytest.fixture
async def touchy(start_gateway: StartGateway, fake_time: FakeTime) -> TestGateway:
    """A gateway whose breaker opens on the first failure."""
    return await start_gateway(fake_time.timing(), circuit_breaker_failure_threshold=1)


async def test_it_is_touchy(touchy: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(503))
    await touchy.chat()
    assert await state(touchy) == "open"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422])
async def test_client_errors_never_open_it(touchy: TestGateway, upstream: Upstream, status: int) -> None:
    upstream.answer(fails(status))
    await touchy.chat()
    assert await state(touchy) == "closed"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b""])
async def test_answers_that_are_no_completion_do_not_open_it(
    touchy: TestGateway, upstream: Upstream, body: bytes
) -> None:
    upstream.answer(says(body))
    assert (await touchy.chat())[0] == 502
    assert await state(touchy) == "closed"


async def test_failures_that_a_retry_mends_never_open_it(touchy: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(503), fails(500), fails(429), says())
    assert (await touchy.chat())[0] == 200
    assert await state(touchy) == "closed"


@pytest.mark.parametrize("body", [HELLO, STREAMED], ids=["plain", "streamed"])
async def test_clients_that_hang_up_never_open_it(touchy: TestGateway, upstream: Upstream, body: Any) -> None:
    upstream.answer(never)
    request = asyncio.create_task(touchy.chat(body))
    await until(lambda: upstream.calls == 1)
    request.cancel()
    await until(lambda: upstream.cancelled == 1)
    assert (await touchy.row()).status is RequestStatus.CLIENT_DISCONNECTED
    assert await state(touchy) == "closed"


async def test_a_client_that_hangs_up_between_attempts_does_not_open_it(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    gateway = await start_gateway(Timing(sleep=sleep), retry_base_seconds=1.0, circuit_breaker_failure_threshold=1)
    upstream.answer(fails(503))
    request = asyncio.create_task(gateway.chat())
    await waiting.wait()
    request.cancel()
    row = await gateway.row()
    assert (row.status, row.attempts) == (RequestStatus.CLIENT_DISCONNECTED, 1)
    assert await state(gateway) == "closed"


async def test_a_stream_that_breaks_after_it_began_does_not_open_it(touchy: TestGateway, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("a"), then=cut, pause_seconds=0.01))
    await touchy.raw_chat(STREAMED)
    assert await state(touchy) == "closed"


# `auto`: several models, one upstream


async def test_a_request_with_fallbacks_is_one_failure(gateway: TestGateway, upstream: Upstream) -> None:
    """Its models stand behind the same breaker: three of them failing is one outage, not three."""
    upstream.answer(fails(503))
    for _ in range(4):
        assert (await gateway.chat(AUTO))[0] >= 500
    assert await state(gateway) == "closed"


async def test_a_request_with_fallbacks_is_refused_like_any_other(gateway: TestGateway, upstream: Upstream) -> None:
    await break_it(gateway, upstream)
    status, headers, _ = await gateway.chat(AUTO)
    assert (status, headers.get("retry-after")) == (503, "30")
    assert upstream.calls == 20
