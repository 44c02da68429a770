"""What a client sees when the upstream is away, breaks off, or says when to come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import openai
import pytest
from aiohttp import web

from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import HELLO, Answering, FakeTime, TestGateway, Upstream, fails, stall

ONCE = {"retry_max_retries": 0}
TRANSIENT = (429, 500, 502, 503, 504, 520, 524, 529)


def sends_raw(answer: bytes) -> Answering:
    """Those bytes, then the end of the connection."""

    async def answering(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.write(answer)
        request.transport.close()
        return web.Response()

    return answering


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN_HTTP = {
    "hang-up": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-",
    "cut in the body": HEAD + b'Content-Length: 1000\r\n\r\n{"choices": [',
    "cut in the chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
    "broken chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "no gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("answer", BROKEN_HTTP.values(), ids=BROKEN_HTTP)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_answer_that_breaks_off_is_retried_and_then_a_502(
    gateway: TestGateway, upstream: Upstream, answer: bytes, streamed: bool
) -> None:
    upstream.answer(sends_raw(answer))
    status, headers, body = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert status == 502
    assert openai_error(body)["type"] == "server_error"
    assert headers["x-should-retry"] == "false"
    assert upstream.calls == 4
    row = await gateway.row()
    assert (row.status, row.attempts) == (RequestStatus.UPSTREAM_ERROR, 4)


async def test_an_error_status_whose_body_breaks_off_is_an_error_all_the_same(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(sends_raw(b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\n{"))
    status, _, body = await gateway.raw_chat()
    assert status in (502, 503)
    openai_error(body)


async def test_an_upstream_that_is_not_there_is_a_502(start_gateway: StartGateway, upstream: Upstream) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gateway = await start_gateway(openrouter_base_url=f"http://127.0.0.1:{port}/api/v1/")
    status, headers, body = await gateway.raw_chat()
    assert status == 502
    message = openai_error(body)["message"]
    assert "OpenRouter" in message
    assert str(port) not in message
    assert headers["x-should-retry"] == "false"
    row = await gateway.row()
    assert (row.status, row.error_type, row.attempts) == (RequestStatus.UPSTREAM_ERROR, "connection", 4)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_upstream_that_does_not_answer_in_time_is_a_504(
    start_gateway: StartGateway, upstream: Upstream, streamed: bool
) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await stall(request)
        raise AssertionError

    gateway = await start_gateway(**ONCE, openrouter_timeout_seconds=0.1)
    upstream.answer(silent)
    status, _, body = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert status == 504
    assert "0.1 s" in openai_error(body)["message"]
    row = await gateway.row()
    assert (row.status, row.error_type) == (RequestStatus.UPSTREAM_ERROR, "timeout")
    async with asyncio.timeout(5):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("status", [402, 408, 429, 503])
async def test_when_to_come_back_is_handed_on(start_gateway: StartGateway, upstream: Upstream, status: int) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(fails(status, {"Retry-After": "7"}))
    _, headers, _ = await gateway.raw_chat()
    assert headers["retry-after"] == "7"


def in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        pytest.param(lambda: {"Retry-After": "0.2"}, 1, 1, id="fraction"),
        pytest.param(lambda: {"Retry-After": "0"}, 0, 1, id="now"),
        pytest.param(lambda: {"retry-after-ms": "2500"}, 3, 3, id="milliseconds"),
        pytest.param(lambda: {"Retry-After": in_an_hour()}, 3590, 3600, id="date"),
        pytest.param(lambda: {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 1, id="date gone by"),
        pytest.param(lambda: {"Retry-After": "86400"}, 86400, 86400, id="a day"),
        pytest.param(lambda: {"Retry-After": "-5"}, 1, 1, id="negative"),
        pytest.param(lambda: {"Retry-After": "soon"}, 1, 1, id="word"),
        pytest.param(lambda: {"Retry-After": "NaN"}, 1, 1, id="NaN"),
        pytest.param(lambda: {"Retry-After": "Infinity"}, 1, 1, id="infinity"),
        pytest.param(lambda: {"Retry-After": "Mon, 99 Foo 2015 99:99:99 GMT"}, 1, 1, id="no date"),
        pytest.param(dict, 1, 1, id="not said"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_client_always_learns_when_to_come_back(
    start_gateway: StartGateway,
    upstream: Upstream,
    status: int,
    given: Callable[[], dict[str, str]],
    low: int,
    high: int,
) -> None:
    """In whole seconds, whatever the upstream said, if anything."""
    gateway = await start_gateway(**ONCE)
    upstream.answer(fails(status, given()))
    got, headers, _ = await gateway.raw_chat()
    assert got == status
    assert low <= int(headers["retry-after"]) <= high


async def test_a_wait_longer_than_the_cap_is_left_to_the_client(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    time = FakeTime()
    gateway = await start_gateway(time.timing(), retry_after_cap_seconds=30)
    upstream.answer(fails(429, {"Retry-After": "3600"}))
    status, headers, _ = await gateway.raw_chat()
    assert (status, headers["retry-after"]) == (429, "3600")
    assert upstream.calls == 1
    assert time.waits == []


@pytest.mark.parametrize("status", [400, 402, 403, 404, 408, 409, 413, 422])
async def test_what_would_fail_again_is_not_retried(gateway: TestGateway, upstream: Upstream, status: int) -> None:
    """The client's SDK is left to its own judgement."""
    upstream.answer(fails(status))
    _, headers, _ = await gateway.raw_chat()
    assert upstream.calls == 1
    assert "x-should-retry" not in headers


@pytest.mark.parametrize("status", TRANSIENT)
async def test_what_was_retried_here_is_not_to_be_retried_by_the_client(
    gateway: TestGateway, upstream: Upstream, status: int
) -> None:
    """Four attempts here would become twelve."""
    upstream.answer(fails(status))
    _, headers, _ = await gateway.raw_chat()
    assert upstream.calls == 4
    assert headers["x-should-retry"] == "false"
    upstream.answer(fails(status))
    async with openai.AsyncOpenAI(base_url=str(gateway.url / "v1"), api_key="any", max_retries=2) as client:
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(**HELLO)
    assert upstream.calls == 4
