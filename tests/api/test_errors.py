"""What clients are told of errors, and what becomes of an answer when something raises behind its head."""

from __future__ import annotations

import logging

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from proxy.api.app_keys import REQUEST_ID
from proxy.api.middlewares.errors import errors
from proxy.api.openai.errors import error_headers, status_of
from proxy.domain.errors import AllProvidersFailed, CircuitOpen, GatewayError, InvalidRequest, TransientUpstreamError


@web.middleware
async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[REQUEST_ID] = "req-1"
    return await handler(request)


async def breaks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"a piece")
    raise ZeroDivisionError


async def test_an_answer_that_has_begun_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    """A second answer within it would be taken for a part of it."""
    app = web.Application(middlewares=[named, errors])
    app.router.add_get("/", breaks)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/")
        assert response.status == 200
        assert await response.content.readexactly(7) == b"a piece"
        with pytest.raises(ClientPayloadError):
            await response.content.read()
    (record,) = (each for each in caplog.records if each.name == "proxy.api.middlewares.errors")
    assert (record.levelno, record.__dict__["request_id"]) == (logging.ERROR, "req-1")


@pytest.mark.parametrize(
    ("failure", "status"),
    [(TransientUpstreamError("slow down", status=429, retry_after_seconds=7), 429), (CircuitOpen("a", 7), 503)],
)
def test_a_dialect_without_words_hides_not_when_to_come_again(failure: GatewayError, status: int) -> None:
    """It is no reason why the others failed: without it their clients would come again when those can be asked."""
    error = AllProvidersFailed(["a", "b", "c"], [failure, failure, InvalidRequest("'seed' cannot be carried")])
    assert (status_of(error), error_headers(error)) == (status, {"Retry-After": "7"})
