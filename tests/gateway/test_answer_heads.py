"""Heads of answers as they stand on the wire, over each version of HTTP and each wish for the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

import pytest

from tests.gateway.raw_http import connected, request_bytes
from tests.harness import COMPLETION, HELLO, TestGateway

ASKED = json.dumps(HELLO).encode()


async def _answer(gateway: TestGateway, request: bytes) -> tuple[str, list[tuple[str, str]], bytes, bool]:
    """Status line, headers as they came, body, and whether the gateway hung up after it."""
    async with connected(gateway.url) as connection, asyncio.timeout(20):
        await connection.send(request)
        status_line, *lines = (await connection.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        body = await connection.reader.readexactly(int(dict(headers)["content-length"]))
        await connection.send(request)
        return status_line, headers, body, await connection.reader.read(4) != b"HTTP"


def _once(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
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
