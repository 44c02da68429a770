"""What an upstream sends without an end, or packed so that it has none, takes no memory without an end."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

import pytest
from aiohttp import web

from proxy.domain.request_log import CostSource, RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import COMPLETION, HELLO, Answering, TestGateway, Upstream, says

MOST = 1024 * 1024


def spaces() -> Iterator[bytes]:
    while True:
        yield b" " * 65_536


def packed_spaces() -> Iterator[bytes]:
    """A thousandth of what comes of it."""
    packing = zlib.compressobj(9, wbits=31)
    while True:
        yield packing.compress(b" " * 2**20)


def sends(pieces: Iterator[bytes], encoding: str | None = None) -> Answering:
    async def answering(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": encoding} if encoding else None)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    return answering


@pytest.mark.parametrize(
    "endless", [sends(spaces()), sends(packed_spaces(), "gzip")], ids=["as it is", "packed by a thousand"]
)
async def test_an_answer_that_is_too_large_is_given_up_and_not_asked_for_again(
    start_gateway: StartGateway, upstream: Upstream, endless: Answering
) -> None:
    gateway = await start_gateway(max_answer_bytes=MOST)
    upstream.answer(endless)
    status, _, body = await gateway.raw_chat()
    assert status == 502
    error = openai_error(body)
    assert error["code"] == "invalid_upstream_answer"
    assert f"{MOST} bytes (MAX_ANSWER_BYTES)" in error["message"]
    assert upstream.calls == 1
    row = await gateway.row()
    assert (row.status, row.error_type, row.cost_source) == (
        RequestStatus.UPSTREAM_ERROR, "invalid_answer", CostSource.UNKNOWN
    )  # fmt: skip
    async with asyncio.timeout(10):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.01)


async def test_an_answer_that_came_at_once_is_measured_too(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(max_answer_bytes=1024)
    upstream.answer(says({**COMPLETION, "padding": "x" * 1024}))
    status, _, body = await gateway.raw_chat()
    assert (status, openai_error(body)["code"]) == (502, "invalid_upstream_answer")
    upstream.answer(says())
    assert (await gateway.raw_chat())[0] == 200


async def test_a_large_answer_comes_through(gateway: TestGateway, upstream: Upstream) -> None:
    large = {**COMPLETION, "image": "x" * (8 * MOST)}
    upstream.answer(says(large))
    status, _, body = await gateway.chat(HELLO)
    assert (status, body) == (200, large)
