"""Clients that send nothing, too little or too slowly. The limits are fractions of a second here; tests wait longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway.raw_http import RawConnection, connected, openai_error, request_bytes
from tests.http.conftest import HANG_SECONDS, Served, check_refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE = request_bytes(method="GET", path="/health/live")
POST = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 5000")
CHUNKED = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
IDLE_SECONDS = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    limits = {
        "head_timeout_seconds": 0.8,
        "body_timeout_seconds": 0.8,
        "keepalive_timeout_seconds": IDLE_SECONDS,
        "body_min_bytes_per_second": 2000,
    }
    async with serving(migrated_sqlite, tmp_path_factory.mktemp("slow"), **limits) as served:
        yield served


async def _trickle(connection: RawConnection, byte: bytes) -> None:
    """A byte every now and then, for ever."""
    try:
        for number in count():
            await connection.send(byte if number % 50 else byte * 2)
            await asyncio.sleep(0.02)
    except ConnectionError:
        return


async def _everything(connection: RawConnection) -> bytes:
    """Until the gateway hangs up."""
    async with asyncio.timeout(HANG_SECONDS):
        try:
            return await connection.reader.read()
        except ConnectionResetError:
            return b""


SILENT = {"nothing": b"", "line ends": b"\r\n\r\n"}
HALF_HEADS = {
    "part of a method": b"GE",
    "request line": b"GET / HTTP/1.1\r\n",
    "part of a name": b"GET / HTTP/1.1\r\nHo",
    "all but the last byte": WHOLE[:-1],
}


async def test_a_connection_on_which_nothing_comes_is_closed(impatient: Served) -> None:
    async with connected(impatient.gateway.url) as connection:
        assert await _everything(connection) == b""
    await impatient.is_well()


@pytest.mark.parametrize("head", HALF_HEADS.values(), ids=HALF_HEADS)
@pytest.mark.parametrize("before", ["at first", "after a request", "behind a request"])
async def test_a_head_that_stops_is_answered_with_408(impatient: Served, head: bytes, before: str) -> None:
    async with connected(impatient.gateway.url) as connection:
        if before == "behind a request":
            head = WHOLE + head
        elif before == "after a request":
            await connection.send(WHOLE)
            assert (await connection.answer()).status == 200
        await connection.send(head)
        if before == "behind a request":
            assert (await connection.answer()).status == 200
        answer = await connection.answer()
        check_refusal(answer, 408)
        assert openai_error(answer.body)["code"] == "request_incomplete"
        assert await _everything(connection) == b""
    await impatient.is_well()


@pytest.mark.parametrize("byte", [b"a", b"\r\n"], ids=["in a header", "line ends"])
async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(impatient: Served, byte: bytes) -> None:
    async with connected(impatient.gateway.url) as connection:
        if byte == b"a":
            await connection.send(WHOLE[:-2] + b"X-Slow: ")
        trickling = asyncio.create_task(_trickle(connection, byte))
        answer = await connection.answer()
        check_refusal(answer, 408)
        assert await _everything(connection) == b""
        await trickling
    await impatient.is_well()


BODIES = {
    "no body": POST,
    "part of a body": POST + b"{" * 100,
    "no chunk": CHUNKED,
    "part of a size": CHUNKED + b"1",
    "part of a chunk": CHUNKED + b"ff\r\n{{",
    "no last chunk": CHUNKED + b"2\r\n{}\r\n",
    "no end of trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: a\r\n",
}


@pytest.mark.parametrize("request_", BODIES.values(), ids=BODIES)
async def test_a_body_that_stops_is_answered_with_408(impatient: Served, request_: bytes) -> None:
    async with connected(impatient.gateway.url) as connection:
        await connection.send(request_)
        answer = await connection.answer()
        check_refusal(answer, 408)
        assert answer.closes
        assert await connection.is_closed()
    assert impatient.upstream.calls == 0
    await impatient.is_well()


@pytest.mark.parametrize(
    ("head", "piece"), [(POST, b" "), (CHUNKED, b"1\r\n \r\n")], ids=["of known length", "in chunks"]
)
async def test_a_body_that_comes_byte_by_byte_is_not_waited_for(impatient: Served, head: bytes, piece: bytes) -> None:
    async with connected(impatient.gateway.url) as connection:
        await connection.send(head)
        trickling = asyncio.create_task(_trickle(connection, piece))
        answer = await connection.answer()
        check_refusal(answer, 408)
        assert answer.closes
        trickling.cancel()
    await impatient.is_well()


async def test_a_body_that_nobody_reads_does_not_keep_its_connection(impatient: Served) -> None:
    async with connected(impatient.gateway.url) as connection:
        await connection.send(request_bytes(None, b"Content-Length: 5000", method="GET", path="/health/live"))
        assert (await connection.answer()).status == 200
        assert await _everything(connection) == b""


async def test_a_body_that_makes_progress_may_take_longer(impatient: Served) -> None:
    """More than twice the limit for a pause; the body turns out to be nonsense, but it is heard to its end."""
    async with connected(impatient.gateway.url) as connection:
        await connection.send(request_bytes(None, b"Content-Type: application/json", b"Content-Length: 40000"))
        for _ in range(40):
            await connection.send(b" " * 1000)
            await asyncio.sleep(0.05)
        assert (await connection.answer()).status == 400


async def test_a_connection_without_a_request_is_kept_for_a_while(impatient: Served) -> None:
    async with connected(impatient.gateway.url) as connection:
        for _ in range(2):
            await connection.send(WHOLE)
            answer = await connection.answer()
            assert (answer.status, answer.closes) == (200, False)
            await asyncio.sleep(1.0)  # longer than for a head, shorter than between requests
        assert await _everything(connection) == b""
    await impatient.is_well()


async def test_five_hundred_half_heads_disturb_nobody(impatient: Served) -> None:
    async with AsyncExitStack() as stack:
        slow = []
        for _ in range(500):
            slow.append(await stack.enter_async_context(connected(impatient.gateway.url)))
            await slow[-1].send(HALF_HEADS["part of a name"])
        async with asyncio.timeout(HANG_SECONDS):
            for _ in range(20):
                assert (await impatient.gateway.chat())[0] == 200
        async with asyncio.timeout(HANG_SECONDS):
            answers = await asyncio.gather(*(_everything(connection) for connection in slow))
    told = {answer[:12] for answer in answers}
    assert b"HTTP/1.1 408" in told
    assert told <= {b"HTTP/1.1 408", b""}  # on a busy machine a limit may have passed before the first bytes are seen
    await impatient.is_well()
