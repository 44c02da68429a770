"""The whole gateway at its bounds."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from proxy.domain.request_log import RequestStatus
from tests.gateway.raw_http import openai_error, request_bytes
from tests.harness import HELLO, TestGateway, Upstream, chunk, ending, says, stall, streams
from tests.overload.conftest import gateway_with_bounds, until

STREAM = {**HELLO, "stream": True}


@asynccontextmanager
async def an_open_stream(gateway: TestGateway) -> AsyncIterator[None]:
    async with gateway.http.post(gateway.url / "v1/chat/completions", json=STREAM) as response:
        assert await response.content.readany()
        yield


async def test_above_its_bound_it_refuses_at_once_and_says_so_in_its_health(
    upstream: Upstream, sqlite_url: str, tmp_path: Path
) -> None:
    upstream.answer(streams(chunk("Hi"), then=stall))
    async with gateway_with_bounds(upstream.url, sqlite_url, tmp_path, max_in_flight=1) as gateway:
        async with an_open_stream(gateway):
            status, headers, raw = await gateway.raw_chat(STREAM)
            assert (status, openai_error(raw)["code"]) == (503, "gateway_overloaded")
            assert int(headers["retry-after"]) >= 1
            load = (await gateway.get("/health"))[1]["load"]
            assert (load["in_flight"], load["most_in_flight"], load["refused"]["in_flight"]) == (1, 1, 1)
            assert (await gateway.get("/health/ready"))[0] == 200
        upstream.answer(says())
        async with asyncio.timeout(10):
            while (await gateway.chat())[0] != 200:
                await asyncio.sleep(0.02)
        rows = await gateway.rows(2)
    assert sorted(row.status for row in rows) == [RequestStatus.CLIENT_DISCONNECTED, RequestStatus.SUCCESS]


async def test_what_passed_the_gate_and_finds_no_place_is_refused_and_booked(
    upstream: Upstream, sqlite_url: str, tmp_path: Path
) -> None:
    """Many can come in one turn of the event loop; here nobody stands at the gate at all."""
    upstream.answer(streams(chunk("Hi"), then=stall))
    served = gateway_with_bounds(upstream.url, sqlite_url, tmp_path, False, max_in_flight=1)
    async with served as gateway, an_open_stream(gateway):
        status, headers, answer = await gateway.chat()
        assert (status, answer["error"]["code"]) == (503, "gateway_overloaded")
        assert headers["retry-after"] == "1"
        (row,) = [row for row in await gateway.rows() if row.status is RequestStatus.REFUSED]
        assert row.error_type == "Overloaded"


async def test_of_crowds_who_go_through_their_stages_together_whoever_stays_is_served(
    upstream: Upstream, sqlite_url: str, tmp_path: Path
) -> None:
    """Every other client hangs up at once, wherever its request is then: nothing is lost, held or booked twice."""
    async with gateway_with_bounds(upstream.url, sqlite_url, tmp_path, overload_lag_seconds=10) as gateway:
        for body in (HELLO, STREAM) * 3:
            upstream.answer(streams(chunk("Hi"), *ending()) if body is STREAM else says())
            clients = [await asyncio.open_connection(gateway.url.host, gateway.url.port) for _ in range(80)]
            for _, writer in clients:
                writer.write(request_bytes(json.dumps(body).encode()))
            for number, (_, writer) in enumerate(clients[1::2]):
                writer.close()
                await asyncio.sleep(number % 3 * 0.001)
            for reader, writer in clients[::2]:
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                writer.close()

        async def is_quiet() -> bool:
            health = (await gateway.get("/health"))[1]
            return bool(health["load"]["in_flight"] == 0 and health["ledger"]["waiting_rows"] == 0)

        async with asyncio.timeout(20):
            while not await is_quiet():
                await asyncio.sleep(0.05)
        rows = await gateway.rows()
    assert len({row.request_id for row in rows}) == len(rows)
    assert {row.model.value for row in rows} == {HELLO["model"]}
    assert sum(row.status is RequestStatus.SUCCESS for row in rows) >= 240
    assert {row.status for row in rows} <= {RequestStatus.SUCCESS, RequestStatus.CLIENT_DISCONNECTED}


@pytest.mark.parametrize("answers_in", ["pieces", "one piece"])
async def test_a_client_that_reads_nothing_is_cut_off(
    upstream: Upstream, sqlite_url: str, tmp_path: Path, answers_in: str
) -> None:
    much = "word " * 20_000
    upstream.answer(streams(*[chunk(much)] * 100, *ending()))
    body = STREAM
    if answers_in == "one piece":
        upstream.answer(
            says({**json.loads(chunk()[6:]), "choices": [{"index": 0, "message": {"content": much * 100}}]})
        )
        body = HELLO
    bounds = {"write_stall_timeout_seconds": 0.3}
    async with gateway_with_bounds(upstream.url, sqlite_url, tmp_path, **bounds) as gateway:
        reader = _reads_nothing(gateway.url, json.dumps(body).encode())
        try:
            row = await gateway.row()
            async with asyncio.timeout(10):
                while (await gateway.get("/health"))[1]["load"]["in_flight"]:
                    await asyncio.sleep(0.05)
        finally:
            reader.close()
    if answers_in == "pieces":
        assert row.status is RequestStatus.CLIENT_DISCONNECTED
        await until(lambda: upstream.cancelled == 1)


async def test_a_client_that_reads_slowly_is_not(upstream: Upstream, sqlite_url: str, tmp_path: Path) -> None:
    """It takes three times as long as a client that reads nothing is given."""
    events = [chunk("word " * 20_000)] * 20
    upstream.answer(streams(*events, *ending()))
    bounds = {"write_stall_timeout_seconds": 1.0}
    async with gateway_with_bounds(upstream.url, sqlite_url, tmp_path, **bounds) as gateway:
        reader = _reads_nothing(gateway.url, json.dumps(STREAM).encode())
        reader.setblocking(False)
        loop, read = asyncio.get_running_loop(), b""
        async with asyncio.timeout(30):
            while b"[DONE]" not in read[-100:]:
                await asyncio.sleep(0.003)
                read += await loop.sock_recv(reader, 200_000)
        reader.close()
        assert (await gateway.row()).status is RequestStatus.SUCCESS
    assert read.count(b"data: ") == 23


def _reads_nothing(url: URL, body: bytes) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((url.host, url.port))
    reader.sendall(request_bytes(body))
    return reader
