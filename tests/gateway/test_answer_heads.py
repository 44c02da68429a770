"""Heads of answers as they stand on the wire, over each version of HTTP and each wish for the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import pytest

from tests.gateway.raw_http import connected, request_bytes
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, ending, streams

ASKED = json.dumps(HELLO).encode()
# Python's requests reads text/* as Latin-1 where no charset is told.
EVENT_STREAM = "text/event-stream; charset=utf-8"
ASKED_FOR_A_STREAM = json.dumps({**HELLO, "stream": True}).encode()


async def _answer(gateway: TestGateway, request: bytes) -> tuple[str, list[tuple[str, str]], bytes, bool]:
    """Status line, headers as they came, body, and whether the gateway hung up after it."""
    async with connected(gateway.url) as connection, asyncio.timeout(20):
        await connection.send(request)
        status_line, *lines = (await connection.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        body = await connection.reader.readexactly(int(dict(headers)["content-length"]))
        await connection.send(request)
        return status_line, headers, body, await connection.reader.read(4) != b"HTTP"


def _once(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each of them, and none twice."""
    names = [name for name, _ in headers]
    assert len(names) == len(set(names)), names
    return dict(headers)


@pytest.mark.parametrize(
    ("version", "connection", "told", "hangs_up"),
    [
        ("1.1", None, None, False),
        ("1.1", "keep-alive", None, False),
        ("1.1", "close", "close", True),
        ("1.0", None, None, True),
        ("1.0", "keep-alive", "keep-alive", False),
    ],
)
async def test_a_whole_answer_has_all_that_its_reader_needs(
    gateway: TestGateway, version: str, connection: str | None, told: str | None, hangs_up: bool
) -> None:
    wish = () if connection is None else (f"Connection: {connection}".encode(),)
    request = request_bytes(ASKED, b"X-Request-ID: mine", *wish).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
    status_line, came, body, hung_up = await _answer(gateway, request)
    headers = _once(came)
    assert status_line == f"HTTP/{version} 200 OK"
    assert json.loads(body) == COMPLETION
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == "mine"
    assert headers["server"] == "llmgateway"
    assert parsedate_to_datetime(headers["date"]).tzinfo is not None
    assert "transfer-encoding" not in headers
    assert headers.get("connection") == told
    assert hung_up is hangs_up


@pytest.mark.parametrize("connection", [None, "close"])
async def test_a_streams_head_has_all_that_its_reader_needs(
    gateway: TestGateway, upstream: Upstream, connection: str | None
) -> None:
    upstream.answer(streams(*ending()))
    wish = () if connection is None else (f"Connection: {connection}".encode(),)
    async with connected(gateway.url) as client, asyncio.timeout(20):
        for _ in range(2 if connection is None else 1):
            await client.send(request_bytes(ASKED_FOR_A_STREAM, b"X-Request-ID: mine", *wish))
            head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
            status_line, *lines = head.rstrip().split("\r\n")
            headers = _once(
                [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            )
            pieces = []
            while size := int(await client.reader.readuntil(b"\r\n"), 16):
                pieces.append((await client.reader.readexactly(size + 2))[:-2])
            assert await client.reader.readexactly(2) == b"\r\n"
            assert status_line == "HTTP/1.1 200 OK"
            assert b"".join(pieces) == b"".join(ending())
            assert headers["content-type"] == EVENT_STREAM
            assert headers["transfer-encoding"] == "chunked"
            assert headers["x-request-id"] == "mine"
            assert headers["server"] == "llmgateway"
            assert parsedate_to_datetime(headers["date"]).tzinfo is not None
            assert headers.get("connection") == connection
            assert "content-length" not in headers
        assert connection is None or await client.reader.read() == b""


async def test_a_stream_over_http_1_0_ends_with_its_connection(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(streams(*ending()))
    async with connected(gateway.url) as client, asyncio.timeout(20):
        await client.send(request_bytes(ASKED_FOR_A_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"".join(ending())
