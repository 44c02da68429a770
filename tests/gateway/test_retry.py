"""Retries through the running gateway: which failures, how often, how long apart, and what the client is told."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.harness import (
    COMPLETION,
    HELLO,
    Answering,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    cut,
    ending,
    fails,
    says,
    stall,
    streams,
)

STREAMED = {**HELLO, "stream": True}


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake_time: FakeTime) -> TestGateway:
    """A gateway with the delays that a deployment has, and no patience with an upstream that says nothing."""
    return await start_gateway(fake_time.timing(), retry_base_seconds=1.0, openrouter_timeout_seconds=0.2)


async def reset_before_headers(request: web.Request) -> web.StreamResponse:
    await cut(request)
    return web.Response()


async def cut_half_way(request: web.Request) -> web.StreamResponse:
    """The connection is lost when half of the announced body has come."""
    body = json.dumps(COMPLETION).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.01)
    await cut(request)
    return response


async def cut_half_way_in_a_chunk(request: web.Request) -> web.StreamResponse:
    """The same, where no length was announced."""
    return await streams(json.dumps(COMPLETION).encode()[:100], then=cut, pause_seconds=0.01)(request)


async def says_nothing(request: web.Request) -> web.StreamResponse:
    await stall(request)
    return web.Response()


def in_a_200(code: int) -> Answering:
    return says({"error": {"code": code, "message": "overloaded"}})


def begins_with_error(code: int) -> Answering:
    event = b"data: " + json.dumps({"error": {"code": code, "message": "overloaded"}}).encode() + b"\n\n"
    return streams(b": OPENROUTER PROCESSING\n\n", event)


TRANSIENT_STATUSES = [429, 500, 502, 503, 504, 520, 524, 529]
PERMANENT_STATUSES = [400, 401, 402, 403, 404, 408, 409, 422]
TRANSIENT = [
    *(pytest.param(fails(status), id=str(status)) for status in TRANSIENT_STATUSES),
    pytest.param(says(b"<html>Bad gateway</html>", status=502), id="error page"),
    pytest.param(reset_before_headers, id="reset before the headers"),
    pytest.param(says_nothing, id="no first byte in time"),
]
TRANSIENT_PLAIN = [
    pytest.param(cut_half_way, id="cut half-way"),
    pytest.param(cut_half_way_in_a_chunk, id="cut half-way, chunked"),
    pytest.param(in_a_200(503), id="503 in a 200"),
    pytest.param(in_a_200(429), id="429 in a 200"),
]
TRANSIENT_STREAMED = [
    pytest.param(begins_with_error(503), id="503 as first event"),
    pytest.param(begins_with_error(429), id="429 as first event"),
    pytest.param(
        streams(b": OPENROUTER PROCESSING\n\n", then=cut, pause_seconds=0.01), id="cut before the first event"
    ),
    pytest.param(streams(then=cut, pause_seconds=0.01), id="cut after the headers"),
]


@pytest.mark.parametrize("failure", [*TRANSIENT, *TRANSIENT_PLAIN])
async def test_a_transient_failure_is_mended_by_a_retry(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, failure: Answering
) -> None:
    upstream.answer(failure, says())
    status, headers, body = await gateway.chat()
    assert (status, body) == (200, COMPLETION)
    assert headers["x-gateway-attempts"] == "2"
    assert fake_time.waits == [1.0]
    assert [json.loads(sent) for sent in upstream.bodies] == [HELLO, HELLO]
    row = await gateway.row()
    assert (row.attempts, row.status) == (2, RequestStatus.SUCCESS)
    assert not row.was_fallback


@pytest.mark.parametrize("failure", [*TRANSIENT, *TRANSIENT_STREAMED])
async def test_a_transient_failure_before_a_stream_is_mended_by_a_retry(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, failure: Answering
) -> None:
    sent = [chunk("a"), *ending()]
    upstream.answer(failure, streams(*sent))
    status, headers, raw = await gateway.raw_chat(STREAMED)
    assert (status, raw) == (200, b"".join(sent))
    assert headers["x-gateway-attempts"] == "2"
    assert fake_time.waits == [1.0]
    assert (await gateway.row()).attempts == 2


@pytest.mark.parametrize("body", [HELLO, STREAMED], ids=["plain", "streamed"])
@pytest.mark.parametrize("status", PERMANENT_STATUSES)
async def test_a_permanent_failure_is_not_retried(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, status: int, body: Any
) -> None:
    upstream.answer(fails(status), says())
    got, headers, _ = await gateway.chat(body)
    assert got == (502 if status == 401 else status)
    assert upstream.calls == 1
    assert fake_time.waits == []
    assert "x-should-retry" not in headers
    row = await gateway.row()
    assert (row.attempts, row.status, row.error_type) == (1, RequestStatus.UPSTREAM_ERROR, f"http_{status}")


@pytest.mark.parametrize(
    ("failure", "status"),
    [(in_a_200(400), 400), (says(b"<html></html>"), 502), (says(b""), 502), (begins_with_error(400), 502)],
)
async def test_a_permanent_failure_inside_a_200_is_not_retried(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, failure: Answering, status: int
) -> None:
    upstream.answer(failure, says())
    got, _, _ = await gateway.chat()
    assert got == status
    assert (upstream.calls, fake_time.waits) == (1, [])


# When retries are used up


@pytest.mark.parametrize("status", TRANSIENT_STATUSES)
async def test_when_retries_are_used_up_the_last_failure_is_told(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, status: int
) -> None:
    """With `x-should-retry: false`: the SDK's own retries would multiply ours."""
    upstream.answer(fails(500), fails(500), fails(500), fails(status, message="still no luck"))
    got, headers, body = await gateway.chat()
    assert got == status
    assert body["error"]["message"] == "still no luck"
    assert headers["x-should-retry"] == "false"
    assert ("retry-after" in headers) >= (status in (429, 503))
    assert upstream.calls == 4
    assert fake_time.waits == [1.0, 2.0, 4.0]
    row = await gateway.row()
    assert (row.attempts, row.status, row.http_status) == (4, RequestStatus.UPSTREAM_ERROR, status)
    assert row.error_type == f"http_{status}"


