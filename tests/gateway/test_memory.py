"""What is left of requests when they are over."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
from aiohttp import web

from proxy.application.exchange import Exchange
from proxy.application.upstream import UpstreamCall
from tests.harness import HELLO, Answering, TestGateway, Upstream, chunk, cut, ending, fails, says, stall, streams

REQUESTS = 5
KEPT_BY_CONNECTION = 1  # aiohttp's handler of a connection holds its last request until the next one comes


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: type) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_end_without_the_garbage_collector(
    gateway: TestGateway, upstream: Upstream, stream: bool
) -> None:
    """What goes in circles waits for a collection, which holds all requests up, and is cold when it is used again."""
    if stream:
        upstream.answer(streams(chunk("Hel"), chunk("lo"), *ending(), pause_seconds=0.01))
    exchanges, calls = alive(Exchange), alive(UpstreamCall)  # of other tests
    for _ in range(REQUESTS):
        status, _, _ = await gateway.raw_chat({**HELLO, "stream": stream})
        assert status == 200
    assert alive(Exchange) - exchanges <= KEPT_BY_CONNECTION
    assert alive(UpstreamCall) - calls <= KEPT_BY_CONNECTION


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "the same"}], ids=["", "idempotent"])
@pytest.mark.parametrize(
    "answering",
    [fails(400), fails(503), says(b"[]"), streams(then=cut), streams(chunk("Hel"), then=cut)],
    ids=["refused", "failed", "no completion", "cut", "cut in the middle"],
)
async def test_requests_that_fail_do_too(
    gateway: TestGateway, upstream: Upstream, answering: Answering, stream: bool, key: dict[str, str]
) -> None:
    """An error remembers where it was raised, and so all that was known there: the prompt, and what came instead."""
    upstream.answer(answering)
    exchanges, calls = alive(Exchange), alive(UpstreamCall)  # of other tests
    for number in range(REQUESTS):
        named = {name: f"{value} {number}".replace(" ", "-") for name, value in key.items()}
        await gateway.raw_chat({**HELLO, "stream": stream}, **named)
    assert alive(Exchange) - exchanges <= KEPT_BY_CONNECTION
    assert alive(UpstreamCall) - calls <= KEPT_BY_CONNECTION


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_whose_client_hangs_up_do_too(gateway: TestGateway, upstream: Upstream, stream: bool) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await stall(request)
        raise AssertionError

    upstream.answer(silent)
    exchanges, calls = alive(Exchange), alive(UpstreamCall)  # of other tests
    for number in range(REQUESTS):
        asking = asyncio.create_task(gateway.raw_chat({**HELLO, "stream": stream}))
        async with asyncio.timeout(10):
            while upstream.calls <= number:
                await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.wait([asking])
    await gateway.rows(REQUESTS)
    assert alive(Exchange) - exchanges <= KEPT_BY_CONNECTION
    assert alive(UpstreamCall) - calls <= KEPT_BY_CONNECTION
