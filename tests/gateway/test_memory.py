"""What is left of requests when they are over."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from proxy.application.exchange import Exchange
from proxy.application.upstream import UpstreamCall
from tests.harness import HELLO, TestGateway, Upstream, chunk, ending, streams

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
