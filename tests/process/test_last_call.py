"""Clients whose streams outlast the beginning of a shutdown: their next request on the same connection is answered."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from yarl import URL

from tests.gateway.raw_http import RawConnection, connected, request_bytes
from tests.harness import HELLO, Upstream, held, says
from tests.process.conftest import serving

CLIENTS = 6
STREAM = request_bytes(json.dumps({**HELLO, "stream": True}).encode())
PLAIN = request_bytes(json.dumps(HELLO).encode())


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGHUP)])
async def test_a_stream_that_could_not_say_close_leaves_room_for_one_more_request(
    upstream: Upstream, tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    may_end = asyncio.Event()
    upstream.answer(*[held(may_end)] * CLIENTS, says())
    command = [sys.executable, "-m", "proxy", "serve", "--workers", str(workers)]
    settings = {"OPENROUTER_BASE_URL": upstream.url, "OPENROUTER_API_KEY": "sk-or-x", "OVERLOAD_LAG_SECONDS": "0"}
    with serving(tmp_path, *command, **settings) as gateway:
        async with AsyncExitStack() as stack:
            url = URL(gateway.url)
            clients = [await stack.enter_async_context(connected(url)) for _ in range(CLIENTS)]
            for each in clients:
                await each.send(STREAM)
                await each.reader.readuntil(b"Hel")
            idle = await stack.enter_async_context(connected(url))
            await asyncio.sleep(0.2)  # for it to be taken
            gateway.process.send_signal(number)
            async with asyncio.timeout(25):
                assert await idle.reader.read() == b""
            await asyncio.sleep(0.5)  # for the other worker's, too
            may_end.set()
            await asyncio.gather(*map(goes_on, clients[1:]))
            await clients[0].reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
            assert await clients[0].reader.read() == b""  # it asks nothing, and is closed all the same
        if number == signal.SIGHUP:
            gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def goes_on(client: RawConnection) -> None:
    """Sends its next request the moment its stream ends."""
    await client.reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
    await client.send(PLAIN)
    answer = await client.answer()
    assert (answer.status, answer.closes) == (200, True)
