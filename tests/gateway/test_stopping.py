"""A gateway that stops: requests that are not done when their grace is over are its own to answer for."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from proxy.domain.request_log import RequestLog, RequestStatus
from tests.gateway.raw_http import RawConnection, connected, request_bytes
from tests.harness import HELLO, TestGateway, Upstream, chunk, gateway_over, stall, streams

STREAMED = json.dumps({**HELLO, "stream": True}).encode()
PLAIN = json.dumps(HELLO).encode()
KEY = b"Idempotency-Key: one"
ORDINARY = "/v1/chat/completions?way=ordinary"
WAYS = pytest.mark.parametrize(
    "request_",
    [
        pytest.param(request_bytes(STREAMED), id="stream"),
        pytest.param(request_bytes(STREAMED, path=ORDINARY), id="ordinary stream"),
        pytest.param(request_bytes(STREAMED, KEY), id="stream with a key"),
        pytest.param(request_bytes(PLAIN), id="plain"),
        pytest.param(request_bytes(PLAIN, path=ORDINARY), id="ordinary plain"),
        pytest.param(request_bytes(PLAIN, KEY), id="plain with a key"),
    ],
)


@pytest.fixture
def endless(upstream: Upstream) -> Upstream:
    """It begins every stream and ends none, and gives no other answer at all."""
    begins = streams(chunk("Hel"), then=stall)

    async def answering(request: web.Request) -> web.StreamResponse:
        if upstream.bodies[-1] != STREAMED:
            await stall(request)
        return await begins(request)

    upstream.answer(answering)
    return upstream


@pytest.fixture
async def clients() -> AsyncIterator[AsyncExitStack]:
    """Their connections, which outlive the gateway."""
    async with AsyncExitStack() as stack:
        yield stack


async def under_way(clients: AsyncExitStack, gateway: TestGateway, upstream: Upstream, request: bytes) -> RawConnection:
    """A client that waits: its stream has begun, or its request has reached the upstream."""
    connection = await clients.enter_async_context(connected(gateway.url))
    await connection.send(request)
    async with asyncio.timeout(20):
        if STREAMED in request:
            await connection.reader.readuntil(b"Hel")
        while not upstream.calls:
            await asyncio.sleep(0.01)
    return connection


def ended(rows: list[RequestLog]) -> list[tuple[RequestStatus, str | None]]:
    return [(row.status, row.error_type) for row in rows]


@WAYS
async def test_what_it_cuts_itself_is_interrupted(
    endless: Upstream, sqlite_url: str, clients: AsyncExitStack, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    caplog.set_level(logging.INFO, "proxy.access")
    async with gateway_over(endless.url, sqlite_url, shutdown_grace_seconds=0.2) as gateway:
        await under_way(clients, gateway, endless, request_)
    assert ended(await gateway.rows()) == [(RequestStatus.INTERRUPTED, "interrupted")]
    (record,) = (record for record in caplog.records if record.name == "proxy.access")
    assert (record.__dict__["status"], record.__dict__["outcome"]) == ("interrupted", "interrupted")


@WAYS
async def test_a_client_that_leaves_while_it_stops_has_left(
    endless: Upstream, sqlite_url: str, clients: AsyncExitStack, request_: bytes
) -> None:
    async with gateway_over(endless.url, sqlite_url, shutdown_grace_seconds=60) as gateway:
        client = await under_way(clients, gateway, endless, request_)
        asyncio.get_running_loop().call_later(0.3, client.writer.close)
    assert ended(await gateway.rows()) == [(RequestStatus.CLIENT_DISCONNECTED, "client_disconnected")]


async def test_all_that_share_an_answer_are_interrupted(
    endless: Upstream, sqlite_url: str, clients: AsyncExitStack
) -> None:
    async with gateway_over(endless.url, sqlite_url, shutdown_grace_seconds=0.2) as gateway:
        for _ in range(2):
            await under_way(clients, gateway, endless, request_bytes(STREAMED, KEY))
    assert ended(await gateway.rows(2)) == [(RequestStatus.INTERRUPTED, "interrupted")] * 2
    assert endless.calls == 1


# What a client is told whose stream is cut


STREAMS = pytest.mark.parametrize(
    "request_",
    [
        pytest.param(request_bytes(STREAMED), id="direct"),
        pytest.param(request_bytes(STREAMED, path=ORDINARY), id="ordinary"),
        pytest.param(request_bytes(STREAMED, KEY), id="with a key"),
    ],
)


def in_http_1_0(request: bytes) -> bytes:
    return request.replace(b"HTTP/1.1", b"HTTP/1.0", 1)


@STREAMS
@pytest.mark.parametrize("framed", [pytest.param(True, id="HTTP/1.1"), pytest.param(False, id="HTTP/1.0")])
async def test_a_stream_that_is_cut_ends_with_an_error(
    endless: Upstream, sqlite_url: str, clients: AsyncExitStack, request_: bytes, framed: bool
) -> None:
    async with gateway_over(endless.url, sqlite_url, shutdown_grace_seconds=0.2) as gateway:
        client = await under_way(clients, gateway, endless, request_ if framed else in_http_1_0(request_))
    rest = await client.reader.read()
    assert b"[DONE]" not in rest
    error = json.loads(rest.rpartition(b"data: ")[2].split(b"\n")[0])["error"]
    assert (error["type"], error["code"]) == ("server_error", "service_unavailable")
    assert rest.endswith(b"\n\n\r\n" if framed else b"\n\n")  # the chunk's own end, and none of all chunks


@STREAMS
async def test_a_stream_that_is_cut_while_it_is_not_read_never_ends_well(
    upstream: Upstream, sqlite_url: str, request_: bytes
) -> None:
    """Without chunks; what has not been taken when the gateway ends may be lost, the error among it."""
    upstream.answer(streams(*[chunk("Hel" * 5000)] * 1000, then=stall))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with gateway_over(upstream.url, sqlite_url, shutdown_grace_seconds=0.2) as gateway:
            client.connect((gateway.url.host, gateway.url.port))
            client.sendall(in_http_1_0(request_))
            await asyncio.sleep(1)  # by then nothing more fits in between
        client.settimeout(20)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(read_all, client)
    assert ended(await gateway.rows()) == [(RequestStatus.INTERRUPTED, "interrupted")]


def read_all(client: socket.socket) -> None:
    while client.recv(65_536):
        pass
