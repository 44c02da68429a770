"""Requests with some of their bytes changed, added, doubled or left out, cut into reads anywhere."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.gateway.raw_http import RawConnection, chunked, connected, openai_error, request_bytes
from tests.harness import HELLO
from tests.http.conftest import HANG_SECONDS, Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps(HELLO).encode()
SEEDS = [
    request_bytes(BODY),
    request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked") + chunked(BODY[:9], BODY[9:]),
    request_bytes(BODY, b"Expect: 100-continue", b"X-Title: a"),
    request_bytes(method="GET", path="/v1/models?x=%41#y"),
    request_bytes(method="GET", path="/health") * 3,
    request_bytes(BODY, b"Connection: Upgrade", b"Upgrade: h2c"),
    request_bytes(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
]
PIECES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\x7f", b"\xff", b"\xc3\xa4", b"0",
    b"-1", b"ffffffffffffffff", b"/", b"//", b"%", b"%00", b"%ff", b"?", b"#", b"*", b"http://a/", b"..", b"HTTP/1.1",
    b"HTTP/2", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n",
]  # fmt: skip

_place = st.integers(0, 400)
_change = st.tuples(_place, st.integers(0, 6), st.sampled_from(PIECES) | st.binary(max_size=6))


async def _answers(connection: RawConnection) -> None:
    """All that comes until the gateway hangs up or, told that nothing more will come, has nothing more to say."""
    with suppress(asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
        while True:
            answer = await connection.answer()
            assert answer.status < 500, answer
            if answer.status >= 400 and answer.body:
                openai_error(answer.body)


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(_change, min_size=1, max_size=4),
    cuts=st.lists(_place, max_size=3),
)
async def test_changed_requests_are_answered_or_ended(
    served: Served, seed: bytes, changes: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """Never with a 5xx, and a good request is served afterwards."""
    request = seed
    for place, left_out, put_in in changes:
        at = place % (len(request) + 1)
        request = request[:at] + put_in + request[at + left_out :]
    places = [0, *sorted(cut % (len(request) + 1) for cut in cuts), len(request)]
    async with asyncio.timeout(HANG_SECONDS), connected(served.gateway.url) as connection:
        with suppress(ConnectionError):
            for begin, end in pairwise(places):
                await connection.send(request[begin:end])
                await asyncio.sleep(0)
        listening = asyncio.create_task(_answers(connection))
        await asyncio.wait([listening], timeout=0.02)
        with suppress(OSError):
            connection.writer.write_eof()
        await listening
    await served.is_well()
