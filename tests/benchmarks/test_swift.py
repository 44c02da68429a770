"""The clients of the overload benchmark: whatever becomes of a request, it is counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.swift import Crowd, PlainUpstream, request_bytes

SETTLING_SECONDS = 0.3


@asynccontextmanager
async def crowd_at(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[Crowd]:
    """Clients of a server that speaks so."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield Crowd(host, port, request_bytes("gateway", b"{}", {}), SETTLING_SECONDS)


def ways(crowd: Crowd) -> Counter[int]:
    return Counter(status for _, status, _ in crowd.tally.ended)


class HangsUp(PlainUpstream):
    """Closes the connection instead of answering."""

    def _answer(self) -> None:
        self._transport.close()


async def test_an_open_loop_takes_more_connections_when_all_of_them_wait() -> None:
    async with crowd_at(partial(PlainUpstream, 0.05)) as crowd:
        await crowd.open(200, 0.5, connections=1, most_connections=50)
    assert crowd.unsent == 0
    assert crowd.tally.open == 0
    assert set(ways(crowd)) == {200}
    assert ways(crowd).total() > 20
    assert len(crowd.lags) > 1


async def test_beyond_the_connections_that_it_may_have_requests_are_unsent_and_said_to_be() -> None:
    async with crowd_at(partial(PlainUpstream, 0.1)) as crowd:
        await crowd.open(200, 0.5, connections=2)
    assert ways(crowd)[200] > 0
    assert crowd.unsent > 20


async def test_what_is_never_answered_is_counted_and_so_is_what_is_lost() -> None:
    async with crowd_at(partial(PlainUpstream, 60.0)) as crowd:
        await crowd.closed(3, 0.1)
    assert (crowd.tally.open, ways(crowd)) == (3, {})
    async with crowd_at(partial(HangsUp, 0.0)) as crowd:
        await crowd.closed(3, 0.1)
    assert crowd.tally.open == 0
    assert set(ways(crowd)) == {0}
