"""Requests for which surely nothing was generated are told from those whose cost is not known."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from benchmarks.load import write_config
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from tests.conftest import StartGateway
from tests.gateway.raw_http import connected, request_bytes
from tests.gateway.refusals import GOOD
from tests.harness import (
    HELLO,
    Answering,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    cut,
    fails,
    says,
    stall,
    streams,
)

AUTO = {**HELLO, "model": "auto"}


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake_time: FakeTime) -> TestGateway:
    """Without jitter and waits, and with no patience with an upstream that says nothing."""
    return await start_gateway(fake_time.timing(), openrouter_timeout_seconds=0.2)


async def resets(request: web.Request) -> web.StreamResponse:
    await cut(request)
    return web.Response()


async def says_nothing(request: web.Request) -> web.StreamResponse:
    await stall(request)
    return web.Response()


async def refuses_and_breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=429, headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.sleep(0.01)
    await cut(request)
    return response


def costs_nothing(row: RequestLog) -> bool:
    """Null, not zero."""
    assert (row.cost(), row.estimated_cost, row.reported_cost) == (None, None, None)
    assert row.usage_source is UsageSource.NONE
    return row.cost_source is CostSource.NONE


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("script", "attempts"),
    [
        ([fails(400)], 1),
        ([fails(401)], 1),
        ([fails(499)], 1),
        ([fails(429)], 4),
        ([fails(429), fails(402)], 2),
        ([says(b"<html>no", status=404)], 1),
        ([refuses_and_breaks_off, fails(400)], 2),
    ],
)
async def test_nothing_is_billed_when_every_attempt_was_refused(
    gateway: TestGateway, upstream: Upstream, script: list[Answering], attempts: int, *, stream: bool
) -> None:
    upstream.answer(*script)
    await gateway.chat({**HELLO, "stream": stream})
    row = await gateway.row()
    assert (row.status, row.attempts) == (RequestStatus.UPSTREAM_ERROR, attempts)
    assert costs_nothing(row)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a port at which connections wait in vain to be taken."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address):  # more are not let in
            yield f"http://127.0.0.1:{address[1]}/v1"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("why", ["refused", "no such host", "no TLS", "nobody takes it"])
async def test_nothing_is_billed_when_no_connection_was_made(
    start_gateway: StartGateway, upstream: Upstream, deaf: str, why: str, *, stream: bool
) -> None:
    url = {
        "refused": "http://127.0.0.1:9/v1",
        "no such host": "http://no-such-host.invalid/v1",
        "no TLS": upstream.url.replace("http:", "https:"),
        "nobody takes it": deaf,
    }[why]
    gateway = await start_gateway(openrouter_base_url=url, connect_timeout_seconds=0.2, retry_max_retries=1)
    assert (await gateway.chat({**HELLO, "stream": stream}))[0] == 502
    row = await gateway.row()
    assert (row.status, row.attempts, row.error_type) == (RequestStatus.UPSTREAM_ERROR, 2, "connection")
    assert costs_nothing(row)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "script",
    [
        [fails(500)],
        [fails(500), fails(400)],
        [fails(429), fails(503), fails(429)],
        [fails(429), resets, fails(400)],
        [says_nothing, fails(400)],
        [fails(429), says({"error": {"code": 400, "message": "late"}})],
        [says(b"no completion")],
        [fails(307)],
    ],
    ids=[
        "500",
        "500 first",
        "503 between",
        "connection lost",
        "time-out",
        "error in a 200",
        "invalid",
        "redirect",
    ],
)
async def test_a_failure_after_which_something_may_be_billed_is_of_unknown_cost(
    gateway: TestGateway, upstream: Upstream, script: list[Answering], *, stream: bool
) -> None:
    upstream.answer(*script)
    await gateway.chat({**HELLO, "stream": stream})
    row = await gateway.row()
    assert row.status is RequestStatus.UPSTREAM_ERROR
    assert not costs_nothing(row)
    assert row.cost_source is CostSource.UNKNOWN


@pytest.mark.parametrize(
    ("script", "source"),
    [
        ([*[fails(404)] * 2, fails(403)], CostSource.NONE),
        ([fails(404), fails(404), fails(502)], CostSource.UNKNOWN),
        ([*[fails(502)] * 4, fails(404), fails(403)], CostSource.UNKNOWN),
    ],
)
async def test_all_models_that_were_tried_count(
    gateway: TestGateway, upstream: Upstream, script: list[Answering], source: CostSource
) -> None:
    upstream.answer(*script)
    await gateway.chat(AUTO)
    row = await gateway.row()
    assert (row.status, row.was_fallback) == (RequestStatus.UPSTREAM_ERROR, True)
    assert row.cost_source is source


async def test_an_answer_after_refusals_costs_what_it_says(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(429), fails(429), says())
    assert (await gateway.chat())[0] == 200
    row = await gateway.row()
    assert (row.attempts, row.cost_source) == (3, CostSource.REPORTED)


async def test_a_stream_that_breaks_off_after_a_refusal_is_estimated(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(429), streams(chunk("word"), then=cut))
    await gateway.raw_chat({**HELLO, "stream": True})
    row = await gateway.row()
    assert (row.status, row.cost_source) == (RequestStatus.STREAM_BROKEN, CostSource.COMPUTED)


async def test_what_is_refused_here_costs_nothing(gateway: TestGateway, upstream: Upstream) -> None:
    assert (await gateway.chat({**HELLO, "messages": []}))[0] == 400
    row = await gateway.row()
    assert (row.status, row.attempts, upstream.calls) == (RequestStatus.REFUSED, 0, 0)
    assert costs_nothing(row)


async def test_an_open_breaker_costs_nothing(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(circuit_breaker_failure_threshold=1, retry_max_retries=0)
    upstream.answer(fails(500))
    await gateway.chat()
    for body in (HELLO, AUTO):
        assert (await gateway.chat(body))[0] == 503
    through_auto, direct, sent = await gateway.rows(3)
    assert sent.cost_source is CostSource.UNKNOWN
    assert (direct.attempts, through_auto.attempts) == (0, 0)
    assert costs_nothing(direct)
    assert costs_nothing(through_auto)


async def test_a_client_that_hangs_up_before_its_request_is_whole_costs_nothing(
    gateway: TestGateway, upstream: Upstream
) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD)[:-1])
        await asyncio.sleep(0.1)
        connection.writer.close()
        row = await gateway.row()
    assert (row.status, row.attempts, upstream.calls) == (RequestStatus.CLIENT_DISCONNECTED, 0, 0)
    assert costs_nothing(row)


async def test_a_client_that_hangs_up_while_the_upstream_works_may_be_billed(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway()
    upstream.answer(fails(429), says_nothing)
    call = asyncio.create_task(gateway.chat())
    while upstream.calls < 2:
        await asyncio.sleep(0.01)
    call.cancel()
    row = await gateway.row()
    assert (row.status, row.attempts) == (RequestStatus.CLIENT_DISCONNECTED, 2)
    assert row.cost_source is CostSource.UNKNOWN


@pytest.mark.parametrize(
    ("loser", "source"),
    [(says_nothing, CostSource.UNKNOWN), (fails(500), CostSource.UNKNOWN), (fails(400), CostSource.NONE)],
    ids=["cut off", "500", "refused"],
)
async def test_a_call_that_lost_a_race_is_like_any_other_that_told_no_usage(
    start_gateway: StartGateway, upstream: Upstream, tmp_path: Path, loser: Answering, source: CostSource
) -> None:
    """Also where there is a price, which makes of no usage a cost of next to nothing."""
    prices = {"input_usd_per_1m_tokens": 1, "output_usd_per_1m_tokens": 1000}
    both = [{"provider": name, "model": "any", "order": order, "prices": prices} for order, name in enumerate("ab")]
    models = {"fast": {"deployments": both, "strategy": "priority", "hedge": {"after_seconds": 0.05}}}
    write_config(tmp_path / "gateway.yaml", dict.fromkeys("ab", upstream.url), models=models)
    gateway = await start_gateway(llmgateway_config=str(tmp_path / "gateway.yaml"))
    lost = asyncio.Event()

    async def loses(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)  # till the other one is asked
        lost.set()
        return await loser(request)

    async def wins(request: web.Request) -> web.StreamResponse:
        await lost.wait()
        await asyncio.sleep(0.05)
        return await says()(request)

    upstream.answer(loses, wins)
    assert (await gateway.chat({**HELLO, "model": "fast"}))[0] == 200
    rows = {row.status: row for row in await gateway.rows(2)}
    row = rows[RequestStatus.HEDGED]
    assert (row.provider_name, row.attempts, row.usage_source) == ("a", 1, UsageSource.NONE)
    assert (row.cost(), row.cost_source) == (None, source)
    assert rows[RequestStatus.SUCCESS].cost_source is CostSource.REPORTED


async def test_reports_count_only_costs_that_are_not_known(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(400), fails(500), fails(400), says())
    for body in (HELLO, HELLO, {**HELLO, "messages": []}, HELLO):
        await gateway.chat(body)
    await gateway.rows(4)
    _, report = await gateway.get("v1/usage?by=model")
    assert report["total"]["requests"] == 4
    assert report["total"]["requests_of_unknown_cost"] == 1
    assert report["total"]["cost_usd_by_source"] == {"reported": "0.00123"}
