"""The way around the application leads to the same answers, rows, log lines and counts as the way through it.

A query, which means nothing to a chat completion, is what makes a request take the ordinary way.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from proxy.domain.request_log import RequestLog
from tests.conftest import StartGateway
from tests.gateway.raw_http import RawAnswer, connected, request_bytes
from tests.harness import HELLO, TestGateway, Upstream, ending, fails, says, stall, streams

WAYS = ("/v1/chat/completions", "/v1/chat/completions?way=ordinary")
GOOD = json.dumps(HELLO).encode()
STREAM = json.dumps({**HELLO, "stream": True}).encode()
KEY = b"Authorization: Bearer sk-administrator"
_CHANGES = {"date", "x-request-id", "x-gateway-overhead-ms", "x-gateway-trace"}


@dataclass(frozen=True)
class Outcome:
    """All that is to be seen of a request, but for what is never the same twice."""

    status: int
    headers: Mapping[str, str]
    names: frozenset[str]
    body: bytes
    logged: Mapping[str, Any]


def _outcome(answer: RawAnswer, record: logging.LogRecord) -> Outcome:
    logged = {name: value for name, value in vars(record).items() if name in ("status", "outcome", "model", "attempts")}
    request_id = answer.headers["x-request-id"]
    assert record.__dict__["request_id"] == request_id
    return Outcome(
        answer.status,
        {name: value for name, value in answer.headers.items() if name not in _CHANGES},
        frozenset(answer.headers),
        answer.body.replace(request_id.encode(), b""),
        {**logged, "path": record.__dict__["path"], "method": record.__dict__["method"]},
    )


async def _both(gateway: TestGateway, caplog: pytest.LogCaptureFixture, request: bytes) -> list[Outcome]:
    outcomes = []
    for path in WAYS:
        caplog.clear()
        async with connected(gateway.url) as connection:
            await connection.send(request.replace(WAYS[0].encode(), path.encode(), 1))
            answer = await connection.answer()
        async with asyncio.timeout(20):
            while not (records := [record for record in caplog.records if record.name == "proxy.access"]):
                await asyncio.sleep(0.01)
        outcomes.append(_outcome(answer, records[0]))
    return outcomes


REQUESTS = {
    "good": (request_bytes(GOOD, KEY), 200),
    "with an id of its own": (request_bytes(GOOD, KEY, b"X-Request-Id: mine"), 200),
    "last of its connection": (request_bytes(GOOD, KEY, b"Connection: close"), 200),
    "of HTTP/1.0": (request_bytes(GOOD, KEY).replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "stream": (request_bytes(STREAM, KEY), 200),
    "without a key": (request_bytes(GOOD), 401),
    "with another key": (request_bytes(GOOD, b"Authorization: Bearer sk-other"), 401),
    "with two keys": (request_bytes(GOOD, KEY, KEY), 401),
    "with a spoilt id": (request_bytes(GOOD, KEY, b"X-Request-Id: a b"), 200),
    "no JSON": (request_bytes(b"{", KEY), 400),
    "empty": (request_bytes(b"", KEY), 400),
    "too large": (request_bytes(b"x" * 2001, KEY), 413),
    "of another type": (request_bytes(GOOD, KEY, content_type=b"text/plain"), 415),
    "compressed": (request_bytes(GOOD, KEY, b"Content-Encoding: gzip"), 415),
    "with a bad idempotency key": (request_bytes(GOOD, KEY, b"Idempotency-Key: a b"), 400),
}


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)
async def test_both_ways_answer_log_and_count_alike(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, request_: bytes, status: int
) -> None:
    caplog.set_level(logging.INFO, "proxy.access")
    if b'"stream": true' in request_:
        upstream.answer(streams(*ending()))
    gateway = await start_gateway(
        llmgateway_master_key="sk-administrator", llmgateway_master_key_calls_models=True, max_body_bytes=2000
    )
    direct, ordinary = await _both(gateway, caplog, request_)
    assert direct == ordinary
    assert direct.status == status
    async with gateway.http.get(
        gateway.url / "metrics", headers={"Authorization": "Bearer sk-administrator"}
    ) as response:
        counts = [line for line in (await response.text()).splitlines() if 'route="/v1/chat/completions"' in line]
    assert [line.rpartition(" ")[2] for line in counts] == ["2.0"], counts


@pytest.mark.parametrize("answering", [fails(400), fails(503), says(b"no json"), streams(b": nothing\n\n")])
async def test_both_ways_tell_alike_of_an_upstream_that_fails(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, answering: Any
) -> None:
    caplog.set_level(logging.INFO, "proxy.access")
    upstream.answer(answering)
    direct, ordinary = await _both(await start_gateway(retry_max_retries=0), caplog, request_bytes(GOOD))
    assert direct == ordinary


async def test_both_ways_tell_alike_of_a_defect(start_gateway: StartGateway, caplog: pytest.LogCaptureFixture) -> None:
    def rules() -> Any:
        raise ZeroDivisionError

    caplog.set_level(logging.INFO, "proxy.access")
    direct, ordinary = await _both(await start_gateway(rules=rules), caplog, request_bytes(GOOD))
    assert direct == ordinary
    assert (direct.status, json.loads(direct.body)["error"]["code"]) == (500, "internal_error")


@pytest.mark.parametrize("path", WAYS)
async def test_both_ways_note_a_client_that_hangs_up(
    gateway: TestGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.INFO, "proxy.access")
    upstream.answer(stall)  # type: ignore[arg-type]  # it never answers
    async with connected(gateway.url) as connection, asyncio.timeout(20):
        await connection.send(request_bytes(GOOD, path=path))
        while not upstream.calls:
            await asyncio.sleep(0.01)
    row: RequestLog = await gateway.row()
    (record,) = (record for record in caplog.records if record.name == "proxy.access")
    assert record.__dict__["status"] == "client disconnected"
    assert row.status.value == record.__dict__["outcome"]