@pytest.mark.parametrize(
    ("failure", "status", "kind"), [(reset_before_headers, 502, "connection"), (says_nothing, 504, "timeout")]
)
async def test_an_upstream_that_is_not_there_is_told_as_such(
    gateway: TestGateway, upstream: Upstream, failure: Answering, status: int, kind: str
) -> None:
    upstream.answer(failure)
    got, headers, body = await gateway.chat()
    assert got == status
    assert headers["x-should-retry"] == "false"
    assert body["error"]["code"]
    row = await gateway.row()
    assert (row.attempts, row.error_type) == (4, kind)


async def test_retry_after_is_honoured_and_handed_on(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    upstream.answer(
        fails(429, {"Retry-After": "3"}),
        fails(429, {"retry-after-ms": "2500"}),
        fails(429),
        fails(429, {"Retry-After": "17"}),
    )
    status, headers, _ = await gateway.chat()
    assert (status, headers["retry-after"]) == (429, "17")
    assert fake_time.waits == [3.0, 2.5, 4.0]


async def test_retry_after_may_be_a_date(gateway: TestGateway, upstream: Upstream, fake_time: FakeTime) -> None:
    in_20_seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    upstream.answer(fails(503, {"Retry-After": in_20_seconds}), says())
    status, _, _ = await gateway.chat()
    assert status == 200
    (wait,) = fake_time.waits
    assert 5 < wait <= 20


async def test_a_retry_after_over_the_cap_is_handed_on_at_once(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    upstream.answer(fails(429, {"Retry-After": "31"}), says())
    status, headers, _ = await gateway.chat()
    assert (status, headers["retry-after"]) == (429, "31")
    assert (upstream.calls, fake_time.waits) == (1, [])
    assert (await gateway.row()).attempts == 1


@pytest.mark.parametrize(
    "failure",
    [
        fails(429, type="insufficient_quota"),
        fails(429, {"x-should-retry": "false"}),
        fails(503, {"X-Should-Retry": "False"}),
    ],
)
@pytest.mark.parametrize("body", [HELLO, STREAMED], ids=["plain", "streamed"])
async def test_what_the_upstream_calls_vain_is_not_tried_again(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, failure: Answering, body: Any
) -> None:
    """An account without money, or a gateway there that has tried often enough."""
    upstream.answer(failure, says())
    status, headers, _ = await gateway.chat(body)
    assert status in (429, 503)
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers
    assert (upstream.calls, fake_time.waits) == (1, [])


@pytest.mark.parametrize("word", ["true", "", "no"])
async def test_other_words_about_retries_change_nothing(
    gateway: TestGateway, upstream: Upstream, fake_time: FakeTime, word: str
) -> None:
    upstream.answer(fails(503, {"x-should-retry": word}), says())
    assert (await gateway.chat())[0] == 200
    assert fake_time.waits == [1.0]


async def test_retries_can_be_switched_off(
    start_gateway: StartGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    gateway = await start_gateway(fake_time.timing(), retry_max_retries=0)
    upstream.answer(fails(503), says())
    assert (await gateway.chat())[0] == 503
    assert (upstream.calls, fake_time.waits) == (1, [])


# The deadline


async def test_no_wait_passes_the_deadline(
    start_gateway: StartGateway, upstream: Upstream, fake_time: FakeTime
) -> None:
    gateway = await start_gateway(fake_time.timing(), retry_base_seconds=10.0, request_timeout_seconds=35.0)
    upstream.answer(fails(503))
    status, headers, _ = await gateway.chat()
    assert status == 503
    assert headers["x-should-retry"] == "false"
    assert fake_time.waits == [10.0, 20.0]
    assert upstream.calls == 3


async def test_waits_and_the_deadline_are_of_one_clock(start_gateway: StartGateway, upstream: Upstream) -> None:
    """Whatever the machine's own clock says: a freshly booted one is younger than the time that tests invent."""
    fake_time = FakeTime(now=time.monotonic() + 1e6)
    gateway = await start_gateway(fake_time.timing(), retry_base_seconds=10.0, request_timeout_seconds=35.0)
    upstream.answer(fails(503))
    assert (await gateway.chat())[0] == 503
    assert fake_time.waits == [10.0, 20.0]


async def stalls_after_the_headers(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b" ")
    await stall(request)
    return response


@pytest.mark.parametrize(
    ("failure", "body"),
    [
        pytest.param(says_nothing, HELLO, id="plain, before the headers"),
        pytest.param(stalls_after_the_headers, HELLO, id="plain, after the headers"),
        pytest.param(says_nothing, STREAMED, id="streamed, before the headers"),
        pytest.param(streams(then=stall), STREAMED, id="streamed, after the headers"),
    ],
)
async def test_an_attempt_under_way_ends_at_the_deadline(
    start_gateway: StartGateway, upstream: Upstream, failure: Answering, body: Any
) -> None:
    """Whatever it is waiting for, and however patient the other time-outs are."""
    gateway = await start_gateway(request_timeout_seconds=0.3)
    upstream.answer(failure)
    async with asyncio.timeout(8):
        status, _, _ = await gateway.chat(body)
    assert status == 504
    assert upstream.calls == 1
    assert (await gateway.row()).error_type == "timeout"


# What failed attempts leave behind


async def test_failed_attempts_leave_no_connection_open(gateway: TestGateway, upstream: Upstream) -> None:
    """When the next attempt comes, those before are closed, or it comes on one of them."""
    transports: list[asyncio.Transport] = []

    async def others_are_closed(mine: asyncio.Transport) -> None:
        async with asyncio.timeout(5):
            while not all(transport.is_closing() for transport in transports if transport is not mine):
                await asyncio.sleep(0.005)

    def watching(answering: Answering) -> Answering:
        async def watched(request: web.Request) -> web.StreamResponse:
            assert isinstance(request.transport, asyncio.Transport)
            await others_are_closed(request.transport)
            transports.append(request.transport)
            return await answering(request)

        return watched

    upstream.answer(*(watching(failure) for failure in (cut_half_way, reset_before_headers, in_a_200(503), says())))
    assert (await gateway.chat())[0] == 200
    begins_badly = (begins_with_error(503), streams(then=cut), fails(529), streams(chunk("a"), *ending()))
    upstream.answer(*(watching(failure) for failure in begins_badly))
    assert (await gateway.raw_chat(STREAMED))[0] == 200
    assert len(transports) == 8
